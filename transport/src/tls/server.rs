//! The server's half of a handshake: one gate per connection.
//!
//! The gate believes the chain, then has possession of the key proved, then enters the connection into the registry of
//! connections, and only then asks for admission. So a replayed certificate never reaches the registry of identities,
//! and a revocation either refuses the newcomer or finds its connection to close: there is no moment in between.

use super::{Alpn, Peer, PeerTls, TlsError, as_millis, certificate_error, chain, verify_handshake};
use super::{IdentityCell, PROVIDER, TrustCell};
use crate::server::{Connections, Registration};
use holdfast_pki::chain::{ChainError, Usage, read_leaf, verify_peer};
use holdfast_types::Millis;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, NoServerSessionStorage, ServerConfig};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Why a peer with a good certificate may not connect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Said in the server's log, not to the peer.
    #[error("{0}")]
    Unsaid(String),
    /// Its identity is gone for ever, which it is told: it asks by its key, then, what is signed about that.
    #[error("its identity was removed")]
    Removed,
}

/// Whether a peer may connect: the registry pin (protocol, registry pin), or the pins from the directory.
pub trait Admission: Send + Sync {
    /// Called in every handshake once the chain is believed and possession of the key is proved. Must not block.
    fn admit(&self, peer: &Peer, from: SocketAddr) -> Result<(), Refused>;
    /// Called for a leaf of our trust domain that has not ended at `now` and whose chain is not believed: whether its key is known
    /// all the same, so that it is believed as that key alone ([`Peer::has_path`] is then false). Must not block.
    fn knows_key(&self, _peer: &Peer, _now: Millis) -> bool {
        false
    }
}

/// How one listener does TLS.
pub struct ServerTls {
    identity: Arc<IdentityCell>,
    clients: Clients,
    alpn: Alpn,
}

#[derive(Clone)]
enum Clients {
    Anonymous,
    Pinned { trust: Arc<TrustCell>, admission: Arc<dyn Admission> },
    Voters(PeerTls),
}

