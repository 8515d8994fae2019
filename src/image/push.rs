//! `push`: an image of the store goes to a registry, byte for byte, so that its digests stay what they are.
//!
//! Blobs go first, several at a time, each only if the registry does not have it; then the manifest, which makes an
//! image of them. A push that broke off has left blobs that the next one finds there.

use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, MANIFEST_MAX};
use crate::image::reference::Reference;
use crate::image::registry::{Access, Client, RegistriesError, RegistryError, Source, Uploaded};
use crate::image::store::{Image, Store, StoreError};
use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many repositories a registry is asked to take a blob from.
const MOUNTS_MAX: usize = 3;

/// Why an image was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("cannot push to {name}: the image's manifest has the digest {digest}")]
    Digest { name: Box<Reference>, digest: Digest },
    #[error("cannot read the image store")]
    Store(#[from] StoreError),
    #[error("cannot find out where the image goes")]
    Registries(#[from] RegistriesError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Kind for PushError {
    fn kind(&self) -> ErrorKind {
        match self {
            PushError::Digest { .. } => ErrorKind::InvalidInput,
            PushError::Store(source) => source.kind(),
            PushError::Registries(source) => source.kind(),
            PushError::Registry(source) => source.kind(),
        }
    }
}

type Result<T> = std::result::Result<T, PushError>;

/// Is told how a push goes on, by several threads.
pub trait Progress: Sync {
    /// These blobs are made present: the layers from the bottom, then the configuration.
    fn begin(&self, blobs: &[Descriptor]);
    /// Bytes of a blob went out, some of them again after a connection broke.
    fn sent(&self, blob: usize, bytes: u64);
    /// The registry has the blob.
    fn done(&self, blob: usize, how: Uploaded);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _: &[Descriptor]) {}
    fn sent(&self, _: usize, _: u64) {}
    fn done(&self, _: usize, _: Uploaded) {}
}

/// How to push.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    pub access: &'a Access,
    /// How many blobs are sent at the same time.
    pub parallel: usize,
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("parallel", &self.parallel).finish_non_exhaustive()
    }
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest.
    pub digest: Digest,
    /// Blobs that were sent, that the registry took from another repository, and that it had.
    pub sent: usize,
    pub mounted: usize,
    pub present: usize,
    /// Bytes that went out.
    pub bytes: u64,
}

/// Pushes `image` under the name `to`, by its tag, or by its digest alone if the name has no tag.
pub fn push(store: &Store, image: &Image, to: &Reference, options: &Options<'_>) -> Result<Pushed> {
    // What is pushed stays meanwhile.
    let _import = store.import()?;
    let digest = image.manifest.digest;
    if to.digest().is_some_and(|wanted| *wanted != digest) {
        return Err(PushError::Digest { name: Box::new(to.clone()), digest });
    }
    let manifest = store.read_blob(&digest, MANIFEST_MAX)?;
    let (parsed, _) = store.documents(image)?;
    let mut known = BTreeSet::new();
    let blobs: Vec<Descriptor> = parsed
        .layers
        .iter()
        .map(|layer| layer.descriptor.clone())
        .chain([parsed.config.clone()])
        .filter(|blob| known.insert(blob.digest.hex()))
        .collect();
    let client = Client::new(to, options.access.primary(to)?, options.access);
    let work = Work { store, client: &client, blobs: &blobs, neighbours: neighbours(store, to)?, options };
    let pushed = work.run(digest)?;
    let tag = to.tag().map_or_else(|| digest.to_string(), str::to_owned);
    client.put_manifest(&tag, &image.manifest.media_type, &manifest)?;
    Ok(pushed)
}

/// Repositories of the same registry, each with the blobs of its images here.
fn neighbours(store: &Store, to: &Reference) -> Result<Vec<(String, BTreeSet<String>)>> {
    let mut found: Vec<(String, BTreeSet<String>)> = Vec::new();
    for image in store.images()? {
        for name in &image.names {
            if name.registry() != to.registry() || name.repository() == to.repository() {
                continue;
            }
            let (manifest, _) = store.documents(&image)?;
            let blobs = manifest.layers.iter().map(|layer| layer.descriptor.digest.hex());
            match found.iter_mut().find(|(repository, _)| repository == name.repository()) {
                Some((_, known)) => known.extend(blobs),
                None => found.push((name.repository().to_owned(), blobs.collect())),
            }
        }
    }
    Ok(found)
}

struct Work<'a> {
    store: &'a Store,
    client: &'a Client,
    blobs: &'a [Descriptor],
    neighbours: Vec<(String, BTreeSet<String>)>,
    options: &'a Options<'a>,
}

impl Work<'_> {
    /// Makes all blobs of the manifest `digest` present; the first failure ends it.
    fn run(&self, digest: Digest) -> Result<Pushed> {
        self.options.progress.begin(self.blobs);
        let next = AtomicUsize::new(0);
        let bytes = AtomicU64::new(0);
        let failure: Mutex<Option<PushError>> = Mutex::new(None);
        let counts = [const { AtomicUsize::new(0) }; 3];
        std::thread::scope(|scope| {
            for _ in 0..self.options.parallel.clamp(1, 16).min(self.blobs.len()) {
                scope.spawn(|| {
                    while let Some(blob) = take(&next, self.blobs) {
                        match self.blob(blob, &bytes) {
                            Ok(how) => {
                                let count = match how {
                                    Uploaded::Sent => &counts[0],
                                    Uploaded::Mounted => &counts[1],
                                    Uploaded::Present => &counts[2],
                                };
                                count.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(error) => {
                                // The others fail because of the first.
                                let mut first = failure.lock().unwrap_or_else(PoisonError::into_inner);
                                first.get_or_insert(error);
                                next.store(self.blobs.len(), Ordering::Relaxed);
                                self.client.cancel();
                            }
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                let [sent, mounted, present] = counts.map(AtomicUsize::into_inner);
                Ok(Pushed { digest, sent, mounted, present, bytes: bytes.into_inner() })
            }
        }
    }

    fn blob(&self, at: usize, bytes: &AtomicU64) -> Result<Uploaded> {
        let blob = &self.blobs[at];
        let hex = blob.digest.hex();
        let from: Vec<&str> = self
            .neighbours
            .iter()
            .filter(|(_, blobs)| blobs.contains(&hex))
            .map(|(repository, _)| repository.as_str())
            .take(MOUNTS_MAX)
            .collect();
        let source = Blob { store: self.store, digest: blob.digest };
        let sent = |count| {
            bytes.fetch_add(count, Ordering::Relaxed);
            self.options.progress.sent(at, count);
        };
        let how = self.client.upload_blob(blob, &from, &source, &sent)?;
        self.options.progress.done(at, how);
        Ok(how)
    }
}

fn take(next: &AtomicUsize, blobs: &[Descriptor]) -> Option<usize> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    (at < blobs.len()).then_some(at)
}

/// A blob of the store, from any byte on.
struct Blob<'a> {
    store: &'a Store,
    digest: Digest,
}

impl Source for Blob<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = self.store.open_blob(&self.digest).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}
