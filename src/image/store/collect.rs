//! The collector: removes blobs and layers that no name, no lease and no import needs.
//!
//! What is reachable from an entry of the index or from a lease stays; all else goes. Nothing is judged while an
//! import runs: what a pull has fetched is reachable only in the end.
use super::{Result, Store, StoreError, entries, index, lease, staging};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor, Document};
use crate::sys::{SysError, disk};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::os::fd::AsFd;
use std::path::Path;

/// Its presence asks the last import to collect.
const POSTPONED: &str = "collect-later";

/// Collects now, or lets the imports that are running do it when they end. `None`: they will.
pub(super) fn now_or_later(store: &Store) -> Result<Option<Verdicts>> {
    postpone(store)?;
    if_postponed(store)
}

/// Asks whoever collects next to do it, even if this process does not come to it.
pub(super) fn postpone(store: &Store) -> Result<()> {
    // Before the attempt, so that an import which ends between the two steps sees it.
    store.lock_file(POSTPONED).map(drop)
}

/// Collects if somebody asked for it and no import runs.
pub(super) fn if_postponed(store: &Store) -> Result<Option<Verdicts>> {
    if !store.root.join(POSTPONED).exists() {
        return Ok(None);
    }
    let Some(lock) = exclusive(store)? else { return Ok(None) };
    let verdicts = judge(store, &lock, &HashSet::new(), Weigh::No)?;
    carry_out(store, &lock, &verdicts)?;
    Ok(Some(verdicts))
}

/// The store's lock, if no import and no other collector has it.
pub(super) fn exclusive(store: &Store) -> Result<Option<File>> {
    let lock = store.lock_file("lock")?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(SysError::io("flock", "lock")(error).into()),
    }
}

/// Something in the store that stays or goes by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "id")]
pub enum Object {
    /// An entry of the index, by the digest of its manifest.
    Image(Digest),
    /// An unpacked layer, by its chain ID.
    Layer(Digest),
    /// A manifest, a configuration or a packed layer.
    Blob(Digest),
    /// The first bytes of a blob that a pull has begun.
    Download(Digest),
    /// A file or directory of `staging/`, by its name there.
    Leftover(String),
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Object::Image(digest) => write!(f, "image {digest}"),
            Object::Layer(digest) => write!(f, "layer {digest}"),
            Object::Blob(digest) => write!(f, "blob {digest}"),
            Object::Download(digest) => write!(f, "download {digest}"),
            Object::Leftover(name) => write!(f, "leftover {name}"),
        }
    }
}

/// Who keeps something in the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "id")]
pub enum User {
    /// An image, by a name of it or else by the digest of its manifest.
    Image(String),
    /// A container, by its ID.
    Container(String),
}

impl User {
    /// The image of that manifest, by what the index says of it.
    pub(super) fn of_image(entries: &[index::Entry], manifest: &Digest) -> User {
        let name = entries
            .iter()
            .filter(|entry| entry.descriptor.digest == *manifest)
            .find_map(|entry| entry.name.as_ref().map(|name| name.familiar()));
        User::Image(name.unwrap_or_else(|| manifest.to_string()))
    }
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            User::Image(name) => write!(f, "image {name}"),
            User::Container(id) => write!(f, "container {id}"),
        }
    }
}

/// Why something stays or goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum Reason {
    /// It goes: an image without a name that no container uses.
    Dangling,
    /// It goes: an image with these names that no container uses, and all such images were to go.
    Unused { names: Vec<String> },
    /// It goes: no image and no container leads to it.
    Unreachable,
    /// It goes: whoever made it is gone.
    Abandoned,
    /// It goes: a pull was broken off, and the next will have to begin anew.
    Interrupted,
    /// It stays: it has names, and only images without one were to go.
    Named { names: Vec<String> },
    /// It stays: the filter keeps what was made later.
    Newer,
    /// It stays: these use it.
    Used { by: Vec<User> },
    /// It stays until the pull or load that runs has ended, which may be what brought it.
    Importing,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reason::Dangling => f.write_str("dangling: it has no name, and no container uses it"),
            Reason::Unused { names } => write!(f, "no container uses it; it was named {}", names.join(", ")),
            Reason::Unreachable => f.write_str("no image and no container uses it"),
            Reason::Interrupted => f.write_str("a pull of it was broken off"),
            Reason::Abandoned => f.write_str("the process that made it is gone"),
            Reason::Named { names } => write!(f, "it is named {}", names.join(", ")),
            Reason::Newer => f.write_str("it was made later than the filter says"),
            Reason::Importing => f.write_str("a pull or load runs, which may need it"),
            Reason::Used { by } => {
                let shown: Vec<String> = by.iter().take(3).map(ToString::to_string).collect();
                let and = if shown.len() < by.len() { " and more" } else { "" };
                let verb = if by.len() == 1 { "uses" } else { "use" };
                write!(f, "{}{and} {verb} it", shown.join(", "))
            }
        }
    }
}

/// What was decided on one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// On what.
    pub object: Object,
    /// What it takes on the disk by itself: 0 for an image, whose blobs and layers are counted.
    pub bytes: u64,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

/// What goes and what stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// To be removed, or removed.
    pub goes: Vec<Verdict>,
    /// The rest.
    pub stays: Vec<Verdict>,
}

