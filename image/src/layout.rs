//! Images in a directory of OCI image layout (image specification, "Image Layout").

use crate::blobs::read_document;
use crate::manifest::expected;
use crate::{DOCUMENT_MAX, ImageError, io_error};
use holdfast_types::Digest;
use oci_spec::image::ImageIndex;
use std::fs::File;
use std::path::{Path, PathBuf};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What the layout's index names: the entry called `reference`, or the only one.
pub(crate) fn resolve(dir: &Path, reference: Option<&str>) -> Result<Digest, ImageError> {
    let path = dir.join("index.json");
    let file = File::open(&path).map_err(io_error("open", &path))?;
    let bytes = read_document(file, DOCUMENT_MAX, &path)?;
    let digest = holdfast_types::sha256(&[&bytes]);
    let index: ImageIndex = serde_json::from_slice(&bytes)
        .map_err(|e| ImageError::Unusable { digest, reason: format!("{} is no index: {e}", path.display()) })?;
    let name_of = |d: &oci_spec::image::Descriptor| d.annotations().as_ref().and_then(|a| a.get(REF_NAME).cloned());
    let named: Vec<_> =
        index.manifests().iter().filter(|d| reference.is_none_or(|r| name_of(d).as_deref() == Some(r))).collect();
    match (named.as_slice(), reference) {
        ([one], _) => Ok(expected(one, DOCUMENT_MAX, digest)?.digest),
        ([], Some(r)) => Err(missing(dir, format!("image called {r:?}"))),
        ([], None) => Err(missing(dir, "image".to_owned())),
        (several, _) => Err(missing(dir, format!("single image but {}: add :REF", several.len()))),
    }
}

fn missing(dir: &Path, what: String) -> ImageError {
    ImageError::Missing { source_name: format!("oci-layout:{}", dir.display()), what }
}

/// Opens a blob. What is read from it is checked by whoever asked.
pub(crate) fn open(dir: &Path, digest: Digest) -> Result<(PathBuf, File), ImageError> {
    let path = dir.join("blobs/sha256").join(digest.hex());
    match File::open(&path) {
        Ok(file) => Ok((path, file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(missing(dir, digest.oci())),
        Err(e) => Err(io_error("open", &path)(e)),
    }
}
