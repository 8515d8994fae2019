//! Unpacked layers, one directory for each chain ID.
use super::staging::{self, StagingDir};
use super::{Import, Result, Store, StoreError, record};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Compression};
use crate::image::unpack::{self, Limits, Unpacked};
use crate::sys::{SysError, range_lock};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The record's name in a layer's directory.
pub(super) const RECORD: &str = "layer.json";
/// The name of the directory tree itself.
pub(super) const FS: &str = "fs";
const VERSION: u32 = 1;

/// What is known of an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    pub(super) chain_id: Digest,
    pub(super) diff_id: Digest,
    /// Bytes of its regular files.
    pub(super) size: u64,
    /// Entries of its tar stream.
    pub(super) entries: u64,
    /// It hides everything below it. overlayfs ignores the opaque mark on a layer's root directory, so the
    /// layers below are left out of the stack instead.
    pub(super) opaque_root: bool,
}

impl Record {
    pub(super) fn read(store: &Store, chain_id: &Digest) -> Result<Record> {
        let path = store.layer_dir(chain_id).join(RECORD);
        let record: Record = record::read(&path)?.ok_or(StoreError::NoLayer { chain_id: *chain_id })?;
        if record.version != VERSION {
            return Err(StoreError::RecordVersion { path, version: record.version, known: VERSION });
        }
        Ok(record)
    }
}

/// What is to be done for a layer.
#[derive(Debug)]
pub enum Slot<'a> {
    /// It is unpacked already, perhaps by another process a moment ago.
    Present,
    /// The caller unpacks it; everybody else who wants this layer waits.
    Build(StagingLayer<'a>),
}

/// A layer that is being unpacked. Dropped without [`StagingLayer::commit`], it leaves nothing.
#[derive(Debug)]
pub struct StagingLayer<'a> {
    store: &'a Store,
    /// Chain IDs from the bottom up to this layer.
    chain: Vec<Digest>,
    diff_id: Digest,
    dir: StagingDir,
    /// Only this process builds this chain ID.
    _building: File,
}

impl<'a> Import<'a> {
    /// Claims the layer `diff_ids[at]` on top of `diff_ids[..at]` (bottom to top).
    ///
    /// Waits while another process or thread builds the same layer. Claim the layers of an image from the
    /// bottom up: then two imports cannot wait for each other, because whoever builds a layer waits only for
    /// layers below it.
    ///
    /// # Panics
    /// If `at` is no index into `diff_ids`.
    pub fn layer(&self, diff_ids: &[Digest], at: usize) -> Result<Slot<'a>> {
        let store = self.store();
        let chain = manifest::chain(&diff_ids[..=at]);
        let chain_id = chain[at];
        if store.has_layer(&chain_id) {
            return Ok(Slot::Present);
        }
        let building = store.lock_file("layers.lock")?;
        range_lock::lock_byte(&building, lock_offset(&chain_id))?;
        if store.has_layer(&chain_id) {
            return Ok(Slot::Present);
        }
        let place = store.layer_dir(&chain_id);
        if place.exists() {
            // No version of corten leaves a layer without its record; it cannot be trusted.
            staging::discard(store, &place)?;
        }
        let dir = StagingDir::create(store)?;
        Ok(Slot::Build(StagingLayer { store, chain, diff_id: diff_ids[at], dir, _building: building }))
    }

    /// A second build of the same layer, whether it is there or not; otherwise as [`Import::layer`].
    pub(super) fn layer_again(&self, diff_ids: &[Digest], at: usize) -> Result<StagingLayer<'a>> {
        let store = self.store();
        let chain = manifest::chain(&diff_ids[..=at]);
        let building = store.lock_file("layers.lock")?;
        range_lock::lock_byte(&building, lock_offset(&chain[at]))?;
        let dir = StagingDir::create(store)?;
        Ok(StagingLayer { store, chain, diff_id: diff_ids[at], dir, _building: building })
    }
}

/// Two chain IDs that share a byte only wait for each other.
fn lock_offset(chain_id: &Digest) -> u64 {
    let hex = chain_id.hex();
    // 60 bits: offsets of file locks are signed. A digest's text is hexadecimal.
    u64::from_str_radix(&hex[..15], 16).unwrap_or(0)
}

