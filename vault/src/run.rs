//! Wiring, in the order in which rights are given up: configuration, confinement, runtime, socket, and once unlocked the ports.

use crate::cluster::{Addrs, Cluster, RegistryPin};
use crate::config::{self, Config};
use crate::disk::keys::DiskKey;
use crate::disk::slots::Slots;
use crate::drive;
use crate::found::{self, VOTER_DIR, disk};
use crate::gate::{Gate, Phase};
use crate::grpc::{identity, join, log, nodes, operators, sched};
use crate::harden::{self, Hardened, Paths};
use crate::keystore;
use crate::pace::{self, Pace};
use crate::raft::{Options, Store, Voter};
use crate::registry::Registry;
use crate::socket;
use crate::throttle::Throttle;
use arc_swap::ArcSwap;
use holdfast_pki::chain::Anchors;
use holdfast_policy::Policies;
use holdfast_transport::daemon::{
    Health, Heartbeat, LogFormat, PortsFile, Readiness, Signals, exit_code, init_logging, listen, systemd,
};
use holdfast_transport::failure::Failure;
use holdfast_transport::rpc::{
    command_plane_server::CommandPlaneServer, identity_server::IdentityServer, join_server::JoinServer,
    log_server::LogServer, node_plane_server::NodePlaneServer, read_server::ReadServer,
    sched_plane_server::SchedPlaneServer,
};
use holdfast_transport::server::{Connections, Limits, serve};
use holdfast_transport::tls::{Alpn, IdentityCell, ServerTls, TrustCell};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// Changes that a watcher may lag behind before it has to start over.
const EVENTS: usize = 16_384;
/// A fresh voter leads within this time, or something is wrong.
const LEAD_WITHIN: Duration = Duration::from_secs(10);
/// What to do where the process cannot be confined.
const HARDEN_HELP: &str = "see docs/reference/config.md, `harden` and `allow_swap`";
/// Largest message of a peer: a secret of 500 KiB in its box, with room.
const MAX_MESSAGE: usize = 4 << 20;

/// The process: its phase, and what outlives a phase.
pub struct Daemon {
    /// Configuration.
    pub config: Config,
    /// What confines it less than it could be.
    weak: Vec<&'static str>,
    /// Where it stands.
    pub gate: Gate,
    /// Cancelled by `seal`: the process drops its keys by becoming a new one.
    pub seal: CancellationToken,
    failed: CancellationToken,
    stop: CancellationToken,
    /// Beats with the periodic work of an open voter.
    work: Heartbeat,
    readiness: Readiness,
    ports: Mutex<PortsFile>,
    ports_path: Option<PathBuf>,
}

/// The daemon from its arguments to its exit code.
pub fn main(path: &Path, check_only: bool, ports_path: Option<PathBuf>, log_format: &str) -> ExitCode {
    init_logging(if log_format == "json" { LogFormat::Json } else { LogFormat::Text });
    match start(path, check_only, ports_path) {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::Sealed) => {
            tracing::info!("sealed: every key is gone with this process; its supervisor starts it again");
            ExitCode::from(SEALED_EXIT)
        }
        Err(failure) => exit_code(Err(failure)),
    }
}

