//! Unpacked layers against their blobs.
use super::{Check, Outcome, Problem, Subject, Wanted, holders};
use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::store::layer::{FS, Record};
use crate::image::store::{Object, Result, StoreError, collect, compare, lease, open_dir, staging};
use crate::image::unpack::Limits;
use crate::image::unpack::decode::Growth;
use std::collections::BTreeMap;

/// The layer was unpacked once, under whatever limits it was pulled with; its digest has not changed since.
const LIMITS: Limits = Limits {
    growth: Growth { bytes: u64::MAX, ratio: u64::MAX, free: u64::MAX },
    entries: u64::MAX,
    names: u64::MAX,
};

impl Check<'_> {
    /// Every layer: first those that images lead to, from the bottom up, because one is completed by what the
    /// layers below it have.
    pub(super) fn layers(
        &mut self,
        wanted: &BTreeMap<Digest, Wanted>,
        leases: &[(String, lease::Lease)],
    ) -> Result<()> {
        let held = holders(leases);
        let mut order: Vec<(&Digest, &Wanted)> = wanted.iter().collect();
        order.sort_by_key(|(_, wanted)| wanted.diff_ids.len());
        for (chain_id, wanted) in order {
            self.report.layers += 1;
            let holders = held.get(chain_id).map_or(&[][..], Vec::as_slice);
            if let Some((problem, outcome)) = self.layer(chain_id, wanted, holders)? {
                self.find(Subject::Object(Object::Layer(*chain_id)), problem, outcome);
            }
        }
        for chain_id in collect::digests(&self.store.layers())? {
            if wanted.contains_key(&chain_id) {
                continue;
            }
            self.report.layers += 1;
            if let Some(problem) = self.record(&chain_id, None)? {
                let holders = held.get(&chain_id).map_or(&[][..], Vec::as_slice);
                let outcome =
                    if self.fsck.repair { self.drop_layer(&chain_id, holders)? } else { Outcome::Found };
                self.find(Subject::Object(Object::Layer(chain_id)), problem, outcome);
            }
        }
        Ok(())
    }

    /// What is wrong with a layer that an image leads to, and what became of it.
    fn layer(
        &self,
        chain_id: &Digest,
        wanted: &Wanted,
        holders: &[&str],
    ) -> Result<Option<(Problem, Outcome)>> {
        let recorded = self.record(chain_id, Some(wanted))?;
        // Unpacking is what takes time: without need of its result only if all contents are to be read.
        if recorded.is_none() && !self.fsck.contents || recorded.is_some() && !self.fsck.repair {
            return Ok(recorded.map(|problem| (problem, Outcome::Found)));
        }
        let at = wanted.diff_ids.len() - 1;
        let whole_below = at == 0 || {
            let below = crate::image::manifest::chain(&wanted.diff_ids[..at]);
            below.iter().all(|chain_id| self.store.has_layer(chain_id))
        };
        let Some((digest, compression)) = wanted.blob.filter(|_| whole_below) else {
            // Nothing to compare it with: the image's own finding tells that the blob is missing.
            let Some(problem) = recorded else { return Ok(None) };
            let outcome = match problem {
                Problem::Missing { .. } => Outcome::NeedsPull,
                _ => self.drop_layer(chain_id, holders)?,
            };
            return Ok(Some((problem, outcome)));
        };
        let staging = self.import.layer_again(&wanted.diff_ids, at)?;
        let again = staging
            .unpack_file(self.store.open_blob(&digest)?.into(), compression, &LIMITS)
            .and_then(|unpacked| staging.complete(unpacked));
        let again = match again {
            Ok(again) => again,
            // The blob is what its name says, but not what the configuration says of it.
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return Ok(Some((Problem::Damaged(error), Outcome::Lost)));
            }
            // No room, for one.
            Err(error) => return Err(error),
        };
        let problem = match recorded {
            Some(problem) => problem,
            None => {
                let have = open_dir(&self.store.layer_dir(chain_id).join(FS))?;
                let difference = compare::trees(&open_dir(&again.tree())?, &have)?;
                match difference {
                    Some(compare::Difference { path, what }) => Problem::Tree { path, what },
                    None if Record::read(self.store, chain_id)? != again.record => Problem::Record,
                    None => return Ok(None),
                }
            }
        };
        if !self.fsck.repair {
            return Ok(Some((problem, Outcome::Found)));
        }
        // Until the new tree is in place nobody starts a container on it.
        let _stopped = match self.stop(holders) {
            Ok(stopped) => stopped,
            Err(in_use) => return Ok(Some((problem, in_use))),
        };
        let place = self.store.layer_dir(chain_id);
        if place.exists() {
            staging::discard(self.store, &place)?;
        }
        again.publish()?;
        Ok(Some((problem, Outcome::Repaired)))
    }

    /// What is wrong with a layer's directory and record.
    fn record(&self, chain_id: &Digest, wanted: Option<&Wanted>) -> Result<Option<Problem>> {
        let record = match Record::read(self.store, chain_id) {
            Ok(record) => record,
            Err(StoreError::NoLayer { .. }) => {
                return Ok(Some(Problem::Missing { object: Object::Layer(*chain_id) }));
            }
            Err(error @ (StoreError::Record { .. } | StoreError::TooLarge { .. })) => {
                return Ok(Some(Problem::Damaged(error)));
            }
            Err(error) => return Err(error),
        };
        let diff_id = wanted.and_then(|wanted| wanted.diff_ids.last());
        let right = record.chain_id == *chain_id && diff_id.is_none_or(|diff_id| record.diff_id == *diff_id);
        let tree = self.store.layer_dir(chain_id).join(FS);
        Ok((!right || !tree.is_dir()).then_some(Problem::Record))
    }

    /// Takes a layer away, unless a container runs on it.
    fn drop_layer(&self, chain_id: &Digest, holders: &[&str]) -> Result<Outcome> {
        let _stopped = match self.stop(holders) {
            Ok(stopped) => stopped,
            Err(in_use) => return Ok(in_use),
        };
        staging::discard(self.store, &self.store.layer_dir(chain_id))?;
        Ok(Outcome::Dropped)
    }

    /// Keeps containers from being started, unless one of them runs.
    fn stop(&self, holders: &[&str]) -> std::result::Result<Vec<Box<dyn std::any::Any>>, Outcome> {
        let mut stopped = Vec::new();
        let mut containers = Vec::new();
        for holder in holders {
            match self.fsck.holders.keep_stopped(holder) {
                Some(guard) => stopped.push(guard),
                None => containers.push((*holder).to_owned()),
            }
        }
        if containers.is_empty() { Ok(stopped) } else { Err(Outcome::InUse { containers }) }
    }
}
