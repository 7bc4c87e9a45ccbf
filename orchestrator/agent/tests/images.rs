//! Images, honest and hostile: what is unpacked is what was pinned, and stays where it belongs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod support;

use holdfast_agent::image::{ImageStore, Ready, StoreError, UnpackLimits};
use holdfast_image::{ImageError, Limits, Registries, Source};
use holdfast_types::{Digest, sha256};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use support::oci::{LayerTar, Layout, Pack, busybox_layer, pack};
use support::registry::run;
use support::{need_root, within};
use tar::EntryType;
use tempfile::TempDir;

/// What happens to a stored blob.
type Spoil<'a> = &'a dyn Fn(&Path);
/// What happens to a manifest.
type Lie<'a> = &'a dyn Fn(&mut serde_json::Value);

struct Shop {
    dir: TempDir,
    store: ImageStore,
    source: Source,
}

impl Shop {
    fn new() -> Self {
        Self::with(UnpackLimits::default(), Limits::default())
    }
    fn with(unpack: UnpackLimits, limits: Limits) -> Self {
        need_root();
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("layout")).unwrap();
        let store = ImageStore::open(&dir.path().join("images"), Registries::default(), limits, unpack).unwrap();
        let source = Source::parse(&format!("oci-layout:{}", dir.path().join("layout").display())).unwrap();
        Self { dir, store, source }
    }
    fn layout_dir(&self) -> PathBuf {
        self.dir.path().join("layout")
    }
    async fn ensure(&self, layers: &[Vec<u8>], how: Pack) -> Result<Ready, StoreError> {
        let pinned = Layout(&self.layout_dir()).image("x", layers, how, |_| ());
        within(self.store.ensure(&self.source, pinned)).await
    }
    /// What a hostile layer gets: refused, and nothing unpacked.
    async fn refused(&self, layer: Vec<u8>) -> String {
        let error = self.ensure(&[user_layer(), layer], Pack::Plain).await.unwrap_err();
        assert!(matches!(error, StoreError::Layer { .. }), "{error}");
        let left = fs::read_dir(self.dir.path().join("images/rootfs")).unwrap();
        let named = left.filter(|e| Digest::parse(&e.as_ref().unwrap().file_name().to_string_lossy()).is_some());
        assert_eq!(named.count(), 0);
        error.to_string()
    }
}

fn user_layer() -> Vec<u8> {
    LayerTar::new().file("etc/passwd", "web:x:1234:1235::/:/bin/sh\n").done()
}

fn read(ready: &Ready, path: &str) -> String {
    fs::read_to_string(ready.rootfs.join(path)).unwrap()
}

#[tokio::test]
async fn layers_lie_on_each_other_whatever_they_are_packed_with() {
    let lower = LayerTar::new().file("a", "lower").file("gone", "x").file("d/one", "1").file("d/two", "2").done();
    let upper =
        LayerTar::new().file("a", "upper").file(".wh.gone", "").file("d/three", "3").file("d/.wh..wh..opq", "").done();
    for how in [Pack::Plain, Pack::Gzip, Pack::Zstd] {
        let shop = Shop::new();
        let ready = shop.ensure(&[user_layer(), lower.clone(), upper.clone()], how).await.unwrap();
        assert_eq!((read(&ready, "a"), read(&ready, "d/three")), ("upper".into(), "3".into()));
        for path in ["gone", "d/one", "d/two", ".wh.gone", "d/.wh..wh..opq"] {
            assert!(!ready.rootfs.join(path).exists(), "{how:?} {path}");
        }
        assert_eq!(ready.user, Some((1234, 1235)));
    }
}

