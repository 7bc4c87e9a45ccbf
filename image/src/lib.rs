//! Container images by content: from a name to a digest, and from a digest to verified blobs on disk.
//!
//! * [`Source`]: where an image is: `oci-layout:PATH[:ref]`, `docker-archive:PATH`, or a registry reference;
//! * [`resolve`]: what a deployer pins: the digest of what the name points at today (manifest or index);
//! * [`fetch`]: what a node does with the pin: every blob below it, checked by digest and size while it is written;
//! * [`held`]: what it has of that already.
//!
//! An index that is pinned stays an index, so that nodes of several architectures can share one specification; each
//! node verifies down from it to its own platform's manifest, and [`Image`] says both digests.
//!
//! Must never return a byte that was not checked against a digest, and never unpack anything: that is the node's work.

mod archive;
mod blobs;
mod layout;
mod manifest;
mod origin;
mod registry;
mod source;

pub use blobs::Blobs;
pub use manifest::{Image, Layer};
pub use origin::{fetch, held, resolve};
pub use registry::{Registries, RootsError, is_registry, read_roots};
pub use source::Source;

use holdfast_types::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Bounds on what an image may cost before it is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// All layers together, as stored, in bytes.
    pub layers_bytes: u64,
    /// How many layers (the field's runtimes stop at 127).
    pub layers: usize,
}
impl Default for Limits {
    fn default() -> Self {
        Self { layers_bytes: 8 << 30, layers: 127 }
    }
}
/// A manifest, index or configuration is no larger than this (the distribution specification asks for 4 MiB).
pub(crate) const DOCUMENT_MAX: u64 = 4 << 20;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text names no image.
    #[error("{given:?} is not an image: {why}")]
    Source {
        /// What was given, shortened.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file could not be read or written.
    #[error("could not {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The registry could not be reached, or said no.
    #[error("registry {registry}: {reason}")]
    Registry {
        /// Its name and port.
        registry: String,
        /// What it said.
        reason: String,
    },
    /// The source does not have it.
    #[error("{source_name} has no {what}")]
    Missing {
        /// Which source.
        source_name: String,
        /// What was looked for.
        what: String,
    },
    /// Content that is not what its digest or size says.
    #[error("{what} is not what was asked for: {reason}")]
    Mismatch {
        /// Which blob.
        what: String,
        /// How it differs.
        reason: String,
    },
    /// Content that is what it should be, but nothing that can be run here.
    #[error("image {digest} cannot be used: {reason}")]
    Unusable {
        /// Which manifest or index.
        digest: Digest,
        /// Why.
        reason: String,
    },
}

pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::Io { what, path: path.to_owned(), source }
}
