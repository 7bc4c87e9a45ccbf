//! What we present and whom we believe: values in cells, swapped while connections run.
//!
//! A swap reaches every handshake that begins after it; connections that are open live on. Ending those is the
//! business of [`crate::server::Connections`].

use crate::keys::{KeyError, PrivateKey};
use arc_swap::{ArcSwap, ArcSwapOption};
use holdfast_pki::chain::Anchors;
use holdfast_pki::names::{CertNameError, identity_of_cert};
use holdfast_types::{Digest, Millis, SpiffeId};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a chain and a key are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No certificate at all.
    #[error("the identity has no certificate")]
    Empty,
    /// The leaf does not name us.
    #[error("the identity's certificate: {0}")]
    Name(#[from] CertNameError),
    /// The leaf is for another key.
    #[error("the certificate is for another key than the one stored")]
    KeyMismatch,
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A certificate chain with its private key. Immutable; a renewal makes a new one.
pub struct LocalIdentity {
    certified: Arc<CertifiedKey>,
    id: SpiffeId,
    spki_sha256: Digest,
    not_before: Millis,
    not_after: Millis,
}

impl LocalIdentity {
    /// From DER certificates, leaf first, and the leaf's key. Whether the chain leads to a trusted root is not asked.
    pub fn new(chain: &[Vec<u8>], key: &PrivateKey) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Empty)?;
        let id = identity_of_cert(leaf)?;
        let (_, cert) = X509Certificate::from_der(leaf).map_err(|_| IdentityError::Empty)?;
        if cert.public_key().raw != key.spki_der() {
            return Err(IdentityError::KeyMismatch);
        }
        let seconds = |s: i64| Millis(s.saturating_mul(1000));
        let validity = cert.validity();
        let (not_before, not_after) =
            (seconds(validity.not_before.timestamp()), seconds(validity.not_after.timestamp()));
        let certs = chain.iter().map(|c| CertificateDer::from(c.clone())).collect();
        let certified = Arc::new(CertifiedKey::new(certs, key.tls_signer()?));
        Ok(Self { certified, id, spki_sha256: key.spki_sha256(), not_before, not_after })
    }
    /// Who we are.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }
    /// `H(SubjectPublicKeyInfo)` of our key.
    pub fn spki_sha256(&self) -> Digest {
        self.spki_sha256
    }
    /// Start of the leaf's validity.
    pub fn not_before(&self) -> Millis {
        self.not_before
    }
    /// End of the leaf's validity.
    pub fn not_after(&self) -> Millis {
        self.not_after
    }
    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

impl std::fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalIdentity({} until {})", self.id, self.not_after)
    }
}

/// The identity that handshakes present from now on; empty until there is one.
#[derive(Debug, Default)]
pub struct IdentityCell(ArcSwapOption<LocalIdentity>);
impl IdentityCell {
    /// A cell that holds `identity`.
    pub fn new(identity: LocalIdentity) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(identity)))
    }
    /// A cell without an identity: servers refuse every handshake, clients present nothing.
    pub fn empty() -> Arc<Self> {
        Arc::default()
    }
    /// The identity now.
    pub fn current(&self) -> Option<Arc<LocalIdentity>> {
        self.0.load_full()
    }
    /// Presents `identity` in every handshake from now on.
    pub fn swap(&self, identity: LocalIdentity) {
        self.0.store(Some(Arc::new(identity)));
    }
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|i| i.certified.clone())
    }
}
impl ResolvesServerCert for IdentityCell {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
}
impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.certified()
    }
    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// The roots that handshakes believe from now on. Never empty; expired roots in it anchor nothing.
pub struct TrustCell(ArcSwap<Anchors>);
impl TrustCell {
    /// A cell that holds `anchors`.
    pub fn new(anchors: Anchors) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(anchors)))
    }
    /// The roots now.
    pub fn current(&self) -> Arc<Anchors> {
        self.0.load_full()
    }
    /// Believes `anchors`, and nothing else, in every handshake from now on.
    pub fn swap(&self, anchors: Anchors) {
        self.0.store(Arc::new(anchors));
    }
}
impl std::fmt::Debug for TrustCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrustCell({})", self.current().trust_domain())
    }
}
