//! Where an identity's keys lie: the current one with its chain, and the pending one of a renewal under way.
//!
//! Key and chain are one file, because they are replaced together or not at all. Never readable by others.

use crate::files::{PRIVATE, remove, replace};
use crate::keys::PrivateKey;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize as _, Zeroizing};

/// Why a key was not kept or not found.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{0} does not hold a P-256 key and its certificates; restore it or join again")]
    Corrupt(PathBuf),
    /// There is no identity whose key could prove who we are.
    #[error("there is no identity in the store any more; restore it or join again")]
    NoIdentity,
    /// There is no pending key to promote.
    #[error("a certificate arrived, but there is no pending key for it")]
    NoPending,
    /// The process is stopping.
    #[error("interrupted while the key was written")]
    Interrupted,
}

/// An identity at rest.
#[derive(Debug)]
pub struct Stored {
    /// DER certificates, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The leaf's key.
    pub key: PrivateKey,
}

/// Keeps an identity's keys. Every method returns only once the change would survive a power cut.
pub trait KeyStore: Send + Sync {
    /// The current identity, if there is one.
    fn load(&self) -> Result<Option<Stored>, StoreError>;
    /// The key of a renewal or join under way, if there is one.
    fn load_pending(&self) -> Result<Option<PrivateKey>, StoreError>;
    /// Keeps `key` as the pending one.
    fn save_pending(&self, key: &PrivateKey) -> Result<(), StoreError>;
    /// Makes the pending key the current one, with `chain` (DER, leaf first). The old one is forgotten.
    fn promote(&self, chain: &[Vec<u8>]) -> Result<(), StoreError>;
}

const KEY_TAG: &str = "PRIVATE KEY";
const CERT_TAG: &str = "CERTIFICATE";

/// Two PEM files in a folder that exists: `identity.pem` (chain, then key) and `pending.pem` (key).
#[derive(Debug, Clone)]
pub struct FileStore {
    identity: PathBuf,
    pending: PathBuf,
}

impl FileStore {
    /// In `folder`.
    pub fn new(folder: &Path) -> Self {
        Self { identity: folder.join("identity.pem"), pending: folder.join("pending.pem") }
    }
}

impl KeyStore for FileStore {
    fn load(&self) -> Result<Option<Stored>, StoreError> {
        let Some(Parts { chain, key }) = read(&self.identity)? else { return Ok(None) };
        if chain.is_empty() { Err(StoreError::Corrupt(self.identity.clone())) } else { Ok(Some(Stored { chain, key })) }
    }
    fn load_pending(&self) -> Result<Option<PrivateKey>, StoreError> {
        let Some(pending) = read(&self.pending)? else { return Ok(None) };
        // A crash between the two steps of `promote` leaves the current key here: it is pending no more.
        let stale = read(&self.identity)?.is_some_and(|i| i.key.spki_sha256() == pending.key.spki_sha256());
        Ok((!stale).then_some(pending.key))
    }
    fn save_pending(&self, key: &PrivateKey) -> Result<(), StoreError> {
        write(&self.pending, &[], key)
    }
    fn promote(&self, chain: &[Vec<u8>]) -> Result<(), StoreError> {
        let key = read(&self.pending)?.ok_or(StoreError::NoPending)?.key;
        write(&self.identity, chain, &key)?;
        remove(&self.pending).map_err(at(&self.pending))
    }
}

struct Parts {
    chain: Vec<Vec<u8>>,
    key: PrivateKey,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    |source| StoreError::Io { path, source }
}

fn read(path: &Path) -> Result<Option<Parts>, StoreError> {
    let text = match fs::read(path) {
        Ok(text) => Zeroizing::new(text),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(at(path)(e)),
    };
    let corrupt = || StoreError::Corrupt(path.to_owned());
    let (mut chain, mut key) = (Vec::new(), None);
    for part in pem::parse_many(text.as_slice()).map_err(|_| corrupt())? {
        let is_key = part.tag() == KEY_TAG;
        let mut der = part.into_contents();
        if is_key {
            key = PrivateKey::from_pkcs8(&der).ok();
            der.zeroize();
        } else {
            chain.push(der);
        }
    }
    let key = key.ok_or_else(corrupt)?;
    Ok(Some(Parts { chain, key }))
}

fn write(path: &Path, chain: &[Vec<u8>], key: &PrivateKey) -> Result<(), StoreError> {
    let mut text = Zeroizing::new(String::new());
    for der in chain {
        text.push_str(&pem::encode(&pem::Pem::new(CERT_TAG, der.as_slice())));
    }
    let key = pem::Pem::new(KEY_TAG, key.pkcs8());
    text.push_str(&Zeroizing::new(pem::encode(&key)));
    key.into_contents().zeroize();
    replace(path, text.as_bytes(), PRIVATE).map_err(at(path))
}
