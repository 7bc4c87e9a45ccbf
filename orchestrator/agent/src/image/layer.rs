//! Applies one layer to a root file system (image specification, "Filesystem Layers").
//!
//! A layer is read twice: first every name, kind and size is checked, the whole is hashed against its `diff_id`, and
//! its whiteouts are collected; only then is anything touched. Whiteouts speak of the layers below, so they go first.
//! Refused: paths with `..`, devices, FIFOs and sparse files. Set-user-id bits, extended attributes and with them file
//! capabilities are not given on: no container could use them.

use super::tree::{Meta, Tree};
use super::{StoreError, io_error};
use holdfast_image::Layer;
use holdfast_types::Digest;
use sha2::Digest as _;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// Bounds on what all layers of an image may unpack to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnpackLimits {
    /// Bytes of all layers' tar streams together.
    pub bytes: u64,
    /// Entries of all layers together.
    pub entries: u64,
}
impl Default for UnpackLimits {
    fn default() -> Self {
        Self { bytes: 16 << 30, entries: 1_000_000 }
    }
}

/// What a layer takes away from the layers below it.
enum Whiteout {
    One(PathBuf),
    AllIn(PathBuf),
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Checks the layer in the file `blob` and applies it; `budget` is what the image may still use.
pub(super) fn apply(tree: &Tree, blob: &Path, layer: &Layer, budget: &mut UnpackLimits) -> Result<(), StoreError> {
    let refuse = |reason: String| StoreError::Layer { layer: layer.digest, reason };
    for whiteout in check(blob, layer, budget)? {
        let (path, done) = match &whiteout {
            Whiteout::One(path) => (path, tree.remove(path)),
            Whiteout::AllIn(path) => (path, tree.clear(path)),
        };
        done.map_err(|e| refuse(format!("cannot remove {}: {e}", path.display())))?;
    }
    let mut archive = tar::Archive::new(open(blob)?);
    for entry in archive.entries().map_err(io_error("read", blob))? {
        let mut entry = entry.map_err(io_error("read", blob))?;
        let Some(path) = entry_path(&entry).map_err(refuse)? else { continue };
        put(tree, &path, &mut entry).map_err(|e| refuse(format!("cannot write {}: {e}", path.display())))?;
    }
    Ok(())
}

fn put(tree: &Tree, path: &Path, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
    if path.file_name().is_some_and(|n| n.as_bytes().starts_with(WHITEOUT)) {
        return Ok(());
    }
    let header = entry.header();
    let id = |n: u64| u32::try_from(n).map_err(|_| io::Error::other("its owner is no uid or gid"));
    let mtime = i64::try_from(header.mtime()?).unwrap_or(0);
    let meta = Meta { uid: id(header.uid()?)?, gid: id(header.gid()?)?, mode: header.mode()?, mtime };
    let kind = header.entry_type();
    if kind.is_dir() {
        return tree.put_dir(path, meta);
    }
    if !kind.is_symlink() && !kind.is_hard_link() {
        return tree.put_file(path, meta, entry);
    }
    let nowhere = || io::Error::other("it is a link to nowhere");
    let target = entry.link_name()?.ok_or_else(nowhere)?;
    if kind.is_symlink() {
        return tree.put_symlink(path, meta, &target);
    }
    tree.put_link(path, &plain(&target).map_err(io::Error::other)?.ok_or_else(nowhere)?)
}

/// The first reading. Nothing is written.
fn check(blob: &Path, layer: &Layer, budget: &mut UnpackLimits) -> Result<Vec<Whiteout>, StoreError> {
    let refuse = |reason: String| StoreError::Layer { layer: layer.digest, reason };
    let mut whiteouts = Vec::new();
    let mut archive =
        tar::Archive::new(Measured { source: open(blob)?, hash: sha2::Sha256::new(), left: budget.bytes });
    for entry in archive.entries().map_err(io_error("read", blob))? {
        let entry = entry.map_err(|e| refuse(e.to_string()))?;
        budget.entries =
            budget.entries.checked_sub(1).ok_or_else(|| refuse("the image has too many entries".into()))?;
        let Some(path) = entry_path(&entry).map_err(refuse)? else { continue };
        check_kind(&entry).map_err(|why| refuse(format!("{} {why}", path.display())))?;
        whiteouts.extend(whiteout(&path).map_err(refuse)?);
    }
    // A tar's end may be followed by padding, which counts for the digest.
    let mut measured = archive.into_inner();
    io::copy(&mut measured, &mut io::sink()).map_err(|e| refuse(e.to_string()))?;
    budget.bytes = measured.left;
    let found = Digest(measured.hash.finalize().into());
    if found != layer.diff_id {
        return Err(refuse(format!("its tar is {}, its diff_id says {}", found.oci(), layer.diff_id.oci())));
    }
    Ok(whiteouts)
}

fn check_kind(entry: &tar::Entry<'_, impl Read>) -> Result<(), String> {
    let kind = entry.header().entry_type();
    if kind.is_hard_link() {
        let target = entry.link_name().map_err(|e| e.to_string())?.ok_or("is a link to nowhere")?;
        return plain(&target)?.map(drop).ok_or_else(|| "is a link to the root".to_owned());
    }
    if kind.is_file() || kind.is_contiguous() || kind.is_dir() || kind.is_symlink() {
        return Ok(());
    }
    if kind.is_block_special() || kind.is_character_special() {
        return Err("is a device".to_owned());
    }
    Err(format!("is of the kind {:?}, which is not taken", char::from(kind.as_byte())))
}

/// The path of an entry below the root; `None` for the root itself and for a global header.
fn entry_path(entry: &tar::Entry<'_, impl Read>) -> Result<Option<PathBuf>, String> {
    if entry.header().entry_type() == EntryType::XGlobalHeader {
        return Ok(None);
    }
    plain(Path::new(OsStr::from_bytes(&entry.path_bytes())))
}

/// Relative, without `.`; a leading `/` means the root, as in the field. `..` is refused: no image needs it.
fn plain(path: &Path) -> Result<Option<PathBuf>, String> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(format!("the path {} has '..'", path.display())),
        }
    }
    Ok((!clean.as_os_str().is_empty()).then_some(clean))
}

