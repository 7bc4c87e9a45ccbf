//! Printable secrets: join tokens, unlock keys, recovery keys. Greppable, checksummed, double-click selectable.
//!
//! ```text
//! hf_join_v1_<r>_<body><crc>    r = n (node), o (orchestrator), v (voter); body = crockford32(token_id[8] ‖ anchor[32] ‖ secret[20])
//! hf_unlock_v1_<body><crc>      body = crockford32(key[32])      hf_recovery_v1_… alike
//! hf_share_v1_<body><crc>       see `share`
//! crc = crockford32(CRC-32 of everything before it): for typing errors and scanners, not for security
//! ```
//! A scanner finds them by `hf_(join|unlock|share|recovery)_v1_[0-9a-z_]{40,}`.

use data_encoding::{Encoding, Specification};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use holdfast_types::{Digest, Secret, TokenId, kind, sha256};
use sha2::Sha256;
use std::sync::LazyLock;
use zeroize::{Zeroize as _, Zeroizing};

/// Why a text is not a token or key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text does not start with the expected prefix.
    #[error("this is no {0}: it must start with {1}")]
    Prefix(&'static str, &'static str),
    /// A role letter other than n, o, v.
    #[error("join token of an unknown role")]
    Role,
    /// Characters outside the alphabet, or the wrong length.
    #[error("token has a wrong length or a character that does not belong there; copy it again, whole")]
    Shape,
    /// The checksum does not match.
    #[error("token has a typing error (checksum does not match); copy it again, whole")]
    Checksum,
}

/// For which role a join token admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRole {
    /// A node agent.
    Node,
    /// An orchestrator.
    Orchestrator,
    /// A vault voter.
    Voter,
}
impl TokenRole {
    /// `node`, `orchestrator` or `voter`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Orchestrator => "orchestrator",
            Self::Voter => "voter",
        }
    }
    /// From its name.
    pub fn parse(s: &str) -> Option<Self> {
        [Self::Node, Self::Orchestrator, Self::Voter].into_iter().find(|r| r.as_str() == s)
    }
    fn letter(self) -> &'static str {
        match self {
            Self::Node => "n",
            Self::Orchestrator => "o",
            Self::Voter => "v",
        }
    }
}

/// A join token: which cluster to trust, and the secret that admits one identity.
pub struct JoinToken {
    /// The role it admits.
    pub role: TokenRole,
    /// Its public id.
    pub id: TokenId,
    /// Pins the CA root and the cluster's name.
    pub anchor: Digest,
    /// Proves possession; never crosses the wire.
    pub secret: Secret<kind::TokenSecret, 20>,
}

// Crockford's base 32 in lower case: no i, l, o, u. Letters that people confuse are read as what they look like.
static BASE32: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut s = Specification::new();
    s.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    s.encoding().ok()
});

pub(crate) fn b32(bytes: &[u8]) -> String {
    BASE32.as_ref().map(|e| e.encode(bytes)).unwrap_or_default()
}
pub(crate) fn unb32(s: &str) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    let e = BASE32.as_ref().ok_or(TokenError::Shape)?;
    e.decode(s.as_bytes()).map(Zeroizing::new).map_err(|_| TokenError::Shape)
}

pub(crate) fn with_checksum(mut text: String) -> Zeroizing<String> {
    let crc = crc32fast::hash(text.as_bytes());
    text.push_str(&b32(&crc.to_be_bytes()));
    Zeroizing::new(text)
}

/// Characters of the checksum: 32 bits in base 32.
const CRC_LEN: usize = 7;

pub(crate) fn without_checksum(text: &str) -> Result<&str, TokenError> {
    if !text.is_ascii() || text.len() <= CRC_LEN || text.len() > 256 {
        return Err(TokenError::Shape);
    }
    let (head, crc) = text.split_at(text.len() - CRC_LEN);
    if unb32(crc)?.as_slice() == crc32fast::hash(head.as_bytes()).to_be_bytes() {
        Ok(head)
    } else {
        Err(TokenError::Checksum)
    }
}

