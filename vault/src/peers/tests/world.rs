//! A cluster's authority, and voters with nothing behind them that remember what they heard.

use crate::disk::boot::Boot;
use crate::peers::{Host, Peers, routes};
use crate::raft::{PeerRpc, ReceiveError, Receiver};
use futures::future::BoxFuture;
use holdfast_pki::chain::Anchors;
use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::now;
use holdfast_transport::server::{Connections, Limits, serve};
use holdfast_transport::tls::peers::{PeerPins, PeerTls, PinSays};
use holdfast_transport::tls::{IdentityCell, LocalIdentity, ServerTls, TrustCell};
use holdfast_types::{ClusterId, Digest, Millis, Role, SpiffeId, TrustDomain, VoterId, sha256};
use holdfast_wire::keys::SignError;
use holdfast_wire::v1;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const DAY: Duration = Duration::from_secs(86_400);

struct Signer(PrivateKey);
impl CertSigner for Signer {
    fn sec1(&self) -> Vec<u8> {
        SubjectKey::from_spki(self.0.spki_der()).unwrap().sec1().unwrap().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg).map_err(|e| SignError(e.to_string()))
    }
}

fn serial() -> [u8; 16] {
    let mut s = [0; 16];
    getrandom::fill(&mut s).unwrap();
    s
}

/// A cluster's root and issuer, made at `since`.
pub struct Ca {
    root: Vec<u8>,
    issuer: Vec<u8>,
    issuer_key: Signer,
    since: Millis,
}

impl Ca {
    pub fn new(since: Millis) -> Self {
        let [root_key, issuer_key] = [(); 2].map(|()| Signer(PrivateKey::generate().unwrap()));
        let cluster = ClusterId::of_charter(b"charter");
        let root = new_root(&root_key, &cluster, serial(), since, ROOT_LIFE).unwrap().der;
        let key = SubjectKey::from_spki(issuer_key.0.spki_der()).unwrap();
        let issuer = RootCa::open(&root, &root_key).unwrap().issuer(&key, serial(), since, ISSUER_LIFE).unwrap().der;
        Self { root, issuer, issuer_key, since }
    }

    pub fn domain() -> TrustDomain {
        TrustDomain::parse("test.example").unwrap()
    }

    /// A certificate for `key` as voter `id`, for a day from the authority's own beginning.
    pub fn identity(&self, id: u64, key: &PrivateKey) -> LocalIdentity {
        let subject = SubjectKey::from_spki(key.spki_der()).unwrap();
        let name = SpiffeId::new(Self::domain(), Role::Vault, id.to_string());
        let issuer = IssuerCa::open(&self.issuer, &self.issuer_key).unwrap();
        let leaf = issuer.leaf(&subject, &name, serial(), self.since, DAY).unwrap().der;
        LocalIdentity::new(&[leaf, self.issuer.clone(), self.root.clone()], key).unwrap()
    }

    fn trust(&self) -> Arc<TrustCell> {
        TrustCell::new(Anchors::new(&[&self.root], Self::domain()).unwrap())
    }
}

/// The voters that one knows; `None`: evicted.
#[derive(Default)]
pub struct Pins(pub Mutex<BTreeMap<u64, Option<Digest>>>);

impl Pins {
    pub fn know(&self, id: u64, key: &PrivateKey) {
        self.0.lock().unwrap().insert(id, Some(key.spki_sha256()));
    }
    pub fn evict(&self, id: u64) {
        self.0.lock().unwrap().insert(id, None);
    }
}

impl PeerPins for Pins {
    fn pin(&self, id: u64, spki: &Digest) -> PinSays {
        let known = self.0.lock().unwrap();
        match known.get(&id) {
            Some(Some(pin)) if pin == spki => PinSays::Member,
            Some(Some(_)) => PinSays::No("its key is another".into()),
            Some(None) => PinSays::No("it was evicted".into()),
            None if known.keys().all(|k| *k < id) => PinSays::Newer,
            None => PinSays::No("its number was never given".into()),
        }
    }
}

/// A message in which a voter speaks as another.
pub const AS_ANOTHER: &[u8] = b"as another";

/// What is behind a voter's listener: an ear.
#[derive(Default)]
pub struct Ear {
    pub heard: Mutex<Vec<(PeerRpc, u64, Vec<u8>)>>,
    pub snapshots: Mutex<Vec<(u64, usize, Digest)>>,
    pub reports: Mutex<Vec<(u64, v1::VoterReport)>>,
    pub leaves: Mutex<Vec<v1::LeafData>>,
    pub recorded: Mutex<v1::HighWaterReply>,
    pub impostors: Mutex<Vec<u64>>,
}

