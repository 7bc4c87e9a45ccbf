//! Connections as anybody: with a machine's own key and certificate, an operator's, a stranger's, or none at all.
//!
//! What is said over them is always the same empty message: it asks whether the door opens, never what is behind it.

use super::world::World;
use holdfast_orchestrator::{join, state::StateDir};
use holdfast_transport::client::{Dialer, Link, Timing};
use holdfast_transport::failure::Failure;
use holdfast_transport::keys::PrivateKey;
use holdfast_transport::renew::{FileStore, KeyStore as _};
use holdfast_transport::tls::{Alpn, ClientTls, Expect, IdentityCell, LocalIdentity, TrustCell};
use holdfast_types::Role;
use holdfast_wire::v1::{Ack, Issued};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Longest time until a call is answered or refused.
const ANSWER: Duration = Duration::from_secs(15);
/// The words by which a caller is turned away before anything is looked at.
const TURNED_AWAY: [&str; 5] =
    ["not-allowed", "identity-refused", "certificate-refused", "unknown-certificate", "unimplemented"];

/// What a caller met with: `"past"` the gate, or the word by which it was turned away.
pub type Met = String;

/// A machine's key and certificate, from the folder in which it keeps its state.
pub fn machine(state: &Path) -> LocalIdentity {
    let stored = FileStore::new(&state.join("identity")).load().unwrap().expect("a machine that has joined");
    LocalIdentity::new(&stored.chain, &stored.key).unwrap()
}

/// The operator's, from the tool's own folder.
pub fn operator(w: &World) -> LocalIdentity {
    let mut contexts = fs::read_dir(w.path("home").join("contexts")).unwrap();
    let context = contexts.next().unwrap().unwrap().path();
    let key = PrivateKey::from_pkcs8(&fs::read(context.join("login.key")).unwrap()).unwrap();
    let issued = Issued::decode(fs::read(context.join("login.pb")).unwrap().as_slice()).unwrap();
    LocalIdentity::new(&issued.chain, &key).unwrap()
}

/// Dials and calls, believing the servers of one cluster.
pub struct Calls {
    runtime: Runtime,
    trust: Arc<TrustCell>,
}

impl Calls {
    /// Believes what the world's orchestrator believes.
    pub fn believing(w: &World) -> Self {
        // A copy: the orchestrator holds its own.
        let copy = tempfile::tempdir().unwrap();
        let from = w.path("orch").join(".");
        assert!(Command::new("cp").arg("-a").args([from.as_path(), copy.path()]).status().unwrap().success());
        let state = StateDir::open(copy.path()).unwrap();
        let (_, believed) = join::open(&state, state.load().unwrap().unwrap()).unwrap();
        Self { runtime: Runtime::new().unwrap(), trust: believed.tls() }
    }

    /// To the vault's listener S.
    pub fn service(&self, w: &World, identity: &Arc<IdentityCell>) -> Result<Link, Failure> {
        self.service_at(w.service, identity)
    }
    /// The same at another port, from which there is a way to it.
    pub fn service_at(&self, port: u16, identity: &Arc<IdentityCell>) -> Result<Link, Failure> {
        let tls = ClientTls::mutual(identity.clone(), self.trust.clone(), Expect::Role(Role::Vault), Alpn::Service);
        self.dial(port, tls)
    }
    /// To the orchestrator's listener.
    pub fn orchestrator(&self, w: &World, identity: &Arc<IdentityCell>) -> Result<Link, Failure> {
        let tls = ClientTls::mutual(identity.clone(), self.trust.clone(), Expect::Role(Role::Orch), Alpn::Orchestrator);
        self.dial(w.session, tls)
    }
    /// To `port` as to a listener J, where clients have no certificate.
    pub fn join(&self, port: u16) -> Result<Link, Failure> {
        self.dial(port, ClientTls::rejoin(self.trust.clone()))
    }
    fn dial(&self, port: u16, tls: ClientTls) -> Result<Link, Failure> {
        let dialer = Dialer::new([format!("127.0.0.1:{port}")], tls, Timing::default());
        self.runtime.block_on(dialer.dial())
    }

    /// Calls `rpc` (`Service/Method`) over a connection made for it alone.
    pub fn ask(&self, link: Result<Link, Failure>, rpc: &str) -> Result<(), Failure> {
        link.and_then(|link| self.call(link.channel.clone(), rpc).map_err(|status| link.explain(status)))
    }
    /// What `rpc` meets with over a connection made for it alone.
    pub fn meet(&self, link: Result<Link, Failure>, rpc: &str) -> Met {
        met(self.ask(link, rpc))
    }
    /// Calls `rpc` over a connection to the unix socket.
    pub fn meet_locally(&self, stream: std::os::unix::net::UnixStream, rpc: &str) -> Met {
        let channel = self.runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream).unwrap());
            let once = Mutex::new(Some(stream));
            let connector = tower::service_fn(move |_| {
                std::future::ready(once.lock().unwrap().take().ok_or_else(|| std::io::Error::other("used up")))
            });
            Endpoint::from_static("http://holdfast").connect_with_connector(connector).await
        });
        let lost = |e: tonic::transport::Error| Failure::unavailable("connection-lost", e.to_string());
        met(channel.map_err(lost).and_then(|channel| self.call(channel, rpc).map_err(Failure::from)))
    }

    /// One empty message in; whatever comes first out. A call with one request and a stream of one look alike.
    fn call(&self, channel: Channel, rpc: &str) -> Result<(), Status> {
        let path = PathAndQuery::try_from(format!("/holdfast.v1.{rpc}")).unwrap();
        let call = async {
            let mut grpc = tonic::client::Grpc::new(channel);
            grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
            let request = Request::new(tokio_stream::once(Ack {}));
            let codec = tonic_prost::ProstCodec::<Ack, Ack>::default();
            grpc.streaming(request, path, codec).await?.into_inner().message().await.map(drop)
        };
        let answer = self.runtime.block_on(async { tokio::time::timeout(ANSWER, call).await });
        answer.unwrap_or_else(|_| panic!("{rpc} was neither answered nor refused within {ANSWER:?}"))
    }
}

fn met(answer: Result<(), Failure>) -> Met {
    match answer {
        // A connection that broke is no answer at all.
        Err(f) if f.may_pass() || TURNED_AWAY.contains(&f.code.as_ref()) => f.code.into_owned(),
        Ok(()) | Err(_) => "past".to_owned(),
    }
}
