//! Images from a real registry: over HTTP on a loopback address, over HTTPS with a certificate of its own elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use holdfast_agent::image::{ImageStore, StoreError, UnpackLimits};
use holdfast_image::{ImageError, Limits, Registries, Source, read_roots, resolve};
use holdfast_types::{Digest, sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use support::oci::{Layout, Pack, busybox_layer};
use support::registry::Registry;
use support::{need_root, within};
use tempfile::TempDir;

fn store(dir: &Path, registries: Registries) -> ImageStore {
    need_root();
    ImageStore::open(&dir.join("images"), registries, Limits::default(), UnpackLimits::default()).unwrap()
}

/// Puts an image with busybox into the registry as `shop/web:1.4`; its source and digest.
fn pushed(dir: &Path, registry: &Registry) -> (Source, Digest) {
    let layout = dir.join("layout");
    fs::create_dir(&layout).unwrap();
    let pinned = Layout(&layout).image("x", &[busybox_layer()], Pack::Gzip, |_| ());
    registry.push(&format!("{}:x", layout.display()), "shop/web:1.4");
    (Source::parse(&format!("{}/shop/web:1.4", registry.name())).unwrap(), pinned)
}

#[tokio::test]
async fn an_image_comes_from_a_registry_by_digest_and_a_lying_registry_is_found_out() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    let store = store(dir.path(), Registries::default());
    let (source, pinned) = pushed(dir.path(), &registry);
    assert_eq!(within(resolve(&source, &Registries::default())).await.unwrap(), pinned);
    let ready = within(store.ensure(&source, pinned)).await.unwrap();
    assert!(ready.rootfs.join("bin/busybox").exists());

    let absent = within(store.ensure(&source, sha256(&[b"absent"]))).await.unwrap_err();
    assert!(matches!(absent, StoreError::Image(ImageError::Registry { .. })), "{absent}");

    // The same name and digests, other bytes: for the layer, then for the manifest.
    store.prune(&BTreeSet::new, 0).await.unwrap();
    for digest in [ready.image.layers[0].digest, pinned] {
        let hex = digest.hex();
        let data = registry.storage.join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
        let mut bytes = fs::read(&data).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        fs::write(&data, bytes).unwrap();
        let error = within(store.ensure(&source, pinned)).await.unwrap_err();
        let is_told = matches!(error, StoreError::Image(ImageError::Mismatch { .. } | ImageError::Registry { .. }));
        assert!(is_told, "{error}");
        assert!(!ready.rootfs.exists());
        store.prune(&BTreeSet::new, 0).await.unwrap();
    }
}

#[tokio::test]
async fn a_registry_over_tls_is_believed_by_its_root_and_refused_by_name_without() {
    let dir = TempDir::new().unwrap();
    let registry = Registry::start_tls(dir.path());
    let (source, pinned) = pushed(dir.path(), &registry);
    let told = Registries { extra_roots: read_roots(&registry.root()).unwrap(), ..Registries::default() };
    let untold = Registries::default();
    // Another root is none for it, whatever it is called.
    let elsewhere = TempDir::new().unwrap();
    let stranger = Registry::start_tls(elsewhere.path());
    let misled = Registries { extra_roots: read_roots(&stranger.root()).unwrap(), ..Registries::default() };

    for registries in [&untold, &misled] {
        let error = within(resolve(&source, registries)).await.unwrap_err();
        let ImageError::Registry { registry: name, reason } = &error else { panic!("{error}") };
        assert_eq!(name, registry.name());
        assert!(reason.contains("certificate"), "{reason}");
        let error = within(store(elsewhere.path(), registries.clone()).ensure(&source, pinned)).await.unwrap_err();
        assert!(error.to_string().contains(registry.name()), "{error}");
    }
    // To speak in clear is no way round it: there, nobody listens who understands that.
    let in_clear = Registries { insecure: vec![registry.name().to_owned()], ..Registries::default() };
    within(resolve(&source, &in_clear)).await.unwrap_err();

    assert_eq!(within(resolve(&source, &told)).await.unwrap(), pinned);
    let ready = within(store(dir.path(), told).ensure(&source, pinned)).await.unwrap();
    assert!(ready.rootfs.join("bin/busybox").exists());
}
