//! From a source to a pin, and from a pin to an image on disk: the same steps for every kind of source.

use crate::archive::Archive;
use crate::blobs::{Expected, check_bytes, read_document};
use crate::manifest::{self, Document};
use crate::registry::Remote;
use crate::{Blobs, DOCUMENT_MAX, Image, ImageError, Limits, Registries, Source, layout};
use holdfast_types::Digest;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// An opened source.
enum Origin {
    Layout { path: PathBuf, reference: Option<String> },
    Archive(Arc<Archive>),
    Registry(Box<Remote>),
}

/// What to pin: the digest of what `source` names now. A registry is asked; files are read.
pub async fn resolve(source: &Source, registries: &Registries) -> Result<Digest, ImageError> {
    match Origin::open(source, registries).await? {
        Origin::Layout { path, reference } => blocking(move || layout::resolve(&path, reference.as_deref())).await,
        Origin::Archive(archive) => Ok(archive.digest),
        Origin::Registry(remote) => remote.resolve().await,
    }
}

/// Brings the image that is pinned as `pinned` from `source` into `blobs`, for this machine's platform.
/// What is there already is not asked for again: with everything there, the source is not even opened.
pub async fn fetch(
    source: &Source,
    pinned: Digest,
    blobs: &Blobs,
    registries: &Registries,
    limits: &Limits,
) -> Result<Image, ImageError> {
    bring(pinned, &Fetch { source: Some((source, registries)), blobs, origin: OnceCell::new() }, limits).await
}

/// The image that is pinned as `pinned`, if all of it is in `blobs`.
pub async fn held(pinned: Digest, blobs: &Blobs, limits: &Limits) -> Result<Option<Image>, ImageError> {
    match bring(pinned, &Fetch { source: None, blobs, origin: OnceCell::new() }, limits).await {
        Ok(image) => Ok(Some(image)),
        Err(ImageError::Missing { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

async fn bring(pinned: Digest, fetch: &Fetch<'_>, limits: &Limits) -> Result<Image, ImageError> {
    let mut digest = pinned;
    let mut document = manifest::parse(&fetch.document(pinned).await?, pinned)?;
    if let Document::Index(index) = &document {
        digest = manifest::for_this_platform(index, pinned)?.digest;
        document = manifest::parse(&fetch.document(digest).await?, digest)?;
    }
    let Document::Manifest(found) = document else {
        return Err(ImageError::Unusable { digest, reason: "an index within an index".to_owned() });
    };
    let layers = manifest::layers(&found, digest, limits)?;
    let config = manifest::expected(found.config(), DOCUMENT_MAX, digest)?;
    fetch.blob(config).await?;
    let image = manifest::image(pinned, digest, (config.digest, &fetch.blobs.read(config.digest)?), &layers)?;
    for layer in layers {
        fetch.blob(layer).await?;
    }
    Ok(image)
}

struct Fetch<'a> {
    /// Without one, only what is here already counts.
    source: Option<(&'a Source, &'a Registries)>,
    blobs: &'a Blobs,
    origin: OnceCell<Origin>,
}

impl Fetch<'_> {
    async fn origin(&self) -> Result<&Origin, ImageError> {
        let absent =
            || ImageError::Missing { source_name: "this machine".to_owned(), what: "all of the image".to_owned() };
        let (source, registries) = self.source.ok_or_else(absent)?;
        self.origin.get_or_try_init(|| Origin::open(source, registries)).await
    }

    async fn document(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        if self.blobs.has(digest) {
            return self.blobs.read(digest);
        }
        let bytes = self.origin().await?.document(digest).await?;
        check_bytes(&bytes, digest)?;
        self.blobs.put(&bytes, digest)?;
        Ok(bytes)
    }

    async fn blob(&self, blob: Expected) -> Result<(), ImageError> {
        if self.blobs.has(blob.digest) {
            return Ok(());
        }
        let mut incoming = self.blobs.create(blob)?;
        match self.origin().await? {
            Origin::Registry(remote) => {
                remote.copy(blob, &mut incoming).await?;
                blocking(move || incoming.finish()).await
            }
            Origin::Layout { path, .. } => {
                let path = path.clone();
                blocking(move || {
                    let (name, file) = layout::open(&path, blob.digest)?;
                    incoming.take_all(file, &name)?;
                    incoming.finish()
                })
                .await
            }
            Origin::Archive(archive) => {
                let archive = archive.clone();
                blocking(move || {
                    let (name, file) = archive.blob(blob.digest)?;
                    incoming.take_all(file, name)?;
                    incoming.finish()
                })
                .await
            }
        }
    }
}

impl Origin {
    async fn open(source: &Source, registries: &Registries) -> Result<Self, ImageError> {
        match source {
            Source::Layout { path, reference } => Ok(Self::Layout { path: path.clone(), reference: reference.clone() }),
            Source::Archive { path } => {
                let path = path.clone();
                blocking(move || Archive::open(&path)).await.map(|a| Self::Archive(Arc::new(a)))
            }
            Source::Registry(reference) => Ok(Self::Registry(Box::new(Remote::new(reference, registries)?))),
        }
    }

    async fn document(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        match self {
            Origin::Layout { path, .. } => {
                let (name, file) = layout::open(path, digest)?;
                read_document(file, DOCUMENT_MAX, &name)
            }
            Origin::Archive(archive) if archive.digest == digest => Ok(archive.manifest.clone()),
            Origin::Archive(archive) => Err(ImageError::Mismatch {
                what: digest.oci(),
                reason: format!("the archive holds {}", archive.digest.oci()),
            }),
            Origin::Registry(remote) => remote.manifest(digest).await,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => {
            Err(ImageError::Io { what: "finish reading", path: PathBuf::new(), source: std::io::Error::other(e) })
        }
    }
}