impl Receiver for Arc<Ear> {
    fn receive<'a>(
        &'a self,
        rpc: PeerRpc,
        from: VoterId,
        body: &'a [u8],
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>> {
        if body == AS_ANOTHER {
            return Box::pin(async { Err(ReceiveError::Impostor("it may not speak as another".to_owned())) });
        }
        self.heard.lock().unwrap().push((rpc, from.0, body.to_vec()));
        Box::pin(async move { Ok([b"heard ", body].concat()) })
    }
    fn receive_snapshot<'a>(
        &'a self,
        from: VoterId,
        vote: &'a [u8],
        meta: &'a [u8],
        data: Vec<u8>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ReceiveError>> {
        self.snapshots.lock().unwrap().push((from.0, data.len(), sha256(&[&data])));
        Box::pin(async move { Ok([vote, meta].concat()) })
    }
}

struct Behind(Arc<Ear>);

#[tonic::async_trait]
impl Host for Behind {
    fn voter(&self) -> Option<Arc<dyn Receiver>> {
        Some(Arc::new(Arc::clone(&self.0)))
    }
    fn high_water(&self, _: VoterId) -> Result<v1::HighWaterReply, Failure> {
        Ok(self.0.recorded.lock().unwrap().clone())
    }
    async fn report(&self, from: VoterId, report: v1::VoterReport) -> Result<v1::VoterReportReply, Failure> {
        self.0.reports.lock().unwrap().push((from.0, report));
        Ok(v1::VoterReportReply { chain: vec![b"chain".to_vec()], ..Default::default() })
    }
    fn spoke_as_another(&self, id: VoterId) {
        self.0.impostors.lock().unwrap().push(id.0);
    }
    fn backfill(&self, from: u64, until: u64) -> Result<Vec<v1::LeafData>, Failure> {
        let leaves = self.0.leaves.lock().unwrap();
        let range = from as usize..(until as usize).min(leaves.len());
        Ok(leaves.get(range).unwrap_or_default().to_vec())
    }
}

/// A voter that listens.
pub struct Node {
    pub id: VoterId,
    pub peers: Arc<Peers>,
    pub ear: Arc<Ear>,
    pub addr: String,
    _stop: DropGuard,
}

pub fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}

pub fn boot(count: u64, byte: u8) -> Boot {
    Boot { count, id: [byte; 16] }
}

/// A way to others as `identity`, without a listener.
pub fn speaker(ca: &Ca, identity: LocalIdentity, pins: &Arc<Pins>, boot: &Boot) -> Arc<Peers> {
    let id = identity.id().name.parse().unwrap();
    let pins: Arc<dyn PeerPins> = pins.clone();
    Peers::new(VoterId(id), boot, PeerTls::new(IdentityCell::new(identity), ca.trust(), pins))
}

/// A voter with an open gate.
pub async fn listen(ca: &Ca, identity: LocalIdentity, pins: &Arc<Pins>) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let id = VoterId(identity.id().name.parse().unwrap());
    let of_pins: Arc<dyn PeerPins> = pins.clone();
    let tls = PeerTls::new(IdentityCell::new(identity), ca.trust(), of_pins);
    let peers = Peers::new(id, &boot(1, 1), tls.clone());
    peers.open_gate();
    let ear = Arc::new(Ear::default());
    let stop = CancellationToken::new();
    let routes = routes(Arc::clone(&peers), Arc::new(Behind(Arc::clone(&ear))));
    tokio::spawn(serve(listener, ServerTls::peers(tls), routes, Connections::new(), Limits::default(), stop.clone()));
    Node { id, peers, ear, addr, _stop: stop.drop_guard() }
}

/// Voters 1 and 2, each with a listener, who know each other.
pub struct Two {
    pub ca: Ca,
    pub pins: Arc<Pins>,
    pub keys: [PrivateKey; 2],
    pub one: Node,
    pub two: Node,
}

pub async fn two() -> Two {
    two_since(now()).await
}

pub async fn two_since(since: Millis) -> Two {
    let (ca, pins, keys) = (Ca::new(since), Arc::new(Pins::default()), [key(), key()]);
    pins.know(1, &keys[0]);
    pins.know(2, &keys[1]);
    let one = listen(&ca, ca.identity(1, &keys[0]), &pins).await;
    let two = listen(&ca, ca.identity(2, &keys[1]), &pins).await;
    Two { ca, pins, keys, one, two }
}
