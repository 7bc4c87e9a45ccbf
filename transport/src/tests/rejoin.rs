//! Coming back: by the key of a certificate that is over, and through roots that were rotated meanwhile.

use super::world::*;
use crate::client::{Dialer, Timing};
use crate::failure::Failure;
use crate::keys::PrivateKey;
use crate::now;
use crate::rejoin::{Answer, Rejoin};
use crate::renew::{Authority, FileStore, KeyStore, Renewals, Renewed, Renewer, pending_key};
use crate::rpc::join_server::{Join, JoinServer};
use crate::server::{Connections, Limits};
use crate::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, ServerTls};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use futures::stream::{BoxStream, StreamExt as _};
use holdfast_pki::csr::Request as Csr;
use holdfast_pki::keys::SubjectKey;
use holdfast_types::{Digest, Role, sha256};
use holdfast_wire::v1::{
    Ack, AwaitReply, AwaitRequest, Challenge, Issued, JoinReply, JoinRequest, LoginReply, LoginRequest, RejoinProof,
    RejoinRequest, Removed, Statement, TrustView, join_reply, rejoin_request,
};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

const NONCE: [u8; 32] = [7; 32];

/// A join listener that takes everybody back who proves a key, and notes what was said.
#[derive(Clone)]
struct Desk {
    ca: Arc<Ca>,
    calls: Arc<AtomicUsize>,
    said: mpsc::UnboundedSender<(String, RejoinProof)>,
    bundles: Vec<Statement>,
    /// What everybody is told instead.
    removed: Option<Removed>,
}

fn not_here<T>() -> Result<T, Status> {
    Err(Status::unimplemented("not here"))
}

#[tonic::async_trait]
impl Join for Desk {
    type JoinStream = BoxStream<'static, Result<JoinReply, Status>>;
    type LoginStream = BoxStream<'static, Result<LoginReply, Status>>;
    type RejoinStream = BoxStream<'static, Result<JoinReply, Status>>;

    async fn join(&self, _: Request<Streaming<JoinRequest>>) -> Result<Response<Self::JoinStream>, Status> {
        not_here()
    }
    async fn r#await(&self, _: Request<AwaitRequest>) -> Result<Response<AwaitReply>, Status> {
        not_here()
    }
    async fn login(&self, _: Request<Streaming<LoginRequest>>) -> Result<Response<Self::LoginStream>, Status> {
        not_here()
    }
    async fn trust(&self, _: Request<Ack>) -> Result<Response<TrustView>, Status> {
        not_here()
    }
    async fn rejoin(&self, request: Request<Streaming<RejoinRequest>>) -> Result<Response<Self::RejoinStream>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let (desk, mut steps) = (self.clone(), request.into_inner());
        let bundle_chain = self.bundles.clone();
        let challenge = Challenge { nonce: NONCE.to_vec(), bundle_chain, ..Challenge::default() };
        let challenge = join_reply::Step::Challenge(challenge);
        let answer = async move {
            let Some(rejoin_request::Step::Hello(hello)) = steps.message().await?.and_then(|r| r.step) else {
                return Err(Status::invalid_argument("no hello"));
            };
            let Some(rejoin_request::Step::Proof(proof)) = steps.message().await?.and_then(|r| r.step) else {
                return Err(Status::invalid_argument("no proof"));
            };
            let chain =
                desk.ca.chain(Csr::parse(&proof.csr).unwrap().spki_der(), &desk.ca.id(Role::Node, &hello.id), DAY);
            desk.said.send((hello.id.clone(), proof)).unwrap();
            if let Some(removed) = desk.removed {
                return Ok(JoinReply { step: Some(join_reply::Step::Removed(removed)) });
            }
            let issued = Issued { id: hello.id, chain, ..Issued::default() };
            Ok(JoinReply { step: Some(join_reply::Step::Issued(issued)) })
        };
        let first = futures::stream::iter([Ok(JoinReply { step: Some(challenge) })]);
        Ok(Response::new(first.chain(futures::stream::once(answer)).boxed()))
    }
}

struct Listening {
    server: Running,
    calls: Arc<AtomicUsize>,
    said: mpsc::UnboundedReceiver<(String, RejoinProof)>,
}

async fn desk(ca: &Arc<Ca>) -> Listening {
    desk_with(ca, Vec::new(), None).await
}

async fn desk_with(ca: &Arc<Ca>, bundles: Vec<Statement>, removed: Option<Removed>) -> Listening {
    let (sender, said) = mpsc::unbounded_channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let desk = Desk { ca: ca.clone(), calls: calls.clone(), said: sender, bundles, removed };
    let tls = ServerTls::server_only(ca.cell(Role::Vault, "1"));
    let server = start_with(tls, Routes::new(JoinServer::new(desk)), Connections::new(), Limits::default()).await;
    Listening { server, calls, said }
}

fn dialer(ca: &Ca, at: &Running) -> Dialer {
    Dialer::new([at.addr.to_string()], ClientTls::rejoin(ca.trust()), Timing::default())
}

