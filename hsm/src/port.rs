//! The port itself: five calls on P-256 signing keys, named so that a crash between two of them loses nothing.
//!
//! Calls may block for as long as a token takes: never make them on a thread that serves others.

use data_encoding::HEXLOWER;
use holdfast_types::sha256;
use std::fmt;

/// What a key signs. One key never serves two purposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; 16]);
impl KeyId {
    /// The id of the key for `purpose` that the cluster calls `name`. Known before the key exists: so a generation that
    /// was cut short by a crash is found again, not repeated.
    pub fn of(purpose: Purpose, name: &[u8]) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(sha256(&[purpose.as_str().as_bytes(), name]).0).for_each(|(d, s)| *d = s);
        Self(id)
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
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
}

/// A store of P-256 signing keys.
pub trait KeyPort: Send + Sync {
    /// Finds the key for `purpose` and `name`, or makes it. Repeating the call changes nothing, also from two threads.
    fn generate(&self, purpose: Purpose, name: &[u8]) -> Result<KeyId, KeyError>;
    /// The public key, an uncompressed SEC1 point (65 bytes).
    fn public(&self, id: &KeyId) -> Result<Vec<u8>, KeyError>;
    /// An ASN.1 DER ECDSA signature over SHA-256 of `msg`.
    fn sign_p256(&self, id: &KeyId, msg: &[u8]) -> Result<Vec<u8>, KeyError>;
    /// Destroys the key for ever. A key that is not there is destroyed already: success.
    fn destroy(&self, id: &KeyId) -> Result<(), KeyError>;
    /// Every key in the store, in the order of their ids.
    fn list(&self) -> Result<Vec<KeyId>, KeyError>;
}
