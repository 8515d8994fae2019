//! What is known of an image's parts, and its names.
use super::{Image, Result, Store, StoreError, index, layer};
use crate::image::digest::Digest;
use crate::image::manifest::{Config, Manifest};
use crate::image::reference::Reference;
use std::path::PathBuf;

impl Store {
    /// The manifest and the configuration of an image.
    pub fn documents(&self, image: &Image) -> Result<(Manifest, Config)> {
        let manifest = self.manifest(&image.manifest)?;
        let config = self.config(&manifest)?;
        Ok((manifest, config))
    }

    /// Bytes of the files of an unpacked layer.
    pub fn layer_size(&self, chain_id: &Digest) -> Result<u64> {
        Ok(layer::Record::read(self, chain_id)?.size)
    }

    /// The directories of these layers (bottom to top) that can be seen, the top one first.
    pub fn stack(&self, chain: &[Digest]) -> Result<Vec<PathBuf>> {
        let mut dirs = Vec::new();
        for chain_id in chain.iter().rev() {
            dirs.push(self.layer_dir(chain_id).join(layer::FS));
            if layer::Record::read(self, chain_id)?.opaque_root {
                break;
            }
        }
        Ok(dirs)
    }

    /// Takes names of an image away, or all of them if none is given; the image stays, without a name if it has none
    /// left. Returns the names that are gone.
    ///
    /// # Errors
    /// [`StoreError::NoImage`], also for a name that is another image's; then all names stay.
    pub fn untag(&self, name_or_id: &str, names: &[Reference]) -> Result<Vec<Reference>> {
        let mut gone = Vec::new();
        index::change(self, |entries| {
            let digest = index::find(self, entries, name_or_id)?.descriptor.digest;
            let of_image = entries.iter().filter(|entry| entry.descriptor.digest == digest);
            let all: Vec<Reference> = of_image.filter_map(|entry| entry.name.clone()).collect();
            if let Some(strange) = names.iter().find(|name| !all.contains(name)) {
                return Err(StoreError::NoImage { name: strange.to_string() });
            }
            gone = if names.is_empty() { all } else { names.to_vec() };
            for name in &gone {
                if let Some(at) = entries.iter().position(|entry| entry.name.as_ref() == Some(name)) {
                    index::unname(entries, at);
                }
            }
            Ok(!gone.is_empty())
        })?;
        Ok(gone)
    }
}
