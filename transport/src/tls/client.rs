//! The client's half of a handshake: whom we expect to reach, and what we then know of them.
//!
//! In TLS 1.3 the client verifies the server before it sends its own last message, so nothing of the application, and
//! no join token, ever reaches a server that was not believed.

use super::{Alpn, IdentityCell, LocalIdentity, PROVIDER, Peer, PeerTls, TlsError, TrustCell, voter_number};
use super::{as_millis, certificate_error, chain, verify_handshake};
use holdfast_pki::chain::{ChainError, Usage, read_leaf, verify_by_anchor, verify_peer};
use holdfast_types::{ClusterId, Digest, Millis, Role, SpiffeId};
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Who must answer. Hosts and ports prove nothing, so no DNS name and no address is ever compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anybody of this role in our trust domain.
    Role(Role),
    /// Exactly this one.
    Id(SpiffeId),
}

/// What the handshake proved about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// The server's certificate.
    pub peer: Peer,
    /// The cluster, as learnt from its root; only when the server was found by an anchor.
    pub cluster: Option<ClusterId>,
}

/// How one kind of connection is dialled.
#[derive(Debug, Clone)]
pub struct ClientTls {
    identity: Arc<IdentityCell>,
    belief: Belief,
    alpn: Alpn,
}

#[derive(Debug, Clone)]
enum Belief {
    Roots(Arc<TrustCell>, Expect),
    Anchor(Digest),
    Voter(PeerTls, u64),
    /// Whoever answers; see [`ClientTls::unproven`].
    Nothing,
}

/// Why the other side is not believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Disbelief {
    /// Whatever else is right with it, its certificates are of another time than this machine's.
    #[error("this machine's clock says {now}, but {error}")]
    Clock { now: Millis, off: Duration, error: ChainError },
    #[error(transparent)]
    Chain(ChainError),
    #[error("expected {expected}, found {found}")]
    NotExpected { expected: String, found: String },
    #[error("{found}: {why}")]
    NotPinned { found: String, why: String },
}

impl Disbelief {
    /// A clock that is off is said before what follows from it.
    pub(super) fn of(error: ChainError, now: Millis) -> Self {
        match error.off_by(now) {
            Some(off) => Self::Clock { now, off, error },
            None => Self::Chain(error),
        }
    }
}

impl ClientTls {
    /// Both sides present certificates; the server's must lead to a root in `trust` and be who is expected.
    pub fn mutual(identity: Arc<IdentityCell>, trust: Arc<TrustCell>, expect: Expect, alpn: Alpn) -> Self {
        Self { identity, belief: Belief::Roots(trust, expect), alpn }
    }
    /// To the join listener, without a certificate of our own: the server must be a vault voter of the cluster that
    /// `anchor` names (protocol, join handshake).
    pub fn join(anchor: Digest) -> Self {
        Self { identity: IdentityCell::empty(), belief: Belief::Anchor(anchor), alpn: Alpn::Join }
    }
    /// To the join listener of a cluster whose roots are known: rejoin and login.
    pub fn rejoin(trust: Arc<TrustCell>) -> Self {
        let belief = Belief::Roots(trust, Expect::Role(Role::Vault));
        Self { identity: IdentityCell::empty(), belief, alpn: Alpn::Join }
    }
    /// To the join listener of anybody at all: nothing about the server is believed, whatever certificate it shows. For one call
    /// alone, `Join/Trust`, by whoever trusts no root any more since its cluster began a new era: nothing secret is sent over it,
    /// and of the answer only signatures up to the charter that is held count ([`ask_trust`](crate::join::ask_trust)).
    pub fn unproven() -> Self {
        Self { identity: IdentityCell::empty(), belief: Belief::Nothing, alpn: Alpn::Join }
    }
    /// To voter `id`'s peer listener.
    pub fn peer(tls: PeerTls, id: u64) -> Self {
        Self { identity: tls.identity.clone(), belief: Belief::Voter(tls, id), alpn: Alpn::Peer }
    }

    /// What the next handshake presents.
    pub(crate) fn identity(&self) -> Option<Arc<LocalIdentity>> {
        self.identity.current()
    }

    /// A handshake over `tcp`.
    pub(crate) async fn connect(&self, tcp: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Server)> {
        let judge = Arc::new(Judge { belief: self.belief.clone(), server: OnceLock::new() });
        let config = self.config(judge.clone()).map_err(std::io::Error::other)?;
        // An address as the server's name: names are not compared, and no SNI is sent for an address.
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let no_protocol = || std::io::Error::other("the server did not name the listener's protocol");
        if stream.get_ref().1.alpn_protocol() != Some(self.alpn.as_bytes()) {
            return Err(no_protocol());
        }
        let server = judge.server.get().cloned().ok_or_else(no_protocol)?;
        Ok((stream, server))
    }

    fn config(&self, judge: Arc<Judge>) -> Result<ClientConfig, TlsError> {
        let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(judge)
            .with_client_cert_resolver(self.identity.clone());
        config.alpn_protocols = vec![self.alpn.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(config)
    }
}

/// Verifies the one server of one connection.
#[derive(Debug)]
struct Judge {
    belief: Belief,
    server: OnceLock<Server>,
}

impl Judge {
    fn believe(&self, chain: &[CertificateDer<'_>], now: Millis) -> Result<Server, Disbelief> {
        let timely = |error: ChainError| Disbelief::of(error, now);
        match &self.belief {
            Belief::Anchor(anchor) => {
                let (cluster, peer) = verify_by_anchor(chain, anchor, now).map_err(timely)?;
                Ok(Server { peer, cluster: Some(cluster) })
            }
            Belief::Roots(trust, expect) => {
                let peer = verify_peer(chain, &trust.current(), now, Usage::Server).map_err(timely)?;
                let (met, expected) = match expect {
                    Expect::Role(role) => (peer.id.role == *role, role.to_string()),
                    Expect::Id(id) => (peer.id == *id, id.short()),
                };
                if met {
                    Ok(Server { peer, cluster: None })
                } else {
                    Err(Disbelief::NotExpected { expected, found: peer.id.short() })
                }
            }
            Belief::Nothing => {
                let peer = read_leaf(chain, Usage::Server).map_err(Disbelief::Chain)?;
                Ok(Server { peer, cluster: None })
            }
            Belief::Voter(tls, id) => {
                let peer = tls.believe(chain, now, Usage::Server)?;
                if voter_number(&peer.id) == Some(*id) {
                    Ok(Server { peer, cluster: None })
                } else {
                    Err(Disbelief::NotExpected { expected: format!("vault/{id}"), found: peer.id.short() })
                }
            }
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let server = self.believe(&chain(end_entity, intermediates), as_millis(now)).map_err(certificate_error)?;
        self.server.get_or_init(|| server);
        Ok(ServerCertVerified::assertion())
    }
    tls13_only!();
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_handshake(message, cert, dss)
    }
}
