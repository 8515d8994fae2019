//! OCI layouts (image-spec `image-layout.md`).
use super::{Result, SaveError, Saved, Sink, manifest_of};
use crate::image::digest::Digest;
use crate::image::manifest::OCI_INDEX;
use crate::image::store::Store;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;

pub(super) fn write<W: Write>(store: &Store, images: &[Saved], sink: &mut Sink<W>) -> Result<()> {
    let mut entries = Vec::new();
    // By digest: images share layers.
    let mut blobs: BTreeMap<String, (Digest, u64)> = BTreeMap::new();
    for Saved { image, names } in images {
        let manifest = manifest_of(store, &image.manifest)?;
        let parts = [&image.manifest, &manifest.config];
        let layers = manifest.layers.iter().map(|layer| &layer.descriptor);
        for part in parts.into_iter().chain(layers) {
            blobs.insert(part.digest.hex(), (part.digest, part.size));
        }
        let mut add = |name: Option<String>| {
            let mut entry = json!({"mediaType": image.manifest.media_type, "digest": image.manifest.digest,
                "size": image.manifest.size});
            if let Some(name) = name {
                // By the first skopeo, umoci and podman find an image, by the second containerd and docker.
                entry["annotations"] = json!({"org.opencontainers.image.ref.name": name,
                    "io.containerd.image.name": name});
            }
            if !entries.contains(&entry) {
                entries.push(entry);
            }
        };
        if names.is_empty() {
            add(None);
        }
        names.iter().for_each(|name| add(Some(name.to_string())));
    }
    sink.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    sink.bytes("index.json", &index(entries))?;
    sink.directory("blobs")?;
    sink.directory("blobs/sha256")?;
    for (hex, (digest, size)) in blobs {
        let blob = store.open_blob(&digest)?;
        let actual = sink.stream(&format!("blobs/sha256/{hex}"), size, blob)?;
        if actual != digest {
            return Err(SaveError::Damaged { what: format!("blob {digest}"), actual });
        }
    }
    Ok(())
}

fn index(entries: Vec<Value>) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).to_string().into_bytes()
}