fn start(path: &Path, check_only: bool, ports_path: Option<PathBuf>) -> Result<Ended, Failure> {
    let config = config::load(path, |k| std::env::var(k).ok())?;
    if check_only {
        return Ok(Ended::Stopped);
    }
    prepare_dirs(&config)?;
    let refused = |e: harden::HardenError| Failure::failed("harden", e.to_string()).help(HARDEN_HELP);
    let hardened = config.harden.then(|| give_up_rights(&config, path, ports_path.as_deref())).transpose();
    let weak = Hardened::weaknesses(hardened.map_err(refused)?);
    weak.iter().for_each(|what| tracing::warn!("{what}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::failed("io", format!("cannot start the runtime: {e}")))?;
    runtime.block_on(run(config, weak, ports_path))
}

/// Exit status of a sealed voter (EX_TEMPFAIL): the supervisor starts it again.
///
/// Sealing = exit: only a new process is free of every copy of a key, and a confined process can start none itself
/// (docs/decisions/0003).
pub const SEALED_EXIT: u8 = 75;

fn prepare_dirs(config: &Config) -> Result<(), Failure> {
    let make = |dir: &Path| std::fs::create_dir_all(dir).map_err(|e| Failure::disk("create", dir, &e));
    make(&config.state_dir)?;
    std::fs::set_permissions(&config.state_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .map_err(|e| Failure::disk("protect", &config.state_dir, &e))?;
    make(config.socket.parent().unwrap_or(Path::new("/")))
}

fn give_up_rights(config: &Config, config_file: &Path, ports: Option<&Path>) -> Result<Hardened, harden::HardenError> {
    let parent = |p: &Path| p.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
    let mut write = vec![config.state_dir.clone(), parent(&config.socket)];
    write.extend(ports.map(parent));
    let paths = Paths { write, read: vec![parent(config_file)] };
    let hardened = harden::forbid_dumps()?
        .forbid_new_privileges()?
        .check_swap(config.allow_swap)?
        .confine_files(&paths)?
        .filter_syscalls()?;
    tracing::info!(swap = ?hardened.swap, files = ?hardened.files, "gave up rights");
    Ok(hardened)
}

enum Ended {
    Stopped,
    Sealed,
}

async fn run(config: Config, weak: Vec<&'static str>, ports_path: Option<PathBuf>) -> Result<Ended, Failure> {
    let io = |what: &'static str| move |e: std::io::Error| Failure::failed("io", format!("cannot {what}: {e}"));
    let signals = Signals::listen().map_err(io("listen to signals"))?;
    found::clean(&config.state_dir)?;
    let voter_dir = config.state_dir.join(VOTER_DIR);
    let phase =
        if voter_dir.exists() { Phase::Sealed(Slots::load(&voter_dir).map_err(disk)?) } else { Phase::Uninitialized };
    let readiness = Readiness::not_yet(phase.word());
    let health = Health::bind(config.health, readiness.clone()).await?;
    let health_addr = health.addr();
    let daemon = Arc::new(Daemon {
        config,
        weak,
        gate: Gate::new(phase),
        seal: CancellationToken::new(),
        failed: CancellationToken::new(),
        stop: signals.stop.clone(),
        work: Heartbeat::default(),
        readiness,
        ports: Mutex::new(PortsFile::new().with("health", health_addr)),
        ports_path,
    });
    let healthy = tokio::spawn(health.serve(signals.stop.clone()));
    let socket = socket::bind(&daemon.config.socket)?;
    let local = socket::serve(socket, Arc::clone(&daemon), signals.stop.clone());
    daemon.unlock_plain().await?;
    daemon.write_ports()?;
    systemd::ready();
    systemd::status(daemon.gate.phase().word());
    let serving = Heartbeat::default();
    let watch = tokio::spawn(systemd::watchdog(daemon.alive(&serving), signals.stop.clone()));
    let ended = serving.during(daemon.until_end(local)).await?;
    // A moment for answers that are on their way, then the log is closed; what was acknowledged is on disk anyway.
    signals.stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop((healthy, watch));
    Ok(ended)
}

impl Daemon {
    /// Where this voter's disk is.
    pub fn voter_dir(&self) -> PathBuf {
        self.config.state_dir.join(VOTER_DIR)
    }

    /// Whether this process does its work: it serves the unix socket, and what an open voter does by itself is done.
    fn alive(self: &Arc<Self>, serving: &Heartbeat) -> impl Fn(Duration) -> bool + Send + use<> {
        let (daemon, serving) = (Arc::clone(self), serving.clone());
        move |patience| {
            let is_open = matches!(*daemon.gate.phase(), Phase::Open(_));
            serving.has_beaten_within(patience) && (!is_open || daemon.work.has_beaten_within(patience))
        }
    }

    /// Serves the unix socket until there is a reason to end.
    async fn until_end(
        &self,
        local: impl Future<Output = Result<(), tonic::transport::Error>>,
    ) -> Result<Ended, Failure> {
        tokio::select! {
            () = self.stop.cancelled() => Ok(Ended::Stopped),
            () = self.seal.cancelled() => Ok(Ended::Sealed),
            () = self.failed.cancelled() => Err(Failure::failed("log-stopped", "this voter's log has stopped")
                .help("see the lines above; make room on the disk or mend it, then start this voter again")),
            served = local => {
                served.map_err(|e| Failure::failed("io", format!("the unix socket failed: {e}")))?;
                Ok(Ended::Stopped)
            }
        }
    }

    fn write_ports(&self) -> Result<(), Failure> {
        let Some(path) = &self.ports_path else { return Ok(()) };
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.write(path)
    }

    /// Without autolock the disk key lies beside the disk: open at once.
    async fn unlock_plain(self: &Arc<Self>) -> Result<(), Failure> {
        let phase = self.gate.phase();
        let Phase::Sealed(slots) = &*phase else { return Ok(()) };
        let mut keys = slots.plain_keys();
        match (keys.pop(), keys.is_empty()) {
            (Some(key), true) => self.open(Slots::load(&self.voter_dir()).map_err(disk)?, key).await.map(drop),
            (None, _) | (Some(_), false) => Ok(()),
        }
    }

    /// Opens the disk, starts the log, opens the keyring and then the ports. On failure the voter is sealed as before.
    pub async fn open(self: &Arc<Self>, slots: Slots, key: DiskKey) -> Result<Arc<Cluster>, Failure> {
        self.gate.set(Phase::Recovering);
        match self.try_open(&slots, key).await {
            Ok(cluster) => {
                self.gate.set(Phase::Open(Arc::clone(&cluster)));
                self.readiness.ready();
                self.write_ports()?;
                systemd::status("ready");
                tracing::info!(voter = cluster.id.0, "open");
                Ok(cluster)
            }
            Err(e) => {
                self.gate.set(Phase::Sealed(slots));
                Err(e)
            }
        }
    }

    async fn try_open(self: &Arc<Self>, slots: &Slots, key: DiskKey) -> Result<Arc<Cluster>, Failure> {
        let dir = self.voter_dir();
        let id = slots.voter();
        let disk_keys = Arc::new(slots.open(vec![key]).map_err(disk)?);
        let ident = crate::disk::ident::Ident::load(&dir, &disk_keys).map_err(disk)?;
        let store = Store::open(&dir, Arc::clone(&disk_keys)).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
        let audit = store.audit();
        let (events, first) = tokio::sync::broadcast::channel(EVENTS);
        let options = Options { id, snapshot_every: self.config.snapshot_every };
        let machine = Registry::new(audit.clone(), events.clone());
        let voter = Voter::start(store, machine, &options).await.map_err(|e| Failure::failed("raft", e.to_string()))?;
        let led = voter.until(LEAD_WITHIN, |s| s.leader.is_some()).await.map_err(crate::failure::stopped)?;
        let Some(leader) = led.and_then(|s| s.leader) else {
            return Err(Failure::unavailable("no-quorum", "no voter leads: too few voters are up"));
        };
        if leader == id {
            voter.confirm_leading().await.map_err(crate::failure::unproposed)?;
        }
        let wall = holdfast_transport::now();
        let time = voter.machine().read(|r| r.state().time(wall)).map_err(crate::failure::stopped)?;
        if let Err(behind) = crate::clock::is_not_behind(wall, time) {
            voter.shutdown().await;
            return Err(behind);
        }
        let opened = voter
            .machine()
            .read(|r| keystore::open(r.state(), &ident, id, r.state().time(holdfast_transport::now())))
            .map_err(crate::failure::stopped)??;
        let (join, service) = (listen(self.config.join).await?.0, listen(self.config.service).await?.0);
        let cluster = Arc::new(self.cluster(id, voter, audit, opened, disk_keys, events, (&join, &service))?);
        // A cluster that was off until everything had lapsed comes up by unlocking it.
        if leader == id {
            drive::renew_keys(&cluster, cluster.now()?).await?;
        }
        drive::reopen(&cluster)?;
        if leader == id {
            cluster.certify_self().await?
        } else {
            cluster.identify(&ident)?
        }
        self.watch_log(&cluster);
        self.listen(&cluster, join, service)?;
        tokio::spawn(drive::follow(Arc::clone(&cluster), first, self.stop.clone()));
        self.work.beat();
        tokio::spawn(drive::tick(Arc::clone(&cluster), self.work.clone(), self.stop.clone()));
        Ok(cluster)
    }

    fn cluster(
        &self,
        id: holdfast_types::VoterId,
        voter: Voter<Registry>,
        audit: crate::raft::AuditStore,
        opened: keystore::Opened,
        disk_keys: Arc<crate::disk::keys::DiskKeys>,
        events: tokio::sync::broadcast::Sender<crate::registry::Events>,
        (join, service): (&TcpListener, &TcpListener),
    ) -> Result<Cluster, Failure> {
        let at = |l: &TcpListener| l.local_addr().map_err(|e| Failure::failed("address", e.to_string()));
        let addr =
            |l: &TcpListener, said: &Option<String>| at(l).map(|a| said.clone().unwrap_or_else(|| a.to_string()));
        let addrs = Addrs {
            service: addr(service, &self.config.advertise_service)?,
            join: addr(join, &self.config.advertise_join)?,
        };
        let (roots, td) = voter
            .machine()
            .read(|r| (r.state().roots_der(), r.state().trust_domain().cloned()))
            .map_err(crate::failure::stopped)?;
        let td = td.ok_or_else(|| Failure::failed("corrupt", "this disk holds no founded cluster"))?;
        let anchors = Anchors::new(&roots, td).map_err(|e| Failure::failed("corrupt", e.to_string()))?;
        let policies = Policies::builtin().map_err(|e| Failure::failed("policy", e.to_string()))?;
        Ok(Cluster {
            id,
            voter,
            audit,
            opened: ArcSwap::from_pointee(opened),
            clock: crate::clock::Clock::start(),
            policies,
            config: self.config.clone(),
            weak: self.weak.clone(),
            dir: self.voter_dir(),
            disk_keys,
            addrs,
            hub: crate::hub::Hub::default(),
            connections: Connections::new(),
            identity: IdentityCell::empty(),
            trust: TrustCell::new(anchors),
            broadcast: events,
            throttle: Throttle::of_callers(),
            strangers: Throttle::of_strangers(),
            awaits: crate::awaits::Awaits::default(),
            entries: Pace::new(pace::ENTRIES.0, pace::ENTRIES.1),
            leases: Pace::new(pace::LEASES.0, pace::LEASES.1),
            certificates: Pace::new(
                self.config.lives.node.min(self.config.lives.orch) / pace::CERTIFICATES,
                pace::CERTIFICATES,
            ),
        })
    }

    /// A voter whose log has stopped can do nothing any more: the process ends, and is started again.
    fn watch_log(&self, cluster: &Arc<Cluster>) {
        let (cluster, failed, readiness) = (Arc::clone(cluster), self.failed.clone(), self.readiness.clone());
        tokio::spawn(async move {
            if let Ok(Some(status)) = cluster.voter.until(Duration::MAX, |s| s.fatal.is_some()).await {
                tracing::error!(
                    error = status.fatal.unwrap_or_default(),
                    "the log has stopped; is the disk full or broken?"
                );
            }
            readiness.not_ready("the log has stopped");
            failed.cancel();
        });
    }

    /// Serves J and S until the process stops.
    fn listen(&self, cluster: &Arc<Cluster>, join: TcpListener, service: TcpListener) -> Result<(), Failure> {
        let at = |l: &TcpListener| l.local_addr().map_err(|e| Failure::failed("address", e.to_string()));
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        *ports = std::mem::take(&mut *ports).with("join", at(&join)?).with("service", at(&service)?);
        let j = ServerTls::server_only(Arc::clone(&cluster.identity));
        let pin = Arc::new(RegistryPin(Arc::clone(cluster)));
        let s = ServerTls::mutual(Arc::clone(&cluster.identity), Arc::clone(&cluster.trust), pin, Alpn::Service);
        let limits = Limits::default();
        let routes = Routes::new(JoinServer::new(join::JoinService(Arc::clone(cluster))));
        let joining = serve(join, j, routes, cluster.connections.clone(), join::limits(), self.stop.clone());
        let serving =
            serve(service, s, service_routes(cluster), cluster.connections.clone(), limits, self.stop.clone());
        for listener in [tokio::spawn(joining), tokio::spawn(serving)] {
            let failed = self.failed.clone();
            tokio::spawn(async move {
                if !matches!(listener.await, Ok(Ok(()))) {
                    tracing::error!("a listener failed");
                    failed.cancel();
                }
            });
        }
        Ok(())
    }
}

fn service_routes(cluster: &Arc<Cluster>) -> Routes {
    let c = || Arc::clone(cluster);
    let operators = operators::OperatorService(c());
    Routes::new(IdentityServer::new(identity::IdentityService(c())))
        .add_service(NodePlaneServer::new(nodes::NodeService(c())))
        .add_service(SchedPlaneServer::new(sched::SchedService(c())))
        .add_service(CommandPlaneServer::new(operators.clone()).max_decoding_message_size(MAX_MESSAGE))
        .add_service(ReadServer::new(operators).max_encoding_message_size(64 << 20))
        .add_service(LogServer::new(log::LogService(c())))
}
