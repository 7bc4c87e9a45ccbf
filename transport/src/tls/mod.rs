//! TLS as Holdfast speaks it (protocol, transport rules): version 1.3 only, key exchange X25519MLKEM768 only,
//! AES-256-GCM or ChaCha20-Poly1305, no tickets, no resumption, no early data.
//!
//! * `identity` and `trust`: what we present and whom we believe, in cells that are swapped under running connections;
//! * `server`: one gate per connection, which proves possession before it asks for admission;
//! * `client`: whom we expect to reach, by role, by name, or by a join token's anchor;
//! * [`peers`]: voters among themselves, by pinned keys.
//!
//! Never offers anything weaker, and has no switch that could.

/// What every verifier of ours answers alike, inside its `impl`: TLS 1.2 is not offered, so its signatures are never asked
/// about, and were they, the answer is no; certificates are signed by the two kinds of key that the vault certifies.
macro_rules! tls13_only {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered))
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256, rustls::SignatureScheme::ED25519]
        }
    };
}

mod client;
mod identity;
pub mod peers;
mod server;

use client::Disbelief;
pub use client::{ClientTls, Expect, Server};
pub use identity::{IdentityCell, IdentityError, LocalIdentity, TrustCell};
use peers::{PeerTls, voter_number};
pub use server::{Admission, Refused, ServerTls};

pub use holdfast_pki::chain::Peer;

use crate::failure::Failure;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// A listener's protocol name (RFC 7301): a client of one listener is not understood by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// The vault's listener J: server authentication only.
    Join,
    /// The vault's listener S.
    Service,
    /// The vault's listener P, among voters.
    Peer,
    /// An orchestrator's listener.
    Orchestrator,
}
impl Alpn {
    /// The name as it is sent.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Join => b"hf-j/1",
            Self::Service => b"hf-s/1",
            Self::Peer => b"hf-p/1",
            Self::Orchestrator => b"hf-o/1",
        }
    }
}

/// The TLS library does not support what we require.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS: {0}")]
pub struct TlsError(#[from] rustls::Error);

/// The only cryptography that is offered or accepted. LAW: exactly one key exchange group (test
/// `a_client_with_another_key_exchange_is_refused`).
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    })
});

fn verify_handshake(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
    rustls::crypto::verify_tls13_signature(message, cert, signed, &PROVIDER.signature_verification_algorithms)
}

fn as_millis(now: UnixTime) -> holdfast_types::Millis {
    holdfast_types::Millis(0).plus(Duration::from_secs(now.as_secs()))
}

/// The chain as sent, leaf first.
fn chain<'a>(leaf: &'a CertificateDer<'_>, above: &'a [CertificateDer<'_>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(above).map(|c| CertificateDer::from(c.as_ref())).collect()
}

/// An error of ours inside rustls's; its alert is `certificate_unknown`.
fn certificate_error(e: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(e))))
}

/// A handshake that failed on our side or before the server had seen our certificate, in our words. An alert is not
/// authenticated here, so it is never taken for a refusal.
#[expect(clippy::wildcard_enum_match_arm, reason = "rustls's errors are open-ended; all others are broken connections")]
pub(crate) fn failure_of(e: &rustls::Error) -> Failure {
    match e {
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            Failure::failed("wrong-listener", "the address belongs to another listener").help("check host and port")
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            if let Some(Disbelief::Clock { off, .. }) = other.0.downcast_ref::<Disbelief>() {
                return crate::clock::differs(*off, &other.to_string());
            }
            Failure::refused("server-not-trusted", format!("the server is not who it should be: {other}"))
                .help("check the address, and that the join token or the stored trust is of this cluster")
        }
        _ => Failure::unavailable("handshake-failed", format!("the TLS handshake failed: {e}")),
    }
}

/// What the server's alert says about our certificate, after a handshake that was done for us: with TLS 1.3 the server
/// judges the client last, so its no arrives with the first call.
#[expect(clippy::wildcard_enum_match_arm, reason = "the list of alerts is open; all others are broken connections")]
pub(crate) fn refusal_by_alert(alert: AlertDescription) -> Option<Failure> {
    match alert {
        AlertDescription::AccessDenied => Some(
            Failure::refused("identity-refused", "the server knows this certificate's name but does not accept it")
                .help("the identity was removed, quarantined, or has a newer certificate; ask `holdfast node inspect`"),
        ),
        AlertDescription::CertificateRevoked => Some(
            Failure::refused("certificate-refused", "the server has revoked this identity's certificates for ever")
                .help("it was removed: the machine joins again, with an empty state directory and a new token"),
        ),
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::UnknownCA => {
            Some(Failure::refused("certificate-refused", "the server does not believe this certificate").help(
                "it may have expired or come from another cluster: compare the two clocks, renew it or join again",
            ))
        }
        _ => None,
    }
}
