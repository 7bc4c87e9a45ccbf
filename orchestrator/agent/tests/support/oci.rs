//! Images made by the tests: honest ones and hostile ones.

use holdfast_types::{Digest, sha256};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use tar::EntryType;

/// How a layer is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pack {
    Plain,
    Gzip,
    Zstd,
}

/// A layer being written: entries exactly as said, however hostile.
pub struct LayerTar(tar::Builder<Vec<u8>>);

impl LayerTar {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }
    pub fn entry(mut self, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        // Straight into the field: the library refuses to write what these tests are about.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        let field = &mut header.as_old_mut().linkname;
        field[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(u64::try_from(content.len()).unwrap());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }
    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(name, EntryType::Regular, 0o644, "", content.as_bytes())
    }
    pub fn dir(self, name: &str) -> Self {
        self.entry(name, EntryType::Directory, 0o755, "", b"")
    }
    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Symlink, 0o777, target, b"")
    }
    pub fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, EntryType::Link, 0o644, target, b"")
    }
    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn pack(tar: &[u8], how: Pack) -> Vec<u8> {
    match how {
        Pack::Plain => tar.to_vec(),
        Pack::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(tar).unwrap();
            out.finish().unwrap()
        }
        Pack::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

/// An OCI layout in `dir`.
pub struct Layout<'a>(pub &'a Path);

impl Layout<'_> {
    pub fn blob(&self, bytes: &[u8]) -> (Digest, usize) {
        let digest = sha256(&[bytes]);
        let dir = self.0.join("blobs/sha256");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    }

    pub fn blob_path(&self, digest: Digest) -> std::path::PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }

    fn descriptor(kind: &str, (digest, size): (Digest, usize)) -> Value {
        json!({ "mediaType": kind, "digest": digest.oci(), "size": size })
    }

    /// Writes an image of `layers` (tars, stored as `how`) called `name`; `edit` may spoil the manifest.
    pub fn image(&self, name: &str, layers: &[Vec<u8>], how: Pack, edit: impl FnOnce(&mut Value)) -> Digest {
        let diff_ids: Vec<String> = layers.iter().map(|l| sha256(&[l]).oci()).collect();
        let config = json!({
            "architecture": if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }, "os": "linux",
            "config": { "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo hello from the image; id -u; pwd"],
                        "Env": ["COLOUR=green"], "WorkingDir": "/tmp", "User": "web" },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let kind = match how {
            Pack::Plain => "application/vnd.oci.image.layer.v1.tar",
            Pack::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Pack::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let layers: Vec<Value> = layers.iter().map(|l| Self::descriptor(kind, self.blob(&pack(l, how)))).collect();
        let config = self.blob(config.to_string().as_bytes());
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": Self::descriptor("application/vnd.oci.image.config.v1+json", config), "layers": layers,
        });
        edit(&mut manifest);
        let manifest = self.blob(manifest.to_string().as_bytes());
        let mut entry = Self::descriptor("application/vnd.oci.image.manifest.v1+json", manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        self.index(vec![entry]);
        manifest.0
    }

    /// Writes `index.json`.
    pub fn index(&self, entries: Vec<Value>) {
        fs::write(self.0.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        fs::write(self.0.join("index.json"), index.to_string()).unwrap();
    }

    /// Puts an index for several platforms above `manifest` and returns the index's digest.
    pub fn multi_platform(&self, manifest: Digest) -> Digest {
        let size = usize::try_from(fs::metadata(self.blob_path(manifest)).unwrap().len()).unwrap();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let here = if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let entry = |digest, architecture: &str| {
            let mut d = Self::descriptor(kind, (digest, size));
            d["platform"] = json!({ "os": "linux", "architecture": architecture });
            d
        };
        let other = entry(sha256(&[b"elsewhere"]), "s390x");
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
                            "manifests": [other, entry(manifest, here)] });
        let index = self.blob(index.to_string().as_bytes());
        self.index(vec![Self::descriptor("application/vnd.oci.image.index.v1+json", index)]);
        index.0
    }
}

/// A layer with busybox and its applets, and a user called `web`.
pub fn busybox_layer() -> Vec<u8> {
    let busybox = fs::read(super::busybox()).unwrap();
    let mut layer =
        LayerTar::new().dir("bin/").dir("etc/").entry("bin/busybox", EntryType::Regular, 0o755, "", &busybox);
    for applet in super::APPLETS {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.file("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:1234:1235::/:/bin/sh\n").done()
}
