//! From an opened disk to a voter at work: the log behind a closed gate, the word of the others, a leader, the keyring, the ports.
//!
//! A voter alone is open when `open` returns, or sealed as before. One of several goes on in the background: it waits for
//! the others as long as it takes.

use crate::clock::Clock;
use crate::clocks::Clocks;
use crate::cluster::{Addrs, Cluster};
use crate::disk::credential;
use crate::disk::hsm;
use crate::disk::keys::DiskKey;
use crate::disk::slots::Slots;
use crate::drive;
use crate::failure::stopped;
use crate::found::disk;
use crate::gate::{Phase, Waits, Who};
use crate::grpc::{identity, join, log, nodes, operators, sched};
use crate::hsm::tokens::Tokens;
use crate::keystore::Opened;
use crate::members::{self, Following};
use crate::pace::{self, Pace};
use crate::peers::backfill::{self, Others, Source};
use crate::peers::{self, Host};
use crate::pin::RegistryPin;
use crate::registry::Events;
use crate::reports::{self, Duty};
use crate::resting;
use crate::rising;
use crate::roots;
use crate::run::Daemon;
use crate::standing::{ROLLED_BACK, Standing};
use crate::throttle::Throttle;
use crate::unsaid::{Impostors, Remembered};
use arc_swap::ArcSwap;
use holdfast_policy::Policies;
use holdfast_transport::daemon::{listen, systemd};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::{
    command_plane_server::CommandPlaneServer, identity_server::IdentityServer, join_server::JoinServer,
    log_server::LogServer, node_plane_server::NodePlaneServer, read_server::ReadServer,
    sched_plane_server::SchedPlaneServer,
};
use holdfast_transport::server::{Connections, Limits, ServeError, serve};
use holdfast_transport::tls::{Alpn, ServerTls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::broadcast::Receiver;
use tokio::task::JoinHandle;
use tonic::service::Routes;

/// How long `unlock` of one of several voters waits for all of it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether a voter that was alone is so still.
const FILL_AGAIN: Duration = Duration::from_secs(60);
/// Largest message of a caller: a secret of 500 KiB in its box, with room.
const MAX_MESSAGE: usize = 4 << 20;

/// An opening under way.
pub struct Opening {
    alone: bool,
    work: JoinHandle<Result<Arc<Cluster>, Failure>>,
}

impl Opening {
    /// Waits until the voter is open; `None` if it is one of several and the others let it wait.
    pub async fn wait(self) -> Result<Option<Arc<Cluster>>, Failure> {
        let broken = |_| Failure::failed("failed", "the vault met an error of its own; see its log");
        let patience = if self.alone { Duration::MAX } else { PATIENCE };
        match tokio::time::timeout(patience, self.work).await {
            Ok(done) => done.map_err(broken)?.map(Some),
            Err(_) => Ok(None),
        }
    }
}

impl Daemon {
    /// Without autolock the disk key lies beside the disk; a credential of the service manager and a token open their slots: at
    /// once, or, where the token does not answer, as soon as it does.
    pub(crate) async fn unlock_alone(self: &Arc<Self>) -> Result<(), Failure> {
        let phase = self.gate.phase();
        let Phase::Sealed(slots) = &*phase else { return Ok(()) };
        let (mut keys, mut by) = (slots.plain_keys(), "plain");
        if keys.is_empty() {
            by = "credential";
            match credential::try_open(slots) {
                Ok(found) => keys = found.unwrap_or_default(),
                Err(e) => tracing::warn!("this voter stays sealed: {e}"),
            }
        }
        if !keys.is_empty() {
            self.gate.unsaid.opened_alone(by);
            return self.unlock_with(keys).await.inspect_err(|_| self.gate.unsaid.not_opened());
        }
        if let Some(keys) = self.by_token().await {
            return self.unlock_with_token(keys).await;
        }
        if self.token.is_some() && hsm::is_wanted_by(slots) {
            tokio::spawn(Arc::clone(self).unlock_by_token());
        }
        Ok(())
    }

    /// Opens this voter with the keys of its disk that it had itself.
    pub(crate) async fn unlock_with(self: &Arc<Self>, keys: Vec<DiskKey>) -> Result<(), Failure> {
        let slots = Slots::load(&self.voter_dir()).map_err(disk)?;
        match self.open(slots, keys).await {
            Ok(opening) if opening.alone => opening.wait().await.map(drop),
            Ok(_) => Ok(()),
            // It stays up, and says so over its socket.
            Err(e) if e.code == ROLLED_BACK => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Opens a disk that was made just now, of a voter that is alone.
    pub async fn open_founded(self: &Arc<Self>, slots: Slots, key: DiskKey) -> Result<Arc<Cluster>, Failure> {
        let not_alone = || Failure::unavailable("no-quorum", "this voter waits for others");
        self.open(slots, vec![key]).await?.wait().await?.ok_or_else(not_alone)
    }

    /// Opens the disk and starts the log; the rest is under way when this returns. On failure the voter is sealed as before.
    pub async fn open(self: &Arc<Self>, slots: Slots, keys: Vec<DiskKey>) -> Result<Opening, Failure> {
        let mut who = Who { cluster: *slots.cluster(), voter: slots.voter(), standing: None, waits: Waits::default() };
        self.gate.set(Phase::Recovering(who.clone()));
        let dirs = (self.config.state_dir.clone(), self.voter_dir());
        let (every, stop, unsaid) =
            (self.config.snapshot_every, self.stop.child_token(), Arc::clone(&self.gate.unsaid));
        let started = Standing::start(&slots, keys, dirs, every, stop, unsaid, self.token.clone()).await;
        let (standing, first) = match started {
            Ok(started) => started,
            Err(e) => {
                self.did_not_open(slots, who, &e);
                return Err(e);
            }
        };
        (who.standing, who.waits) = (Some(Arc::clone(&standing)), standing.waits.clone());
        self.gate.set(Phase::Recovering(who.clone()));
        let alone = standing.is_alone();
        let daemon = Arc::clone(self);
        let work = tokio::spawn(async move {
            let opened = daemon.rise(&standing, first).await;
            let opened = opened.map_err(|e| if standing.was_set_back() { standing.why_over() } else { e });
            if let Err(e) = &opened {
                if e.code == ROLLED_BACK {
                    standing.end_for_good().await
                } else {
                    standing.end().await
                }
                daemon.did_not_open(slots, who, e);
            }
            opened
        });
        Ok(Opening { alone, work })
    }

    fn did_not_open(&self, slots: Slots, who: Who, e: &Failure) {
        if e.code == ROLLED_BACK {
            self.roll_back(who, e);
        } else {
            // Whoever asked is told, and a process that ends of it says so as an error.
            tracing::warn!(code = %e.code, "this voter was not opened: {}", e.line());
            self.gate.set(Phase::Sealed(slots));
        }
    }

    fn roll_back(&self, who: Who, e: &Failure) {
        tracing::error!("{}", e.line());
        self.readiness.not_ready(ROLLED_BACK);
        systemd::status(ROLLED_BACK);
        self.gate.set(Phase::RolledBack(Who { standing: None, ..who }, e.line()));
    }

    /// Everything behind the closed gate, and then the ports.
    async fn rise(
        self: &Arc<Self>,
        standing: &Arc<Standing>,
        first: Receiver<Events>,
    ) -> Result<Arc<Cluster>, Failure> {
        self.watch(standing);
        let peer = self.listen_to_peers(standing).await?;
        let peer_addr = self.config.advertise_peer.clone().unwrap_or_else(|| peer.to_string());
        standing.check_high_water().await?;
        standing.peers.open_gate();
        tokio::spawn(rising::stand(Arc::clone(standing)));
        let opened = rising::until_opened(standing, &peer_addr).await?;
        let (join, service) = (listen(self.config.join).await?, listen(self.config.service).await?);
        let said = |said: &Option<String>, at: SocketAddr| said.clone().unwrap_or_else(|| at.to_string());
        let addrs = Addrs {
            service: said(&self.config.advertise_service, service.1),
            join: said(&self.config.advertise_join, join.1),
            peer: peer_addr,
        };
        let cluster = Arc::new(self.cluster(standing, opened, addrs)?);
        standing.serves(&cluster);
        standing.renew_trust()?;
        let mut duty = Duty::begin(&cluster)?;
        let told = cluster.events();
        if cluster.leads() {
            // A cluster that was off until everything had lapsed comes up by unlocking it.
            let renewed = drive::renew_keys(&cluster, cluster.now()?).await;
            drive::reopen(&cluster)?;
            // A root's key that cannot be used stops nothing as long as there is an issuer.
            let reported = duty.report(&cluster).await;
            if let Err(e) = &renewed {
                tracing::warn!("the issuer or the statement key is not renewed yet: {}", e.line());
            }
            // Among several, another may lead by now.
            match reported {
                Err(e) if standing.is_alone() => return Err(renewed.err().unwrap_or(e)),
                Err(e) => tracing::warn!("not all of this voter's keys are renewed yet: {}", e.line()),
                Ok(()) => {}
            }
        }
        self.bound("join", join.1);
        self.bound("service", service.1);
        self.serve(&cluster, join.0, service.0);
        let stop = &standing.at_work;
        tokio::spawn(drive::follow(Arc::clone(&cluster), first, stop.clone()));
        self.work.beat();
        tokio::spawn(drive::tick(Arc::clone(&cluster), self.work.clone(), stop.clone()));
        tokio::spawn(reports::see_to(Arc::clone(&cluster), duty, told, stop.clone()));
        tokio::spawn(roots::see_to(Arc::clone(&cluster), cluster.events(), stop.clone()));
        tokio::spawn(members::watch_lead(Arc::clone(&cluster), stop.clone()));
        tokio::spawn(fill_log(Arc::clone(standing)));
        tokio::spawn(resting::tend(Arc::clone(standing), stop.clone()));
        self.gate.set(Phase::Open(Arc::clone(&cluster)));
        self.readiness.ready();
        self.write_ports()?;
        systemd::status("ready");
        tracing::info!(voter = cluster.id.0, leads = cluster.leads(), "open");
        Ok(cluster)
    }

    fn cluster(&self, standing: &Arc<Standing>, opened: Opened, addrs: Addrs) -> Result<Cluster, Failure> {
        let policies = Policies::builtin().map_err(|e| Failure::failed("policy", e.to_string()))?;
        let life = self.config.lives.node.min(self.config.lives.orch);
        let heard = standing.voter.machine().read(|r| r.state().last_heard()).map_err(stopped)?;
        Ok(Cluster {
            id: standing.id,
            standing: Arc::clone(standing),
            voter: standing.voter.clone(),
            audit: standing.audit.clone(),
            opened: ArcSwap::from_pointee(opened),
            clock: Clock::start(),
            policies,
            config: self.config.clone(),
            weak: self.weak.clone(),
            addrs,
            hub: crate::hub::Hub::default(),
            connections: Connections::new(),
            identity: Arc::clone(&standing.identity),
            trust: Arc::clone(&standing.trust),
            broadcast: standing.events.clone(),
            throttle: Throttle::of_callers(),
            strangers: Throttle::of_strangers(),
            awaits: crate::awaits::Awaits::default(),
            calls: crate::keyring::Calls::default(),
            acks: crate::roots::Acks::default(),
            renewals: crate::roots::Calls::default(),
            stalled: ArcSwap::default(),
            reopening: std::sync::Mutex::default(),
            entries: Pace::new(pace::ENTRIES.0, pace::ENTRIES.1),
            leases: crate::leases::Leases::after(heard),
            certificates: Pace::new(life / pace::CERTIFICATES, pace::CERTIFICATES),
            following: Following::default(),
            clocks: Clocks::default(),
            impostors: Impostors::default(),
            seen: crate::seen::Seen::default(),
            tokens: Tokens::default(),
            streams: crate::beside::Streams::default(),
            remembered: Remembered::default(),
        })
    }

    /// A voter whose log has stopped can do nothing any more: the process ends, and is started again. One that was set back
    /// stops taking part, and stays to say so.
    fn watch(self: &Arc<Self>, standing: &Arc<Standing>) {
        let (daemon, standing) = (Arc::clone(self), Arc::clone(standing));
        tokio::spawn(async move {
            let set_back = standing.peers.rolled_back();
            let over = tokio::select! {
                biased;
                () = standing.at_work.cancelled() => return,
                () = set_back.cancelled() => None,
                over = standing.voter.until(Duration::MAX, |s| s.fatal.is_some()) => Some(over),
            };
            let Some(over) = over else {
                let why = standing.why_over();
                standing.end_for_good().await;
                let who = Who {
                    cluster: *standing.disk_keys.cluster(),
                    voter: standing.id,
                    standing: None,
                    waits: Waits::default(),
                };
                return daemon.roll_back(who, &why);
            };
            if let Ok(Some(status)) = over {
                let error = status.fatal.unwrap_or_default();
                tracing::error!(error, "the log has stopped; is the disk full or broken?");
            }
            daemon.readiness.not_ready("the log has stopped");
            daemon.fail(
                Failure::failed("log-stopped", "this voter's log has stopped")
                    .help("see the lines above; make room on the disk or mend it, then start this voter again"),
            );
        });
    }

    /// Serves P, and says where.
    async fn listen_to_peers(self: &Arc<Self>, standing: &Arc<Standing>) -> Result<SocketAddr, Failure> {
        let (listener, at) = listen(self.config.peer).await?;
        let routes = peers::routes(Arc::clone(&standing.peers), Arc::clone(standing) as Arc<dyn Host>);
        let tls = ServerTls::peers(standing.tls.clone());
        let (connections, stop) = (Connections::new(), standing.at_work.clone());
        self.attend(tokio::spawn(serve(listener, tls, routes, connections, Limits::default(), stop)));
        self.bound("peer", at);
        self.write_ports()?;
        Ok(at)
    }

    /// Serves J and S until this voter stops taking part.
    fn serve(self: &Arc<Self>, cluster: &Arc<Cluster>, join: TcpListener, service: TcpListener) {
        let j = ServerTls::server_only(Arc::clone(&cluster.identity));
        let pin = Arc::new(RegistryPin(Arc::clone(cluster)));
        let s = ServerTls::mutual(Arc::clone(&cluster.identity), Arc::clone(&cluster.trust), pin, Alpn::Service);
        let (connections, stop) = (&cluster.connections, &cluster.standing.at_work);
        let routes = Routes::new(JoinServer::new(join::JoinService(Arc::clone(cluster))));
        self.attend(tokio::spawn(serve(join, j, routes, connections.clone(), join::limits(), stop.clone())));
        let routes = service_routes(cluster);
        self.attend(tokio::spawn(serve(service, s, routes, connections.clone(), Limits::default(), stop.clone())));
    }

    /// A listener that fails ends the process.
    fn attend(self: &Arc<Self>, listener: JoinHandle<Result<(), ServeError>>) {
        let daemon = Arc::clone(self);
        tokio::spawn(async move {
            if !matches!(listener.await, Ok(Ok(()))) {
                daemon.fail(Failure::failed("io", "a listener failed"));
            }
        });
    }
}

/// Fetches what the log lacks here from before this voter's time, and again after a snapshot brought it further.
async fn fill_log(standing: Arc<Standing>) {
    let of = Arc::clone(&standing);
    let whom = move || of.others().unwrap_or_default().into_iter().collect::<Vec<_>>();
    let source: Arc<dyn Source> = Arc::new(Others::new(Arc::clone(&standing.peers), whom));
    let machine = standing.voter.machine();
    let tree = || machine.read(|r| r.state().frontier()).ok();
    loop {
        if !standing.is_alone() {
            backfill::run(standing.audit.clone(), tree, Arc::clone(&source), standing.at_work.clone()).await;
        }
        tokio::select! {
            () = standing.at_work.cancelled() => return,
            () = tokio::time::sleep(FILL_AGAIN) => {}
        }
    }
}

fn service_routes(cluster: &Arc<Cluster>) -> Routes {
    let c = || Arc::clone(cluster);
    let operators = operators::OperatorService(c());
    Routes::new(IdentityServer::new(identity::IdentityService(c())))
        .add_service(NodePlaneServer::new(nodes::NodeService(c())))
        .add_service(SchedPlaneServer::new(sched::SchedService::new(c())))
        .add_service(CommandPlaneServer::new(operators.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ReadServer::new(operators).max_encoding_message_size(64 << 20))
        .add_service(LogServer::new(log::LogService(c())))
}