fn whiteout(path: &Path) -> Result<Option<Whiteout>, String> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(None) };
    let parent = path.parent().unwrap_or(Path::new(""));
    if name == OPAQUE {
        return Ok(Some(Whiteout::AllIn(parent.to_owned())));
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        return Err(format!("{} hides nothing that can be hidden", path.display()));
    }
    Ok(Some(Whiteout::One(parent.join(OsStr::from_bytes(hidden)))))
}

/// Opens a layer's tar; compression is told by its first bytes (RFC 1952, RFC 8878).
fn open(blob: &Path) -> Result<Box<dyn Read>, StoreError> {
    let wrong = || io_error("read", blob);
    let mut start = [0u8; 4];
    let n = File::open(blob).and_then(|mut f| f.read(&mut start)).map_err(wrong())?;
    let file = io::BufReader::with_capacity(64 << 10, File::open(blob).map_err(wrong())?);
    Ok(match start.get(..n).unwrap_or_default() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::with_buffer(file).map_err(wrong())?),
        _ => Box::new(file),
    })
}

/// A stream that is hashed and counted as it is read.
struct Measured<R> {
    source: R,
    hash: sha2::Sha256,
    left: u64,
}
impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        self.hash.update(buffer.get(..n).unwrap_or_default());
        let left = self.left.checked_sub(u64::try_from(n).unwrap_or(u64::MAX));
        self.left = left.ok_or_else(|| io::Error::other("the image unpacks to too many bytes"))?;
        Ok(n)
    }
}
