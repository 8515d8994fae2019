//! How much room the store takes.
use super::{Result, Store, entries, layer};
use crate::image::digest::Digest;

/// What is on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the blobs and of the files of unpacked layers.
    pub bytes: u64,
    /// Blobs, and entries of layers.
    pub inodes: u64,
}

impl Store {
    /// Counts all blobs and layers once, whoever uses them; from their records, without a walk over the layers.
    ///
    /// # Errors
    /// A directory of the store cannot be read. What goes away meanwhile is left out.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for name in entries(&self.blobs())? {
            let Ok(blob) = std::fs::symlink_metadata(self.blobs().join(name)) else { continue };
            usage.bytes = usage.bytes.saturating_add(blob.len());
            usage.inodes += 1;
        }
        for name in entries(&self.layers())? {
            let chain_id = name.to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let Some(Ok(record)) = chain_id.map(|chain_id| layer::Record::read(self, &chain_id)) else {
                continue;
            };
            usage.bytes = usage.bytes.saturating_add(record.size);
            usage.inodes = usage.inodes.saturating_add(record.entries);
        }
        Ok(usage)
    }
}
