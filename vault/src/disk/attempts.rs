//! How often it was tried in vain to open this disk, since that was written to the log last: a number beside the slots, which a
//! voter that is sealed cannot seal.
//!
//! Must never: keep anybody from opening the disk. It tells, and decides nothing: where it cannot be written or read, less is told.
//!
//! STORED: file `attempts`, a decimal number and a line end; no file: none.

use holdfast_transport::files::{PRIVATE, replace};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

const NAME: &str = "attempts";
/// Longest file that is read: any number that fits, and some.
const LONGEST: u64 = 16;

/// What is known of earlier processes; what cannot be read is none.
pub fn load(dir: &Path) -> u32 {
    match read(&dir.join(NAME)) {
        Ok(count) => count,
        Err(e) if e.kind() == ErrorKind::NotFound => 0,
        Err(error) => {
            tracing::warn!(%error, "how often it was tried in vain to open this disk before is not known");
            0
        }
    }
}

fn read(path: &Path) -> std::io::Result<u32> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    text.trim_end().parse().map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "it is no number"))
}

/// Keeps the number for the next process, which is on disk when this returns. It goes on without.
pub fn keep(dir: &Path, count: u32) {
    let path = dir.join(NAME);
    let kept = if count == 0 {
        std::fs::remove_file(&path).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
    } else {
        replace(&path, format!("{count}\n").as_bytes(), PRIVATE)
    };
    if let Err(error) = kept {
        tracing::warn!(%error, "how often it was tried in vain to open this disk is not kept for the next process");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_vain_are_known_to_the_next_process_until_they_are_told() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()), 0);
        for count in [1, 4, u32::MAX] {
            keep(dir.path(), count);
            assert_eq!(load(dir.path()), count);
        }
        let text = std::fs::read(dir.path().join(NAME)).unwrap();
        assert!(text.len() < 16 && text.ends_with(b"\n"), "{text:?}");
        for _ in 0..2 {
            keep(dir.path(), 0);
            assert_eq!((load(dir.path()), std::fs::read_dir(dir.path()).unwrap().count()), (0, 0));
        }
    }

    #[test]
    fn what_is_no_number_and_a_folder_that_takes_nothing_keep_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let long = "1".repeat(1 << 20);
        for damaged in ["", "\n", "-1", "four", "4294967296", "1 2", "\u{fffd}", long.as_str()] {
            std::fs::write(dir.path().join(NAME), damaged).unwrap();
            assert_eq!(load(dir.path()), 0, "{damaged:.20}");
        }
        keep(dir.path(), 3);
        assert_eq!(load(dir.path()), 3, "it is replaced");
        // A folder is in the place of the file: neither is it read, nor replaced, nor taken away.
        let blocked = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(blocked.path().join(NAME).join("below")).unwrap();
        keep(blocked.path(), 3);
        assert_eq!(load(blocked.path()), 0);
        keep(blocked.path(), 0);
        assert_eq!(load(&dir.path().join("nowhere")), 0);
        keep(&dir.path().join("nowhere"), 3);
    }
}
