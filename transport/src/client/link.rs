//! One connection to one server: dialled once, verified once, never redialled behind the caller's back.
//!
//! A channel that reconnects by itself would hide that the server on the other end is another one now. When a link
//! breaks, its calls fail as unavailable, and the owner dials again.

use super::io::{Io, LastAlert};
use crate::failure::Failure;
use crate::status::{lost, not_established};
use crate::tls::{ClientTls, LocalIdentity, Server, refusal_by_alert};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// What to do about a server that does not answer.
const LOOK: &str = "check that it runs there, that a vault there is unlocked, and the address";

/// How long the client waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// For the connection and the handshake together.
    pub connect: Duration,
    /// Between probes of the connection, idle or not.
    pub keep_alive: Duration,
    /// For the answer to a probe; then the connection counts as broken.
    pub keep_alive_timeout: Duration,
}
impl Default for Timing {
    fn default() -> Self {
        let five = Duration::from_secs(5);
        Self { connect: five, keep_alive: five, keep_alive_timeout: five }
    }
}

/// A connection to a verified server.
#[derive(Debug, Clone)]
pub struct Link {
    /// For the generated clients; cheap to clone.
    pub channel: Channel,
    /// Who answered.
    pub server: Server,
    /// The address that was dialled, `host:port`.
    pub addr: String,
    alert: LastAlert,
    /// What we presented.
    identity: Option<Arc<LocalIdentity>>,
}

impl Link {
    /// Why a call over this link failed. Unlike `Failure::from(status)`, tells a server that refuses our certificate
    /// from one that is gone.
    pub fn explain(&self, status: Status) -> Failure {
        let failure = Failure::from(status);
        let refused = || self.alert.get().and_then(|alert| refusal_by_alert(*alert));
        if failure.may_pass() { refused().unwrap_or(failure) } else { failure }
    }
    /// True if this is the identity that was presented: a renewed one needs a new connection.
    pub(super) fn presented(&self, identity: Option<&Arc<LocalIdentity>>) -> bool {
        self.identity.as_ref().map(Arc::as_ptr) == identity.map(Arc::as_ptr)
    }
    /// True once the server has ended the connection with an alert.
    pub(super) fn was_refused(&self) -> bool {
        self.alert.get().is_some()
    }
}

/// Dials `addr` (`host:port`) once.
pub(super) async fn dial(addr: &str, tls: &ClientTls, timing: Timing) -> Result<Link, Failure> {
    let late = |_| Failure::unavailable("timed-out", format!("no answer within {:?}", timing.connect)).help(LOOK);
    timeout(timing.connect, establish(addr, tls, timing)).await.map_err(late)?
}

async fn establish(addr: &str, tls: &ClientTls, timing: Timing) -> Result<Link, Failure> {
    let unreachable = |e: io::Error| Failure::unavailable("unreachable", format!("cannot connect: {e}")).help(LOOK);
    let tcp = TcpStream::connect(addr).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let identity = tls.identity();
    let (stream, server) = tls.connect(tcp).await.map_err(|e| not_established(&e))?;
    let alert = LastAlert::default();
    let once = Arc::new(Mutex::new(Some(TokioIo::new(Io::new(stream, alert.clone())))));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            stream.ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the connection is closed")),
        )
    });
    // The scheme and the authority are never looked at: TLS is done, and names are not compared.
    let channel = Endpoint::from_static("http://holdfast")
        .http2_keep_alive_interval(timing.keep_alive)
        .keep_alive_timeout(timing.keep_alive_timeout)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|e| lost(&e))?;
    Ok(Link { channel, server, addr: addr.to_owned(), alert, identity })
}
