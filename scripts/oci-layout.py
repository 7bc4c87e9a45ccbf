#!/usr/bin/env python3
"""Wraps one uncompressed layer into an OCI image layout: oci-layout.py LAYER.tar DIR."""
import hashlib, json, os, sys

layer_path, out = sys.argv[1:]
os.makedirs(f"{out}/blobs/sha256", exist_ok=True)


def blob(data: bytes, media: str) -> dict:
    digest = hashlib.sha256(data).hexdigest()
    with open(f"{out}/blobs/sha256/{digest}", "wb") as f:
        f.write(data)
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}


oci = "application/vnd.oci.image"
layer = blob(open(layer_path, "rb").read(), f"{oci}.layer.v1.tar")
config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
manifest = {"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), f"{oci}.config.v1+json"), "layers": [layer]}
index = {"schemaVersion": 2, "mediaType": f"{oci}.index.v1+json",
         "manifests": [blob(json.dumps(manifest).encode(), f"{oci}.manifest.v1+json")]}
json.dump(index, open(f"{out}/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open(f"{out}/oci-layout", "w"))
