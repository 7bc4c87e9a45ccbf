//! What the transport leaves of a goal: the calls of `issue-leaves` to a server that has nothing to do with an answer
//! but its cryptography, and those of `writes-1` to one that has nothing to do at all.
//!
//! They keep no registry and no log and sync nothing: no vault that is called once for each leaf or put over this
//! transport can be faster.

use crate::line::{Goal, Line};
use crate::load::Load;
use crate::{Failed, cluster, leaves, puts, writes};
use holdfast_pki::chain::Anchors;
use holdfast_pki::csr::Request as Csr;
use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::now;
use holdfast_transport::rpc::command_plane_server::{CommandPlane, CommandPlaneServer};
use holdfast_transport::rpc::identity_server::{Identity, IdentityServer};
use holdfast_transport::server::{Connections, Limits, serve};
use holdfast_transport::tls::{
    Admission, Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, Peer, Refused, ServerTls, TrustCell,
};
use holdfast_types::{ClusterId, Role, SpiffeId, TrustDomain};
use holdfast_wire::keys::SignError;
use holdfast_wire::v1::{Issued, RenewRequest, Statement, SubmitReply, SubmitRequest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

pub const HOW: &str = "the calls of issue-leaves to a server in this process that verifies the request, signs once and answers \
     with as many bytes: no registry, no log, no disk, no certificate. It bounds what any vault can reach over this transport";

pub const HOW_PUTS: &str = "the calls of writes-1, as long, over such connections, to a server in this process that answers each at once: no \
     signature and no box is opened, nothing is kept. It bounds what any vault can reach over this transport; beside: etcd's puts";

const LIFE: Duration = Duration::from_secs(3600);

/// A key as a CA's.
struct CaKey(PrivateKey);
impl CertSigner for CaKey {
    fn sec1(&self) -> Vec<u8> {
        SubjectKey::from_spki(self.0.spki_der()).ok().and_then(|k| k.sec1().map(<[u8]>::to_vec)).unwrap_or_default()
    }
    fn sign(&self, msg: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign(msg).map_err(|e| SignError(e.to_string()))
    }
}

/// A root and an issuer of nobody's cluster.
struct Ca {
    root: Vec<u8>,
    issuer: Vec<u8>,
    key: CaKey,
    domain: TrustDomain,
}
impl Ca {
    fn new() -> Result<Self, Failed> {
        let (root_key, key) = (CaKey(PrivateKey::generate()?), CaKey(PrivateKey::generate()?));
        let cluster = ClusterId::of_charter(b"bare");
        let root = new_root(&root_key, &cluster, cluster::random()?, now(), ROOT_LIFE)?.der;
        let subject = SubjectKey::from_spki(key.0.spki_der())?;
        let issuer = RootCa::open(&root, &root_key)?.issuer(&subject, cluster::random()?, now(), ISSUER_LIFE)?.der;
        Ok(Self { root, issuer, key, domain: TrustDomain::parse("bare.example")? })
    }
    fn identity(&self, role: Role, name: &str) -> Result<Arc<IdentityCell>, Failed> {
        let key = PrivateKey::generate()?;
        let id = SpiffeId::new(self.domain.clone(), role, name);
        let subject = SubjectKey::from_spki(key.spki_der())?;
        let issuer = IssuerCa::open(&self.issuer, &self.key)?;
        let leaf = issuer.leaf(&subject, &id, cluster::random()?, now(), LIFE)?.der;
        let chain = [leaf, self.issuer.clone(), self.root.clone()];
        Ok(IdentityCell::new(LocalIdentity::new(&chain, &key)?))
    }
    fn trust(&self) -> Result<Arc<TrustCell>, Failed> {
        Ok(TrustCell::new(Anchors::new(&[&self.root], self.domain.clone())?))
    }
}

struct Everybody;
impl Admission for Everybody {
    fn admit(&self, _: &Peer, _: SocketAddr) -> Result<(), Refused> {
        Ok(())
    }
}

/// Verifies, signs, answers.
struct Bare {
    key: PrivateKey,
    answer: Issued,
}

#[tonic::async_trait]
impl Identity for Bare {
    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Issued>, Status> {
        let refused = |why: String| Failure::failed("failed", why);
        Csr::parse(&request.get_ref().csr).map_err(|e| refused(e.to_string()))?;
        self.key.sign(&leaves::TO_BE_SIGNED).map_err(|e| refused(e.to_string()))?;
        Ok(Response::new(self.answer.clone()))
    }
}

/// Answers.
struct Nothing;

#[tonic::async_trait]
impl CommandPlane for Nothing {
    async fn submit(&self, _: Request<SubmitRequest>) -> Result<Response<SubmitReply>, Status> {
        Ok(Response::new(SubmitReply { leaf_index: 1, rev: 1, result: Vec::new() }))
    }
}

/// Such a server, until it is told to stop.
struct Served {
    addr: String,
    stop: CancellationToken,
    server: JoinHandle<Result<(), Failed>>,
}
impl Served {
    async fn begin(ca: &Ca, routes: Routes) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let tls = ServerTls::mutual(ca.identity(Role::Vault, "1")?, ca.trust()?, Arc::new(Everybody), Alpn::Service);
        let stop = CancellationToken::new();
        let server = tokio::spawn({
            let stop = stop.clone();
            async move { Ok(serve(listener, tls, routes, Connections::new(), Limits::default(), stop).await?) }
        });
        Ok(Self { addr, stop, server })
    }
    /// A connection of a machine's own.
    async fn dial(&self, ca: &Ca, name: &str) -> Result<Channel, Failed> {
        let tls =
            ClientTls::mutual(ca.identity(Role::Node, name)?, ca.trust()?, Expect::Role(Role::Vault), Alpn::Service);
        Ok(Dialer::new([self.addr.clone()], tls, Timing::default()).dial().await?.channel)
    }
    async fn end(self) -> Result<(), Failed> {
        self.stop.cancel();
        self.server.await?
    }
}

