//! The PIN of the token: read once, at the start, before rights are given up.
//!
//! Must never: take one from a file that others may open, or say it in an error.

use crate::config::PinSource;
use crate::disk::credential;
use holdfast_transport::files::must_be_private;
use holdfast_types::SecretBytes;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longer than the PIN of any token.
const MOST: usize = 255;

/// Reads the PIN; what is wrong, in words.
pub fn read(source: &PinSource) -> Result<SecretBytes, String> {
    read_from(source, credential::directory().as_deref())
}

fn read_from(source: &PinSource, credentials: Option<&Path>) -> Result<SecretBytes, String> {
    let path = match source {
        PinSource::File(path) => path.clone(),
        // The service manager gives it to this process alone, under its own rules.
        PinSource::Credential(name) => {
            let dir = credentials.ok_or("the service manager gave this process no credentials")?;
            return text(&open(&dir.join(name))?, &format!("the credential {name}"));
        }
        PinSource::Fd(fd) => {
            return text(&open(&PathBuf::from(format!("/proc/self/fd/{fd}")))?, &format!("file descriptor {fd}"));
        }
    };
    let file = open(&path)?;
    let meta = file.metadata().map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    must_be_private(&path, &meta, "a PIN").map_err(|f| f.line())?;
    text(&file, &path.display().to_string())
}

fn open(path: &Path) -> Result<File, String> {
    File::open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))
}

/// What `file` holds, `most` bytes of it at most, in one buffer: one that grew would leave copies behind.
pub fn read_most(file: &File, most: usize) -> std::io::Result<SecretBytes> {
    let mut all = Vec::with_capacity(most + 1);
    let read = file.take(most as u64).read_to_end(&mut all);
    let all = SecretBytes::new(all);
    read.map(|_| all)
}

/// One line; its end is no part of the PIN.
fn text(file: &File, from: &str) -> Result<SecretBytes, String> {
    let mut pin = read_most(file, MOST + 2).map_err(|e| format!("cannot read {from}: {e}"))?;
    if pin.expose().last() == Some(&b'\n') {
        pin.truncate(pin.len() - 1);
    }
    match pin.len() {
        0 => Err(format!("{from} is empty")),
        n if n > MOST => Err(format!("{from} is longer than the PIN of any token")),
        _ if pin.expose().iter().any(|b| *b < b' ') => Err(format!("{from} is not one line")),
        _ => Ok(pin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(text: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hsm-pin");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[test]
    fn a_pin_is_the_one_line_of_its_source() {
        let (dir, path) = file(b"12 34\n", 0o600);
        let given = File::open(&path).unwrap();
        let fd = u32::try_from(given.as_raw_fd()).unwrap();
        for source in [PinSource::File(path), PinSource::Credential("hsm-pin".to_owned()), PinSource::Fd(fd)] {
            assert_eq!(read_from(&source, Some(dir.path())).unwrap().expose(), b"12 34", "{source:?}");
        }
    }

    #[test]
    fn a_pin_that_others_may_read_or_that_is_none_is_refused_and_never_said() {
        let (_dir, path) = file(b"1234", 0o644);
        let why = read(&PinSource::File(path)).unwrap_err();
        assert!(why.contains("chmod 600") && !why.contains("1234"), "{why}");
        for (text, part) in
            [(b"".as_slice(), "empty"), (b"\n", "empty"), (b"1234\n5678\n", "one line"), (&[b'7'; 256], "longer")]
        {
            let (_dir, path) = file(text, 0o600);
            let why = read(&PinSource::File(path)).unwrap_err();
            assert!(why.contains(part) && !why.contains("1234"), "{why}");
        }
        assert!(read_from(&PinSource::Credential("hsm-pin".to_owned()), None).unwrap_err().contains("no credentials"));
        assert!(read(&PinSource::File("/does/not/exist".into())).unwrap_err().contains("cannot open"));
    }
}
