//! Files that only their owner may read: written whole or not at all, checked when they are read.

use crate::errors::{Code, Failure};
use holdfast_transport::files::{PRIVATE, must_be_private, remove, replace_among_others};
use std::fs::{DirBuilder, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Makes a folder with mode 0700, its parents too; an existing one is narrowed to 0700.
pub fn make_private_dir(dir: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)))
        .map_err(|e| Failure::io("make the folder", dir, &e))
}

/// Replaces `path` by `bytes`, readable by its owner alone.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    replace_among_others(path, bytes, PRIVATE).map_err(|e| Failure::io("write", path, &e))
}

/// The folders in a folder; none if it cannot be read.
pub fn folders(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Removes a folder and the folders in it, but no file: for cgroups, whose files go with them.
pub fn remove_empty(dir: &Path) -> std::io::Result<()> {
    folders(dir).iter().try_for_each(|below| remove_empty(below))?;
    match std::fs::remove_dir(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes a folder for this process alone, for as long as what is returned lives.
pub fn lock_dir(dir: &Path) -> Result<File, Failure> {
    let held = File::open(dir).map_err(|e| Failure::io("open", dir, &e))?;
    held.try_lock().map_err(|e| {
        let what = format!("cannot take {} alone: {e}", dir.display());
        Failure::new(Code::Changed, what, "wait for the other `holdfast` to end")
    })?;
    Ok(held)
}

/// Overwrites a file and removes it. What the disk itself keeps of old blocks is beyond its reach.
pub fn wipe(path: &Path) -> Result<(), Failure> {
    let wiped = || {
        let file = File::options().write(true).open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        (&file).write_all(&vec![0; length])?;
        file.sync_all()?;
        remove(path)
    };
    wiped().map_err(|e| Failure::io("wipe", path, &e))
}

/// Reads a file of at most `max` bytes.
pub fn read(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let f = File::open(path).map_err(|e| Failure::io("read", path, &e))?;
    read_limited(f, max, &path.display().to_string())
}

/// Reads a stream to its end, at most `max` bytes; `what` names it in errors.
pub fn read_limited(from: impl std::io::Read, max: u64, what: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // Room for everything from the start: growing would leave copies of a secret behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(max.min(1 << 20)).unwrap_or(0) + 1));
    let read = from.take(max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|e| {
        Failure::new(Code::Io, format!("cannot read {what}: {e}"), "check that it exists and is readable")
    })?;
    if bytes.len() as u64 > max {
        return Err(Failure::new(
            Code::InvalidInput,
            format!("{what} is longer than {max} bytes"),
            "give a shorter one",
        ));
    }
    Ok(bytes)
}

/// Reads a key file, which nobody but its owner may be able to read.
pub fn read_private(path: &Path, max: u64) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let file = File::open(path).map_err(|e| Failure::io("read", path, &e))?;
    let meta = file.metadata().map_err(|e| Failure::io("read", path, &e))?;
    must_be_private(path, &meta, "a key")?;
    read_limited(file, max, &path.display().to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The file `path` is what `golden/<name>.hex` has. `HOLDFAST_BLESS=1` writes that anew.
    pub(crate) fn golden(name: &str, path: &Path) {
        let hex: String = std::fs::read(path).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.hex"));
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            std::fs::write(&golden, format!("{hex}\n")).unwrap();
        }
        assert_eq!(
            hex,
            std::fs::read_to_string(golden).unwrap().trim(),
            "{name} is stored in another form than before"
        );
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.key");
        write_private(&path, b"x").unwrap();
        assert_eq!(read_private(&path, 10).unwrap().as_slice(), b"x");
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read_private(&path, 10).unwrap_err().help.contains("chmod 600"));
    }

    #[test]
    fn folders_are_removed_with_those_in_them_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (top, full) = (dir.path().join("top"), dir.path().join("top/full"));
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        std::fs::create_dir(&full).unwrap();
        std::fs::write(full.join("file"), "x").unwrap();
        assert!(remove_empty(&top).is_err());
        assert_eq!(std::fs::read_to_string(full.join("file")).unwrap(), "x");
        std::fs::remove_file(full.join("file")).unwrap();
        remove_empty(&top).unwrap();
        assert!(!top.exists());
        remove_empty(&top).unwrap();
    }

    #[test]
    fn what_is_too_long_is_refused_whole() {
        assert_eq!(read_limited(&b"12345"[..], 4, "input").unwrap_err().code, Code::InvalidInput.word());
        assert_eq!(read_limited(&b"1234"[..], 4, "input").unwrap().as_slice(), b"1234");
    }
}
