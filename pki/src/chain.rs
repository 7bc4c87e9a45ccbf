//! When a peer's certificate chain is believed.
//!
//! Signatures, validity, basic constraints and path building are webpki's. Checked here, because webpki does not:
//! the validity of roots, serial 0, CAs that may not sign certificates and leaves that may, the leaf's kind of key, and that
//! the leaf has our one name. Whether the
//! certificate is *the* one in the registry is the caller's question (protocol, registry pin).

use crate::facts::{CertError, Facts, usage};
use crate::issue::cluster_of_root;
use crate::keys::SubjectKey;
use crate::names::{self, NameError};
use holdfast_types::{ClusterId, Digest, Millis, Role, SpiffeId, TrustDomain, sha256};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

/// Most certificates in a chain: leaf, issuer, what certifies the issuer's root, and the roots that a join token may name.
pub const MAX_CHAIN: usize = 10;

/// What the peer is in this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// It dialled us: its leaf needs clientAuth.
    Client,
    /// We dialled it: its leaf needs serverAuth.
    Server,
}

/// Why a chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No certificate at all.
    #[error("no certificate was presented")]
    Empty,
    /// More than [`MAX_CHAIN`] certificates.
    #[error("{0} certificates were presented, at most {MAX_CHAIN} are allowed")]
    TooDeep(usize),
    /// One of them cannot be read.
    #[error("certificate {index} of the chain: {error}")]
    Cert {
        /// Position in the chain, the leaf is 0.
        index: usize,
        /// What is wrong with it.
        error: CertError,
    },
    /// A trusted root cannot be used as one.
    #[error("a trusted root is not a CA certificate that can be read")]
    BadRoot,
    /// The set of trusted roots is empty.
    #[error("there is no trusted root")]
    NoRoot,
    /// Every trusted root is expired or not yet valid.
    #[error("no trusted root is valid now")]
    NoLiveRoot {
        /// How far the nearest root's validity is from now.
        off: Duration,
    },
    /// A serial number is zero.
    #[error("a certificate in the chain has serial number 0")]
    ZeroSerial,
    /// The leaf is a CA or may sign certificates.
    #[error("the leaf may sign certificates")]
    LeafIsCa,
    /// The leaf may not sign, so it cannot authenticate a handshake.
    #[error("the leaf's key usage is not digitalSignature")]
    LeafKeyUsage,
    /// The leaf has no usable name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The leaf belongs to another cluster.
    #[error("the certificate is for trust domain {0}, not for ours")]
    TrustDomain(TrustDomain),
    /// The leaf's extended key usage does not allow this use.
    #[error("the certificate may not be used as a {0}")]
    Usage(&'static str),
    /// A certificate on the path is over.
    #[error("a certificate in the chain expired at {not_after}")]
    Expired {
        /// Its end.
        not_after: Millis,
    },
    /// A certificate on the path has not begun.
    #[error("a certificate in the chain is not valid before {not_before}")]
    NotYetValid {
        /// Its begin.
        not_before: Millis,
    },
    /// No path leads to a trusted root.
    #[error("the chain does not lead to a trusted root")]
    UnknownIssuer,
    /// A signature on the path is wrong.
    #[error("a signature in the chain does not verify")]
    BadSignature,
    /// More CAs below a CA than it allows.
    #[error("the chain is longer than a CA in it allows")]
    PathLength,
    /// A certificate on the path that signs others is not a CA.
    #[error("a certificate in the chain signs others and is not a CA")]
    NotCa,
    /// A key or a signature that is never used here: RSA, another curve, a compressed point, another hash.
    #[error("a certificate in the chain has a key or a signature that is neither ECDSA P-256 with SHA-256 nor Ed25519")]
    WeakKey,
    /// A critical extension that is not understood.
    #[error("a certificate in the chain has a critical extension that is not understood")]
    CriticalExtension,
    /// Anything else that webpki refuses.
    #[error("the chain was refused: {0}")]
    Path(webpki::Error),
    /// No certificate of the chain is the root that the join anchor names.
    #[error("the server did not present the root that the join token names")]
    Anchor,
    /// The server is not a vault voter.
    #[error("the server is {0}, not a vault voter")]
    NotVault(Role),
}

impl ChainError {
    /// How far the clock is at least from a time at which the chain would be believed; `None` if time is not what is
    /// wrong with it.
    pub fn off_by(&self, now: Millis) -> Option<Duration> {
        if let Self::Expired { not_after } = self {
            Some(now.since(*not_after))
        } else if let Self::NotYetValid { not_before } = self {
            Some(not_before.since(now))
        } else if let Self::NoLiveRoot { off } = self {
            Some(*off)
        } else {
            None
        }
    }
}