#[tokio::test]
async fn a_rejoin_proves_the_old_key_over_the_nonce_the_name_and_the_request() {
    let ca = Arc::new(Ca::new("one"));
    let mut at = desk(&ca).await;
    let (old, new) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let csr = new.csr().unwrap();
    let open = within(Rejoin::open(&dialer(&ca, &at.server), "node-a")).await.unwrap();
    assert_eq!(open.challenge().nonce, NONCE);
    let answer = within(open.prove(&old, csr.clone(), vec![9; 32], 12)).await.unwrap();
    let Answer::Issued(issued) = answer else { panic!("no certificate: {answer:?}") };
    assert_eq!(LocalIdentity::new(&issued.chain, &new).unwrap().id().name, "node-a");
    let (id, proof) = at.said.recv().await.unwrap();
    assert_eq!((id.as_str(), proof.bundle_epoch, proof.spki.as_slice()), ("node-a", 12, old.spki_der()));
    let h = |b: &[u8]| sha256(&[b]).to_vec();
    let message = [b"holdfast/v1/rejoin".to_vec(), NONCE.to_vec(), h(b"node-a"), h(&csr), h(&[9; 32])].concat();
    let public = SubjectKey::from_spki(&proof.spki).unwrap().sec1().unwrap().to_vec();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public).verify(&message, &proof.signature).unwrap();
}

/// It is the caller's to judge what it is told: what counts is signed.
#[tokio::test]
async fn who_was_removed_is_told_so_once_it_has_proved_its_key() {
    let ca = Arc::new(Ca::new("one"));
    let told = Removed { status: Some(Statement::default()), revocations: Some(Statement::default()) };
    let mut at = desk_with(&ca, Vec::new(), Some(told.clone())).await;
    let (old, new) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
    let open = within(Rejoin::open(&dialer(&ca, &at.server), "node-a")).await.unwrap();
    assert!(at.said.try_recv().is_err(), "nothing is proven yet");
    let answer = within(open.prove(&old, new.csr().unwrap(), vec![9; 32], 12)).await.unwrap();
    assert!(matches!(&answer, Answer::Removed(removed) if *removed == told), "{answer:?}");
    assert_eq!(at.said.recv().await.unwrap().1.spki, old.spki_der());
}

/// Who slept for long is shown every Bundle since the first.
#[tokio::test]
async fn a_challenge_with_as_many_bundles_as_the_trust_that_is_asked_for_is_read() {
    let ca = Arc::new(Ca::new("one"));
    let shown = vec![Statement { payload: vec![1; 1 << 20], ..Statement::default() }; 12];
    let at = desk_with(&ca, shown.clone(), None).await;
    let open = within(Rejoin::open(&dialer(&ca, &at.server), "node-a")).await.unwrap();
    assert!(open.challenge().bundle_chain == shown);
}

#[tokio::test]
async fn a_rejoin_signs_nothing_for_a_server_that_is_not_believed() {
    let (ca, other) = (Arc::new(Ca::new("one")), Arc::new(Ca::new("two")));
    let mut at = desk(&other).await;
    let failure = within(Rejoin::open(&dialer(&ca, &at.server), "node-a")).await.err().unwrap();
    assert_eq!(failure.code, "server-not-trusted");
    assert_eq!(at.calls.load(Ordering::SeqCst), 0);
    assert!(at.said.try_recv().is_err());
}

/// What was asked of an authority, and how.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Renew(Digest),
    Rejoin { new: Digest, old: Digest },
}

/// An authority that gives certificates, but refuses the first `losses` and every renewal if it says so.
struct Both {
    ca: Arc<Ca>,
    store: FileStore,
    asked: mpsc::UnboundedSender<Asked>,
    losses: Mutex<usize>,
    refuses_keys: bool,
}

impl Both {
    fn answer(&self, csr: &[u8]) -> Result<Renewed, Failure> {
        let request = Csr::parse(csr).unwrap();
        let pending = self.store.load_pending().unwrap().expect("the key must be stored before the request is sent");
        assert_eq!(pending.spki_sha256(), request.spki_sha256());
        let mut losses = self.losses.lock().unwrap();
        if *losses > 0 {
            *losses -= 1;
            return Err(Failure::unavailable("connection-lost", "the reply was lost"));
        }
        let chain = self.ca.chain(request.spki_der(), &self.ca.id(Role::Node, "node-a"), DAY);
        Ok(Renewed { chain, renew_after: None })
    }
}

impl Authority for Both {
    async fn renew(&self, csr: Vec<u8>) -> Result<Renewed, Failure> {
        self.asked.send(Asked::Renew(Csr::parse(&csr).unwrap().spki_sha256())).unwrap();
        self.answer(&csr)
    }
    async fn rejoin(&self, csr: Vec<u8>, old: PrivateKey) -> Result<Renewed, Failure> {
        let new = Csr::parse(&csr).unwrap().spki_sha256();
        self.asked.send(Asked::Rejoin { new, old: old.spki_sha256() }).unwrap();
        if self.refuses_keys { Err(Failure::refused("bad-credential", "it has not ended")) } else { self.answer(&csr) }
    }
}