#[tokio::test]
async fn an_entry_replaces_what_it_meets_and_loses_its_set_user_id_bit() {
    let lower = LayerTar::new().dir("d/").file("d/x", "1").symlink("l", "/etc/passwd").file("f", "old").done();
    let upper = LayerTar::new()
        .file("d", "now a file")
        .file("l", "now a file too")
        .entry("f", EntryType::Regular, 0o6755, "", b"suid")
        .entry("t", EntryType::Directory, 0o1777, "", b"")
        .link("second", "f")
        .done();
    let shop = Shop::new();
    let ready = shop.ensure(&[user_layer(), lower, upper], Pack::Gzip).await.unwrap();
    assert_eq!((read(&ready, "d"), read(&ready, "l")), ("now a file".into(), "now a file too".into()));
    assert!(read(&ready, "etc/passwd").contains("web"));
    let meta = |path: &str| fs::symlink_metadata(ready.rootfs.join(path)).unwrap();
    assert_eq!((meta("f").permissions().mode() & 0o7777, meta("f").mtime()), (0o755, 1_000_000_000));
    assert_eq!(meta("t").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(meta("f").ino(), meta("second").ino());
}

#[tokio::test]
async fn a_layer_never_reaches_outside_its_root() {
    let outside = TempDir::new().unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    fs::write(outside.path().join("secret"), "kept").unwrap();

    for name in ["../escape", "a/../../escape", "/../escape"] {
        assert!(Shop::new().refused(LayerTar::new().file(name, "x").done()).await.contains("'..'"));
    }
    for link in ["../secret", "a/../../../etc/passwd"] {
        assert!(Shop::new().refused(LayerTar::new().link("hard", link).done()).await.contains("'..'"));
    }
    // A hard link to an absolute path means a path in the image, where there is no such file.
    Shop::new().refused(LayerTar::new().link("hard", &format!("{target}/secret")).done()).await;

    // Links are followed as in the container: below the root, also when they are absolute or climb.
    for climb in [target.clone(), format!("../../../../../../../../../..{target}")] {
        let layer =
            LayerTar::new().symlink("out", &climb).file("out/secret", "overwritten").file("out/new", "x").done();
        let error = Shop::new().refused(layer).await;
        assert!(error.contains("out/"), "{error}");
        let layer = LayerTar::new().dir(&target[1..]).symlink("out", &climb).file("out/secret", "inside").done();
        let shop = Shop::new();
        let ready = shop.ensure(&[user_layer(), layer], Pack::Plain).await.unwrap();
        assert_eq!(read(&ready, &format!("{}/secret", &target[1..])), "inside");
        let hides = LayerTar::new().file("out/.wh.secret", "").done();
        let lower = LayerTar::new().symlink("out", &climb).done();
        Shop::new().ensure(&[user_layer(), lower, hides], Pack::Plain).await.unwrap();
    }
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "kept");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn devices_fifos_and_odd_whiteouts_are_refused() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo, EntryType::GNUSparse] {
        Shop::new().refused(LayerTar::new().entry("dev/x", kind, 0o666, "", b"").done()).await;
    }
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.."] {
        Shop::new().refused(LayerTar::new().file(name, "").done()).await;
    }
}

#[tokio::test]
async fn an_image_is_bounded_in_entries_bytes_and_layers() {
    let many = (0..50).fold(LayerTar::new(), |l, i| l.file(&format!("f{i}"), "")).done();
    let few = UnpackLimits { entries: 20, ..Default::default() };
    assert!(Shop::with(few, Limits::default()).refused(many).await.contains("too many entries"));

    let large = LayerTar::new().file("zeros", &"0".repeat(1 << 20)).done();
    let small = UnpackLimits { bytes: 64 << 10, ..Default::default() };
    let bomb = Shop::with(small, Limits::default()).ensure(&[user_layer(), large.clone()], Pack::Gzip).await;
    assert!(bomb.unwrap_err().to_string().contains("too many bytes"));

    for limits in [Limits { layers: 1, ..Default::default() }, Limits { layers_bytes: 4096, ..Default::default() }] {
        let shop = Shop::with(UnpackLimits::default(), limits);
        let error = shop.ensure(&[user_layer(), large.clone()], Pack::Plain).await.unwrap_err();
        assert!(matches!(error, StoreError::Image(ImageError::Unusable { .. })), "{error}");
    }
}

