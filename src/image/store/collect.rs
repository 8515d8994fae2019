//! The collector: removes blobs and layers that no name, no lease and no import needs.
use super::{Result, Store, StoreError, entries, index, lease, staging};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, Document};
use crate::sys::SysError;
use std::collections::HashSet;
use std::fs::{File, TryLockError};

/// Its presence asks the last import to collect.
const POSTPONED: &str = "collect-later";

/// Collects now, or lets the imports that are running do it when they end.
pub(super) fn now_or_later(store: &Store) -> Result<()> {
    // Before the attempt, so that an import which ends between the two steps sees it.
    store.lock_file(POSTPONED)?;
    if_postponed(store)
}

/// Collects if somebody asked for it and no import runs.
pub(super) fn if_postponed(store: &Store) -> Result<()> {
    let marker = store.root.join(POSTPONED);
    if !marker.exists() {
        return Ok(());
    }
    let lock = store.lock_file("lock")?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(SysError::io("flock", "lock")(error).into()),
    }
    collect(store, &lock)?;
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SysError::io("unlink", marker.to_string_lossy())(error).into())
        }
        _ => Ok(()),
    }
}

/// What must stay.
#[derive(Default)]
struct Live {
    blobs: HashSet<String>,
    layers: HashSet<String>,
}

impl Live {
    /// Marks a manifest or an index with all that it refers to. What cannot be followed is kept as it is.
    fn mark(&mut self, store: &Store, descriptor: &Descriptor) -> Result<()> {
        if !self.blobs.insert(descriptor.digest.hex()) || !manifest::is_document(&descriptor.media_type) {
            return Ok(());
        }
        let bytes = match store.read_blob(&descriptor.digest, manifest::MANIFEST_MAX) {
            Ok(bytes) => bytes,
            // An index may list platforms that were never fetched.
            Err(StoreError::NoBlob { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let failed = |source| StoreError::Manifest { what: "manifest", digest: descriptor.digest, source };
        match manifest::parse(&bytes, Some(&descriptor.media_type)).map_err(failed)? {
            Document::Index(index) => {
                for entry in &index.entries {
                    self.mark(store, &entry.descriptor)?;
                }
            }
            Document::Manifest(manifest) => {
                self.blobs.insert(manifest.config.digest.hex());
                self.blobs.extend(manifest.layers.iter().map(|layer| layer.descriptor.digest.hex()));
                match store.config(&manifest) {
                    Ok(config) => self.layers.extend(config.chain().iter().map(Digest::hex)),
                    Err(StoreError::NoBlob { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// `_exclusive` is locked exclusively: no import runs.
fn collect(store: &Store, _exclusive: &File) -> Result<()> {
    let mut live = Live::default();
    for descriptor in index::roots(store)? {
        live.mark(store, &descriptor)?;
    }
    for (_, lease) in lease::all(store)? {
        live.mark(store, &lease.manifest)?;
        live.layers.extend(lease.chain.iter().map(Digest::hex));
    }
    for name in entries(&store.blobs())? {
        if is_dead(&name, &live.blobs) {
            let path = store.blobs().join(&name);
            std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
        }
    }
    for name in entries(&store.layers())? {
        if is_dead(&name, &live.layers) {
            staging::discard(store, &store.layers().join(&name))?;
        }
    }
    Ok(())
}

/// Only what has a name that the store gives is the store's to remove.
fn is_dead(name: &std::ffi::OsStr, live: &HashSet<String>) -> bool {
    name.to_str().is_some_and(|name| {
        name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) && !live.contains(name)
    })
}