impl<'a> StagingLayer<'a> {
    /// The chain ID of the layer.
    pub fn chain_id(&self) -> &Digest {
        // A chain ends with the layer itself.
        &self.chain[self.chain.len() - 1]
    }

    /// Unpacks a layer blob as it comes. Layers below need not be there yet.
    ///
    /// The caller verifies the blob's own digest; [`StagingLayer::commit`] verifies the diffID.
    pub fn unpack(
        &self,
        blob: impl Read + Send,
        compression: Compression,
        limits: &Limits,
    ) -> Result<Unpacked> {
        let failed = |source| StoreError::Unpack { diff_id: self.diff_id, source: Box::new(source) };
        let fs = unpack::root(self.dir.dir(), FS).map_err(failed)?;
        let below = self.below()?;
        unpack::unpack_apart(blob, compression, fs, below.as_ref(), limits).map_err(failed)
    }

    /// The same for a file, or for a pipe ([`unpack::pipe`]) that the caller writes meanwhile: its bytes take no way
    /// through this process.
    pub fn unpack_file(&self, blob: OwnedFd, compression: Compression, limits: &Limits) -> Result<Unpacked> {
        let failed = |source| StoreError::Unpack { diff_id: self.diff_id, source: Box::new(source) };
        let fs = unpack::root(self.dir.dir(), FS).map_err(failed)?;
        let below = self.below()?;
        unpack::unpack_file_apart(blob, compression, fs, below.as_ref(), limits).map_err(failed)
    }

    /// The directory that the layers below are in; the lowest layer has none.
    fn below(&self) -> Result<Option<File>> {
        if self.chain.len() == 1 { Ok(None) } else { super::open_dir(&self.store.layers()).map(Some) }
    }

    /// Completes the layer with what depends on the layers below it, and publishes it.
    ///
    /// # Errors
    /// [`StoreError::DiffId`]; [`StoreError::NoLayer`] while a layer below is not committed: commit in order.
    pub fn commit(self, unpacked: Unpacked) -> Result<()> {
        self.complete(unpacked)?.publish()
    }

    /// Completes the layer where it is.
    pub(super) fn complete(self, unpacked: Unpacked) -> Result<Complete<'a>> {
        let actual = *unpacked.diff_id();
        if actual != self.diff_id {
            return Err(StoreError::DiffId { expected: self.diff_id, actual });
        }
        let below = &self.chain[..self.chain.len() - 1];
        let mut lowers = Vec::new();
        for chain_id in below.iter().rev() {
            let record = Record::read(self.store, chain_id)?;
            lowers.push(super::open_dir(&self.store.layer_dir(chain_id).join(FS))?);
            if record.opaque_root {
                break;
            }
        }
        let failed = |source| StoreError::Unpack { diff_id: self.diff_id, source: Box::new(source) };
        let summary = unpacked.settle(&lowers).map_err(failed)?;
        let record = Record {
            version: VERSION,
            chain_id: *self.chain_id(),
            diff_id: self.diff_id,
            size: summary.size,
            entries: summary.entries,
            opaque_root: summary.opaque_root,
        };
        Ok(Complete { staging: self, record })
    }
}

/// A layer that is whole, but neither on disk nor under its name.
#[derive(Debug)]
pub(super) struct Complete<'a> {
    staging: StagingLayer<'a>,
    pub(super) record: Record,
}

impl Complete<'_> {
    /// Where the tree is now.
    pub(super) fn tree(&self) -> PathBuf {
        self.staging.dir.path().join(FS)
    }

    /// Gives it its name, which nothing else must have.
    pub(super) fn publish(self) -> Result<()> {
        let StagingLayer { store, dir, .. } = &self.staging;
        record::write_with(&dir.path().join(RECORD), &self.record, record::Sync::No)?;
        // Before the name, because after a power failure a name without its data would be taken for whole. With the record:
        // a sync of its own would only end one more transaction of a file system that has much to write.
        nix::unistd::syncfs(dir.dir()).map_err(SysError::on("syncfs", dir.path().to_string_lossy()))?;
        let place = store.layer_dir(&self.record.chain_id);
        self.staging.dir.publish(&place)
    }
}
