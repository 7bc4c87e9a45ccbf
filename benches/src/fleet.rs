//! Simulated nodes: each has joined, holds a real mTLS connection with its stream open, follows the Bundles that are pushed
//! to it, and renews when it is told to. Nothing of it is on disk, and it runs nothing.

use crate::Failed;
use crate::cluster::world::{PATIENCE, World};
use crate::cluster::{random, runtime};
use holdfast_orchestrator::trust::{anchors, believe};
use holdfast_orchestrator_core::verify::{News, NodeTrust};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::join::{Admitted, Applicant, read_token};
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::rpc::identity_client::IdentityClient;
use holdfast_transport::rpc::node_plane_client::NodePlaneClient;
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::Role;
use holdfast_wire::boxes::derive_keypair;
use holdfast_wire::statement;
use holdfast_wire::token::{JoinToken, TokenRole};
use holdfast_wire::v1::node_push::Push;
use holdfast_wire::v1::{NodeReport, RenewRequest, Revocations, Statement};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// As many join at a time: the vault lets one address do no more.
const AT_A_TIME: usize = 16;
/// Longest that all of them may take to be where they are wanted.
const LONGEST: Duration = Duration::from_secs(600);
/// Thousands of connections on one machine: more patience than a node has, and fewer probes.
const QUIET: Timing = Timing {
    connect: Duration::from_secs(30),
    keep_alive: Duration::from_secs(120),
    keep_alive_timeout: Duration::from_secs(60),
};

/// A founded vault that may have as many files open as the system allows, as we may: a connection is one on either side.
pub fn world() -> Result<World, Failed> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    Ok(World::founded())
}

/// One simulated node.
pub struct Node {
    id: String,
    hpke_pub: [u8; 32],
    trust: NodeTrust,
    roots: Arc<TrustCell>,
    identity: Arc<IdentityCell>,
    dialer: Dialer,
    /// The key of a renewal that was asked for and not answered.
    next: Option<PrivateKey>,
    /// It heard of its own removal.
    removed: bool,
}

/// What all of them tell.
struct Told {
    connected: watch::Sender<usize>,
    renewed: watch::Sender<usize>,
    /// Whose stream was ended by the vault, and when.
    ended: mpsc::UnboundedSender<(String, Instant)>,
    stop: CancellationToken,
}

/// Nodes that run.
pub struct Fleet {
    told: Arc<Told>,
    ended: mpsc::UnboundedReceiver<(String, Instant)>,
    /// Their ids.
    pub ids: Vec<String>,
    runtime: Runtime,
}

/// Why a stream is no more.
enum End {
    Renewed,
    Closed,
}

impl Fleet {
    /// Joins `count` nodes. None of them stays connected.
    pub fn join(w: &World, count: usize) -> Result<Vec<Node>, Failed> {
        let path = w.token("node", &["--uses", &count.to_string()]);
        let (token, port) = (read_token(&path, TokenRole::Node)?, w.join);
        let some = |share: usize| runtime()?.block_on(some(port, &token, share));
        let share = |n: usize| count / AT_A_TIME + usize::from(n < count % AT_A_TIME);
        thread::scope(|s| {
            let all: Vec<_> = (0..AT_A_TIME).map(|n| s.spawn(move || some(share(n)))).collect();
            let mut nodes = Vec::with_capacity(count);
            for one in all {
                nodes.extend(one.join().map_err(|_| "a thread panicked")??);
            }
            Ok(nodes)
        })
    }

    /// Connects them all; from then on they live by themselves.
    pub fn start(nodes: Vec<Node>) -> Result<Self, Failed> {
        let (send, ended) = mpsc::unbounded_channel();
        let (connected, renewed) = (watch::Sender::new(0), watch::Sender::new(0));
        let told = Arc::new(Told { connected, renewed, ended: send, stop: CancellationToken::new() });
        let runtime = runtime()?;
        let ids: Vec<String> = nodes.iter().map(|n| n.id.clone()).collect();
        for node in nodes {
            runtime.spawn(node.live(Arc::clone(&told)));
        }
        let fleet = Self { told, ended, ids, runtime };
        fleet.reached(&fleet.told.connected, "connected")?;
        Ok(fleet)
    }

    /// Waits until each has renewed once since the start.
    pub fn all_renewed(&self) -> Result<(), Failed> {
        self.reached(&self.told.renewed, "renewed")
    }

    fn reached(&self, counter: &watch::Sender<usize>, what: &str) -> Result<(), Failed> {
        let (mut count, wanted) = (counter.subscribe(), self.ids.len());
        let all = async { timeout(LONGEST, count.wait_for(|n| *n >= wanted)).await.is_ok_and(|r| r.is_ok()) };
        if self.runtime.block_on(all) {
            return Ok(());
        }
        Err(format!("only {} of {wanted} nodes {what} within {LONGEST:?}", *counter.borrow()).into())
    }

    /// When the vault ended the stream of node `id`, after `since`.
    pub fn ended(&mut self, id: &str, since: Instant) -> Result<Instant, Failed> {
        let ended = &mut self.ended;
        self.runtime.block_on(async {
            loop {
                let (who, when) = timeout(PATIENCE, ended.recv()).await?.ok_or("no node runs")?;
                if who == id && when >= since {
                    return Ok(when);
                }
            }
        })
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.told.stop.cancel();
    }
}

