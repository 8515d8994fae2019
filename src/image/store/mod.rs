//! The image store: content, unpacked layers, names and leases, without a daemon or a database.
//!
//! ```text
//! <root>/                       0700: nobody else may reach set-user-ID programs of an image
//!   content/                    an OCI image layout that other tools can read
//!     oci-layout  index.json    index.json carries the names
//!     blobs/sha256/<hex>
//!   layers/<chain ID>/          one unpacked layer, shared by all images that begin with the same layers
//!     fs/  layer.json
//!   leases/<holder>             what a container uses
//!   staging/                    what is being built or thrown away
//!   partial/<hex>               blobs that a pull has begun (see `partial.rs`)
//!   lock  index.lock  layers.lock  slots.lock  collect-later
//! ```
//!
//! Several processes use the store at once, and power can fail between any two steps:
//!
//! * Whatever becomes visible was complete and on disk before: a blob, a record or a layer is made under
//!   `staging/` or beside its place, synced, and renamed.
//! * Everything under `staging/` is held by an flock of whoever makes it. What can be locked by somebody else
//!   was left by a dead process; [`Store::open`] removes it.
//! * An [`Import`] holds `lock` shared, the collector holds it exclusively: what a pull has fetched but not
//!   yet named is never collected.
//! * Names change under `index.lock`; one layer is built by one process at a time (`layers.lock`, one byte for
//!   each chain ID).

use crate::image::digest::Digest;
use crate::image::manifest::{self, Config, Descriptor, Document, Manifest};
use crate::image::reference::Reference;
use crate::sys::SysError;
use oci_spec::image::ImageConfiguration;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

mod behind;
mod collect;
mod compare;
mod content;
mod describe;
mod df;
mod error;
mod fsck;
mod import;
mod index;
mod layer;
mod lease;
mod partial;
mod prune;
mod record;
mod remove;
mod slots;
mod staging;
#[cfg(test)]
mod tests;
mod usage;

pub use collect::{Object, Reason, User, Verdict, Verdicts};
pub use content::BlobWriter;
pub use df::{DiskUse, ImageUse, ObjectUse};
pub use error::StoreError;
pub use fsck::{Finding, Fsck, Holders, Outcome, Problem, Report, Subject};
pub use import::Import;
pub use index::TakenName;
pub use layer::{Slot, StagingLayer};
pub use partial::{Claim, PartialBlob};
pub use prune::{Prune, Pruned};
pub use remove::Removal;
pub use slots::MachineSlot;
pub use usage::Usage;

/// What a container uses is kept here.
const LEASES: &str = "leases";
/// What pulls have begun is kept here.
const PARTIAL: &str = "partial";
/// Files of the root directory that are locked or looked for.
const LOCKS: [&str; 5] = ["lock", "index.lock", "layers.lock", "slots.lock", "collect-later"];

/// What the store has in its root directory; containers and volumes lie beside it.
pub const ENTRIES: [&str; 10] =
    ["content", "layers", LEASES, "staging", PARTIAL, LOCKS[0], LOCKS[1], LOCKS[2], LOCKS[3], LOCKS[4]];

pub(crate) type Result<T> = std::result::Result<T, StoreError>;

/// The image store under one root directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// An image that is in the store with all its content and layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration, which is what users know as the image ID.
    pub id: Digest,
    /// All names that point to this manifest.
    pub names: Vec<Reference>,
    /// The manifest, of one platform.
    pub manifest: Descriptor,
    /// What the image wants of the container that runs it. Hostile.
    pub config: ImageConfiguration,
    /// The chain IDs of the layers, bottom to top.
    pub chain: Vec<Digest>,
    /// Bytes of the files of all unpacked layers.
    pub size: u64,
    /// Index into `chain` of the lowest layer that can be seen: one above it may replace the whole root.
    lowest_visible: usize,
}

impl Store {
    /// Opens the store under `root`, makes what is missing and removes what dead processes left.
    pub fn open(root: &Path) -> Result<Store> {
        let store = Store { root: root.to_owned() };
        for dir in [store.root.clone(), store.blobs(), store.layers(), store.leases(), store.staging()] {
            private_dir(&dir)?;
        }
        index::init(&store)?;
        staging::sweep(&store)?;
        partial::sweep(&store, partial::KEPT_FOR)?;
        Ok(store)
    }