impl JoinToken {
    /// The printable token, one word.
    pub fn print(&self) -> Zeroizing<String> {
        let body = Zeroizing::new([self.id.0.as_slice(), &self.anchor.0, self.secret.expose()].concat());
        with_checksum(format!("hf_join_v1_{}_{}", self.role.letter(), b32(&body)))
    }
    /// Parses a printed token; white space around it is ignored.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text.strip_prefix("hf_join_v1_").ok_or(TokenError::Prefix("join token", "hf_join_v1_"))?;
        let head = without_checksum(text)?;
        let body = head.get(text.len() - rest.len()..).ok_or(TokenError::Shape)?;
        let (role, body) = body.split_once('_').ok_or(TokenError::Shape)?;
        let role = match role {
            "n" => TokenRole::Node,
            "o" => TokenRole::Orchestrator,
            "v" => TokenRole::Voter,
            _ => return Err(TokenError::Role),
        };
        let raw = unb32(body)?;
        let (id, rest) = raw.split_first_chunk::<8>().ok_or(TokenError::Shape)?;
        let (anchor, secret) = rest.split_first_chunk::<32>().ok_or(TokenError::Shape)?;
        let secret = Secret::from_slice(secret).ok_or(TokenError::Shape)?;
        Ok(Self { role, id: TokenId(*id), anchor: Digest(*anchor), secret })
    }
    /// The MAC key that the vault stores in place of the secret: `HKDF(secret, "join")`.
    pub fn mac_key(&self) -> Secret<kind::TokenMac, 32> {
        mac_key(self.secret.expose())
    }
}

fn mac_key(secret: &[u8]) -> Secret<kind::TokenMac, 32> {
    let mut okm = [0; 32];
    // 32 bytes is one HKDF block: it cannot fail; were it to, an all-zero key is replaced by one that matches nothing.
    if Hkdf::<Sha256>::new(None, secret).expand(b"holdfast/v1/join", &mut okm).is_err() {
        okm = sha256(&[b"holdfast/v1/join/failed", secret]).0;
    }
    Secret::take(&mut okm)
}

fn join_mac_state(key: &Secret<kind::TokenMac, 32>, nonce: &[u8], csr: &[u8], hpke_pub: &[u8]) -> Option<Hmac<Sha256>> {
    let mut m = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
    for part in [b"join", nonce, sha256(&[csr]).as_bytes(), sha256(&[hpke_pub]).as_bytes()] {
        m.update(part);
    }
    Some(m)
}

/// `HMAC(key, "join" ‖ nonce ‖ H(csr) ‖ H(hpke_pub))` (protocol, join handshake).
pub fn join_mac(key: &Secret<kind::TokenMac, 32>, nonce: &[u8; 32], csr: &[u8], hpke_pub: &[u8]) -> Vec<u8> {
    join_mac_state(key, nonce, csr, hpke_pub).map(|m| m.finalize().into_bytes().to_vec()).unwrap_or_default()
}

/// Checks a join MAC in constant time.
pub fn join_mac_matches(
    key: &Secret<kind::TokenMac, 32>,
    nonce: &[u8; 32],
    csr: &[u8],
    hpke_pub: &[u8],
    mac: &[u8],
) -> bool {
    join_mac_state(key, nonce, csr, hpke_pub).is_some_and(|m| m.verify_slice(mac).is_ok())
}

/// Prints a 32-byte key as `hf_<word>_v1_…`; `word` is `unlock` or `recovery`.
pub fn print_key<K>(word: &str, key: &Secret<K, 32>) -> Zeroizing<String> {
    with_checksum(format!("hf_{word}_v1_{}", b32(key.expose())))
}

/// Parses an unlock key; white space around it is ignored.
pub fn parse_unlock(text: &str) -> Result<Secret<kind::UnlockSecret, 32>, TokenError> {
    parse_key(text, "unlock key", "hf_unlock_v1_")
}

/// Parses a recovery key; white space around it is ignored.
pub fn parse_recovery(text: &str) -> Result<Secret<kind::RecoverySecret, 32>, TokenError> {
    parse_key(text, "recovery key", "hf_recovery_v1_")
}

fn parse_key<K>(text: &str, what: &'static str, prefix: &'static str) -> Result<Secret<K, 32>, TokenError> {
    let text = text.trim();
    if !text.starts_with(prefix) {
        return Err(TokenError::Prefix(what, prefix));
    }
    let body = without_checksum(text)?.get(prefix.len()..).ok_or(TokenError::Shape)?;
    let mut raw = unb32(body)?;
    let s = Secret::from_slice(&raw).ok_or(TokenError::Shape);
    raw.zeroize();
    s
}
