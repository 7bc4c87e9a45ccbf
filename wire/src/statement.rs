//! Statements: DSSE v1 envelopes whose type is inside the signed bytes (protocol, M1).
//!
//! The order of checks is fixed: type, keys (algorithm from the key set), signatures, threshold over *distinct public
//! keys*, decode, re-encode and compare. Cluster, era, times and meaning are the caller's, afterwards.

use crate::keys::{SignError, StatementSigner, key_id, verify as verify_key};
use crate::strict::{self, StrictError};
use crate::v1::{PublicKey, Sig, Statement};
use holdfast_types::{Digest, sha256};
use prost::Message;

/// A message that may be signed: its type string and its longest payload.
pub trait Document: Message + Default {
    /// `application/vnd.holdfast.<kind>.v1`.
    const TYPE: &'static str;
    /// Longest accepted payload, in bytes.
    const MAX: usize;
}

/// Most signatures looked at on one statement: bounds the work an unauthenticated sender can cause.
pub const MAX_SIGS: usize = 16;

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The type inside the envelope is not the one expected here.
    #[error("wrong statement type: expected {expected}")]
    Type {
        /// The type string expected.
        expected: &'static str,
    },
    /// Too few good signatures by distinct keys of the key set.
    #[error("{good} of {needed} needed signatures are by keys that count here")]
    Threshold {
        /// Good signatures by distinct known keys.
        good: usize,
        /// How many are needed.
        needed: usize,
    },
    /// A signature names a known key and does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// More signatures than [`MAX_SIGS`].
    #[error("too many signatures")]
    TooManySignatures,
    /// The payload is not canonical.
    #[error("statement payload: {0}")]
    Payload(#[from] StrictError),
}

/// A document whose signatures were checked, with the exact bytes that were signed.
#[derive(Debug, Clone)]
pub struct Verified<T> {
    /// The decoded document.
    pub doc: T,
    /// `H(payload)`, the name other documents use for it.
    pub sha256: Digest,
    /// The public keys whose signatures were good, each once.
    pub signers: Vec<PublicKey>,
}

/// A verified document, judged against what is already held.
#[derive(Debug)]
pub enum News<T> {
    /// New: persist the statement, then hand `T` to the matching `adopt`.
    Todo(T),
    /// Exactly what is held already.
    AlreadyDone,
    /// Genuine, but older than what is held, or not yet called for.
    Stale,
}

/// The bytes that DSSE v1 signs.
pub fn pre_auth_encoding(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut b = format!("DSSEv1 {} {} {} ", kind.len(), kind, payload.len()).into_bytes();
    b.extend_from_slice(payload);
    b
}

/// Signs `doc` with each of `signers`.
pub fn sign<T: Document>(doc: &T, signers: &[&dyn StatementSigner]) -> Result<Statement, SignError> {
    sign_payload::<T>(doc.encode_to_vec(), signers)
}

/// Signs exact payload bytes that are known to be a canonical `T`.
pub fn sign_payload<T: Document>(payload: Vec<u8>, signers: &[&dyn StatementSigner]) -> Result<Statement, SignError> {
    let mut st = Statement { payload, r#type: T::TYPE.to_owned(), sigs: Vec::new() };
    for s in signers {
        add_signature(&mut st, *s)?;
    }
    Ok(st)
}

/// Adds one more signature to a statement.
pub fn add_signature(st: &mut Statement, signer: &dyn StatementSigner) -> Result<(), SignError> {
    let sig = signer.sign(&pre_auth_encoding(&st.r#type, &st.payload))?;
    st.sigs.push(Sig { key_id: key_id(&signer.public().key).to_vec(), sig });
    Ok(())
}

/// Verifies `st` as a `T` signed by at least `threshold` distinct keys of `keys`.
///
/// Signatures by keys outside `keys` are ignored; a bad signature under a known key refuses the whole statement.
/// A threshold of 0 is never satisfied: an empty guard guards nothing.
pub fn verify<T: Document>(
    st: &Statement,
    keys: &[PublicKey],
    threshold: usize,
) -> Result<Verified<T>, StatementError> {
    if st.r#type != T::TYPE {
        return Err(StatementError::Type { expected: T::TYPE });
    }
    if st.sigs.len() > MAX_SIGS {
        return Err(StatementError::TooManySignatures);
    }
    if st.payload.len() > T::MAX {
        return Err(StrictError::TooLong { len: st.payload.len(), max: T::MAX }.into());
    }
    let msg = pre_auth_encoding(T::TYPE, &st.payload);
    let mut signers: Vec<PublicKey> = Vec::new();
    for s in &st.sigs {
        for k in keys.iter().filter(|k| key_id(&k.key).as_slice() == s.key_id) {
            if !verify_key(k, &msg, &s.sig) {
                return Err(StatementError::BadSignature);
            }
            if !signers.iter().any(|known| known.key == k.key) {
                signers.push(k.clone());
            }
        }
    }
    if threshold == 0 || signers.len() < threshold {
        return Err(StatementError::Threshold { good: signers.len(), needed: threshold.max(1) });
    }
    Ok(Verified { doc: strict::decode(&st.payload, T::MAX)?, sha256: sha256(&[&st.payload]), signers })
}

/// Decodes a statement's payload *without* believing it: to find out which keys it should be checked against.
pub fn peek<T: Document>(st: &Statement) -> Result<T, StatementError> {
    if st.r#type != T::TYPE {
        return Err(StatementError::Type { expected: T::TYPE });
    }
    Ok(strict::decode(&st.payload, T::MAX)?)
}
