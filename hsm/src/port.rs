//! The port itself: five calls on P-256 signing keys, named so that a crash between two of them loses nothing.
//!
//! Calls may block for as long as a token takes: never make them on a thread that serves others.

use data_encoding::HEXLOWER;
use holdfast_types::{SecretBytes, sha256};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// What a key signs. One key never serves two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A CA root: issuers, cross-certificates, Bundles.
    Root,
    /// An issuer: leaves.
    Issuer,
}
impl Purpose {
    /// The text that enters [`KeyId::of`]. No text is the beginning of another, so that ids of two purposes never meet.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuer => "issuer",
        }
    }
}

/// A key's name in its store, PKCS#11's `CKA_ID`: `H(purpose ‖ name)[..16]` (protocol, HSM).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 16]);
impl KeyId {
    /// The id of the key for `purpose` that the cluster calls `name`. Known before the key exists: so a generation that
    /// was cut short by a crash is found again, not repeated.
    pub fn of(purpose: Purpose, name: &[u8]) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(sha256(&[purpose.as_str().as_bytes(), name]).0).for_each(|(d, s)| *d = s);
        Self(id)
    }
    /// The id of the key that wraps what is called `label`. Its text is the beginning of no purpose's, nor the reverse.
    pub fn wrapping(label: &str) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(sha256(&[b"wrap", label.as_bytes()]).0).for_each(|(d, s)| *d = s);
        Self(id)
    }
    /// The id by which a key is spoken of that others made: its own, or, where that has another length, what it comes to; where
    /// there is none, what its label comes to. `None`: it has neither. Such a text is the beginning of no other's above.
    pub fn of_others(id: &[u8], label: &[u8]) -> Option<Self> {
        if let Ok(own) = <[u8; 16]>::try_from(id) {
            return Some(Self(own));
        }
        let (kind, name) = if id.is_empty() { (b"label".as_slice(), label) } else { (b"id".as_slice(), id) };
        let mut own = [0; 16];
        own.iter_mut().zip(sha256(&[kind, name]).0).for_each(|(d, s)| *d = s);
        (!name.is_empty()).then_some(Self(own))
    }
}
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}
impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// Why a call failed, by blame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KeyError {
    /// The store cannot be reached or did not answer in time; the same call may succeed later.
    #[error("the key store is unavailable: {0}")]
    Unavailable(String),
    /// There is no such key.
    #[error("the key store has no key {0}")]
    NotFound(KeyId),
    /// The store will not do it, however often it is asked: a policy, a missing mechanism, a taken id.
    #[error("the key store refused: {0}")]
    Refused(String),
    /// What the store holds or returned is not a usable key or signature.
    #[error("the key store is corrupt: {0}")]
    Corrupt(String),
    /// The PIN was refused, or is not tried because a further attempt could lock the token.
    #[error("the token's PIN: {0}")]
    Pin(String),
    /// The token has no room for another key.
    #[error("the token is full: {0}")]
    Full(String),
    /// The token did not answer within the time that it is given.
    #[error("the token did not answer in {}", seconds(.0))]
    Timeout(Duration),
}
impl KeyError {
    /// The word for what failed, for machines: `token-unavailable`, `key-not-found`, `token-refused`, `token-corrupt`,
    /// `pin-incorrect`, `token-full`, `token-timeout`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "token-unavailable",
            Self::NotFound(_) => "key-not-found",
            Self::Refused(_) => "token-refused",
            Self::Corrupt(_) => "token-corrupt",
            Self::Pin(_) => "pin-incorrect",
            Self::Full(_) => "token-full",
            Self::Timeout(_) => "token-timeout",
        }
    }
}

/// "5 s", "0.25 s".
fn seconds(d: &Duration) -> String {
    format!("{} s", d.as_secs_f64())
}

/// A store of P-256 signing keys.
pub trait KeyPort: Send + Sync {
    /// Finds the key for `purpose` and `name`, or makes it. Repeating the call changes nothing, also from two threads.
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError>;
    /// The public key, an uncompressed SEC1 point (65 bytes).
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError>;
    /// An ASN.1 DER ECDSA signature over SHA-256 of `msg`.
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// Destroys the key for ever, one for wrapping too. A key that is not there is destroyed already: success.
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError>;
    /// Every key in the store, in the order of their ids.
    fn list(&self) -> Result<Vec<KeyId>, KeyError>;
}

/// A store that also encrypts small values under keys that never leave it.
pub trait Wraps {
    /// Encrypts `plain` under the wrapping key of this label, which is made if there is none. What comes back begins with
    /// the mechanism that was used.
    fn wrap(&self, label: &str, plain: &[u8], aad: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// Decrypts what `wrap` gave; `aad` must be what it was.
    fn unwrap(&self, label: &str, blob: &[u8], aad: &[u8]) -> Result<SecretBytes, KeyError>;
}
