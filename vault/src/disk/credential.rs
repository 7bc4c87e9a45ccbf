//! The slot `credential`: a secret of 32 bytes that the service manager gives this process (`LoadCredential=dk-slot:…`, or
//! `LoadCredentialEncrypted`, sealed to a TPM), and by which the voter opens itself at start.
//!
//! Must never: write the secret anywhere, or take a missing credential for a wrong one.

use super::DiskError;
use super::keys::DiskKey;
use super::slots::{Recipient, Slot, Slots};
use holdfast_types::{Secret, kind};
use holdfast_wire::boxes::{self, PrivateKey, derive_keypair};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The credential's name.
pub const NAME: &str = "dk-slot";

/// Where the service manager puts this process's credentials, if it gave any.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// The private key that the credential in `dir` is; `None` where there is no such credential.
pub fn credential_key(dir: &Path) -> Result<Option<PrivateKey>, DiskError> {
    Ok(key_pair(dir)?.map(|(private, _)| private))
}

/// What the service manager gave this process to open its disk with.
#[derive(Debug, Clone, Copy)]
pub enum Given {
    /// Nothing: a slot for a credential is for nobody any more.
    Nothing,
    /// A key.
    Key([u8; 32]),
    /// Something that cannot be used: slots for credentials stay as they are until that is mended.
    Unusable,
}
impl Given {
    /// What it is at this moment. A credential that cannot be used must not keep a voter from its other slots: it is said,
    /// and that is all.
    pub fn now() -> Self {
        match directory().map_or(Ok(None), |dir| key_pair(&dir)) {
            Ok(Some((_, public))) => Self::Key(public),
            Ok(None) => Self::Nothing,
            Err(e) => {
                tracing::warn!(error = %e, "the credential for this voter's disk cannot be used; see docs/operations/unlock.md");
                Self::Unusable
            }
        }
    }
    /// The key that a slot is sealed to.
    pub fn key(self) -> Option<[u8; 32]> {
        match self {
            Self::Key(public) => Some(public),
            Self::Nothing | Self::Unusable => None,
        }
    }
    /// Whether a slot that is sealed to `pk` stays.
    pub fn keeps(self, pk: &[u8; 32]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Key(public) => public == *pk,
            Self::Unusable => true,
        }
    }
}

/// The disk keys of every live generation, opened with this process's credential; `None` where no slot is sealed to one.
///
/// # Errors
/// [`DiskError::NoCredential`] or [`DiskError::BadCredential`]: the voter stays sealed, and an operator opens it.
pub fn try_open(slots: &Slots) -> Result<Option<Vec<DiskKey>>, DiskError> {
    open_from(slots, directory().as_deref())
}

fn open_from(slots: &Slots, dir: Option<&Path>) -> Result<Option<Vec<DiskKey>>, DiskError> {
    if !slots.iter().any(|s| matches!(s.recipient, Recipient::Credential { .. })) {
        return Ok(None);
    }
    let found = dir.map(key_pair).transpose()?.flatten();
    let (private, pk) = found.ok_or(DiskError::NoCredential)?;
    let live = std::iter::once(slots.current()).chain(slots.pending());
    let keys = live.map(|generation| {
        let mut ours =
            slots.iter().filter(|s| s.generation == generation && s.recipient == Recipient::Credential { pk });
        let slot = ours.next().ok_or(DiskError::BadCredential("is not the one that the slots are sealed to"))?;
        open_slot(slots, slot, &private)
    });
    keys.collect::<Result<Vec<_>, _>>().map(Some)
}

fn open_slot(slots: &Slots, slot: &Slot, private: &PrivateKey) -> Result<DiskKey, DiskError> {
    let wrong = || DiskError::BadCredential("does not open its slot");
    let (purpose, aad) = slot.context(slots.voter()).ok_or_else(wrong)?;
    let context = boxes::Context { purpose, cluster: slots.cluster(), aad: &aad };
    let opened = boxes::open(private, &context, None, slot.boxed().ok_or_else(wrong)?).map_err(|_| wrong())?;
    DiskKey::from_slice(opened.expose()).ok_or_else(wrong)
}

fn key_pair(dir: &Path) -> Result<Option<(PrivateKey, [u8; 32])>, DiskError> {
    let path = dir.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DiskError::Io { step: "read", path, source }),
    };
    let secret = Secret::<kind::HpkeKey, 32>::from_slice(&bytes);
    let secret = secret.ok_or(DiskError::BadCredential("has not 32 bytes"))?;
    Ok(Some(derive_keypair(secret.expose())))
}

#[cfg(test)]
#[path = "credential_tests.rs"]
mod tests;
