//! Pulling an image: from a reference to an image in the store.
//!
//! ```text
//!                       worker 1..n, each on one layer at a time                      the caller's thread
//!  registry ==> [download thread: hash, blob file] ==chunks==> [inflate, diffID, files] ==> commit, bottom to top
//!               verified by size and digest                    verified by diffID
//! ```
//!
//! The network, the two hashes, the inflating and the making of files overlap. Nothing becomes visible before
//! the blob has the manifest's size and digest and the layer has the configuration's diffID: both ends of
//! the pipe must have succeeded before a layer is committed, and the image gets its name last.

use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Config, Descriptor, Document, Manifest, ManifestError};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::registry::{Access, Client, Fetched, RegistriesError, RegistryError};
use crate::image::store::{Image, Import, Store, StoreError};
use crate::image::unpack::Limits;
use std::sync::atomic::{AtomicBool, Ordering};

mod layers;
mod pipe;

/// How deep indexes may be nested.
const INDEX_DEPTH: usize = 3;

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error(transparent)]
    Store(Box<StoreError>),
    #[error("cannot use the manifest {digest} of {reference}")]
    Manifest {
        reference: Box<Reference>,
        digest: Digest,
        #[source]
        source: Box<ManifestError>,
    },
    #[error("cannot use the configuration {digest} of {reference}")]
    Config {
        reference: Box<Reference>,
        digest: Digest,
        #[source]
        source: Box<ManifestError>,
    },
    #[error("manifest {digest} of {reference} has {got} bytes, but its index says {want}")]
    ManifestSize { reference: Box<Reference>, digest: Digest, want: u64, got: u64 },
    #[error("indexes of {reference} are nested more than {INDEX_DEPTH} deep")]
    Nested { reference: Box<Reference> },
    #[error("{reference} is for the platform {got}, want {wanted}: --platform {got} pulls it all the same")]
    Platform { reference: Box<Reference>, wanted: Box<Platform>, got: Box<Platform> },
    #[error("cannot unpack layer {digest} of {reference}")]
    Layer {
        reference: Box<Reference>,
        digest: Digest,
        #[source]
        source: Box<StoreError>,
    },
    #[error("cannot store blob {digest} of {reference}")]
    Blob {
        reference: Box<Reference>,
        digest: Digest,
        #[source]
        source: Box<StoreError>,
    },
    #[error("the configuration leaves no registry to ask for {0}")]
    NoSource(Box<Reference>),
    #[error("cannot write blob {digest} of {reference}")]
    Write {
        reference: Box<Reference>,
        digest: Digest,
        #[source]
        source: std::io::Error,
    },
}

impl From<StoreError> for PullError {
    fn from(source: StoreError) -> PullError {
        PullError::Store(Box::new(source))
    }
}

impl Kind for PullError {
    fn kind(&self) -> ErrorKind {
        match self {
            PullError::Registry(source) => source.kind(),
            PullError::Registries(source) => source.kind(),
            PullError::Store(source) | PullError::Layer { source, .. } | PullError::Blob { source, .. } => {
                source.kind()
            }
            PullError::Manifest { source, .. } | PullError::Config { source, .. } => source.kind(),
            PullError::ManifestSize { .. } | PullError::Nested { .. } => ErrorKind::Corrupt,
            PullError::Platform { .. } | PullError::NoSource(_) => ErrorKind::NotFound,
            PullError::Write { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
                _ => ErrorKind::System,
            },
        }
    }
}

type Result<T> = std::result::Result<T, PullError>;

/// What a layer of the image needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is here, blob and unpacked layer.
    Nothing,
    /// Only the blob; the layer was unpacked from another packing of it.
    Blob,
    /// Only unpacking; the blob is here.
    Unpacking,
    Both,
}