async fn some(port: u16, token: &JoinToken, count: usize) -> Result<Vec<Node>, Failed> {
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        nodes.push(Node::join(port, token).await?);
    }
    Ok(nodes)
}

impl Node {
    async fn join(port: u16, token: &JoinToken) -> Result<Self, Failed> {
        let (key, (_, hpke_pub)) = (PrivateKey::generate()?, derive_keypair(&random()?));
        let dialer = Dialer::new([format!("127.0.0.1:{port}")], ClientTls::join(token.anchor), Timing::default());
        let applicant = Applicant { token, key: &key, hpke_pub: &hpke_pub };
        let judge = |server: &_, shown: &_| believe(token.anchor, server, shown);
        let (trust, admitted) = applicant.join(&dialer, PATIENCE, &CancellationToken::new(), judge).await?;
        let Admitted::Issued(issued) = admitted else { return Err("a node has to be approved".into()) };
        let identity = IdentityCell::new(LocalIdentity::new(&issued.chain, &key)?);
        let roots = TrustCell::new(anchors(&trust)?);
        let expect = Expect::Role(Role::Vault);
        let tls = ClientTls::mutual(Arc::clone(&identity), Arc::clone(&roots), expect, Alpn::Service);
        let dialer = Dialer::new(issued.service_addrs, tls, QUIET);
        Ok(Self { id: issued.id, hpke_pub, trust, roots, identity, dialer, next: None, removed: false })
    }

    async fn live(mut self, told: Arc<Told>) {
        while let Some(link) = self.dialer.dial_until(&told.stop).await {
            let end = tokio::select! {
                () = told.stop.cancelled() => return,
                end = self.stream(link.channel, &told) => end,
            };
            match end {
                End::Renewed => told.renewed.send_modify(|n| *n += 1),
                End::Closed => drop(told.ended.send((self.id.clone(), Instant::now()))),
            }
            if self.removed {
                return;
            }
        }
    }

    fn report(&self, complete: bool) -> NodeReport {
        let (bundle_epoch, charter_version) = (self.trust.bundle().epoch, self.trust.charter().head().version);
        NodeReport { bundle_epoch, charter_version, tasks: Vec::new(), complete, before: None }
    }

    async fn stream(&mut self, channel: Channel, told: &Told) -> End {
        let (reports, outgoing) = mpsc::channel(8);
        if reports.send(self.report(true)).await.is_err() {
            return End::Closed;
        }
        let opened = NodePlaneClient::new(channel.clone()).sync(ReceiverStream::new(outgoing)).await;
        let Ok(opened) = opened else { return End::Closed };
        let mut pushes = opened.into_inner();
        told.connected.send_modify(|n| *n += 1);
        while let Ok(Some(push)) = pushes.message().await {
            let news = match push.push {
                Some(Push::Bundle(st)) => self.follow(&st).is_ok(),
                Some(Push::Revocations(st)) => self.heeds(&st),
                Some(Push::RenewNow(_)) => match self.renew(channel.clone()).await {
                    Ok(()) => return End::Renewed,
                    // It is told again.
                    Err(_) => false,
                },
                Some(
                    Push::Status(_)
                    | Push::Charter(_)
                    | Push::LeaseExt(_)
                    | Push::Revoke(_)
                    | Push::ReportAck(_)
                    | Push::Orchestrators(_),
                )
                | None => false,
            };
            if news && reports.send(self.report(self.removed)).await.is_err() {
                break;
            }
        }
        End::Closed
    }

    /// Believes what its roots sign, and dials by it from then on.
    fn follow(&mut self, st: &Statement) -> Result<(), Failed> {
        if let News::Todo(bundle) = self.trust.observe_bundle(st).map_err(|e| e.to_string())? {
            self.trust.adopt_bundle(bundle);
            self.roots.swap(anchors(&self.trust)?);
        }
        Ok(())
    }

    /// Whether this names itself; then it has nothing left to stop.
    fn heeds(&mut self, st: &Statement) -> bool {
        let named = |r: Revocations| r.revoked.iter().any(|one| one.id == self.id);
        self.removed = statement::peek::<Revocations>(st).is_ok_and(named);
        self.removed
    }

    /// A new certificate for a new key, which stays the same until there is an answer.
    async fn renew(&mut self, channel: Channel) -> Result<(), Failed> {
        let key = match self.next.take() {
            Some(key) => key,
            None => PrivateKey::generate()?,
        };
        let (csr, hpke_pub) = (key.csr()?, self.hpke_pub.to_vec());
        let bundle_epoch = self.trust.bundle().epoch;
        match IdentityClient::new(channel).renew(RenewRequest { csr, hpke_pub, bundle_epoch }).await {
            Ok(issued) => {
                self.identity.swap(LocalIdentity::new(&issued.into_inner().chain, &key)?);
                Ok(())
            }
            Err(status) => {
                self.next = Some(key);
                Err(status.into())
            }
        }
    }
}