impl Verdicts {
    pub(super) fn append(&mut self, mut other: Verdicts) {
        self.goes.append(&mut other.goes);
        self.stays.append(&mut other.stays);
    }

    /// What goes, in bytes on the disk.
    pub fn freed(&self) -> u64 {
        self.goes.iter().map(|verdict| verdict.bytes).sum()
    }
}

/// Whether it is looked up what things take on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weigh {
    Yes,
    /// They count as nothing.
    No,
}

/// What must stay, and for whom.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) blobs: HashMap<Digest, BTreeSet<User>>,
    pub(super) layers: HashMap<Digest, BTreeSet<User>>,
}

impl Live {
    /// Follows the index but for the manifests `without`, and all leases.
    pub(super) fn find(store: &Store, without: &HashSet<Digest>) -> Result<Live> {
        let mut live = Live::default();
        let named = index::read(store)?;
        for descriptor in index::roots(store)? {
            if without.contains(&descriptor.digest) {
                continue;
            }
            live.mark(store, &descriptor, &User::of_image(&named, &descriptor.digest))?;
        }
        for (holder, lease) in lease::all(store)? {
            let user = User::Container(holder);
            live.mark(store, &lease.manifest, &user)?;
            for chain_id in lease.chain {
                live.layers.entry(chain_id).or_default().insert(user.clone());
            }
        }
        Ok(live)
    }

    /// Marks a manifest or an index with all that it refers to. What cannot be followed is kept as it is.
    fn mark(&mut self, store: &Store, descriptor: &Descriptor, user: &User) -> Result<()> {
        let first = self.blobs.entry(descriptor.digest).or_default().insert(user.clone());
        if !first || !manifest::is_document(&descriptor.media_type) {
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
                    self.mark(store, &entry.descriptor, user)?;
                }
            }
            Document::Manifest(manifest) => {
                let layers = manifest.layers.iter().map(|layer| layer.descriptor.digest);
                for digest in layers.chain([manifest.config.digest]) {
                    self.blobs.entry(digest).or_default().insert(user.clone());
                }
                match store.config(&manifest) {
                    Ok(config) => {
                        for chain_id in config.chain() {
                            self.layers.entry(chain_id).or_default().insert(user.clone());
                        }
                    }
                    Err(StoreError::NoBlob { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// Decides on every blob and layer as if the manifests `without` were no entries of the index.
///
/// `_exclusive` is locked exclusively: no import runs.
pub(super) fn judge(
    store: &Store,
    _exclusive: &File,
    without: &HashSet<Digest>,
    weigh: Weigh,
) -> Result<Verdicts> {
    survey(store, without, weigh)
}

/// The same while imports may run: what is unreachable may be what they have just brought.
pub(super) fn survey(store: &Store, without: &HashSet<Digest>, weigh: Weigh) -> Result<Verdicts> {
    let live = Live::find(store, without)?;
    let mut verdicts = Verdicts::default();
    for is_layer in [false, true] {
        let (dir, live) =
            if is_layer { (store.layers(), &live.layers) } else { (store.blobs(), &live.blobs) };
        for digest in digests(&dir)? {
            let bytes = weight(&dir, &digest.hex(), weigh)?;
            let object = if is_layer { Object::Layer(digest) } else { Object::Blob(digest) };
            match live.get(&digest) {
                Some(users) => {
                    let reason = Reason::Used { by: users.iter().cloned().collect() };
                    verdicts.stays.push(Verdict { object, bytes, reason });
                }
                None => verdicts.goes.push(Verdict { object, bytes, reason: Reason::Unreachable }),
            }
        }
    }
    Ok(verdicts)
}

/// Removes the blobs and layers that go; `exclusive` has been held since they were judged.
pub(super) fn carry_out(store: &Store, _exclusive: &File, verdicts: &Verdicts) -> Result<()> {
    let mut layers = Vec::new();
    for verdict in &verdicts.goes {
        match &verdict.object {
            Object::Blob(digest) => {
                let path = store.blobs().join(digest.hex());
                std::fs::remove_file(&path).map_err(SysError::io("unlink", path.to_string_lossy()))?;
            }
            Object::Layer(chain_id) => layers.push(store.layer_dir(chain_id)),
            Object::Image(_) | Object::Download(_) | Object::Leftover(_) => {}
        }
    }
    staging::discard_all(store, &layers)?;
    // Last: whoever is killed before leaves the request.
    let marker = store.root.join(POSTPONED);
    match std::fs::remove_file(&marker) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SysError::io("unlink", marker.to_string_lossy())(error).into())
        }
        _ => Ok(()),
    }
}

/// What a directory of the store has under names that the store gives: all else is not the store's to judge.
pub(super) fn digests(dir: &Path) -> Result<Vec<Digest>> {
    let mut found: Vec<Digest> = entries(dir)?
        .into_iter()
        .filter_map(|name| format!("sha256:{}", name.to_str()?).parse().ok())
        .collect();
    found.sort_unstable_by_key(Digest::hex);
    Ok(found)
}

/// What `name` in a directory of the store takes.
pub(super) fn weight(dir: &Path, name: &str, weigh: Weigh) -> Result<u64> {
    match weigh {
        Weigh::Yes => {
            let dir = super::open_dir(dir)?;
            Ok(disk::used(dir.as_fd(), Path::new(name), u64::MAX)?.bytes)
        }
        Weigh::No => Ok(0),
    }
}
