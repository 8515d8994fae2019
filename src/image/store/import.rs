//! Adding to the store while the collector is kept away.
use super::index::TakenName;
use super::{Image, Result, Store, StoreError, collect, index};
use crate::image::manifest::Descriptor;
use crate::image::reference::Reference;
use crate::sys::SysError;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

/// A pull, a load or a lease in progress: nothing is collected while it lives. It may be shared by threads.
#[derive(Debug)]
pub struct Import<'a> {
    store: &'a Store,
    lock: File,
}

impl<'a> Import<'a> {
    pub(super) fn begin(store: &'a Store) -> Result<Import<'a>> {
        let lock = store.lock_file("lock")?;
        lock.lock_shared().map_err(SysError::io("flock", "lock"))?;
        Ok(Import { store, lock })
    }

    /// The only one, or `None` while another import or a collector runs.
    pub(super) fn alone(store: &'a Store) -> Result<Option<Import<'a>>> {
        Ok(collect::exclusive(store)?.map(|lock| Import { store, lock }))
    }

    /// The store that is added to.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// A file without a name on the store's file system, which goes away with its descriptor.
    pub fn scratch(&self) -> Result<File> {
        let dir = self.store.staging();
        Ok(File::options()
            .read(true)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::fcntl::OFlag::O_TMPFILE.bits())
            .open(&dir)
            .map_err(SysError::io("open", dir.to_string_lossy()))?)
    }

    /// Makes an image of a manifest whose blobs and layers are all in the store, and names it.
    ///
    /// `manifest` describes an image manifest, not an index. The image that had the name before stays, without
    /// a name. An image that gets no name can be found by its ID.
    pub fn commit_image(&self, name: Option<&Reference>, manifest: &Descriptor) -> Result<Image> {
        self.commit_image_as(name, manifest, TakenName::Move)
    }

    /// The same, where the name may have to stay with the image that has it.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`]; the image is none yet then.
    pub fn commit_image_as(
        &self,
        name: Option<&Reference>,
        manifest: &Descriptor,
        taken: TakenName,
    ) -> Result<Image> {
        let parsed = self.store.manifest(manifest)?;
        for layer in &parsed.layers {
            if !self.store.has_blob(&layer.descriptor.digest, layer.descriptor.size) {
                return Err(StoreError::NoBlob { digest: layer.descriptor.digest });
            }
        }
        // Checks the configuration and every layer before the name points to them.
        self.store.load(&[], manifest)?;
        index::set(self.store, name, manifest, taken)?;
        self.store.load(&index::read(self.store)?, manifest)
    }
}

impl Import<'_> {
    /// Ends the import, and has what it added collected unless something else needs it.
    pub fn abandon(self) -> Result<()> {
        // This import still keeps the collector away; dropping it lets it in.
        collect::now_or_later(self.store).map(drop)
    }
}

impl Drop for Import<'_> {
    fn drop(&mut self) {
        // The descriptor is about to be closed, which unlocks too; the collector below needs it now.
        let _ = self.lock.unlock();
        if let Err(error) = collect::if_postponed(self.store) {
            tracing::warn!(
                "cannot collect what the image store no longer needs: {}",
                crate::error::chain(&error)
            );
        }
    }
}
