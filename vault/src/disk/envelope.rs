//! The frame of the voter's small files: whose they are in clear, a checksum, and replacement that survives a crash at any moment.
//!
//! Must never: leave a half-written file under the real name, or report success before the directory is on disk.
//!
//! STORED: `slots`, `ident`, `unlock.chain` and `anchor`; golden file `vault/golden/slots.hex`.
//! ```text
//! magic[4] | fmt u8 | cluster_id[32] | voter u64 | body | SHA-256 of all before
//! ```
//! The checksum finds damage; it is no protection: what must not be altered is sealed inside the body.

use super::DiskError;
use holdfast_types::{ClusterId, VoterId, sha256};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// One kind of file: its name, magic and format.
pub(super) struct Kind {
    pub name: &'static str,
    pub magic: [u8; 4],
    pub format: u8,
}

/// A file taken out of its frame.
#[derive(Debug)]
pub(super) struct Opened {
    pub cluster: ClusterId,
    pub voter: VoterId,
    pub body: Zeroizing<Vec<u8>>,
}

impl Kind {
    /// Puts `body` into the frame.
    pub fn frame(&self, cluster: &ClusterId, voter: VoterId, body: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(4 + 1 + 32 + 8 + body.len() + 32));
        out.extend_from_slice(&self.magic);
        out.push(self.format);
        out.extend_from_slice(&cluster.0);
        out.extend_from_slice(&voter.0.to_be_bytes());
        out.extend_from_slice(body);
        let sum = sha256(&[&out]);
        out.extend_from_slice(sum.as_bytes());
        out
    }

    /// Takes a file out of its frame; checks damage before anything else, so that a flipped bit is never taken for another voter.
    pub fn unframe(&self, file: &[u8]) -> Result<Opened, DiskError> {
        let corrupt = |why| DiskError::Corrupt { what: self.name, why };
        let (rest, sum) = file.split_last_chunk::<32>().ok_or(corrupt("cut short"))?;
        if sha256(&[rest]).0 != *sum {
            return Err(corrupt("checksum does not match"));
        }
        let rest = rest.strip_prefix(&self.magic).ok_or(corrupt("not such a file"))?;
        let (format, rest) = rest.split_first().ok_or(corrupt("cut short"))?;
        if *format != self.format {
            return Err(DiskError::Format { what: self.name, found: *format });
        }
        let (cluster, rest) = rest.split_first_chunk::<32>().ok_or(corrupt("cut short"))?;
        let (voter, body) = rest.split_first_chunk::<8>().ok_or(corrupt("cut short"))?;
        Ok(Opened {
            cluster: ClusterId(*cluster),
            voter: VoterId(u64::from_be_bytes(*voter)),
            body: Zeroizing::new(body.to_vec()),
        })
    }

    /// Reads and unframes the file in `dir`.
    pub fn read(&self, dir: &Path) -> Result<Opened, DiskError> {
        let path = dir.join(self.name);
        let bytes = std::fs::read(&path).map(Zeroizing::new).map_err(|source| {
            if source.kind() == ErrorKind::NotFound {
                DiskError::Missing(path)
            } else {
                DiskError::Io { step: "read", path, source }
            }
        })?;
        self.unframe(&bytes)
    }

    /// Replaces the file in `dir` with `framed`: the old or the new one is there after a crash, never half of one.
    pub fn replace(&self, dir: &Path, framed: &[u8]) -> Result<(), DiskError> {
        let path = dir.join(self.name);
        let tmp = dir.join(format!(".{}.new", self.name));
        let io = |step: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| DiskError::Io { step, path, source }
        };
        let mut f = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&tmp)
            .map_err(io("create", &tmp))?;
        f.write_all(framed).map_err(io("write", &tmp))?;
        f.sync_all().map_err(io("sync", &tmp))?;
        std::fs::rename(&tmp, &path).map_err(io("rename to", &path))?;
        File::open(dir).and_then(|d| d.sync_all()).map_err(io("sync", dir))
    }

    /// Takes the file in `dir` away, if it is there; on disk when this returns.
    pub fn remove(&self, dir: &Path) -> Result<(), DiskError> {
        let path = dir.join(self.name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                return Err(DiskError::Io { step: "remove", path, source });
            }
            Ok(()) | Err(_) => {}
        }
        let synced = File::open(dir).and_then(|d| d.sync_all());
        synced.map_err(|source| DiskError::Io { step: "sync", path: dir.to_owned(), source })
    }
}
