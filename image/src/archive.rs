//! Images in a file as `docker save` writes it.
//!
//! Such a file has no OCI manifest, so it has no digest of its own to pin. We define one: the SHA-256 of the OCI
//! manifest that [`converted`] writes from the configuration and the layers as they lie in the file, as compact JSON
//! with its members in the order of the structs below.
//! STORED: that digest is signed into specifications; golden form in this file's tests.

use crate::blobs::read_document;
use crate::{DOCUMENT_MAX, ImageError, io_error};
use holdfast_types::Digest;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Entries of one archive: far more than any image has layers.
const ENTRIES_MAX: usize = 10_000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Blob,
    layers: Vec<Blob>,
}
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: &'static str,
    digest: String,
    size: u64,
}

/// `manifest.json` of the archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// Where an entry's bytes lie in the file.
#[derive(Clone, Copy, Debug)]
struct Span {
    offset: u64,
    size: u64,
}

/// An archive that has been read through once.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    /// The converted manifest, and its digest.
    pub(crate) manifest: Vec<u8>,
    pub(crate) digest: Digest,
    blobs: HashMap<Digest, Span>,
}

impl Archive {
    /// Reads the whole file: its layers have no digests but those that we compute.
    pub(crate) fn open(path: &Path) -> Result<Self, ImageError> {
        let file = File::open(path).map_err(io_error("open", path))?;
        let spans = spans(&file).map_err(io_error("read", path))?;
        let find = |name: &str| spans.get(&plain(Path::new(name)).unwrap_or_default()).copied();
        let missing =
            |what: String| ImageError::Missing { source_name: format!("docker-archive:{}", path.display()), what };
        let document = |name: &str| {
            let span = find(name).ok_or_else(|| missing(format!("file {name:?}")))?;
            read_document(section(path, span)?, DOCUMENT_MAX, path)
        };
        let saved: Vec<Saved> = serde_json::from_slice(&document("manifest.json")?)
            .map_err(|e| missing(format!("readable manifest.json: {e}")))?;
        let [image] = saved.as_slice() else {
            return Err(missing(format!("single image but {}: save one image a file", saved.len())));
        };
        let config_bytes = document(&image.config)?;
        let mut blobs = HashMap::new();
        let mut described = Vec::with_capacity(image.layers.len());
        for name in &image.layers {
            let span = find(name).ok_or_else(|| missing(format!("layer {name:?}")))?;
            let (digest, media_type) = hash(section(path, span)?).map_err(io_error("read", path))?;
            blobs.insert(digest, span);
            described.push(Blob { media_type, digest: digest.oci(), size: span.size });
        }
        let config_digest = holdfast_types::sha256(&[&config_bytes]);
        if let Some(span) = find(&image.config) {
            blobs.insert(config_digest, span);
        }
        let size = u64::try_from(config_bytes.len()).unwrap_or(u64::MAX);
        let manifest = converted(config_digest, size, described);
        let digest = holdfast_types::sha256(&[&manifest]);
        Ok(Self { path: path.to_owned(), manifest, digest, blobs })
    }

    /// Opens a blob of the image. What is read from it is checked by whoever asked.
    pub(crate) fn blob(&self, digest: Digest) -> Result<(&Path, impl Read + use<>), ImageError> {
        let span = self.blobs.get(&digest).ok_or_else(|| ImageError::Missing {
            source_name: format!("docker-archive:{}", self.path.display()),
            what: digest.oci(),
        })?;
        Ok((&self.path, section(&self.path, *span)?))
    }
}

/// The OCI manifest of a saved image.
fn converted(config: Digest, size: u64, layers: Vec<Blob>) -> Vec<u8> {
    let config = Blob { media_type: "application/vnd.oci.image.config.v1+json", digest: config.oci(), size };
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    // Strings and numbers only: this cannot fail.
    serde_json::to_vec(&Manifest { schema_version: 2, media_type, config, layers }).unwrap_or_default()
}

fn section(path: &Path, span: Span) -> Result<io::Take<File>, ImageError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    file.seek(SeekFrom::Start(span.offset)).map_err(io_error("read", path))?;
    Ok(file.take(span.size))
}

/// Where every regular file lies. Links are followed once: `docker save` links layers that two images share.
fn spans(file: &File) -> io::Result<HashMap<PathBuf, Span>> {
    let mut found = HashMap::new();
    let mut links = Vec::new();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()?.take(ENTRIES_MAX) {
        let entry = entry?;
        let Some(name) = plain(&entry.path()?) else { continue };
        if entry.header().entry_type().is_file() {
            found.insert(name, Span { offset: entry.raw_file_position(), size: entry.size() });
        } else if let Some(target) = entry.link_name()? {
            let is_symbolic = entry.header().entry_type().is_symlink();
            let base = if is_symbolic { name.parent().unwrap_or(Path::new("")).to_owned() } else { PathBuf::new() };
            links.push((name, base.join(target)));
        }
    }
    for (name, target) in links {
        if let Some(span) = plain(&target).and_then(|t| found.get(&t).copied()) {
            found.insert(name, span);
        }
    }
    Ok(found)
}

/// A name without `.` and with `..` taken back; `None` if it leaves the archive.
fn plain(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !clean.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(clean)
}

/// SHA-256 of all bytes, and the media type that their beginning tells.
fn hash(mut source: impl Read) -> io::Result<(Digest, &'static str)> {
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0u8; 64 << 10];
    let mut kind = None;
    loop {
        let n = source.read(&mut chunk)?;
        let bytes = chunk.get(..n).unwrap_or_default();
        if bytes.is_empty() {
            return Ok((Digest(hash.finalize().into()), kind.unwrap_or("application/vnd.oci.image.layer.v1.tar")));
        }
        kind.get_or_insert(match bytes {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        });
        hash.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_converted_manifest_keeps_its_bytes() {
        let layer =
            Blob { media_type: "application/vnd.oci.image.layer.v1.tar", digest: Digest([2; 32]).oci(), size: 1024 };
        let text = String::from_utf8(converted(Digest([1; 32]), 7, vec![layer])).unwrap();
        let (one, two) = ("01".repeat(32), "02".repeat(32));
        let golden = format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\
             \"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:{one}\",\"size\":7}},\
             \"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:{two}\",\"size\":1024}}]}}"
        );
        assert_eq!(text, golden);
    }

    #[test]
    fn a_name_never_leaves_the_archive() {
        assert_eq!(plain(Path::new("./a/../b")), Some("b".into()));
        for out in ["../a", "a/../../b", "/a"] {
            assert_eq!(plain(Path::new(out)), None, "{out}");
        }
    }
}
