//! Small files that are replaced whole or not at all, and directories that one process at a time uses.
//!
//! Never leaves a half-written file under the final name, and never a moment in which a private file can be read by
//! others: the mode is given at creation.

use crate::failure::Failure;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Owner may read and write, nobody else anything.
pub const PRIVATE: u32 = 0o600;
/// Everybody may read.
pub const PUBLIC: u32 = 0o644;

/// Replaces `path` by `bytes` with `mode`: written beside it, synced, renamed, and the folder synced. After a crash the
/// file holds either the old or the new bytes.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_by(&beside(path), path, bytes, mode)
}

/// The same where several processes may do so at a time: what is written beside it bears the process' number. The last counts.
pub fn replace_among_others(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut own = beside(path).into_os_string();
    own.push(format!(".{}", std::process::id()));
    let own = Path::new(&own);
    // No later attempt would come upon it and take it away.
    replace_by(own, path, bytes, mode).inspect_err(|_| drop(fs::remove_file(own)))
}

fn replace_by(beside: &Path, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    sync_folder(path)
}

/// Removes `path`, durably; it is no error if it does not exist.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => sync_folder(path),
    }
}

/// Refuses the file `path`, which holds `what` and has `meta`, if others than its owner may open it. A pipe or a terminal
/// (`/dev/stdin`) keeps nothing that others could read later.
pub fn must_be_private(path: &Path, meta: &Metadata, what: &str) -> Result<(), Failure> {
    if !meta.is_file() || meta.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let said = format!("{} holds {what}, and others may open it", path.display());
    Err(Failure::refused("key-exposed", said).help(format!("run: chmod 600 {}", path.display())))
}

/// A directory that no other process claims for as long as this lives; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held for its lock alone")] File);

/// Claims a directory by its lock file `path` (made 0600); `None` if another process has it.
pub fn claim(path: &Path) -> io::Result<Option<Claim>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(PRIVATE).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Claim(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_private_from_its_first_moment_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        // A left-over of a crash, readable by all, must not lend its mode to the new file.
        fs::write(beside(&path), "old").unwrap();
        replace(&path, b"one", PRIVATE).unwrap();
        replace(&path, b"two", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_a_pipe_is_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        replace(&path, b"one", PRIVATE).unwrap();
        let check = |path: &Path| must_be_private(path, &fs::metadata(path).unwrap(), "a key");
        check(&path).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let f = check(&path).unwrap_err();
            assert_eq!((f.code.as_ref(), f.kind.exit_code()), ("key-exposed", 3), "{mode:o}");
            assert!(f.message.contains("holds a key") && f.help.unwrap().contains("chmod 600"), "{mode:o}");
        }
        check(Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn a_directory_is_claimed_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = claim(&path).unwrap();
        assert!(held.is_some() && claim(&path).unwrap().is_none());
        drop(held);
        assert!(claim(&path).unwrap().is_some());
        assert!(claim(&dir.path().join("none/lock")).is_err());
    }
}
