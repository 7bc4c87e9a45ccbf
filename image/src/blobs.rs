//! Verified content on disk: one file a blob, named by its digest, written whole or not at all.

use crate::{ImageError, io_error};
use holdfast_types::Digest;
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What a blob must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expected {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

/// A directory of blobs. Belongs to one process; its own user alone can enter it.
#[derive(Clone, Debug)]
pub struct Blobs {
    dir: PathBuf,
}

static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

impl Blobs {
    /// Opens (and makes, 0700) the directory; what an earlier process left half-written is removed.
    pub fn open(dir: PathBuf) -> Result<Self, ImageError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        let blobs = Self { dir };
        for name in blobs.names()? {
            if Digest::parse(&name).is_none() {
                let path = blobs.dir.join(name);
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(blobs)
    }

    fn names(&self) -> Result<Vec<String>, ImageError> {
        let entries = fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))?;
        let name = |e: io::Result<fs::DirEntry>| e.map(|e| e.file_name().to_string_lossy().into_owned());
        entries.map(name).collect::<io::Result<_>>().map_err(io_error("list", &self.dir))
    }

    /// Where the blob is, or would be.
    pub fn path(&self, digest: Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }
    /// Whether it is here.
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).exists()
    }
    /// Its bytes, checked once more; for documents, not for layers.
    pub fn read(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.path(digest);
        let bytes = fs::read(&path).map_err(io_error("read", &path))?;
        check_bytes(&bytes, digest)?;
        Ok(bytes)
    }
    /// Removes every blob that is not in `keep`; returns how many bytes that freed.
    pub fn retain(&self, keep: &BTreeSet<Digest>) -> Result<u64, ImageError> {
        let mut freed = 0u64;
        for digest in self.names()?.iter().filter_map(|n| Digest::parse(n)).filter(|d| !keep.contains(d)) {
            let path = self.path(digest);
            let size = fs::metadata(&path).map_or(0, |m| m.len());
            fs::remove_file(&path).map_err(io_error("remove", &path))?;
            freed = freed.saturating_add(size);
        }
        Ok(freed)
    }

    pub(crate) fn create(&self, expected: Expected) -> Result<Incoming, ImageError> {
        let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
        let fresh = self.dir.join(format!("incoming-{}-{number}", std::process::id()));
        let file = File::create_new(&fresh).map_err(io_error("create", &fresh))?;
        Ok(Incoming {
            file,
            fresh,
            path: self.path(expected.digest),
            expected,
            hash: sha2::Sha256::new(),
            left: expected.size,
        })
    }

    pub(crate) fn put(&self, bytes: &[u8], digest: Digest) -> Result<(), ImageError> {
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut incoming = self.create(Expected { digest, size })?;
        incoming.take(bytes)?;
        incoming.finish()
    }
}

/// A blob on its way to disk. Dropped before [`finish`](Self::finish) it leaves nothing.
pub(crate) struct Incoming {
    file: File,
    fresh: PathBuf,
    path: PathBuf,
    expected: Expected,
    hash: sha2::Sha256,
    left: u64,
}

impl Incoming {
    fn mismatch(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Mismatch { what: self.expected.digest.oci(), reason: reason.into() }
    }

    /// Takes the next bytes; more than were announced are refused at once.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(n).ok_or_else(|| {
            self.mismatch(format!("it is larger than the {} bytes that were announced", self.expected.size))
        })?;
        self.hash.update(bytes);
        self.file.write_all(bytes).map_err(io_error("write", &self.fresh))
    }

    /// Takes everything that `source` has.
    pub(crate) fn take_all(&mut self, mut source: impl io::Read, name: &Path) -> Result<(), ImageError> {
        let mut chunk = vec![0u8; 64 << 10];
        loop {
            let n = source.read(&mut chunk).map_err(io_error("read", name))?;
            match chunk.get(..n) {
                Some(bytes) if n > 0 => self.take(bytes)?,
                _ => return Ok(()),
            }
        }
    }

    /// The blob is complete: checks size and digest, makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<(), ImageError> {
        if self.left > 0 {
            return Err(self.mismatch(format!("it ends {} bytes too early", self.left)));
        }
        let found = Digest(std::mem::take(&mut self.hash).finalize().into());
        if found != self.expected.digest {
            return Err(self.mismatch(format!("its content is {}", found.oci())));
        }
        self.file.sync_all().map_err(io_error("write", &self.fresh))?;
        fs::rename(&self.fresh, &self.path).map_err(io_error("write", &self.path))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Already renamed, or not wanted.
        fs::remove_file(&self.fresh).ok();
    }
}

pub(crate) fn check_bytes(bytes: &[u8], digest: Digest) -> Result<(), ImageError> {
    let found = holdfast_types::sha256(&[bytes]);
    if found == digest {
        return Ok(());
    }
    Err(ImageError::Mismatch { what: digest.oci(), reason: format!("its content is {}", found.oci()) })
}

/// Reads a document of at most `max` bytes.
pub(crate) fn read_document(source: impl io::Read, max: u64, name: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    source.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(io_error("read", name))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        let reason = format!("it is larger than {max} bytes");
        return Err(ImageError::Mismatch { what: name.display().to_string(), reason });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::sha256;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        (dir, blobs)
    }

    #[test]
    fn a_blob_that_is_not_its_digest_or_size_is_refused_and_leaves_nothing() {
        let (_dir, blobs) = blobs();
        let digest = sha256(&[b"hello"]);
        for (bytes, size) in [(&b"hellO"[..], 5), (b"hell", 5), (b"hello!", 5), (b"hello", 4), (b"hello", 6), (b"", 5)]
        {
            let mut incoming = blobs.create(Expected { digest, size }).unwrap();
            let result = incoming.take(bytes).and_then(|()| incoming.finish());
            assert!(matches!(result, Err(ImageError::Mismatch { .. })), "{bytes:?} {size}");
            assert_eq!(blobs.names().unwrap(), Vec::<String>::new());
        }
        blobs.put(b"hello", digest).unwrap();
        assert_eq!(blobs.read(digest).unwrap(), b"hello");
    }

    #[test]
    fn what_was_half_written_is_gone_after_a_restart_and_what_is_unused_can_be_freed() {
        let (dir, blobs) = blobs();
        let [a, b] = [sha256(&[b"a"]), sha256(&[b"bb"])];
        blobs.put(b"a", a).unwrap();
        blobs.put(b"bb", b).unwrap();
        fs::write(dir.path().join("blobs/incoming-1-1"), "half").unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        assert_eq!(blobs.names().unwrap().len(), 2);
        assert_eq!(blobs.retain(&BTreeSet::from([a])).unwrap(), 2);
        assert!(blobs.has(a) && !blobs.has(b));
    }
}
