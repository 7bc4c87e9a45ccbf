//! Makes small OCI image layouts, so that no test needs a registry or a network.

use holdfast_types::sha256;
use serde_json::json;
use std::fs;
use std::path::Path;

fn blob(dir: &Path, bytes: &[u8]) -> (String, usize) {
    let d = sha256(&[bytes]);
    fs::write(dir.join("blobs/sha256").join(d.hex()), bytes).unwrap();
    (d.oci(), bytes.len())
}

/// Writes an image layout whose one layer holds `files` (path, content), executable.
pub fn write_layout(dir: &Path, files: &[(&str, &[u8])]) {
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut h = tar::Header::new_ustar();
        h.set_size(content.len() as u64);
        h.set_mode(0o755);
        h.set_mtime(0);
        h.set_uid(0);
        h.set_gid(0);
        tar.append_data(&mut h, path, *content).unwrap();
    }
    let layer = tar.into_inner().unwrap();
    let (layer_digest, layer_size) = blob(dir, &layer);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]}
    });
    let (config_digest, config_size) = blob(dir, config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size}]
    });
    let (manifest_digest, manifest_size) = blob(dir, manifest.to_string().as_bytes());
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest_digest, "size": manifest_size}]
    });
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
