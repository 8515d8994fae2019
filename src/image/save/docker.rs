//! What `docker save` and `podman save` write: `manifest.json`, configurations, and layers as plain tar archives.
use super::{Result, SaveError, Saved, Sink, manifest_of};
use crate::image::digest::Digest;
use crate::image::manifest::{CONFIG_MAX, Compression, Config, Layer};
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::unpack::decode::{Decoder, Growth};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

pub(super) fn write<W: Write>(store: &Store, images: &[Saved], sink: &mut Sink<W>) -> Result<()> {
    let mut items = Vec::new();
    let mut configs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    // By diffID: images share layers, whatever they are packed with.
    let mut layers: BTreeMap<String, (Layer, Digest)> = BTreeMap::new();
    for Saved { image, names } in images {
        let manifest = manifest_of(store, &image.manifest)?;
        let bytes = store.read_blob(&manifest.config.digest, CONFIG_MAX)?;
        let digest = manifest.config.digest;
        let config = Config::parse(&bytes).and_then(|config| {
            config.check_layers(manifest.layers.len())?;
            Ok(config)
        });
        let config = config.map_err(|source| SaveError::Manifest { digest, source })?;
        let file = |diff_id: &Digest| format!("{}.tar", diff_id.hex());
        items.push(json!({
            "Config": format!("{}.json", digest.hex()),
            "RepoTags": names.iter().filter_map(tagged).collect::<Vec<_>>(),
            "Layers": config.diff_ids.iter().map(file).collect::<Vec<_>>(),
        }));
        for (layer, diff_id) in manifest.layers.into_iter().zip(&config.diff_ids) {
            layers.insert(file(diff_id), (layer, *diff_id));
        }
        configs.insert(format!("{}.json", digest.hex()), bytes);
    }
    sink.bytes("manifest.json", json!(items).to_string().as_bytes())?;
    for (name, bytes) in configs {
        sink.bytes(&name, &bytes)?;
    }
    for (name, (layer, diff_id)) in layers {
        // An archive gives a file's size before its bytes, so a packed layer is unpacked twice.
        let size = plain_size(store, &layer)?;
        let actual = sink.stream(&name, size, plain(store, &layer)?)?;
        if actual != diff_id {
            return Err(SaveError::Damaged { what: format!("layer {}", layer.descriptor.digest), actual });
        }
    }
    Ok(())
}

/// `REPOSITORY:TAG`; docker knows no other names in an archive.
fn tagged(name: &Reference) -> Option<String> {
    name.tag().map(|tag| format!("{}/{}:{tag}", name.registry(), name.repository()))
}

/// The layer's tar stream. What is in the store was within the limits when it came.
fn plain(store: &Store, layer: &Layer) -> Result<Plain> {
    let digest = layer.descriptor.digest;
    let growth = Growth { bytes: u64::MAX, ratio: u64::MAX, free: u64::MAX };
    let decoder = Decoder::new(store.open_blob(&digest)?, layer.compression, growth);
    Ok(Plain(decoder.map_err(|source| SaveError::Decode { digest, source })?))
}

fn plain_size(store: &Store, layer: &Layer) -> Result<u64> {
    if layer.compression == Compression::None {
        return Ok(layer.descriptor.size);
    }
    let digest = layer.descriptor.digest;
    let Plain(mut decoder) = plain(store, layer)?;
    let mut chunk = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let count = decoder.fill(&mut chunk).map_err(|source| SaveError::Decode { digest, source })?;
        size += count as u64;
        if count < chunk.len() {
            return Ok(size);
        }
    }
}

struct Plain(Decoder<File>);

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.fill(buffer).map_err(io::Error::other)
    }
}