/// What a caller may be told while it waits; the methods are called by several threads.
pub trait Progress: Sync {
    /// The layers, bottom to top, before any of them is fetched; again if a pull begins anew elsewhere.
    fn begin(&self, _layers: &[(Descriptor, Need)]) {}
    /// Another pull fetches the blob of a layer, and has so many bytes of it.
    fn waiting(&self, _layer: usize, _bytes: u64) {}
    /// So many bytes of a layer's blob are here from an earlier attempt.
    fn resumed(&self, _layer: usize, _bytes: u64) {}
    /// More bytes of a layer's blob have come.
    fn downloaded(&self, _layer: usize, _bytes: u64) {}
    /// The blob of a layer is here and verified; what is left is unpacking.
    fn verified(&self, _layer: usize) {}
    /// The layer can be used.
    fn done(&self, _layer: usize) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Quiet;

impl Progress for Quiet {}

/// What to do about layers that may not be distributed, of which a registry has no more than their URLs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// Such an image is not pulled.
    Refuse,
    /// They are fetched from these URLs, without credentials and encrypted.
    Fetch,
}

/// How to pull.
pub struct Options<'a> {
    /// Which image of an index; this host's by default.
    pub platform: Option<Platform>,
    /// How much each layer may ask for.
    pub limits: Limits,
    /// How registries are reached.
    pub access: Access,
    /// Fetch layers that are not in the registry from where the manifest says that they are.
    pub foreign: Foreign,
    /// How many layers are fetched and unpacked at once.
    pub parallel: usize,
    /// How many layers all pulls of this machine together fetch and unpack at once.
    pub machine: usize,
    pub progress: &'a dyn Progress,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            platform: None,
            limits: Limits::default(),
            access: Access::default(),
            foreign: Foreign::Refuse,
            parallel: 3,
            machine: machine_default(),
            progress: &Quiet,
        }
    }
}

/// Twice the processors, because a layer waits for the network or the disk half of its time; 4 to 16.
pub fn machine_default() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZeroUsize::get);
    (2 * processors).clamp(4, 16)
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("platform", &self.platform)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

/// An image that was pulled, and what it took.
#[derive(Debug)]
pub struct Pulled {
    pub image: Image,
    /// Of the manifest or index that the reference named.
    pub digest: Digest,
    /// How many layers were unpacked.
    pub unpacked: usize,
    /// Bytes of layer blobs that came over the network.
    pub downloaded: u64,
}

/// Pulls the image that `reference` names, and names it so in the store. What is there already is not
/// fetched again.
///
/// # Errors
/// The first failure. After a failure of the network, whole layers and blobs stay for the next attempt, without
/// a name; after any other, what was added is collected. Blobs that were begun stay a week.
pub fn pull(store: &Store, reference: &Reference, options: Options<'_>) -> Result<Pulled> {
    let mut sources = options.access.sources(reference)?.into_iter().peekable();
    loop {
        // There is at least one, and the last one's error is the one to tell.
        let Some(endpoint) = sources.next() else {
            return Err(PullError::NoSource(Box::new(reference.clone())));
        };
        let client = Client::new(reference, endpoint, &options.access);
        let damaged = AtomicBool::new(false);
        let mut result = from(store, reference, &options, &client, &damaged);
        if result.is_err() && damaged.load(Ordering::Relaxed) {
            // What was wrong in the blobs of an earlier attempt is gone.
            let client = Client::new(reference, client.endpoint().clone(), &options.access);
            result = from(store, reference, &options, &client, &AtomicBool::new(false));
        }
        match result {
            Err(error @ PullError::Registry(_)) if sources.peek().is_some() => {
                tracing::warn!("trying the next source of {reference}: {}", crate::error::chain(&error));
            }
            result => return result,
        }
    }
}

