//! A certificate authority, a service that answers, and servers and clients to put between them.

use crate::client::{Dialer, Link, Timing};
use crate::failure::Failure;
use crate::keys::PrivateKey;
use crate::now;
use crate::rpc::identity_client::IdentityClient;
use crate::rpc::identity_server::{Identity, IdentityServer};
use crate::rpc::node_plane_client::NodePlaneClient;
use crate::rpc::node_plane_server::{NodePlane, NodePlaneServer};
use crate::server::{Connections, Limits, ServeError, peer_of, serve};
use crate::tls::{
    Admission, Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, Peer, Refused, ServerTls, TrustCell,
};
use futures::stream::{BoxStream, StreamExt as _};
use holdfast_pki::chain::Anchors;
use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_types::{ClusterId, Digest, Millis, Role, SpiffeId, TrustDomain};
use holdfast_wire::keys::SignError;
use holdfast_wire::v1::{Ack, Evidence, Issued, NodePush, NodeReport, RenewRequest};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// `event`, or a failed test after a time that no working machine needs.
pub(super) async fn within<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), event).await.expect("the event did not happen in time")
}

impl CertSigner for PrivateKey {
    fn sec1(&self) -> Vec<u8> {
        SubjectKey::from_spki(self.spki_der()).unwrap().sec1().unwrap().to_vec()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        PrivateKey::sign(self, msg).map_err(|e| SignError(e.to_string()))
    }
}

/// A cluster's root and issuer.
pub(super) struct Ca {
    pub(super) cluster: ClusterId,
    pub(super) root: Vec<u8>,
    root_key: PrivateKey,
    issuer: Vec<u8>,
    issuer_key: PrivateKey,
    domain: TrustDomain,
}

pub(super) fn serial() -> [u8; 16] {
    let mut s = [0; 16];
    getrandom::fill(&mut s).unwrap();
    s
}

impl Ca {
    pub(super) fn new(charter: &str) -> Self {
        let (root_key, issuer_key) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let cluster = ClusterId::of_charter(charter.as_bytes());
        let root = new_root(&root_key, &cluster, serial(), now(), ROOT_LIFE).unwrap().der;
        let key = SubjectKey::from_spki(issuer_key.spki_der()).unwrap();
        let issuer = RootCa::open(&root, &root_key).unwrap().issuer(&key, serial(), now(), ISSUER_LIFE).unwrap().der;
        Self { cluster, root, root_key, issuer, issuer_key, domain: TrustDomain::parse("test.example").unwrap() }
    }
    pub(super) fn anchor(&self) -> Digest {
        self.cluster.anchor(&self.root)
    }
    pub(super) fn id(&self, role: Role, name: &str) -> SpiffeId {
        SpiffeId::new(self.domain.clone(), role, name)
    }
    /// Leaf, issuer and root, for the key in `spki`.
    pub(super) fn chain(&self, spki: &[u8], id: &SpiffeId, life: Duration) -> Vec<Vec<u8>> {
        self.chain_from(now(), spki, id, life)
    }
    /// The same, made at `begin`, which is at most five minutes ago.
    pub(super) fn chain_from(&self, begin: Millis, spki: &[u8], id: &SpiffeId, life: Duration) -> Vec<Vec<u8>> {
        let key = SubjectKey::from_spki(spki).unwrap();
        let issuer = IssuerCa::open(&self.issuer, &self.issuer_key).unwrap();
        let leaf = issuer.leaf(&key, id, serial(), begin, life).unwrap().der;
        vec![leaf, self.issuer.clone(), self.root.clone()]
    }
    /// The root of `other`, certified by ours.
    pub(super) fn cross(&self, other: &Self) -> Vec<u8> {
        RootCa::open(&self.root, &self.root_key).unwrap().cross(&other.root, serial(), now()).unwrap().der
    }
    pub(super) fn identity_for(&self, role: Role, name: &str, life: Duration) -> LocalIdentity {
        let key = PrivateKey::generate().unwrap();
        LocalIdentity::new(&self.chain(key.spki_der(), &self.id(role, name), life), &key).unwrap()
    }
    pub(super) fn identity(&self, role: Role, name: &str) -> LocalIdentity {
        self.identity_for(role, name, DAY)
    }
    pub(super) fn cell(&self, role: Role, name: &str) -> Arc<IdentityCell> {
        IdentityCell::new(self.identity(role, name))
    }
    pub(super) fn anchors(&self) -> Anchors {
        Anchors::new(&[&self.root], self.domain.clone()).unwrap()
    }
    pub(super) fn trust(&self) -> Arc<TrustCell> {
        TrustCell::new(self.anchors())
    }
    /// A client of the vault's service listener.
    pub(super) fn client(&self, role: Role, name: &str) -> ClientTls {
        ClientTls::mutual(self.cell(role, name), self.trust(), Expect::Role(Role::Vault), Alpn::Service)
    }
    /// A vault voter's service listener.
    pub(super) fn vault(&self, admission: Arc<dyn Admission>) -> ServerTls {
        ServerTls::mutual(self.cell(Role::Vault, "1"), self.trust(), admission, Alpn::Service)
    }
}

