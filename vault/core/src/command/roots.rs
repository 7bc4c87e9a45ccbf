//! What commands say of roots and of where CA keys are. Part of [`super::Command`], and stored with it and with the state.

use super::{SealedKey, StkFacts};
use holdfast_types::{Digest, Millis};
use holdfast_wire::v1;
use serde::{Deserialize, Serialize};

/// Where a CA's private key is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CaKey {
    /// In the state, sealed under the keyring.
    Sealed(SealedKey),
    /// In the token that voters are configured with, under this name of the key port.
    Token(String),
    /// Outside the cluster, or destroyed: nothing here signs with it.
    Offline,
}
impl CaKey {
    /// The key port's name of it.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Sealed(k) => Some(&k.name),
            Self::Token(name) => Some(name),
            Self::Offline => None,
        }
    }
    /// The record, if it is in the state.
    pub fn sealed(&self) -> Option<&SealedKey> {
        match self {
            Self::Sealed(k) => Some(k),
            Self::Token(_) | Self::Offline => None,
        }
    }
    pub(crate) fn sealed_mut(&mut self) -> Option<&mut SealedKey> {
        match self {
            Self::Sealed(k) => Some(k),
            Self::Token(_) | Self::Offline => None,
        }
    }
    /// In a word, as operators see it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sealed(_) => "software",
            Self::Token(_) => "hsm",
            Self::Offline => "offline",
        }
    }
}

/// A root certified by another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossRow {
    /// `H` of the certificate of the root that certifies.
    pub by: Digest,
    /// The cross-certificate, DER.
    pub der: Vec<u8>,
    /// End of its validity.
    pub not_after: Millis,
}

/// A root that is trusted from now on, with everything that follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRoot {
    /// Certificate, DER.
    pub der: Vec<u8>,
    /// End of its validity.
    pub not_after: Millis,
    /// Its key.
    pub key: CaKey,
    /// It and each of the others, certified by one another as far as their keys can be used; first the subject.
    pub cross: Vec<(Digest, CrossRow)>,
    /// DER of its first issuer; empty if its key is offline: then the issuer is asked for.
    pub issuer_der: Vec<u8>,
    /// The issuer's key.
    pub issuer_key: CaKey,
    /// End of the issuer's validity.
    pub issuer_not_after: Millis,
    /// The Bundle that lists it, signed by all usable roots of the old and the new set, or by Admins in the old ones' place.
    pub bundle: Vec<u8>,
}
impl NewRoot {
    /// The Bundle's statement.
    pub(crate) fn statement(&self) -> Option<v1::Statement> {
        super::Command::statement(&self.bundle)
    }
}

/// What a root whose key is offline is asked to sign: an issuer for a key of the cluster's, and the next Bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// `H` of the root's certificate.
    pub root: Digest,
    /// The key that the issuer is for.
    pub issuer_key: CaKey,
    /// Its certification request, DER.
    pub csr: Vec<u8>,
    /// The statement key that the Bundle lists.
    pub stk: StkFacts,
    /// The Bundle, encoded: what is to be signed, as it is.
    pub bundle: Vec<u8>,
    /// When it was asked for.
    pub since: Millis,
}