pub fn over_open_connections() -> Result<Line, Failed> {
    let ca = Ca::new()?;
    let value = cluster::runtime()?.block_on(async {
        // A leaf, its issuer and its root are about as long.
        let answer = Issued { chain: vec![ca.issuer.clone(), ca.issuer.clone(), ca.root.clone()], ..Issued::default() };
        let routes = Routes::new(IdentityServer::new(Bare { key: PrivateKey::generate()?, answer }));
        let served = Served::begin(&ca, routes).await?;
        let mut nodes = Vec::with_capacity(leaves::NODES);
        for n in 0..leaves::NODES {
            let channel = served.dial(&ca, &format!("node-{n}")).await?;
            nodes.push(leaves::Caller { channel, hpke_pub: cluster::random()? });
        }
        let value = leaves::renewals_a_second(nodes).await;
        served.end().await?;
        value
    })?;
    Ok(Line { value, unit: "answers/s", beside: leaves::floor()?, goal: Goal::OfBeside(0.5) })
}

pub fn puts() -> Result<Line, Failed> {
    let ca = Ca::new()?;
    let taken = cluster::runtime()?.block_on(async {
        let served = Served::begin(&ca, Routes::new(CommandPlaneServer::new(Nothing))).await?;
        let mut load = Load::new(writes::SPAN);
        for n in 0..writes::CLIENTS {
            let channel = served.dial(&ca, &format!("node-{n}")).await?;
            // As long as a signed command and a boxed value of that many bytes.
            let statement = Statement { payload: vec![7; 256], ..Statement::default() };
            let request = SubmitRequest { statement: Some(statement), r#box: vec![7; writes::BYTES + 128] };
            load.client(move |_| puts::submit(channel.clone(), request.clone()));
        }
        let taken = load.run().await;
        served.end().await?;
        taken
    })?;
    let beside = writes::etcd_alone()?.a_second;
    Ok(Line { value: taken.a_second, unit: "answers/s", beside, goal: Goal::OfBeside(1.2) })
}
