//! What `docker save` and `podman save` write: `manifest.json`, configurations and layers as files.
use super::layers::Task;
use super::{IMAGES_MAX, LoadError, Loaded, Loader, Result};
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{CONFIG_MAX, Compression, Config, Descriptor, Layer, OCI_CONFIG, OCI_MANIFEST};
use crate::image::reference::Reference;
use crate::image::unpack::decode;
use crate::sys::SysError;
use serde::{Deserialize, Serialize};
use std::io::Read;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The manifest that the archive does not have.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<&'a Descriptor>,
}

impl Loader<'_> {
    pub(super) fn docker(&self, manifest: &[u8]) -> Result<Vec<Loaded>> {
        let items: Vec<Item> = serde_json::from_slice(manifest).map_err(LoadError::DockerManifest)?;
        match items.len() {
            0 => return Err(LoadError::Empty),
            count if count > IMAGES_MAX => return Err(LoadError::TooManyImages { count }),
            _ => {}
        }
        items.iter().map(|item| self.docker_image(item)).collect()
    }

    fn docker_image(&self, item: &Item) -> Result<Loaded> {
        let names = item
            .repo_tags
            .iter()
            .flatten()
            .map(|name| {
                name.parse::<Reference>()
                    .map_err(|source| LoadError::Reference { name: name.clone(), source })
            })
            .collect::<Result<Vec<_>>>()?;
        let config_bytes = self
            .archive
            .read(item.config.as_bytes(), CONFIG_MAX)?
            .ok_or_else(|| LoadError::Missing { name: item.config.clone() })?;
        let digest = Digest::of(&config_bytes);
        let config = Config::parse(&config_bytes)
            .and_then(|config| config.check_layers(item.layers.len()).map(|()| config))
            .map_err(|source| LoadError::Manifest { digest, source })?;
        let mut tasks = Vec::new();
        for (name, diff_id) in item.layers.iter().zip(&config.diff_ids) {
            tasks.push(self.docker_layer(name, diff_id)?);
        }
        let descriptors: Vec<Descriptor> = tasks.iter().map(|task| task.layer.descriptor.clone()).collect();
        self.layers(&config, tasks)?;
        self.import.put_blob(&config_bytes)?;
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: OCI_MANIFEST,
            config: Descriptor { media_type: OCI_CONFIG.to_owned(), digest, size: config_bytes.len() as u64 },
            layers: descriptors.iter().collect(),
        })
        .map_err(LoadError::DockerManifest)?;
        let digest = self.import.put_blob(&manifest)?;
        let media_type = OCI_MANIFEST.to_owned();
        self.commit(&Descriptor { media_type, digest, size: manifest.len() as u64 }, names)
    }

    /// Finds out what the archive does not say of a layer: its packing, size and digest.
    fn docker_layer(&self, name: &str, diff_id: &Digest) -> Result<Task> {
        let failed = |error| LoadError::from(SysError::io("read", name)(error));
        let mut start = Vec::new();
        self.archive.open(name.as_bytes())?.take(4).read_to_end(&mut start).map_err(failed)?;
        let compression = decode::detect(&start);
        let blob = self.archive.open(name.as_bytes())?;
        let size = blob.size();
        let digest = match compression {
            // A plain layer's digest is its diffID, or it will be refused.
            Compression::None => *diff_id,
            Compression::Gzip | Compression::Zstd => {
                let mut hasher = Hasher::new();
                std::io::copy(&mut self.archive.open(name.as_bytes())?, &mut hasher).map_err(failed)?;
                hasher.finish()
            }
        };
        let media_type = match compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest, size };
        Ok(Task { layer: Layer { descriptor, compression, foreign: false, urls: Vec::new() }, blob })
    }
}