/// Admits everybody and counts.
#[derive(Default)]
pub(super) struct Everybody(pub(super) AtomicUsize);
impl Everybody {
    pub(super) fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
impl Admission for Everybody {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// `Renew` says who asked, or gives `failure`; `Sync` sends one message and stays open.
#[derive(Clone, Default)]
pub(super) struct Echo {
    pub(super) failure: Option<Failure>,
}
#[tonic::async_trait]
impl Identity for Echo {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Issued>, Status> {
        let peer = peer_of(&request)?;
        match self.failure.clone() {
            Some(f) => Err(f.into()),
            None => Ok(Response::new(Issued {
                id: peer.id.short(),
                chain: vec![peer.leaf_der.clone()],
                ..Issued::default()
            })),
        }
    }
}
#[tonic::async_trait]
impl NodePlane for Echo {
    type SyncStream = BoxStream<'static, Result<NodePush, Status>>;
    async fn sync(&self, _: Request<Streaming<NodeReport>>) -> Result<Response<Self::SyncStream>, Status> {
        let first = futures::stream::iter([Ok(NodePush::default())]);
        Ok(Response::new(first.chain(futures::stream::pending()).boxed()))
    }
    async fn report_evidence(&self, _: Request<Evidence>) -> Result<Response<Ack>, Status> {
        Ok(Response::new(Ack {}))
    }
}

/// A listener that runs until it is dropped.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) connections: Connections,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<Result<(), ServeError>>,
}
impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

pub(super) async fn start(tls: ServerTls, echo: Echo, connections: Connections, limits: Limits) -> Running {
    let routes = Routes::new(IdentityServer::new(echo.clone())).add_service(NodePlaneServer::new(echo));
    start_with(tls, routes, connections, limits).await
}

pub(super) async fn start_with(tls: ServerTls, routes: Routes, connections: Connections, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(listener, tls, routes, connections.clone(), limits, stop.clone()));
    Running { addr, connections, stop, task }
}

/// A vault's service listener that admits everybody.
pub(super) async fn vault(ca: &Ca) -> Running {
    start(ca.vault(Arc::new(Everybody::default())), Echo::default(), Connections::new(), Limits::default()).await
}

pub(super) async fn dial(addr: SocketAddr, tls: ClientTls) -> Result<Link, Failure> {
    within(Dialer::new([addr.to_string()], tls, Timing::default()).dial()).await
}

/// Who the server says we are; dials anew.
pub(super) async fn whoami(addr: SocketAddr, tls: ClientTls) -> Result<Issued, Failure> {
    let link = dial(addr, tls).await?;
    whoami_over(&link).await
}

pub(super) async fn whoami_over(link: &Link) -> Result<Issued, Failure> {
    let mut client = IdentityClient::new(link.channel.clone());
    let answer = within(client.renew(RenewRequest::default())).await;
    answer.map(Response::into_inner).map_err(|status| link.explain(status))
}

/// An open stream, after its first message.
pub(super) async fn stream(link: &Link) -> Streaming<NodePush> {
    let mut client = NodePlaneClient::new(link.channel.clone());
    let mut pushes = within(client.sync(futures::stream::pending())).await.unwrap().into_inner();
    within(pushes.message()).await.unwrap().unwrap();
    pushes
}
