//! `prune`: images that nobody uses, and what is left of others.
use super::collect::{self, Object, Reason, User, Verdict, Verdicts, Weigh};
use super::{Result, Store, index, lease, partial, staging};
use crate::image::digest::Digest;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What [`Store::prune`] is to take.
pub struct Prune<'a> {
    /// All images that no container uses, not only those without a name.
    pub all: bool,
    /// Decide, but remove nothing.
    pub dry_run: bool,
    /// Whether an image stays whatever else is asked for; it gets the date of the image's configuration.
    pub keeps: &'a dyn Fn(Option<&str>) -> bool,
}

impl std::fmt::Debug for Prune<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prune")
            .field("all", &self.all)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// What [`Store::prune`] did or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// On every image, blob, layer and leftover.
    pub verdicts: Verdicts,
    /// An import runs: what only the images led to goes when that ends.
    pub postponed: bool,
}

impl Store {
    /// Removes images that no container uses, and blobs, layers and leftovers that nothing leads to.
    ///
    /// Other processes may pull, run and remove meanwhile: an image is judged while nobody can lease it, blobs and
    /// layers while nobody imports.
    pub fn prune(&self, prune: &Prune<'_>) -> Result<Pruned> {
        let mut verdicts = Verdicts::default();
        let mut without = HashSet::new();
        let mut judge = |entries: &mut Vec<index::Entry>| {
            verdicts = self.judge_images(prune, entries)?;
            without = verdicts.goes.iter().filter_map(|verdict| image(&verdict.object)).collect();
            if !without.is_empty() && !prune.dry_run {
                // Before the names go, so that what they led to goes even if this process is killed.
                collect::postpone(self)?;
            }
            entries.retain(|entry| !without.contains(&entry.descriptor.digest));
            Ok(!without.is_empty())
        };
        if prune.dry_run {
            judge(&mut index::read(self)?)?;
        } else {
            index::change(self, judge)?;
        }
        let mut postponed = false;
        match collect::exclusive(self)? {
            Some(lock) => {
                let judged = collect::judge(self, &lock, &without, Weigh::Yes)?;
                if !prune.dry_run {
                    collect::carry_out(self, &lock, &judged)?;
                }
                verdicts.append(judged);
                verdicts.append(staging::leftovers(self, prune.dry_run)?);
                verdicts.append(partial::verdicts(self, prune.dry_run)?);
            }
            None => {
                if !prune.dry_run {
                    collect::postpone(self)?;
                }
                verdicts.append(self.while_importing(&without)?);
                postponed = true;
            }
        }
        Ok(Pruned { verdicts, postponed })
    }

    /// Decides on every manifest of the index.
    fn judge_images(&self, prune: &Prune<'_>, entries: &[index::Entry]) -> Result<Verdicts> {
        let mut holders: HashMap<Digest, BTreeSet<User>> = HashMap::new();
        for (holder, lease) in lease::all(self)? {
            holders.entry(lease.manifest.digest).or_default().insert(User::Container(holder));
        }
        let mut verdicts = Verdicts::default();
        let mut seen = HashSet::new();
        for entry in entries.iter().filter(|entry| seen.insert(entry.descriptor.digest)) {
            let digest = entry.descriptor.digest;
            let names: Vec<String> = entries
                .iter()
                .filter(|other| other.descriptor.digest == digest)
                .filter_map(|other| other.name.as_ref().map(|name| name.familiar()))
                .collect();
            // An image whose configuration cannot be read has no date.
            let config = self.manifest(&entry.descriptor).and_then(|manifest| self.config(&manifest)).ok();
            let created = config.as_ref().and_then(|config| config.configuration.created().as_deref());
            let (goes, reason) = match holders.get(&digest) {
                Some(by) => (false, Reason::Used { by: by.iter().cloned().collect() }),
                None if !names.is_empty() && !prune.all => (false, Reason::Named { names }),
                None if (prune.keeps)(created) => (false, Reason::Newer),
                None if names.is_empty() => (true, Reason::Dangling),
                None => (true, Reason::Unused { names }),
            };
            let verdict = Verdict { object: Object::Image(digest), bytes: 0, reason };
            if goes { verdicts.goes.push(verdict) } else { verdicts.stays.push(verdict) }
        }
        Ok(verdicts)
    }

    /// While an import runs nothing goes.
    fn while_importing(&self, without: &HashSet<Digest>) -> Result<Verdicts> {
        let mut verdicts = collect::survey(self, without, Weigh::Yes)?;
        for verdict in std::mem::take(&mut verdicts.goes) {
            verdicts.stays.push(Verdict { reason: Reason::Importing, ..verdict });
        }
        Ok(verdicts)
    }
}

fn image(object: &Object) -> Option<Digest> {
    match object {
        Object::Image(digest) => Some(*digest),
        _ => None,
    }
}
