//! What people give: configurations, and images from wherever they come.

use super::damaged;
use super::stored::folder;
use holdfast_agent::image::{ImageStore, UnpackLimits};
use holdfast_hsm::message::{LONGEST, PinEvent, Reply, Request, decode, encode};
use holdfast_hsm::{KeyError, Uri};
use holdfast_image::{Limits, Registries, Source};
use holdfast_types::sha256;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// A configuration of each daemon; the first byte chooses which: taken, or refused in words, the same each time.
pub fn config(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let dir = folder();
    let path = dir.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let nothing = |_: &str| None;
    let read = || match which % 3 {
        0 => holdfast_vault::config::load(&path, nothing).map(|c| format!("{c:?}")).map_err(|e| e.to_string()),
        1 => holdfast_orchestrator::config::load(Some(&path), nothing)
            .map(|c| format!("{c:?}"))
            .map_err(|e| e.to_string()),
        _ => holdfast_agent::config::load(&path, nothing).map(|c| format!("{c:?}")).map_err(|e| e.to_string()),
    };
    let first = read();
    assert_eq!(first, read());
    assert!(first.is_ok_and(|c| !c.is_empty()) || read().is_err_and(|e| !e.is_empty()));
}

/// What is read is written as something that is read the same.
macro_rules! packet {
    ($kind:ty, $data:expr) => {
        match decode::<$kind>($data) {
            Ok(message) => assert_eq!(decode::<$kind>(&encode(&message, 256).unwrap()).unwrap(), message),
            Err(e) => assert!(matches!(e, KeyError::Corrupt(_))),
        }
    };
}

/// A token's URI, or a packet between the vault and the process of a token: refused, or read as the only thing that it
/// means.
pub fn pkcs11(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        match Uri::parse(text) {
            Ok(uri) => {
                assert_eq!(Uri::parse(&uri.to_string()).as_ref(), Ok(&uri));
                assert!(!uri.module_files().is_empty());
            }
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    }
    if data.len() <= LONGEST {
        packet!(Request, data);
        packet!(Reply, data);
        packet!(PinEvent, data);
    }
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().build().unwrap());

fn blob(layout: &Path, bytes: &[u8]) -> String {
    let digest = sha256(&[bytes]);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    digest.oci()
}

/// Prepares an image whose documents are damaged and whose digests fit all the same. Whatever is in it, nothing comes to
/// lie beside the folder that it is unpacked into.
fn prepare(damage_config: &[u8], damage_manifest: &[u8], layer: &[u8]) {
    let outside = folder();
    let (layout, store) = (outside.path().join("layout"), outside.path().join("store"));
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let layer_digest = blob(&layout, layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"User":"1000"}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#
    );
    let config = damaged(config.as_bytes(), damage_config);
    let config_digest = blob(&layout, &config);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer_digest}","size":{}}}]}}"#,
        config.len(),
        layer.len()
    );
    let manifest = damaged(manifest.as_bytes(), damage_manifest);
    blob(&layout, &manifest);
    let pinned = sha256(&[&manifest]);
    let limits = UnpackLimits { bytes: 1 << 20, entries: 100 };
    let images = ImageStore::open(&store, Registries::default(), Limits::default(), limits).unwrap();
    let source = Source::Layout { path: layout, reference: None };
    if let Ok(ready) = RUNTIME.block_on(images.ensure(&source, pinned)) {
        assert!(ready.rootfs.starts_with(&store));
    }
    let mut beside: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["layout", "store"]);
    assert!(!Path::new(ESCAPED).exists(), "a layer reached {ESCAPED}");
}

/// A file that a layer may want to make and never does.
const ESCAPED: &str = "/dev/shm/holdfast-fuzz-escaped";

/// Manifests and configurations that say odd things under their own digests.
pub fn image(data: &[u8]) {
    let (config, manifest) = data.split_at(data.len() / 2);
    prepare(config, manifest, &tar_of(&[]));
    prepare(config, &[], &tar_of(&[]));
    prepare(&[], manifest, &tar_of(&[]));
}

/// A layer of arbitrary entries: `type, length of the name, name, length of the link, link`, again and again; and the same
/// bytes as a layer.
pub fn layer(data: &[u8]) {
    let mut entries = Vec::new();
    let mut rest = data;
    while let Some((kind, more)) = rest.split_first() {
        let (name, more) = counted(more);
        let (link, more) = counted(more);
        entries.push((*kind, name, link));
        rest = more;
    }
    prepare(&[], &[], &tar_of(&entries));
    prepare(&[], &[], data);
}

fn counted(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((length, rest)) = data.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(*length).min(rest.len()))
}

/// Types of entries, the odd ones included: files, links, devices, folders, pipes, long names, extended headers.
const KINDS: &[u8] = b"0123456567LKxg\0";

fn tar_of(entries: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, name, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let raw = header.as_old_mut();
        raw.linkflag = [KINDS[usize::from(*kind) % KINDS.len()]];
        for (field, text) in [(&mut raw.name, name), (&mut raw.linkname, link)] {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text[..length]);
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
    }
    out.resize(out.len() + 1024, 0);
    out
}
