//! Leases: what containers use is neither removed nor collected.
use super::{Image, Import, Result, Store, StoreError, entries, index, record};
use crate::image::digest::Digest;
use crate::image::manifest::Descriptor;
use crate::sys::SysError;
use serde::{Deserialize, Serialize};

const VERSION: u32 = 1;
/// What a lease that is being written is called after its own name.
const BESIDE: &str = ".tmp";

/// What one holder uses.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Lease {
    version: u32,
    /// The image's ID.
    pub(super) image: Digest,
    pub(super) manifest: Descriptor,
    /// Bottom to top.
    pub(super) chain: Vec<Digest>,
}

impl Store {
    /// Keeps `image` in the store until [`Store::release`]. A holder has one lease; a new one replaces it.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], [`StoreError::NoBlob`] or [`StoreError::NoImage`] if the image was removed since it was resolved.
    pub fn lease(&self, image: &Image, holder: &str) -> Result<()> {
        self.write_lease(image, holder, record::Sync::Yes)
    }

    /// The same for a holder that ends with the machine: after a loss of power the lease may be gone.
    pub fn lease_volatile(&self, image: &Image, holder: &str) -> Result<()> {
        self.write_lease(image, holder, record::Sync::No)
    }

    fn write_lease(&self, image: &Image, holder: &str, sync: record::Sync) -> Result<()> {
        // Shared with the collector: once this is held, what is still here stays.
        let import = self.import()?;
        self.write_lease_within(&import, image, holder, sync)
    }

    pub(super) fn write_lease_within(
        &self,
        _import: &Import<'_>,
        image: &Image,
        holder: &str,
        sync: record::Sync,
    ) -> Result<()> {
        let path = self.leases().join(checked(holder)?);
        if !self.has_blob(&image.manifest.digest, image.manifest.size) {
            return Err(StoreError::NoBlob { digest: image.manifest.digest });
        }
        for chain_id in &image.chain {
            if !self.has_layer(chain_id) {
                return Err(StoreError::NoLayer { chain_id: *chain_id });
            }
        }
        // Whoever takes an entry away looks at the leases while nobody else can hold the index.
        let kept = index::keep(self)?;
        if !index::read(self)?.iter().any(|entry| entry.descriptor.digest == image.manifest.digest) {
            return Err(StoreError::NoImage { name: image.id.to_string() });
        }
        let lease = Lease {
            version: VERSION,
            image: image.id,
            manifest: image.manifest.clone(),
            chain: image.chain.clone(),
        };
        record::write_with(&path, &lease, sync)?;
        drop(kept);
        Ok(())
    }

    /// Ends a lease; a holder that has none is none the less released. It need not be on disk at once: a lease
    /// that comes back after a loss of power has no container, and is released again.
    pub fn release(&self, holder: &str) -> Result<()> {
        let holder = checked(holder)?;
        for name in [format!("{holder}{BESIDE}"), holder.to_owned()] {
            let path = self.leases().join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SysError::io("unlink", path.to_string_lossy())(error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Store {
    /// Whose leases cannot be read, as after a loss of power: while there is one, nothing is collected.
    pub fn damaged_leases(&self) -> Result<Vec<String>> {
        let mut damaged = Vec::new();
        for holder in written(self)? {
            match read(self, &holder) {
                Err(StoreError::Record { .. } | StoreError::TooLarge { .. }) => damaged.push(holder),
                other => drop(other?),
            }
        }
        Ok(damaged)
    }

    /// Who has a lease.
    pub fn holders(&self) -> Result<Vec<String>> {
        let names = entries(&self.leases())?.into_iter().filter_map(|name| name.into_string().ok());
        // What a killed writer left beside a lease counts: releasing it removes that too.
        let holder = |name: String| name.strip_suffix(BESIDE).map_or_else(|| name.clone(), str::to_owned);
        let mut holders: Vec<String> = names.map(holder).filter(|name| checked(name).is_ok()).collect();
        holders.sort();
        holders.dedup();
        Ok(holders)
    }
}

/// All leases with their holders.
pub(super) fn all(store: &Store) -> Result<Vec<(String, Lease)>> {
    let mut leases = Vec::new();
    for holder in written(store)? {
        // Released since the directory was read.
        let Some(lease) = read(store, &holder)? else { continue };
        leases.push((holder, lease));
    }
    Ok(leases)
}

/// Whose leases are written to their end.
pub(super) fn written(store: &Store) -> Result<Vec<String>> {
    let names = entries(&store.leases())?.into_iter().filter_map(|name| name.into_string().ok());
    let mut holders: Vec<String> = names.filter(|name| checked(name).is_ok()).collect();
    holders.sort();
    Ok(holders)
}

/// One lease; `None` if it is released.
pub(super) fn read(store: &Store, holder: &str) -> Result<Option<Lease>> {
    let path = store.leases().join(holder);
    match record::read::<Lease>(&path)? {
        Some(lease) if lease.version != VERSION => {
            Err(StoreError::RecordVersion { path, version: lease.version, known: VERSION })
        }
        lease => Ok(lease),
    }
}

fn checked(holder: &str) -> Result<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let ends = [BESIDE];
    if holder.is_empty()
        || holder.len() > 200
        || holder.starts_with('.')
        || ends.iter().any(|end| holder.ends_with(end))
        || !holder.bytes().all(fits)
    {
        return Err(StoreError::Holder { holder: holder.chars().take(200).collect() });
    }
    Ok(holder)
}
