//! One state file: replaced whole, and framed, so that a cut or altered one is refused instead of read as less; and read
//! strictly, so that what this version does not know is refused instead of dropped.
//!
//! STORED: a message in the frame of `holdfast_transport::framed`; golden files `orchestrator/agent/golden/*.hex`.

use holdfast_transport::files::{PRIVATE, replace};
use holdfast_transport::framed::{frame, unframe};
use holdfast_wire::strict;
use prost::Message;
use std::path::{Path, PathBuf};
use std::{fs, io};
use zeroize::Zeroizing;

/// Why state was not kept or not found.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{0} is damaged; restore the state directory whole, or empty it and join again with a new token")]
    Corrupt(PathBuf),
    /// A file that must be there is not.
    #[error("{0} is missing although this node has joined; empty the state directory and join again with a new token")]
    Missing(PathBuf),
    /// What is kept is no longer believed.
    #[error("{path} is not believed: {reason}")]
    Disbelieved {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another agent uses the directory.
    #[error("{0} is in use by another agent")]
    Locked(PathBuf),
    /// The process is stopping.
    #[error("interrupted while state was written")]
    Interrupted,
}

impl StateError {
    /// What to do, where that is not said yet.
    pub fn help(&self) -> Option<&'static str> {
        use io::ErrorKind as K;
        match self {
            Self::Io { source, .. } if matches!(source.kind(), K::StorageFull | K::QuotaExceeded) => {
                Some("make room on the disk of state_dir; what runs goes on meanwhile")
            }
            Self::Io { .. } => Some("check owner, mode and disk of state_dir"),
            Self::Corrupt(_) | Self::Missing(_) | Self::Disbelieved { .. } | Self::Locked(_) | Self::Interrupted => {
                None
            }
        }
    }
}

/// The message in `path`; `None` if there is no such file.
pub fn load<M: Message + Default>(path: &Path) -> Result<Option<M>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => Zeroizing::new(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { path: path.to_owned(), source }),
    };
    let corrupt = || StateError::Corrupt(path.to_owned());
    let message = unframe(&bytes).ok_or_else(corrupt)?;
    // The file is in memory already: its length is no bound that is left to keep.
    strict::decode(message, usize::MAX).map(Some).map_err(|_| corrupt())
}

/// The message in `path`, which must be there.
pub fn load_required<M: Message + Default>(path: &Path) -> Result<M, StateError> {
    load(path)?.ok_or_else(|| StateError::Missing(path.to_owned()))
}

/// Replaces `path`, durably: after a crash it holds the old message or the new one.
pub fn save<M: Message>(path: &Path, message: &M) -> Result<(), StateError> {
    let message = Zeroizing::new(message.encode_to_vec());
    let framed = Zeroizing::new(frame(&message));
    replace(path, &framed, PRIVATE).map_err(|source| StateError::Io { path: path.to_owned(), source })
}

/// Removes `path`, durably; it is no error if it does not exist.
pub fn remove(path: &Path) -> Result<(), StateError> {
    holdfast_transport::files::remove(path).map_err(|source| StateError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_wire::v1::Field;

    #[test]
    fn a_state_file_that_is_cut_or_altered_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let field = Field { name: "name".into(), value: "value".into() };
        save(&path, &field).unwrap();
        assert_eq!(load::<Field>(&path).unwrap(), Some(field));
        let whole = fs::read(&path).unwrap();
        for n in 0..whole.len() {
            fs::write(&path, &whole[..n]).unwrap();
            assert!(matches!(load::<Field>(&path), Err(StateError::Corrupt(_))), "cut at {n}");
            let mut flipped = whole.clone();
            flipped[n] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(matches!(load::<Field>(&path), Err(StateError::Corrupt(_))), "flipped at {n}");
        }
    }

    #[test]
    fn a_field_that_is_unknown_or_twice_is_refused_behind_a_good_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let field = Field { name: "name".into(), value: "value".into() };
        let message = field.encode_to_vec();
        let unknown = [0x7a_u8, 0x00];
        for more in [unknown.as_slice(), &message, b"\x0a\x01x", b"\x12\x00"] {
            fs::write(&path, frame(&[message.as_slice(), more].concat())).unwrap();
            assert!(matches!(load::<Field>(&path), Err(StateError::Corrupt(_))), "{more:?}");
        }
        fs::write(&path, frame(&message)).unwrap();
        assert_eq!(load::<Field>(&path).unwrap(), Some(field));
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let old = Field { name: "old".into(), value: String::new() };
        save(&path, &old).unwrap();
        // What a crash leaves: a part of the new file, beside the old one.
        fs::write(dir.path().join("memory.new"), b"HFS\x01half").unwrap();
        assert_eq!(load::<Field>(&path).unwrap(), Some(old));
        let new = Field { name: "new".into(), value: String::new() };
        save(&path, &new).unwrap();
        assert_eq!(load::<Field>(&path).unwrap(), Some(new));
    }
}
