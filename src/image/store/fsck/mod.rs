//! `fsck`: whether everything in the store is what its name says, and repair from what is.
//!
//! ```text
//! index ─▶ manifests ─▶ configurations, blobs ─▶ each layer, from the bottom up: unpacked again and compared
//! leases ─┘
//! ```
//! A blob with another digest than its name's is dropped, so that the next pull fetches it. A layer that differs
//! from what its blob unpacks to is replaced by that, or dropped if there is no whole blob. A layer below a
//! container that runs stays as it is: overlayfs does not bear a change of what it stacks.

use super::collect::{self, Object};
use super::{Image, Import, Result, Store, StoreError, index, lease, record};
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::{Compression, Descriptor, Manifest};
use crate::sys::SysError;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

mod layers;

/// What the store cannot know of the containers that hold its images.
pub trait Holders {
    /// Keeps a container from being started while the result lives; `None` if it runs.
    fn keep_stopped(&self, holder: &str) -> Option<Box<dyn std::any::Any>>;

    /// The ID of a container's image, by the container's own record; `None` if there is no such container.
    fn image_of(&self, holder: &str) -> Option<String>;
}

/// How [`Store::fsck`] goes about it.
pub struct Fsck<'a> {
    /// Put right what can be.
    pub repair: bool,
    /// Read all blobs and unpack all layers again, instead of looking at names, sizes and records only.
    pub contents: bool,
    /// The containers.
    pub holders: &'a dyn Holders,
}

impl std::fmt::Debug for Fsck<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fsck")
            .field("repair", &self.repair)
            .field("contents", &self.contents)
            .finish_non_exhaustive()
    }
}

/// What something is wrong with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", untagged)]
pub enum Subject {
    Object(Object),
    /// `index.json` of the content.
    Index {
        kind: &'static str,
    },
    /// What a container holds.
    Lease {
        kind: &'static str,
        id: String,
    },
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Object(object) => object.fmt(f),
            Subject::Index { .. } => f.write_str("the index of images"),
            Subject::Lease { id, .. } => write!(f, "the lease of container {id}"),
        }
    }
}

/// What is wrong.
#[derive(Debug)]
pub enum Problem {
    /// It cannot be read, or is not what it should be.
    Damaged(StoreError),
    /// Something that leads to it is there, but not it itself.
    Missing {
        /// What.
        object: Object,
    },
    /// An unpacked tree is not what its blob unpacks to.
    Tree {
        /// Below the layer's root.
        path: std::path::PathBuf,
        /// How it differs.
        what: &'static str,
    },
    /// An unpacked layer's record contradicts its place or its blob.
    Record,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Problem::Damaged(error) => f.write_str(&crate::error::chain(error)),
            Problem::Missing { object } => write!(f, "{object} is missing"),
            Problem::Tree { path, what } => write!(f, "{} {what}", path.display()),
            Problem::Record => f.write_str("its record contradicts its place or its blob"),
        }
    }
}

/// What became of a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Nothing: no repair was asked for.
    Found,
    /// It is whole again.
    Repaired,
    /// What was wrong is gone; the next pull or load of the image brings it again.
    Dropped,
    /// It stays wrong: what it would be repaired from is not here. Pull or load the image again.
    NeedsPull,
    /// It stays wrong while these containers run.
    InUse { containers: Vec<String> },
    /// It stays wrong: only a person can tell what it was.
    Lost,
}

impl Outcome {
    /// Nothing is wrong any more.
    pub fn is_settled(&self) -> bool {
        matches!(self, Outcome::Repaired | Outcome::Dropped)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Found => f.write_str("found"),
            Outcome::Repaired => f.write_str("repaired"),
            Outcome::Dropped => f.write_str("dropped: pull or load the image again"),
            Outcome::NeedsPull => f.write_str("not repaired: pull or load the image again"),
            Outcome::InUse { containers } => {
                write!(f, "not repaired while these run: {}", containers.join(", "))
            }
            Outcome::Lost => f.write_str("not repaired"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Finding {
    pub subject: Subject,
    pub problem: Problem,
    pub outcome: Outcome,
}

/// What [`Store::fsck`] looked at and found.
#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub images: usize,
    pub blobs: usize,
    pub layers: usize,
    pub leases: usize,
}

impl Store {
    /// Verifies the store, and repairs what it can if it is asked to.
    ///
    /// Nothing is collected meanwhile. To repair it needs the store for itself: imports wait for it, and it does not
    /// wait for them.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it should repair while an import runs.
    pub fn fsck(&self, fsck: &Fsck<'_>) -> Result<Report> {
        let import = if fsck.repair { Import::alone(self)?.ok_or(StoreError::Busy)? } else { self.import()? };
        let mut check =
            Check { store: self, import: &import, fsck, report: Report::default(), bad: HashSet::new() };
        check.blobs()?;
        let leases = check.leases()?;
        let images = check.images(&leases)?;
        check.layers(&images, &leases)?;
        Ok(check.report)
    }
}

/// A layer that some image leads to.
#[derive(Debug, Clone)]
struct Wanted {
    /// Of the layers from the bottom to this one.
    diff_ids: Vec<Digest>,
    /// Its blob, as the first manifest has it whose blob is here.
    blob: Option<(Digest, Compression)>,
}

struct Check<'a> {
    store: &'a Store,
    import: &'a Import<'a>,
    fsck: &'a Fsck<'a>,
    report: Report,
    /// Blobs that are here, but are not what they are named.
    bad: HashSet<Digest>,
}

impl Check<'_> {
    fn find(&mut self, subject: Subject, problem: Problem, outcome: Outcome) {
        let outcome = if self.fsck.repair { outcome } else { Outcome::Found };
        self.report.findings.push(Finding { subject, problem, outcome });
    }