    /// The directory that the store was opened on.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Starts to add blobs, layers or images.
    ///
    /// Waits while the collector runs.
    pub fn import(&self) -> Result<Import<'_>> {
        Import::begin(self)
    }

    /// The image of that name (`busybox`, `localhost:5000/a:b`, `a@sha256:…`) or ID (at least its first
    /// digit; `sha256:` may stand before it). A name wins over an ID.
    ///
    /// # Errors
    /// [`StoreError::NoImage`]; [`StoreError::Ambiguous`] for a short ID; [`StoreError::NoLayer`] or
    /// [`StoreError::NoBlob`] if the image is known but incomplete.
    pub fn resolve(&self, name_or_id: &str) -> Result<Image> {
        let entries = index::read(self)?;
        let entry = index::find(self, &entries, name_or_id)?;
        self.load(&entries, &entry.descriptor)
    }

    /// All images, each manifest once. An entry of the index that another tool put there and whose layers are
    /// not unpacked here is no image that can run: it is left out.
    pub fn images(&self) -> Result<Vec<Image>> {
        let entries = index::read(self)?;
        let mut images: Vec<Image> = Vec::new();
        for entry in &entries {
            if images.iter().any(|image| image.manifest.digest == entry.descriptor.digest) {
                continue;
            }
            match self.load(&entries, &entry.descriptor) {
                Ok(image) => images.push(image),
                Err(error) => tracing::warn!(
                    "skipping {} of the image index: {}",
                    entry.descriptor.digest,
                    crate::error::chain(&error)
                ),
            }
        }
        Ok(images)
    }

    /// The directories that overlayfs stacks for this image, the top layer first.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let visible = image.chain.iter().skip(image.lowest_visible);
        visible.rev().map(|chain_id| self.layer_dir(chain_id).join(layer::FS)).collect()
    }

    /// Whether the layer of this chain ID is unpacked.
    pub fn has_layer(&self, chain_id: &Digest) -> bool {
        // The record is part of the directory that was renamed into place.
        self.layer_dir(chain_id).join(layer::RECORD).exists()
    }

    /// Reads the image that `descriptor`'s manifest describes and checks that all of it is here.
    fn load(&self, entries: &[index::Entry], descriptor: &Descriptor) -> Result<Image> {
        let manifest = self.manifest(descriptor)?;
        let config = self.config(&manifest)?;
        let chain = config.chain();
        let (mut size, mut lowest_visible) = (0_u64, 0);
        for (at, chain_id) in chain.iter().enumerate() {
            let record = layer::Record::read(self, chain_id)?;
            size = size.saturating_add(record.size);
            if record.opaque_root {
                lowest_visible = at;
            }
        }
        let names = entries
            .iter()
            .filter(|entry| entry.descriptor.digest == descriptor.digest)
            .filter_map(|entry| entry.name.clone())
            .collect();
        Ok(Image {
            id: manifest.config.digest,
            names,
            manifest: descriptor.clone(),
            config: config.configuration,
            chain,
            size,
            lowest_visible,
        })
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        let digest = descriptor.digest;
        let bytes = self.read_blob(&digest, manifest::MANIFEST_MAX)?;
        let failed = |source| StoreError::Manifest { what: "manifest", digest, source };
        match manifest::parse(&bytes, Some(&descriptor.media_type)).map_err(failed)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(failed(manifest::ManifestError::Missing { field: "config" })),
        }
    }

    fn config(&self, manifest: &Manifest) -> Result<Config> {
        let digest = manifest.config.digest;
        let bytes = self.read_blob(&digest, manifest::CONFIG_MAX)?;
        let failed = |source| StoreError::Manifest { what: "image configuration", digest, source };
        let config = Config::parse(&bytes).map_err(failed)?;
        config.check_layers(manifest.layers.len()).map_err(failed)?;
        Ok(config)
    }

    fn content(&self) -> PathBuf {
        self.root.join("content")
    }

    fn blobs(&self) -> PathBuf {
        self.content().join("blobs/sha256")
    }

    fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn layer_dir(&self, chain_id: &Digest) -> PathBuf {
        self.layers().join(chain_id.hex())
    }

    fn leases(&self) -> PathBuf {
        self.root.join(LEASES)
    }

    fn partial(&self) -> PathBuf {
        self.root.join(PARTIAL)
    }

    fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// A lock file of the store; locked by the caller, never removed.
    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.root.join(name);
        Ok(File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(SysError::io("open", path.to_string_lossy()))?)
    }
}

fn private_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(SysError::io("mkdir", path.to_string_lossy()))?;
    // What is synced below it is no use without it.
    match path.parent() {
        Some(parent) => fsync(&open_dir(parent)?, parent),
        None => Ok(()),
    }
}

fn open_dir(path: &Path) -> Result<File> {
    Ok(File::open(path).map_err(SysError::io("open", path.to_string_lossy()))?)
}

fn fsync(file: &File, path: &Path) -> Result<()> {
    Ok(file.sync_all().map_err(SysError::io("fsync", path.to_string_lossy()))?)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    Ok(std::fs::rename(from, to)
        .map_err(SysError::io("rename", format!("{} to {}", from.display(), to.display())))?)
}

/// Renames within the store and makes the new name durable.
fn publish(from: &Path, to: &Path) -> Result<()> {
    rename(from, to)?;
    let parent = to.parent().unwrap_or(Path::new("."));
    fsync(&open_dir(parent)?, parent)
}

/// The entries of a directory of the store; none if it does not exist.
fn entries(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let failed = |error| SysError::io("readdir", dir.to_string_lossy())(error);
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .map(|entry| entry.map(|e| e.file_name()).map_err(failed))
            .collect::<std::result::Result<_, _>>()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error).into()),
    }
}