/// Pulls from one registry.
fn from(
    store: &Store,
    reference: &Reference,
    options: &Options<'_>,
    client: &Client,
    damaged: &AtomicBool,
) -> Result<Pulled> {
    let wanted = options.platform.clone().unwrap_or_else(Platform::host);
    let first = client.manifest()?;
    let digest = first.digest;
    let (fetched, manifest) = choose(client, reference, &wanted, first)?;
    if options.foreign == Foreign::Refuse {
        manifest.refuse_foreign().map_err(|source| PullError::Manifest {
            reference: Box::new(reference.clone()),
            digest: fetched.digest,
            source: Box::new(source),
        })?;
    }
    let import = store.import()?;
    let (config, config_bytes) = configuration(client, store, reference, &manifest)?;
    let got = config.platform();
    if wanted.suits(&got).is_none() {
        return Err(PullError::Platform {
            reference: Box::new(reference.clone()),
            wanted: Box::new(wanted),
            got: Box::new(got),
        });
    }
    let work = layers::Work { client, import: &import, reference, options, damaged };
    let result = work.run(&manifest, &config).and_then(|(unpacked, downloaded)| {
        import.put_blob(&config_bytes)?;
        let image = commit(&import, reference, &fetched, &manifest)?;
        Ok(Pulled { image, digest, unpacked, downloaded })
    });
    if let Err(error) = &result
        && !matches!(error.kind(), ErrorKind::Network | ErrorKind::TimedOut)
        && !damaged.load(Ordering::Relaxed)
        && let Err(error) = import.abandon()
    {
        tracing::warn!("cannot collect what a failed pull has left: {}", crate::error::chain(&error));
    }
    result
}

/// Follows indexes down to the image manifest for `wanted`.
fn choose(
    client: &Client,
    reference: &Reference,
    wanted: &Platform,
    first: Fetched,
) -> Result<(Fetched, Manifest)> {
    let mut fetched = first;
    for _ in 0..=INDEX_DEPTH {
        let bad = |source| PullError::Manifest {
            reference: Box::new(reference.clone()),
            digest: fetched.digest,
            source: Box::new(source),
        };
        let index = match manifest::parse(&fetched.bytes, fetched.media_type.as_deref()).map_err(bad)? {
            Document::Manifest(manifest) => return Ok((fetched, manifest)),
            Document::Index(index) => index,
        };
        let entry = &index.choose(wanted).map_err(bad)?.descriptor;
        let mut next = client.manifest_by_digest(&entry.digest)?;
        let got = next.bytes.len() as u64;
        if got != entry.size {
            let reference = Box::new(reference.clone());
            return Err(PullError::ManifestSize { reference, digest: entry.digest, want: entry.size, got });
        }
        // The index has the last word on what the document is, so check the registry's word against it here.
        if let Some(announced) = next.media_type.as_deref().filter(|text| manifest::is_document(text))
            && announced != entry.media_type
        {
            let (inner, outer) = (announced.to_owned(), entry.media_type.clone());
            return Err(bad(ManifestError::MediaTypeMismatch { inner, outer }));
        }
        next.media_type = Some(entry.media_type.clone());
        fetched = next;
    }
    Err(PullError::Nested { reference: Box::new(reference.clone()) })
}

fn configuration(
    client: &Client,
    store: &Store,
    reference: &Reference,
    manifest: &Manifest,
) -> Result<(Config, Vec<u8>)> {
    let descriptor = &manifest.config;
    let digest = descriptor.digest;
    let bytes = if store.has_blob(&digest, descriptor.size) {
        store.read_blob(&digest, manifest::CONFIG_MAX)?
    } else {
        client.small_blob(descriptor)?
    };
    let bad = |source| PullError::Config {
        reference: Box::new(reference.clone()),
        digest,
        source: Box::new(source),
    };
    let config = Config::parse(&bytes).map_err(bad)?;
    config.check_layers(manifest.layers.len()).map_err(bad)?;
    Ok((config, bytes))
}

fn commit(
    import: &Import<'_>,
    reference: &Reference,
    fetched: &Fetched,
    manifest: &Manifest,
) -> Result<Image> {
    let digest = import.put_blob(&fetched.bytes)?;
    let descriptor =
        Descriptor { media_type: manifest.media_type.to_owned(), digest, size: fetched.bytes.len() as u64 };
    Ok(import.commit_image(Some(reference), &descriptor)?)
}