/// One trusted root.
#[derive(Clone)]
struct Root {
    anchor: TrustAnchor<'static>,
    facts: Facts,
    sha256: Digest,
}
impl Root {
    fn read(der: &[u8]) -> Result<Self, ChainError> {
        let facts = Facts::read(der).map_err(|_| ChainError::BadRoot)?;
        if !facts.ca || facts.key_usage & usage::KEY_CERT_SIGN == 0 {
            return Err(ChainError::BadRoot);
        }
        let cert = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&cert).map_err(|_| ChainError::BadRoot)?.to_owned();
        Ok(Self { anchor, facts, sha256: sha256(&[der]) })
    }
}

/// The roots that a verifier trusts, and the trust domain it lives in. Never empty.
#[derive(Clone)]
pub struct Anchors {
    roots: Vec<Root>,
    trust_domain: TrustDomain,
}
impl Anchors {
    /// From DER certificates.
    pub fn new<D: AsRef<[u8]>>(roots_der: &[D], trust_domain: TrustDomain) -> Result<Self, ChainError> {
        let roots = roots_der.iter().map(|d| Root::read(d.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() { Err(ChainError::NoRoot) } else { Ok(Self { roots, trust_domain }) }
    }
    /// The trust domain that leaves must be in.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

/// A peer whose chain was believed. Its registry pin has not been looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: SpiffeId,
    /// The leaf's serial number, lower-case hex without leading zero bytes.
    pub serial_hex: String,
    /// `H(SubjectPublicKeyInfo)` of the leaf.
    pub spki_sha256: Digest,
    /// When the leaf ends.
    pub not_after: Millis,
    /// The leaf.
    pub leaf_der: Vec<u8>,
    /// `H` of the trusted root that the path ends in; zeros where the key was known and no path was asked for.
    pub root_sha256: Digest,
}

impl Peer {
    /// True if a path to a trusted root was asked for and found.
    pub fn has_path(&self) -> bool {
        self.root_sha256 != Digest([0; 32])
    }
}

/// Believes `chain` (leaf first) as a peer of `anchors`' trust domain, at `now`, for `usage`.
pub fn verify_peer(
    chain: &[CertificateDer<'_>],
    anchors: &Anchors,
    now: Millis,
    usage: Usage,
) -> Result<Peer, ChainError> {
    let peer = verify(chain, &anchors.roots, now, usage)?;
    if peer.id.trust_domain != anchors.trust_domain {
        return Err(ChainError::TrustDomain(peer.id.trust_domain));
    }
    Ok(peer)
}

/// Who the leaf of `chain` (leaf first) says it is. Nothing of it is believed, neither issuers nor times are looked at: only
/// for a caller that knows the leaf's key and has possession of it proved, such as voters among themselves.
pub fn read_leaf(chain: &[CertificateDer<'_>], usage: Usage) -> Result<Peer, ChainError> {
    if chain.len() > MAX_CHAIN {
        return Err(ChainError::TooDeep(chain.len()));
    }
    let der = chain.first().ok_or(ChainError::Empty)?;
    let leaf = Facts::read(der).map_err(|error| ChainError::Cert { index: 0, error })?;
    let id = leaf_identity(&leaf, usage)?;
    Ok(Peer {
        id,
        serial_hex: leaf.serial_hex(),
        spki_sha256: sha256(&[&leaf.spki]),
        not_after: leaf.not_after,
        leaf_der: der.to_vec(),
        root_sha256: Digest([0; 32]),
    })
}

/// The serial number of a certificate, lower-case hex without leading zero bytes; `None` if it cannot be read.
pub fn serial_of(der: &[u8]) -> Option<String> {
    Facts::read(der).ok().map(|f| f.serial_hex())
}

/// Believes `chain` as that of a vault voter of the cluster that `anchor` names (protocol, join handshake).
///
/// The root in the chain says which cluster it belongs to, the anchor commits to root and cluster together; so a wrong
/// root and a wrong cluster id are both refused. The trust domain is learnt here, not checked: the caller compares it
/// with the charter's.
pub fn verify_by_anchor(
    chain: &[CertificateDer<'_>],
    anchor: &Digest,
    now: Millis,
) -> Result<(ClusterId, Peer), ChainError> {
    if chain.len() > MAX_CHAIN {
        return Err(ChainError::TooDeep(chain.len()));
    }
    let (cluster, root) = chain
        .iter()
        .find_map(|der| cluster_of_root(der).filter(|c| c.anchor(der) == *anchor).map(|c| (c, der)))
        .ok_or(ChainError::Anchor)?;
    let peer = verify(chain, &[Root::read(root)?], now, Usage::Server)?;
    if peer.id.role != Role::Vault {
        return Err(ChainError::NotVault(peer.id.role));
    }
    Ok((cluster, peer))
}

fn verify(chain: &[CertificateDer<'_>], roots: &[Root], now: Millis, usage: Usage) -> Result<Peer, ChainError> {
    if chain.len() > MAX_CHAIN {
        return Err(ChainError::TooDeep(chain.len()));
    }
    let facts = chain
        .iter()
        .enumerate()
        .map(|(index, der)| Facts::read(der).map_err(|error| ChainError::Cert { index, error }))
        .collect::<Result<Vec<_>, _>>()?;
    let (Some((leaf_der, above)), Some(leaf)) = (chain.split_first(), facts.first()) else {
        return Err(ChainError::Empty);
    };
    if facts.iter().any(|f| f.serial.is_empty()) {
        return Err(ChainError::ZeroSerial);
    }
    if facts.iter().skip(1).any(|f| f.ca && f.key_usage & usage::KEY_CERT_SIGN == 0) {
        return Err(ChainError::NotCa);
    }
    // A root is an anchor or nothing: it is served for joining machines, and no path leads over it. Without this, the path
    // builder tries every order of them, and an old one's expiry passes for what is wrong with the chain.
    let above: Vec<CertificateDer<'_>> = above
        .iter()
        .zip(facts.iter().skip(1))
        .filter(|(_, f)| !f.is_root())
        .map(|(der, _)| CertificateDer::from(der.as_ref()))
        .collect();
    let root_sha256 = path(leaf_der, &above, roots, now, usage)?;
    let id = leaf_identity(leaf, usage)?;
    Ok(Peer {
        id,
        serial_hex: leaf.serial_hex(),
        spki_sha256: sha256(&[&leaf.spki]),
        not_after: leaf.not_after,
        leaf_der: leaf_der.to_vec(),
        root_sha256,
    })
}

/// What the leaf itself must say.
fn leaf_identity(leaf: &Facts, wanted: Usage) -> Result<SpiffeId, ChainError> {
    if leaf.ca || leaf.key_usage & usage::KEY_CERT_SIGN != 0 {
        return Err(ChainError::LeafIsCa);
    }
    if leaf.key_usage & usage::DIGITAL_SIGNATURE == 0 {
        return Err(ChainError::LeafKeyUsage);
    }
    // webpki accepts a leaf without any extended key usage; ours always say what they are for.
    match wanted {
        Usage::Client if !leaf.client_auth => return Err(ChainError::Usage("client")),
        Usage::Server if !leaf.server_auth => return Err(ChainError::Usage("server")),
        Usage::Client | Usage::Server => {}
    }
    SubjectKey::from_spki(&leaf.spki).map_err(|_| ChainError::WeakKey)?;
    Ok(names::identity(leaf)?)
}

/// Builds and checks the path; the digest of the root that it ends in.
///
/// LAW: INV8, an expired root anchors nothing (test `an_expired_root_anchors_nothing`).
fn path(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    roots: &[Root],
    now: Millis,
    usage: Usage,
) -> Result<Digest, ChainError> {
    let live: Vec<&Root> = roots.iter().filter(|r| r.facts.valid_at(now)).collect();
    if live.is_empty() {
        let off = |r: &Root| now.since(r.facts.not_after).max(r.facts.not_before.since(now));
        return Err(ChainError::NoLiveRoot { off: roots.iter().map(off).min().unwrap_or_default() });
    }
    let anchors: Vec<TrustAnchor<'_>> = live.iter().map(|r| r.anchor.clone()).collect();
    let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.secs()).unwrap_or(0)));
    let wanted = match usage {
        Usage::Client => webpki::KeyUsage::client_auth(),
        Usage::Server => webpki::KeyUsage::server_auth(),
    };
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|e| refusal(e, usage))?;
    let found = leaf
        .verify_for_usage(&[ECDSA_P256_SHA256], &anchors, above, time, wanted, None, None)
        .map_err(|e| refusal(e, usage))?;
    let spki = &found.anchor().subject_public_key_info;
    live.iter().find(|r| r.anchor.subject_public_key_info == *spki).map(|r| r.sha256).ok_or(ChainError::UnknownIssuer)
}

fn millis(t: UnixTime) -> Millis {
    Millis(0).plus(Duration::from_secs(t.as_secs()))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "webpki's errors are open-ended; the rest is passed on whole")]
fn refusal(e: webpki::Error, usage: Usage) -> ChainError {
    use webpki::Error as E;
    match e {
        E::CertExpired { not_after, .. } => ChainError::Expired { not_after: millis(not_after) },
        E::CertNotValidYet { not_before, .. } => ChainError::NotYetValid { not_before: millis(not_before) },
        E::UnknownIssuer => ChainError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => ChainError::BadSignature,
        E::PathLenConstraintViolated => ChainError::PathLength,
        E::EndEntityUsedAsCa => ChainError::NotCa,
        E::CaUsedAsEndEntity => ChainError::LeafIsCa,
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            ChainError::WeakKey
        }
        E::UnsupportedCriticalExtension => ChainError::CriticalExtension,
        E::InvalidSerialNumber => ChainError::ZeroSerial,
        E::RequiredEkuNotFoundContext(_) => ChainError::Usage(match usage {
            Usage::Client => "client",
            Usage::Server => "server",
        }),
        other => ChainError::Path(other),
    }
}
