//! OCI layouts (image-spec `image-layout.md`).
use super::layers::Task;
use super::{IMAGES_MAX, LoadError, Loaded, Loader, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{self, CONFIG_MAX, Config, Descriptor, Document, MANIFEST_MAX, Manifest};
use crate::image::reference::Reference;
use crate::image::store::StoreError;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How deep indexes may be nested.
const DEPTH_MAX: usize = 3;

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Loader<'_> {
    pub(super) fn oci(&self, index: &[u8]) -> Result<Vec<Loaded>> {
        let index: Index = serde_json::from_slice(index).map_err(LoadError::Index)?;
        if index.manifests.len() > IMAGES_MAX {
            return Err(LoadError::TooManyImages { count: index.manifests.len() });
        }
        // One manifest may have several entries, one for each name.
        let mut images: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
        for entry in &index.manifests {
            let name = name(&entry.annotations)?;
            match images.iter_mut().find(|(descriptor, _)| *descriptor == entry.descriptor) {
                Some((_, names)) => names.extend(name),
                None => images.push((entry.descriptor.clone(), name.into_iter().collect())),
            }
        }
        let mut loaded = Vec::new();
        for (descriptor, names) in images {
            // Signatures and the like lie in layouts too.
            if manifest::is_document(&descriptor.media_type) {
                loaded.push(self.oci_image(&descriptor, names)?);
            }
        }
        if loaded.is_empty() { Err(LoadError::Empty) } else { Ok(loaded) }
    }

    fn oci_image(&self, descriptor: &Descriptor, names: Vec<Reference>) -> Result<Loaded> {
        let (descriptor, bytes, manifest) = self.choose(descriptor.clone())?;
        let config_digest = manifest.config.digest;
        let config_bytes = self.verified(&manifest.config, CONFIG_MAX)?;
        let config = Config::parse(&config_bytes)
            .and_then(|config| config.check_layers(manifest.layers.len()).map(|()| config))
            .map_err(|source| LoadError::Manifest { digest: config_digest, source })?;
        let mut tasks = Vec::new();
        for layer in &manifest.layers {
            let blob = self.archive.open(&blob_name(&layer.descriptor.digest))?;
            tasks.push(Task { layer: layer.clone(), blob });
        }
        self.layers(&config, tasks)?;
        self.import.put_blob(&config_bytes)?;
        self.import.put_blob(&bytes)?;
        self.commit(&descriptor, names)
    }

    /// The image manifest that `descriptor` leads to, on this platform.
    fn choose(&self, mut descriptor: Descriptor) -> Result<(Descriptor, Vec<u8>, Manifest)> {
        for _ in 0..DEPTH_MAX {
            let digest = descriptor.digest;
            let failed = |source| LoadError::Manifest { digest, source };
            let bytes = self.verified(&descriptor, MANIFEST_MAX)?;
            match manifest::parse(&bytes, Some(&descriptor.media_type)).map_err(failed)? {
                Document::Manifest(manifest) => return Ok((descriptor, bytes, manifest)),
                Document::Index(index) => {
                    descriptor = index.choose(&self.options.platform).map_err(failed)?.descriptor.clone();
                }
            }
        }
        Err(LoadError::Nested)
    }

    /// A small blob with the size and the digest that its descriptor gives.
    fn verified(&self, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>> {
        let name = blob_name(&descriptor.digest);
        let bytes = self
            .archive
            .read(&name, limit)?
            .ok_or_else(|| LoadError::Missing { name: String::from_utf8_lossy(&name).into_owned() })?;
        let (size, actual) = (bytes.len() as u64, Digest::of(&bytes));
        if size != descriptor.size {
            let (digest, expected) = (descriptor.digest, descriptor.size);
            return Err(StoreError::BlobSize { digest, expected, actual: size }.into());
        }
        if actual != descriptor.digest {
            return Err(StoreError::BlobDigest { expected: descriptor.digest, actual }.into());
        }
        Ok(bytes)
    }
}

fn blob_name(digest: &Digest) -> Vec<u8> {
    format!("blobs/sha256/{}", digest.hex()).into_bytes()
}

/// The name of an entry: containerd and Docker write the whole one, skopeo and podman put it where the
/// specification has the tag. A bare tag names nothing.
fn name(annotations: &BTreeMap<String, String>) -> Result<Option<Reference>> {
    let whole = annotations.get("io.containerd.image.name");
    let short =
        annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/', '@']));
    let Some(name) = whole.or(short) else { return Ok(None) };
    name.parse().map(Some).map_err(|source| LoadError::Reference { name: name.clone(), source })
}
