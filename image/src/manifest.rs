//! Manifests, indexes and configurations: read, checked, and brought down to one platform.

use crate::blobs::Expected;
use crate::{DOCUMENT_MAX, ImageError, Limits};
use holdfast_types::Digest;
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, ImageIndex, ImageManifest, Os};

/// An image of this machine's platform, all of whose blobs are verified and on disk.
#[derive(Clone, Debug)]
pub struct Image {
    /// What was pinned: the manifest's digest, or that of an index above it.
    pub pinned: Digest,
    /// The digest of the platform's manifest.
    pub manifest: Digest,
    /// The digest of the configuration.
    pub config_digest: Digest,
    /// The configuration.
    pub config: ImageConfiguration,
    /// The layers, lowest first.
    pub layers: Vec<Layer>,
}

/// One layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layer {
    /// SHA-256 of the blob as stored: plain, gzip or zstd.
    pub digest: Digest,
    /// SHA-256 of the tar inside (OCI image configuration, `rootfs.diff_ids`).
    pub diff_id: Digest,
    /// The blob's size in bytes.
    pub size: u64,
}

/// What lies under a digest.
pub(crate) enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

fn unusable(digest: Digest, reason: impl Into<String>) -> ImageError {
    ImageError::Unusable { digest, reason: reason.into() }
}

/// Tells a manifest from an index by its members. A document that could be read as both is refused: two readers must
/// not see two images under one digest (CVE-2021-41190).
pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Document, ImageError> {
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| unusable(digest, format!("not a manifest: {e}")))?;
    let has = |member: &str| value.get(member).is_some();
    let wrong = |e: serde_json::Error| unusable(digest, format!("not a manifest: {e}"));
    match (has("manifests"), has("config") || has("layers")) {
        (true, false) => serde_json::from_slice(bytes).map(|i| Document::Index(Box::new(i))).map_err(wrong),
        (false, true) => serde_json::from_slice(bytes).map(|m| Document::Manifest(Box::new(m))).map_err(wrong),
        _ => Err(unusable(digest, "neither one manifest nor one index")),
    }
}

/// The entry of an index for this machine.
pub(crate) fn for_this_platform(index: &ImageIndex, digest: Digest) -> Result<Expected, ImageError> {
    let wanted = (Os::default(), Arch::default());
    let fits =
        |d: &&Descriptor| d.platform().as_ref().is_some_and(|p| (p.os(), p.architecture()) == (&wanted.0, &wanted.1));
    // Attestations lie beside images under platform "unknown/unknown", so they never fit.
    let entry = index.manifests().iter().find(fits);
    let entry = entry.ok_or_else(|| unusable(digest, format!("it has nothing for {}/{}", wanted.0, wanted.1)))?;
    expected(entry, DOCUMENT_MAX, digest)
}

/// Digest (SHA-256 only) and size (at most `max`) of what a descriptor names.
pub(crate) fn expected(d: &Descriptor, max: u64, image: Digest) -> Result<Expected, ImageError> {
    let text = d.digest().to_string();
    let digest = text.strip_prefix("sha256:").and_then(Digest::parse);
    let digest = digest.ok_or_else(|| unusable(image, format!("it names {text:?}; only sha256 is taken")))?;
    if d.size() > max {
        return Err(unusable(image, format!("{} has {} bytes, at most {max} are taken", digest.oci(), d.size())));
    }
    Ok(Expected { digest, size: d.size() })
}

/// Media types of layers that we take; compression is told from the content.
const LAYER_TYPES: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];

/// The layers that a manifest names, within `limits`.
pub(crate) fn layers(manifest: &ImageManifest, image: Digest, limits: &Limits) -> Result<Vec<Expected>, ImageError> {
    if manifest.layers().len() > limits.layers {
        return Err(unusable(image, format!("it has more than {} layers", limits.layers)));
    }
    let mut left = limits.layers_bytes;
    let mut all = Vec::with_capacity(manifest.layers().len());
    for d in manifest.layers() {
        let kind = d.media_type().to_string();
        if !LAYER_TYPES.contains(&kind.as_str()) {
            return Err(unusable(image, format!("layers of type {kind:?} are not taken")));
        }
        let layer = expected(d, left, image)?;
        left = left.saturating_sub(layer.size);
        all.push(layer);
    }
    Ok(all)
}

/// Reads a configuration and ties it to its layers: one `diff_id` each, this machine's platform.
pub(crate) fn image(
    pinned: Digest,
    manifest: Digest,
    config: (Digest, &[u8]),
    layers: &[Expected],
) -> Result<Image, ImageError> {
    let (config_digest, bytes) = config;
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|e| unusable(manifest, format!("its configuration: {e}")))?;
    if (config.os(), config.architecture()) != (&Os::default(), &Arch::default()) {
        return Err(unusable(manifest, format!("it is for {}/{}", config.os(), config.architecture())));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers.len() {
        return Err(unusable(manifest, format!("{} layers, but {} diff_ids", layers.len(), diff_ids.len())));
    }
    let tie = |(blob, diff_id): (&Expected, &String)| {
        let diff_id = diff_id.strip_prefix("sha256:").and_then(Digest::parse);
        let diff_id = diff_id.ok_or_else(|| unusable(manifest, "a diff_id is not a sha256 digest"))?;
        Ok(Layer { digest: blob.digest, diff_id, size: blob.size })
    };
    let layers = layers.iter().zip(diff_ids).map(tie).collect::<Result<_, ImageError>>()?;
    Ok(Image { pinned, manifest, config_digest, config, layers })
}
