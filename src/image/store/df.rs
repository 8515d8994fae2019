//! `df`: what the store takes on the disk, as du counts it, and for whom.
use super::collect::{self, Live, Object, User, Verdict, Weigh};
use super::{Result, Store, index, lease, partial, staging};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::sys::disk;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// What the store takes. All sizes are bytes on the disk.
#[derive(Debug, Clone, Default)]
pub struct DiskUse {
    /// Every manifest of the index once.
    pub images: Vec<ImageUse>,
    /// Every blob.
    pub blobs: Vec<ObjectUse>,
    /// Every unpacked layer.
    pub layers: Vec<ObjectUse>,
    /// What is being downloaded or built, can be taken up again, or was left by who is gone.
    pub staging: Vec<ObjectUse>,
    /// The store's own directories, locks, names and leases.
    pub records: u64,
}

/// What one image takes.
#[derive(Debug, Clone)]
pub struct ImageUse {
    /// Its ID; the manifest's digest if its configuration is not here.
    pub id: Digest,
    pub names: Vec<Reference>,
    /// Containers that use it.
    pub containers: Vec<String>,
    /// Bytes of blobs and layers that other images use too.
    pub shared: u64,
    /// Bytes that only this image uses: what goes with it if no container keeps it.
    pub unique: u64,
}

/// What one thing takes, and who uses it.
#[derive(Debug, Clone)]
pub struct ObjectUse {
    pub object: Object,
    pub bytes: u64,
    /// Entries of the index that lead to it.
    pub images: usize,
    /// Containers that lead to it.
    pub containers: usize,
    /// [`Store::prune`] of all images takes it.
    pub reclaimable: bool,
}

impl Store {
    /// Looks at everything in the store; what is added or removed meanwhile may be counted or not.
    pub fn disk_use(&self) -> Result<DiskUse> {
        let live = Live::find(self, &HashSet::new())?;
        // Bytes of each image: shared, unique.
        let mut images: HashMap<User, (u64, u64)> = HashMap::new();
        let mut weigh = |dir: PathBuf, live: &HashMap<Digest, _>, object: fn(Digest) -> Object| {
            let mut found = Vec::new();
            for digest in collect::digests(&dir)? {
                let bytes = collect::weight(&dir, &digest.hex(), Weigh::Yes)?;
                let users: Vec<&User> = live.get(&digest).into_iter().flatten().collect();
                let (leading, holding): (Vec<&User>, Vec<&User>) =
                    users.into_iter().partition(|user| matches!(user, User::Image(_)));
                for user in &leading {
                    let (shared, unique) = images.entry((*user).clone()).or_default();
                    *if leading.len() > 1 { shared } else { unique } += bytes;
                }
                found.push(ObjectUse {
                    object: object(digest),
                    bytes,
                    images: leading.len(),
                    containers: holding.len(),
                    reclaimable: holding.is_empty(),
                });
            }
            Ok::<_, super::StoreError>(found)
        };
        let blobs = weigh(self.blobs(), &live.blobs, Object::Blob)?;
        let layers = weigh(self.layers(), &live.layers, Object::Layer)?;
        let mut verdicts = staging::leftovers(self, true)?;
        verdicts.append(partial::verdicts(self, true)?);
        let staged = |verdict: Verdict, reclaimable| ObjectUse {
            object: verdict.object,
            bytes: verdict.bytes,
            images: 0,
            containers: 0,
            reclaimable,
        };
        let staging = (verdicts.goes.into_iter().map(|verdict| staged(verdict, true)))
            .chain(verdicts.stays.into_iter().map(|verdict| staged(verdict, false)))
            .collect();
        let images = self.images_with(&images)?;
        Ok(DiskUse { images, blobs, layers, staging, records: self.records_use()? })
    }

    /// Each entry of the index with its bytes.
    fn images_with(&self, bytes: &HashMap<User, (u64, u64)>) -> Result<Vec<ImageUse>> {
        let entries = index::read(self)?;
        let leases = lease::all(self)?;
        let mut seen = HashSet::new();
        let roots = index::roots(self)?.into_iter().filter(|root| seen.insert(root.digest));
        Ok(roots
            .map(|root| {
                let (shared, unique) =
                    bytes.get(&User::of_image(&entries, &root.digest)).copied().unwrap_or_default();
                let id = self.manifest(&root).map_or(root.digest, |manifest| manifest.config.digest);
                let named = entries.iter().filter(|entry| entry.descriptor.digest == root.digest);
                let holding = leases.iter().filter(|(_, lease)| lease.manifest.digest == root.digest);
                ImageUse {
                    id,
                    names: named.filter_map(|entry| entry.name.clone()).collect(),
                    containers: holding.map(|(holder, _)| holder.clone()).collect(),
                    shared,
                    unique,
                }
            })
            .collect())
    }

    /// What is neither blob nor layer nor staging.
    fn records_use(&self) -> Result<u64> {
        let content = self.content();
        let mut bytes = 0;
        let own = [
            content.clone(),
            content.join("blobs"),
            self.blobs(),
            self.layers(),
            self.staging(),
            self.partial(),
        ];
        let files = ["oci-layout", "index.json"].map(|name| content.join(name));
        let locks = super::LOCKS.map(|name| self.root.join(name));
        for path in own.iter().chain(&files).chain(&locks) {
            bytes += disk::own(path)?.bytes;
        }
        Ok(bytes + collect::weight(&self.root, super::LEASES, Weigh::Yes)?)
    }
}