#[tokio::test]
async fn content_that_is_not_its_digest_or_size_is_refused() {
    let layer = LayerTar::new().file("a", "1").done();
    let digest = sha256(&[&layer]);
    let spoil: [(&str, Spoil<'_>); 4] = [
        ("truncated", &|p| fs::write(p, &layer[..layer.len() - 512]).unwrap()),
        ("empty", &|p| fs::write(p, "").unwrap()),
        ("longer", &|p| fs::write(p, [layer.as_slice(), b"x"].concat()).unwrap()),
        ("other bytes", &|p| fs::write(p, vec![0; layer.len()]).unwrap()),
    ];
    for (what, spoil) in spoil {
        let shop = Shop::new();
        let layout_dir = shop.layout_dir();
        let layout = Layout(&layout_dir);
        let pinned = layout.image("x", &[user_layer(), layer.clone()], Pack::Plain, |_| ());
        spoil(&layout.blob_path(digest));
        let error = shop.store.ensure(&shop.source, pinned).await.unwrap_err();
        assert!(matches!(error, StoreError::Image(ImageError::Mismatch { .. })), "{what}: {error}");
    }
    let lies: [(&str, Lie<'_>); 3] = [
        ("a larger size", &|m| m["layers"][0]["size"] = 1_000_000.into()),
        ("a smaller size", &|m| m["layers"][0]["size"] = 10.into()),
        ("a larger configuration", &|m| m["config"]["size"] = 100_000.into()),
    ];
    for (what, lie) in lies {
        let shop = Shop::new();
        let pinned = Layout(&shop.layout_dir()).image("x", &[user_layer()], Pack::Plain, lie);
        let error = shop.store.ensure(&shop.source, pinned).await.unwrap_err();
        assert!(matches!(error, StoreError::Image(ImageError::Mismatch { .. })), "{what}: {error}");
    }
}

#[tokio::test]
async fn a_layer_whose_tar_is_not_its_diff_id_is_refused_before_anything_is_written() {
    let shop = Shop::new();
    let layout_dir = shop.layout_dir();
    let layout = Layout(&layout_dir);
    let (other, size) = layout.blob(&pack(&LayerTar::new().file("a", "other").done(), Pack::Gzip));
    let pinned = layout.image("x", &[user_layer()], Pack::Gzip, |m| {
        m["layers"][0]["digest"] = other.oci().into();
        m["layers"][0]["size"] = size.into();
    });
    let error = shop.store.ensure(&shop.source, pinned).await.unwrap_err();
    assert!(error.to_string().contains("diff_id"), "{error}");
}

#[tokio::test]
async fn manifests_that_can_be_read_in_two_ways_or_name_odd_content_are_refused() {
    let edits: [Lie<'_>; 5] = [
        &|m| m["manifests"] = serde_json::json!([]),
        &|m| m["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar".into(),
        &|m| m["layers"] = serde_json::json!([]),
        &|m| m["layers"][0]["digest"] = format!("sha512:{}", "0".repeat(128)).into(),
        &|m| m["layers"][0]["size"] = u64::MAX.into(),
    ];
    for (i, edit) in edits.into_iter().enumerate() {
        let shop = Shop::new();
        let pinned = Layout(&shop.layout_dir()).image("x", &[user_layer()], Pack::Plain, edit);
        let error = shop.store.ensure(&shop.source, pinned).await.unwrap_err();
        assert!(matches!(error, StoreError::Image(ImageError::Unusable { .. })), "{i}: {error}");
    }
}

#[tokio::test]
async fn an_index_is_pinned_as_an_index_and_verified_down() {
    let shop = Shop::new();
    let layout_dir = shop.layout_dir();
    let layout = Layout(&layout_dir);
    let manifest = layout.image("1.4", &[user_layer()], Pack::Gzip, |_| ());
    let named = Source::parse(&format!("{}:1.4", shop.source)).unwrap();
    assert_eq!(holdfast_image::resolve(&named, &Registries::default()).await.unwrap(), manifest);
    let index = layout.multi_platform(manifest);
    let pinned = holdfast_image::resolve(&shop.source, &Registries::default()).await.unwrap();
    assert_eq!(pinned, index);
    let image = shop.store.ensure(&shop.source, pinned).await.unwrap().image;
    assert_eq!((image.pinned, image.manifest), (index, manifest));
}

#[tokio::test]
async fn an_image_that_is_here_needs_no_source_and_an_unused_one_is_freed() {
    let shop = Shop::new();
    let ready = shop.ensure(&[user_layer()], Pack::Gzip).await.unwrap();
    fs::remove_dir_all(shop.layout_dir()).unwrap();
    let again = shop.store.ensure(&shop.source, ready.image.pinned).await.unwrap();
    assert_eq!(again.rootfs, ready.rootfs);
    let pinned = ready.image.pinned;
    assert_eq!(shop.store.prune(&|| BTreeSet::from([pinned]), 0).await.unwrap(), 0);
    assert!(ready.rootfs.exists());
    assert!(shop.store.prune(&BTreeSet::new, 0).await.unwrap() > 0);
    assert!(!ready.rootfs.exists());
    assert!(shop.store.ensure(&shop.source, ready.image.pinned).await.is_err());
}

/// Nothing was ever removed: a node's disk filled with the images of services that were gone.
#[tokio::test]
async fn an_image_that_is_in_use_or_was_lately_outlives_a_pruning() {
    let shop = Shop::new();
    let mut all = Vec::new();
    for n in 0..4 {
        let layer = LayerTar::new().file("etc/passwd", &format!("web:x:{n}:1:::/bin/sh\n")).done();
        all.push(shop.ensure(&[layer], Pack::Gzip).await.unwrap());
    }
    let oldest = all[0].image.pinned;
    assert!(shop.store.prune(&|| BTreeSet::from([oldest]), 2).await.unwrap() > 0);
    let left: Vec<bool> = all.iter().map(|r| r.rootfs.exists()).collect();
    assert_eq!(left, [true, false, true, true]);
    // Of an image in use something cannot be read: nothing goes, for its root file system may be a container's.
    let blobs = shop.dir.path().join("images/blobs");
    fs::remove_file(blobs.join(all[0].image.config_digest.hex())).unwrap();
    assert_eq!(shop.store.prune(&|| BTreeSet::from([oldest]), 0).await.unwrap(), 0);
    assert!(all[0].rootfs.exists() && all[3].rootfs.exists());
}

#[tokio::test]
async fn a_docker_archive_has_one_digest_wherever_it_is_read() {
    let shop = Shop::new();
    let layout = shop.layout_dir();
    Layout(&layout).image("x", &[busybox_layer()], Pack::Gzip, |_| ());
    let file = shop.dir.path().join("saved.tar");
    let (from, to) = (format!("oci:{}:x", layout.display()), format!("docker-archive:{}:web:1", file.display()));
    run("skopeo", &["--insecure-policy", "copy", &from, &to]);
    let source = Source::parse(&format!("docker-archive:{}", file.display())).unwrap();
    let pinned = holdfast_image::resolve(&source, &Registries::default()).await.unwrap();
    let ready = within(shop.store.ensure(&source, pinned)).await.unwrap();
    assert_eq!((ready.image.manifest, ready.user), (pinned, Some((1234, 1235))));
    assert!(ready.rootfs.join("bin/busybox").exists());
    let error = shop.store.ensure(&source, sha256(&[b"another"])).await.unwrap_err();
    assert!(matches!(error, StoreError::Image(ImageError::Mismatch { .. })), "{error}");
}
