//! Long files: written part by part and whole or not there at all, read part by part in little memory.

use crate::errors::{Code, Failure};
use holdfast_transport::files::PRIVATE;
use holdfast_wire::backup::{BackupError, frame_length};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Bytes read or written at a time.
const BUFFER: usize = 256 << 10;

/// What is wrong with a file, and what to do.
pub fn refuse(e: BackupError) -> Failure {
    let help = "nothing was changed; use another copy of the file";
    Failure::new(Code::Corrupt, e, help)
}

/// A file that has its name only once it is whole; readable by its owner alone.
pub struct NewFile {
    path: PathBuf,
    beside: PathBuf,
    file: BufWriter<File>,
    done: bool,
}

/// Refuses a file that is there: asked before anything is done that would be for nothing.
pub fn must_be_new(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        let what = format!("{} exists already", path.display());
        return Err(Failure::new(Code::InvalidInput, what, "choose another file: nothing is overwritten"));
    }
    Ok(())
}

impl NewFile {
    /// Begins `path`, which must not exist.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        must_be_new(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".partial");
        let beside = PathBuf::from(beside);
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Failure::io("replace", &beside, &e)),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&beside);
        let file = file.map_err(|e| Failure::io("make", &beside, &e))?;
        Ok(Self { path: path.to_owned(), beside, file: BufWriter::with_capacity(BUFFER, file), done: false })
    }
    /// Writes more of it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|e| Failure::io("write", &self.beside, &e))
    }
    /// It is whole: on the disk, under its name, when this returns.
    pub fn finish(mut self) -> Result<(), Failure> {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let whole = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let named = whole.and_then(|()| std::fs::rename(&self.beside, &self.path));
        self.done = named.is_ok();
        let kept = named.and_then(|()| File::open(folder)?.sync_all());
        kept.map_err(|e| Failure::io("write", &self.path, &e))
    }
}
impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.done {
            // Half a file is of use to nobody; if it cannot be removed, the next attempt replaces it.
            drop(std::fs::remove_file(&self.beside));
        }
    }
}

/// The frames of a file, one after the other.
pub struct Frames {
    file: BufReader<File>,
    path: PathBuf,
}

impl Frames {
    /// Opens a file that begins with `magic`.
    pub fn open(path: &Path, magic: &[u8]) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| Failure::io("read", path, &e))?;
        let mut frames = Self { file: BufReader::with_capacity(BUFFER, file), path: path.to_owned() };
        if frames.bytes(magic.len())? == magic {
            Ok(frames)
        } else {
            Err(refuse(BackupError::Malformed("it begins otherwise")))
        }
    }
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = self.file.by_ref().take(count as u64).read_to_end(&mut bytes);
        read.map_err(|e| Failure::io("read", &self.path, &e))?;
        Ok(bytes)
    }
    /// The next one; `None` at the end of the file.
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let length = self.bytes(4)?;
        if length.is_empty() {
            return Ok(None);
        }
        let length = <[u8; 4]>::try_from(length).map_err(|_| refuse(BackupError::CutShort))?;
        let length = frame_length(length).map_err(refuse)?;
        let frame = self.bytes(length)?;
        if frame.len() == length { Ok(Some(frame)) } else { Err(refuse(BackupError::CutShort)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_finished_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("backup");
        let mut half = NewFile::create(&path).unwrap();
        half.write(b"half").unwrap();
        drop(half);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut whole = NewFile::create(&path).unwrap();
        whole.write(b"HFXX\x00\x00\x00\x02ab").unwrap();
        whole.finish().unwrap();
        assert_eq!(NewFile::create(&path).err().unwrap().code, "invalid-input");
        let mut frames = Frames::open(&path, b"HFXX").unwrap();
        assert_eq!(frames.next().unwrap().unwrap(), b"ab");
        assert!(frames.next().unwrap().is_none());
        assert_eq!(Frames::open(&path, b"HFYY").err().unwrap().code, "corrupt");
        std::fs::write(&path, b"HFXX\x00\x00\x00\x03ab").unwrap();
        assert_eq!(Frames::open(&path, b"HFXX").unwrap().next().unwrap_err().code, "corrupt");
    }
}
