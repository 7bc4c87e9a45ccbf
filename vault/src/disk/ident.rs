//! The `ident` file: the voter's own keys and certificate, sealed under its disk key.
//!
//! Must never: be readable without the disk key, or be half replaced.
//!
//! STORED: file `ident`, a disk-layer record (keyspace `IDENT`, index 0) inside the frame of `envelope`; golden file
//! `vault/golden/ident.hex`.

use super::envelope::Kind;
use super::keys::{At, DiskKeys};
use super::{DiskError, keyspace};
use holdfast_types::{Secret, SecretBytes, kind};
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

const KIND: Kind = Kind { name: "ident", magic: *b"HFID", format: 1 };
const AT: At = At::new(keyspace::IDENT, 0);

/// Who this voter is.
#[derive(Debug)]
pub struct Ident {
    /// Key material of the voter's KEM key (`DeriveKeyPair`), to which keyring terms are boxed.
    pub kem_ikm: Secret<kind::HpkeKey, 32>,
    /// The same of its next KEM key, from when it was made until every live term is boxed to it.
    pub next_kem_ikm: Option<Secret<kind::HpkeKey, 32>>,
    /// TLS private key, PKCS#8 DER.
    pub tls_key: SecretBytes,
    /// TLS certificate chain, DER, leaf first; empty before the first certificate.
    pub chain: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Body {
    kem_ikm: Zeroizing<[u8; 32]>,
    tls_key: Zeroizing<Vec<u8>>,
    chain: Vec<Vec<u8>>,
    next_kem_ikm: Option<Zeroizing<[u8; 32]>>,
}

impl Ident {
    /// Writes `ident` in `dir`: atomic, and on disk when this returns.
    pub fn store(&self, dir: &Path, keys: &DiskKeys) -> Result<(), DiskError> {
        let body = Body {
            kem_ikm: Zeroizing::new(*self.kem_ikm.expose()),
            tls_key: Zeroizing::new(self.tls_key.expose().to_vec()),
            chain: self.chain.clone(),
            next_kem_ikm: self.next_kem_ikm.as_ref().map(|k| Zeroizing::new(*k.expose())),
        };
        let plain = super::encoded(&body).map_err(|_| corrupt("cannot be encoded"))?;
        let sealed = keys.seal(AT, &plain).map_err(|_| corrupt("cannot be sealed"))?;
        KIND.replace(dir, &KIND.frame(keys.cluster(), keys.voter(), &sealed))
    }

    /// Changes `ident` in `dir`, one change at a time: a rotation of the disk key never undoes it. Atomic, and on disk when this
    /// returns.
    pub fn change(dir: &Path, keys: &DiskKeys, change: impl FnOnce(&mut Self)) -> Result<(), DiskError> {
        let _alone = keys.changing();
        let mut ident = Self::load(dir, keys)?;
        change(&mut ident);
        ident.store(dir, keys)
    }

    /// Reads `ident` in `dir`.
    pub fn load(dir: &Path, keys: &DiskKeys) -> Result<Self, DiskError> {
        let file = KIND.read(dir)?;
        if file.cluster != *keys.cluster() {
            return Err(DiskError::OtherCluster { what: KIND.name });
        }
        if file.voter != keys.voter() {
            return Err(DiskError::OtherVoter { what: KIND.name });
        }
        let plain = keys.open(AT, &file.body).map_err(|_| corrupt("does not open with this disk key"))?;
        let decoded = postcard::take_from_bytes::<Body>(plain.expose()).ok().filter(|(_, rest)| rest.is_empty());
        let (mut body, _) = decoded.ok_or_else(|| corrupt("malformed"))?;
        Ok(Self {
            kem_ikm: Secret::take(&mut body.kem_ikm),
            next_kem_ikm: body.next_kem_ikm.as_mut().map(|k| Secret::take(k)),
            tls_key: SecretBytes::new(std::mem::take(&mut *body.tls_key)),
            chain: body.chain,
        })
    }
}

fn corrupt(why: &'static str) -> DiskError {
    DiskError::Corrupt { what: KIND.name, why }
}