    /// Every blob against its name.
    fn blobs(&mut self) -> Result<()> {
        for digest in collect::digests(&self.store.blobs())? {
            self.report.blobs += 1;
            if !self.fsck.contents {
                continue;
            }
            let path = self.store.blobs().join(digest.hex());
            let mut hasher = Hasher::new();
            let read = std::io::copy(&mut self.store.open_blob(&digest)?, &mut hasher);
            let problem = match read {
                Ok(_) => {
                    let actual = hasher.finish();
                    (actual != digest).then_some(StoreError::BlobDigest { expected: digest, actual })
                }
                // A disk that cannot read it.
                Err(error) => Some(SysError::io("read", path.to_string_lossy())(error).into()),
            };
            let Some(problem) = problem else { continue };
            self.bad.insert(digest);
            if self.fsck.repair {
                std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
            }
            let subject = Subject::Object(Object::Blob(digest));
            self.find(subject, Problem::Damaged(problem), Outcome::Dropped);
        }
        Ok(())
    }

    /// Every lease, whether it can be read and whether its container is there.
    fn leases(&mut self) -> Result<Vec<(String, lease::Lease)>> {
        let mut leases = Vec::new();
        for holder in lease::written(self.store)? {
            self.report.leases += 1;
            match lease::read(self.store, &holder) {
                Ok(Some(lease)) => leases.push((holder, lease)),
                Ok(None) => {}
                Err(error @ (StoreError::Record { .. } | StoreError::TooLarge { .. })) => {
                    let outcome = if self.fsck.repair { self.lease_again(&holder)? } else { Outcome::Found };
                    if let Some(lease) = lease::read(self.store, &holder).ok().flatten() {
                        leases.push((holder.clone(), lease));
                    }
                    let subject = Subject::Lease { kind: "lease", id: holder };
                    self.find(subject, Problem::Damaged(error), outcome);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(leases)
    }

    /// Writes a lease anew from what the container's own record says of its image.
    fn lease_again(&self, holder: &str) -> Result<Outcome> {
        let Some(id) = self.fsck.holders.image_of(holder) else {
            self.store.release(holder)?;
            return Ok(Outcome::Repaired);
        };
        let image: Image = match self.store.resolve(&id) {
            Ok(image) => image,
            Err(_) => return Ok(Outcome::NeedsPull),
        };
        self.store.write_lease_within(self.import, &image, holder, record::Sync::Yes)?;
        Ok(Outcome::Repaired)
    }

    /// Every image that the index or a lease leads to; returns the layers that they need by their chain IDs.
    fn images(&mut self, leases: &[(String, lease::Lease)]) -> Result<BTreeMap<Digest, Wanted>> {
        let mut wanted = BTreeMap::new();
        let entries = match index::roots(self.store).and_then(|_| index::read(self.store)) {
            Ok(entries) => entries,
            Err(error) => {
                self.find(Subject::Index { kind: "index" }, Problem::Damaged(error), Outcome::Lost);
                Vec::new()
            }
        };
        let held = leases.iter().map(|(_, lease)| &lease.manifest);
        let mut seen = BTreeSet::new();
        for descriptor in entries.iter().map(|entry| &entry.descriptor).chain(held) {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            self.report.images += 1;
            if let Err(problem) = self.image(descriptor, &mut wanted)? {
                let subject = Subject::Object(Object::Image(descriptor.digest));
                self.find(subject, problem, Outcome::NeedsPull);
            }
        }
        Ok(wanted)
    }

    /// One image; the first thing that is wrong with what it leads to.
    fn image(
        &mut self,
        descriptor: &Descriptor,
        wanted: &mut BTreeMap<Digest, Wanted>,
    ) -> Result<std::result::Result<(), Problem>> {
        let loaded = self.store.manifest(descriptor).and_then(|manifest| {
            let config = self.store.config(&manifest)?;
            Ok::<(Manifest, _), StoreError>((manifest, config))
        });
        let (manifest, config) = match loaded {
            Ok(loaded) => loaded,
            Err(StoreError::NoBlob { digest }) => {
                return Ok(Err(Problem::Missing { object: Object::Blob(digest) }));
            }
            Err(error @ StoreError::System(_)) => return Err(error),
            Err(error) => return Ok(Err(Problem::Damaged(error))),
        };
        let mut missing = None;
        for (at, chain_id) in config.chain().into_iter().enumerate() {
            let layer = &manifest.layers[at];
            let blob = layer.descriptor.digest;
            let here = self.store.has_blob(&blob, layer.descriptor.size) && !self.bad.contains(&blob);
            if !here {
                missing.get_or_insert(Object::Blob(blob));
            }
            let blob = here.then_some((blob, layer.compression));
            let diff_ids = config.diff_ids[..=at].to_vec();
            let entry = wanted.entry(chain_id).or_insert(Wanted { diff_ids, blob });
            entry.blob = entry.blob.or(blob);
        }
        Ok(missing.map_or(Ok(()), |object| Err(Problem::Missing { object })))
    }
}

/// Which containers hold a layer.
fn holders(leases: &[(String, lease::Lease)]) -> HashMap<Digest, Vec<&str>> {
    let mut found: HashMap<Digest, Vec<&str>> = HashMap::new();
    for (holder, lease) in leases {
        for chain_id in &lease.chain {
            found.entry(*chain_id).or_default().push(holder);
        }
    }
    found
}
