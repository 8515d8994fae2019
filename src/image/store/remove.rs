//! `rmi`: taking names away, and images that have none left.
use super::{Object, Result, Store, StoreError, collect, index, lease};
use crate::image::digest::Digest;
use crate::image::reference::Reference;

/// What [`Store::remove`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// The image, if it is gone too.
    pub deleted: Option<Digest>,
    /// Chain IDs of layers that went with it; none while an import runs, which takes them when it ends.
    pub layers: Vec<Digest>,
}

impl Store {
    /// Takes a name away, and removes the image with its last name; an ID removes the image with all names.
    ///
    /// Blobs and layers that nothing else needs are collected, or when the running imports end.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if a container holds the image and its last name would go, and
    /// [`StoreError::SeveralNames`] for the ID of an image with several names. With `force`, all names go in
    /// both cases; an image that is in use stays without a name.
    pub fn remove(&self, name_or_id: &str, force: bool) -> Result<Removal> {
        let mut removal = Removal::default();
        index::change(self, |entries| {
            removal = self.take_away(entries, name_or_id, force)?;
            Ok(true)
        })?;
        if removal.deleted.is_some()
            && let Some(verdicts) = collect::now_or_later(self)?
        {
            removal.layers = verdicts
                .goes
                .iter()
                .filter_map(|verdict| match verdict.object {
                    Object::Layer(chain_id) => Some(chain_id),
                    _ => None,
                })
                .collect();
        }
        Ok(removal)
    }

    /// What becomes of the entries of the index; nobody can lease an image meanwhile.
    fn take_away(&self, entries: &mut Vec<index::Entry>, name_or_id: &str, force: bool) -> Result<Removal> {
        let found = index::find(self, entries, name_or_id)?;
        let digest = found.descriptor.digest;
        let names: Vec<Reference> = entries
            .iter()
            .filter(|entry| entry.descriptor.digest == digest)
            .filter_map(|entry| entry.name.clone())
            .collect();
        let named = name_or_id.parse().ok().filter(|name: &Reference| names.contains(name));
        if let Some(name) = &named
            && names.len() > 1
        {
            entries.retain(|entry| entry.name.as_ref() != Some(name));
            return Ok(Removal { untagged: vec![name.clone()], ..Removal::default() });
        }
        // An image that another tool left half here can be removed, too: its ID is then its manifest's.
        let id = self.manifest(&found.descriptor).map_or(digest, |manifest| manifest.config.digest);
        if named.is_none() && names.len() > 1 && !force {
            let names = names.iter().map(ToString::to_string).collect();
            return Err(StoreError::SeveralNames { id, names });
        }
        let holders: Vec<String> = lease::all(self)?
            .into_iter()
            .filter(|(_, lease)| lease.manifest.digest == digest)
            .map(|(holder, _)| holder)
            .collect();
        if holders.is_empty() {
            // Before the entry goes, so that what it led to goes even if this process is killed.
            collect::postpone(self)?;
            entries.retain(|entry| entry.descriptor.digest != digest);
            return Ok(Removal { untagged: names, deleted: Some(id), layers: Vec::new() });
        }
        if !force {
            return Err(StoreError::InUse { name: name_or_id.to_owned(), holders });
        }
        while let Some(at) =
            entries.iter().position(|entry| entry.descriptor.digest == digest && entry.name.is_some())
        {
            index::unname(entries, at);
        }
        Ok(Removal { untagged: names, ..Removal::default() })
    }
}
