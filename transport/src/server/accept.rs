//! Taking connections in, within bounds, and serving them until told to stop.
//!
//! A client that does not finish its handshake in time is dropped, and so is one more of a source that has its share;
//! too many clients wait in the kernel's queue. Never serves a byte before the handshake is done.

use super::connections::Connections;
use super::io::Io;
use super::sources::{PerSource, Seat, Sources};
use crate::clock::now;
use crate::tls::ServerTls;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest handshake.
    pub handshake: Duration,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// Connections at a time, those in their handshake included.
    pub connections: usize,
    /// Of which one source address has at most so many.
    pub per_source: PerSource,
    /// Longest session; it ends earlier with the client's certificate.
    pub session: Duration,
    /// Calls at a time on one connection.
    pub streams: u32,
    /// How long calls may go on after the order to stop.
    pub drain: Duration,
    /// An idle connection is probed this often.
    pub keep_alive: Duration,
}
impl Default for Limits {
    /// Ten thousand nodes and their orchestrators, sessions of 1 h (protocol, transport rules). They may all be behind
    /// one address, so a source has its share of the handshakes alone: peers that have finished theirs are known.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            handshakes: 512,
            connections: 16_384,
            per_source: PerSource { connections: 16_384, handshakes: 256 },
            session: Duration::from_secs(3600),
            streams: 256,
            drain: Duration::from_secs(10),
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Serving ended by an error.
#[derive(Debug, thiserror::Error)]
#[error("serving {addr} failed: {source}")]
pub struct ServeError {
    addr: String,
    source: tonic::transport::Error,
}

/// Largest header block that a client may send; ours are under 1 KiB.
const MAX_HEADERS: u32 = 16 << 10;
/// How long a probe may stay unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed: without it, a process without file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `routes` on `listener` until `stop`; then lets running calls end for [`Limits::drain`], closes what is left
/// and returns. Connections are entered into `connections`.
pub async fn serve(
    listener: TcpListener,
    tls: ServerTls,
    routes: Routes,
    connections: Connections,
    limits: Limits,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let addr = listener.local_addr().map_or_else(|_| "a listener".to_owned(), |a| a.to_string());
    let (sender, receiver) = mpsc::channel(16);
    let everyone = CancellationToken::new();
    let door = Arc::new(Door {
        tls,
        connections,
        limits,
        stop: stop.clone(),
        everyone: everyone.clone(),
        shaking: Arc::new(Semaphore::new(limits.handshakes)),
        places: Arc::new(Semaphore::new(limits.connections)),
        sources: Sources::new(limits.per_source),
        sender,
    });
    let accepting = tokio::spawn(door.run(listener));
    let incoming =
        futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|io| (Ok::<_, std::io::Error>(io), r)) });
    let serving = Server::builder()
        .http2_keepalive_interval(Some(limits.keep_alive))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .max_concurrent_streams(limits.streams)
        .http2_max_header_list_size(MAX_HEADERS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    let end_of_patience = async {
        stop.cancelled().await;
        sleep(limits.drain).await;
        everyone.cancel();
        std::future::pending::<Infallible>().await
    };
    let served = tokio::select! {
        served = serving => served,
        never = end_of_patience => match never {},
    };
    everyone.cancel();
    accepting.abort();
    served.map_err(|source| ServeError { addr, source })
}

/// What the accept loop and its handshakes share.
struct Door {
    tls: ServerTls,
    connections: Connections,
    limits: Limits,
    stop: CancellationToken,
    everyone: CancellationToken,
    shaking: Arc<Semaphore>,
    places: Arc<Semaphore>,
    sources: Sources,
    sender: mpsc::Sender<Io>,
}

/// Room for one more connection.
struct Room {
    shaking: OwnedSemaphorePermit,
    place: OwnedSemaphorePermit,
}

impl Door {
    async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = async {
                let room = self.room().await?;
                Some((room, listener.accept().await))
            };
            let next = tokio::select! {
                () = self.stop.cancelled() => return,
                next = accepted => next,
            };
            match next {
                Some((room, Ok((tcp, from)))) => match self.sources.sit(from.ip()) {
                    Some(seat) => drop(tokio::spawn(self.clone().enter(tcp, from, room, seat))),
                    None => {
                        metrics::counter!("holdfast_connections_over_share_total").increment(1);
                        tracing::debug!(%from, "connection dropped: its source has enough of them");
                    }
                },
                Some((_, Err(error))) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                None => return,
            }
        }
    }

    /// Waits for room; `None` only if the listener is gone.
    async fn room(&self) -> Option<Room> {
        let place = self.places.clone().acquire_owned().await.ok()?;
        let shaking = self.shaking.clone().acquire_owned().await.ok()?;
        Some(Room { shaking, place })
    }

    async fn enter(self: Arc<Self>, tcp: TcpStream, from: SocketAddr, room: Room, mut seat: Seat) {
        let Room { shaking, place } = room;
        let handshake = timeout(self.limits.handshake, async {
            tcp.set_nodelay(true)?;
            self.tls.accept(tcp, from, &self.connections, &self.everyone).await
        });
        let shaken = tokio::select! {
            () = self.stop.cancelled() => return,
            shaken = handshake => shaken,
        };
        drop(shaking);
        seat.shaken();
        let (stream, registration) = match shaken {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                metrics::counter!("holdfast_handshakes_refused_total").increment(1);
                return tracing::info!(%from, %error, "connection refused");
            }
            Err(_) => {
                metrics::counter!("holdfast_handshakes_timed_out_total").increment(1);
                return tracing::debug!(%from, "handshake timed out");
            }
        };
        let bound = registration.conn.peer.as_ref().filter(|_| !self.tls.outlasts_certificates());
        let left = bound.map(|p| p.not_after.since(now()));
        let session = left.unwrap_or(Duration::MAX).min(self.limits.session);
        let io = Io::new(stream, registration, session, (place, seat));
        if self.sender.send(io).await.is_err() {
            tracing::debug!(%from, "connection dropped: the listener is stopping");
        }
    }
}