struct Node {
    cell: Arc<IdentityCell>,
    renewer: Renewer<Both>,
    asked: mpsc::UnboundedReceiver<Asked>,
}

/// A node that starts from what is in `dir`.
fn node(ca: &Arc<Ca>, dir: &Path, losses: usize, refuses_keys: bool) -> Node {
    let store = FileStore::new(dir);
    let stored = store.load().unwrap().unwrap();
    let cell = IdentityCell::new(LocalIdentity::new(&stored.chain, &stored.key).unwrap());
    let (sender, asked) = mpsc::unbounded_channel();
    let losses = Mutex::new(losses);
    let authority = Both { ca: ca.clone(), store: store.clone(), asked: sender, losses, refuses_keys };
    let renewer = Renewer::new(Arc::new(store), cell.clone(), ca.trust(), authority);
    Node { cell, renewer, asked }
}

/// A folder with an identity that ended three minutes ago, or lives for a day.
fn joined(ca: &Ca, over: bool) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path());
    let key = pending_key(&store).unwrap();
    let minute = Duration::from_secs(60);
    let (begin, life) = if over { (now().minus(4 * minute), minute) } else { (now(), DAY) };
    store.promote(&ca.chain_from(begin, key.spki_der(), &ca.id(Role::Node, "node-a"), life)).unwrap();
    dir
}

#[tokio::test]
async fn an_identity_that_is_over_comes_back_by_its_key_and_a_lost_reply_changes_nothing() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, true);
    let mut first = node(&ca, dir.path(), 1, false);
    let before = first.cell.current().unwrap().spki_sha256();
    first.renewer.renew().await.unwrap_err();
    let Some(Asked::Rejoin { new, old }) = first.asked.recv().await else { panic!("it was not a rejoin") };
    assert_eq!(old, before);
    assert_ne!(new, before);

    let mut again = node(&ca, dir.path(), 0, false);
    again.renewer.renew().await.unwrap();
    assert_eq!(again.asked.recv().await, Some(Asked::Rejoin { new, old }), "the same two keys after a restart");
    assert_eq!(again.cell.current().unwrap().spki_sha256(), new);
    // What follows is an ordinary renewal.
    again.renewer.renew().await.unwrap();
    assert!(matches!(again.asked.recv().await, Some(Asked::Renew(_))));
}

#[tokio::test]
async fn a_certificate_that_the_vault_does_not_believe_is_tried_by_its_key_and_by_renewal_in_turn() {
    let ca = Arc::new(Ca::new("one"));
    let dir = joined(&ca, false);
    let Node { renewer, mut asked, .. } = node(&ca, dir.path(), 0, true);
    let (renewals, stop) = (Arc::new(Renewals::default()), CancellationToken::new());
    let mut done = renewals.done.subscribe();
    renewals.refused();
    renewals.refused();
    let running = tokio::spawn({
        let (renewals, stop) = (renewals.clone(), stop.clone());
        async move { renewer.run(&renewals, false, &stop).await }
    });
    within(done.wait_for(|n| *n == 1)).await.unwrap();
    assert!(matches!(asked.recv().await, Some(Asked::Rejoin { .. })));
    assert!(matches!(asked.recv().await, Some(Asked::Renew(_))));
    assert!(asked.try_recv().is_err());
    stop.cancel();
    within(running).await.unwrap();
}

/// While a root is rotated, the chain that is served leads to the old root and to the new one, whoever trusts which.
#[tokio::test]
async fn a_server_under_a_new_root_is_reached_by_those_who_know_only_the_old_one_and_by_old_join_tokens() {
    let (old, new) = (Ca::new("one"), Ca::new("one"));
    let key = PrivateKey::generate().unwrap();
    let mut chain = new.chain(key.spki_der(), &new.id(Role::Vault, "1"), DAY);
    chain.insert(2, old.cross(&new));
    chain.push(old.root.clone());
    let cell = || IdentityCell::new(LocalIdentity::new(&chain, &key).unwrap());
    let join = start(ServerTls::server_only(cell()), Echo::default(), Connections::new(), Limits::default()).await;
    for ca in [&old, &new] {
        dial(join.addr, ClientTls::rejoin(ca.trust())).await.unwrap();
        let link = dial(join.addr, ClientTls::join(ca.anchor())).await.unwrap();
        assert_eq!(link.server.cluster, Some(ca.cluster));
    }
    let everybody = Arc::new(Everybody::default());
    let tls = ServerTls::mutual(cell(), old.trust(), everybody, Alpn::Service);
    let service = start(tls, Echo::default(), Connections::new(), Limits::default()).await;
    for ca in [&old, &new] {
        let expect = Expect::Role(Role::Vault);
        let tls = ClientTls::mutual(old.cell(Role::Node, "node-a"), ca.trust(), expect, Alpn::Service);
        assert_eq!(whoami(service.addr, tls).await.unwrap().id, "node/node-a");
    }
    // Not one whose root never certified this one.
    let failure = dial(join.addr, ClientTls::rejoin(Ca::new("one").trust())).await.unwrap_err();
    assert_eq!(failure.code, "server-not-trusted");
}
