//! What the transport leaves of the floor: the calls of `issue-leaves` to a server that has nothing to do with an answer
//! but its cryptography.
//!
//! It keeps no registry and no log, syncs nothing, makes no certificate: no vault that is called one leaf at a time over
//! this transport can be faster.

use crate::line::{Goal, Line};
use crate::{Failed, cluster, leaves};
use holdfast_pki::chain::Anchors;
use holdfast_pki::csr::Request as Csr;
use holdfast_pki::issue::{ISSUER_LIFE, IssuerCa, ROOT_LIFE, RootCa, new_root};
use holdfast_pki::keys::{CertSigner, SubjectKey};
use holdfast_transport::client::{Dialer, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::now;
use holdfast_transport::rpc::identity_server::{Identity, IdentityServer};
use holdfast_transport::server::{Connections, Limits, serve};
use holdfast_transport::tls::{
    Admission, Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, Peer, Refused, ServerTls, TrustCell,
};
use holdfast_types::{ClusterId, Role, SpiffeId, TrustDomain};
use holdfast_wire::keys::SignError;
use holdfast_wire::v1::{Issued, RenewRequest};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

pub const HOW: &str = "the calls of issue-leaves to a server in this process that verifies the request, signs once and answers \
     with as many bytes: no registry, no log, no disk, no certificate. It bounds what any vault can reach over this transport";

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

pub fn over_open_connections() -> Result<Line, Failed> {
    let ca = Ca::new()?;
    let value = cluster::runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let tls = ServerTls::mutual(ca.identity(Role::Vault, "1")?, ca.trust()?, Arc::new(Everybody), Alpn::Service);
        // A leaf, its issuer and its root are about as long.
        let answer = Issued { chain: vec![ca.issuer.clone(), ca.issuer.clone(), ca.root.clone()], ..Issued::default() };
        let routes = Routes::new(IdentityServer::new(Bare { key: PrivateKey::generate()?, answer }));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, tls, routes, Connections::new(), Limits::default(), stop.clone()));
        let mut nodes = Vec::with_capacity(leaves::NODES);
        for n in 0..leaves::NODES {
            let identity = ca.identity(Role::Node, &format!("node-{n}"))?;
            let tls = ClientTls::mutual(identity, ca.trust()?, Expect::Role(Role::Vault), Alpn::Service);
            let link = Dialer::new([addr.clone()], tls, Timing::default()).dial().await?;
            nodes.push(leaves::Caller { channel: link.channel, hpke_pub: cluster::random()? });
        }
        let value = leaves::renewals_a_second(nodes).await;
        stop.cancel();
        server.await??;
        value
    })?;
    Ok(Line { value, unit: "answers/s", beside: leaves::floor()?, goal: Goal::OfBeside(0.5) })
}
