//! The file `unlock.chain`: the box in which the unlock secret before lies for whoever has the one after it.
//!
//! It opens a voter that slept through a rotation. It is no secret: any voter's copy may be handed out while that voter is sealed.
//! Must never: be taken for another cluster's, or be gone before the slot that it replaces.
//!
//! STORED: file `unlock.chain`, `epoch u64 | box` inside the frame of `envelope`.

use super::DiskError;
use super::envelope::Kind;
use holdfast_types::{ClusterId, VoterId};
use std::path::Path;

const KIND: Kind = Kind { name: "unlock.chain", magic: *b"HFUC", format: 1 };

/// The epoch of the secret that the box holds, and the box; `None` where there is no such file.
pub fn load(dir: &Path, cluster: &ClusterId, voter: VoterId) -> Result<Option<(u64, Vec<u8>)>, DiskError> {
    let file = match KIND.read(dir) {
        Ok(file) => file,
        Err(DiskError::Missing(_)) => return Ok(None),
        Err(e) => return Err(e),
    };
    if file.cluster != *cluster {
        return Err(DiskError::OtherCluster { what: KIND.name });
    }
    if file.voter != voter {
        return Err(DiskError::OtherVoter { what: KIND.name });
    }
    let corrupt = DiskError::Corrupt { what: KIND.name, why: "cut short" };
    let (epoch, sealed) = file.body.split_first_chunk::<8>().ok_or(corrupt)?;
    Ok(Some((u64::from_be_bytes(*epoch), sealed.to_vec())))
}

/// Whether there is such a file, whole or not.
pub(super) fn is_there(dir: &Path) -> bool {
    dir.join(KIND.name).exists()
}

/// Puts the file in place: atomic, and on disk when this returns.
pub(super) fn store(
    dir: &Path,
    cluster: &ClusterId,
    voter: VoterId,
    epoch: u64,
    sealed: &[u8],
) -> Result<(), DiskError> {
    let body = [epoch.to_be_bytes().as_slice(), sealed].concat();
    KIND.replace(dir, &KIND.frame(cluster, voter, &body))
}

/// Takes the file away; the directory is on disk when this returns.
pub(super) fn remove(dir: &Path) -> Result<(), DiskError> {
    KIND.remove(dir)
}