/// How a gate believes a client.
enum Belief {
    Chain(Arc<TrustCell>, Arc<dyn Admission>),
    Voter(PeerTls),
}

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    #[error(transparent)]
    Setup(#[from] TlsError),
    #[error("handshake failed: {0}")]
    Handshake(#[from] std::io::Error),
    #[error("{peer} refused: {refused}")]
    Refused { peer: String, refused: Refused },
    #[error("the client did not name this listener's protocol")]
    Protocol,
}

impl ServerTls {
    /// Both sides present certificates, and `admission` has the last word on the client's.
    pub fn mutual(
        identity: Arc<IdentityCell>,
        trust: Arc<TrustCell>,
        admission: Arc<dyn Admission>,
        alpn: Alpn,
    ) -> Self {
        Self { identity, clients: Clients::Pinned { trust, admission }, alpn }
    }
    /// Only the server presents a certificate: the join listener, ALPN [`Alpn::Join`].
    pub fn server_only(identity: Arc<IdentityCell>) -> Self {
        Self { identity, clients: Clients::Anonymous, alpn: Alpn::Join }
    }
    /// The peer listener: the clients are voters, by their pinned keys.
    pub fn peers(tls: PeerTls) -> Self {
        Self { identity: tls.identity.clone(), clients: Clients::Voters(tls), alpn: Alpn::Peer }
    }

    /// Whether a connection may outlast the client's certificate.
    pub(crate) fn outlasts_certificates(&self) -> bool {
        matches!(self.clients, Clients::Voters(_))
    }

    /// A handshake. The registration ends with the connection and is a child of `listener`.
    pub(crate) async fn accept(
        &self,
        tcp: TcpStream,
        from: SocketAddr,
        connections: &Connections,
        listener: &CancellationToken,
    ) -> Result<(TlsStream<TcpStream>, Registration), AcceptError> {
        let belief = match &self.clients {
            Clients::Anonymous => {
                let stream = self.handshake(Arc::new(NoClientAuth), tcp).await?;
                return Ok((stream, connections.register(None, from, listener)));
            }
            Clients::Pinned { trust, admission } => Belief::Chain(trust.clone(), admission.clone()),
            Clients::Voters(tls) => Belief::Voter(tls.clone()),
        };
        let gate = Arc::new(Gate {
            belief,
            connections: connections.clone(),
            listener: listener.clone(),
            from,
            believed: OnceLock::new(),
            verdict: Mutex::new(None),
        });
        let shaken = self.handshake(gate.clone(), tcp).await;
        match (shaken, gate.verdict()) {
            (_, Some(Err(refused))) => Err(AcceptError::Refused { peer: gate.name(), refused }),
            (Ok(stream), Some(Ok(registration))) => Ok((stream, registration)),
            (Err(e), _) => Err(e),
            // Not reached: client authentication is mandatory, so a finished handshake has a verdict.
            (Ok(_), None) => Err(AcceptError::Protocol),
        }
    }

    async fn handshake(
        &self,
        gate: Arc<dyn ClientCertVerifier>,
        tcp: TcpStream,
    ) -> Result<TlsStream<TcpStream>, AcceptError> {
        let handshake = TlsAcceptor::from(Arc::new(self.config(gate)?)).accept(tcp).into_fallible();
        let stream = match handshake.await {
            Ok(stream) => stream,
            Err((error, tcp)) => {
                linger(tcp).await;
                return Err(error.into());
            }
        };
        // rustls lets a client pass that offers no protocol at all.
        if stream.get_ref().1.alpn_protocol() != Some(self.alpn.as_bytes()) {
            return Err(AcceptError::Protocol);
        }
        Ok(stream)
    }

    /// Made anew for each connection, because the gate is the connection's: microseconds, against a millisecond of
    /// handshake.
    fn config(&self, gate: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, TlsError> {
        let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(gate)
            .with_cert_resolver(self.identity.clone());
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        // A resumed session would skip the gate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// Longest time and most bytes for which a refused client is still listened to.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 10);

/// Lets a refused client read the alert. It believes the handshake done and is sending its first call; a socket that is
/// closed on unread bytes sends a reset, and a reset takes back the alert.
async fn linger(mut tcp: TcpStream) {
    let (time, bytes) = LINGER;
    let until_it_hangs_up = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(bytes), &mut tokio::io::sink()).await
    };
    if !matches!(timeout(time, until_it_hangs_up).await, Ok(Ok(_))) {
        tracing::trace!("a refused client did not hang up in order");
    }
}

/// Verifies the one client of one connection.
struct Gate {
    belief: Belief,
    connections: Connections,
    listener: CancellationToken,
    from: SocketAddr,
    believed: OnceLock<Peer>,
    verdict: Mutex<Option<Result<Registration, Refused>>>,
}

impl Gate {
    fn verdict(&self) -> Option<Result<Registration, Refused>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
    fn name(&self) -> String {
        self.believed.get().map_or_else(|| "a client".to_owned(), |p| p.id.short())
    }
    /// Registers first, then asks: see the file's head.
    fn judge(&self, peer: &Peer) -> Result<Registration, Refused> {
        let registration = self.connections.register(Some(peer.clone()), self.from, &self.listener);
        match &self.belief {
            Belief::Chain(_, admission) => admission.admit(peer, self.from)?,
            Belief::Voter(tls) if tls.still(peer) => {}
            Belief::Voter(_) => return Err(Refused::Unsaid("it is no voter any more".to_owned())),
        }
        Ok(registration)
    }
}

/// `access_denied` says no, not why; `certificate_revoked`, to whoever proved the key, that it is for ever.
fn alert(refused: &Refused) -> rustls::Error {
    rustls::Error::InvalidCertificate(match refused {
        Refused::Unsaid(_) => CertificateError::ApplicationVerificationFailure,
        Refused::Removed => CertificateError::Revoked,
    })
}

impl ClientCertVerifier for Gate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let (chain, now) = (chain(end_entity, intermediates), as_millis(now));
        let peer = match &self.belief {
            Belief::Chain(trust, admission) => {
                let trust = trust.current();
                let by_key = |e: ChainError| {
                    let peer = read_leaf(&chain, Usage::Client).ok();
                    let ours = |p: &Peer| p.id.trust_domain == *trust.trust_domain() && now < p.not_after;
                    peer.filter(|p| ours(p) && admission.knows_key(p, now)).ok_or(e)
                };
                verify_peer(&chain, &trust, now, Usage::Client).or_else(by_key).map_err(certificate_error)?
            }
            Belief::Voter(tls) => tls.believe(&chain, now, Usage::Client).map_err(certificate_error)?,
        };
        self.believed.get_or_init(|| peer);
        Ok(ClientCertVerified::assertion())
    }
    tls13_only!();
    /// The signature covers this handshake's transcript: possession is proved here, and admission asked for next.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let valid = verify_handshake(message, cert, dss)?;
        let peer = self.believed.get().ok_or(rustls::Error::NoCertificatesPresented)?;
        let verdict = self.judge(peer);
        let answer = verdict.as_ref().map(|_| valid).map_err(alert);
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        answer
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({})", self.from)
    }
}
