//! `content/index.json`: which names point to which manifests.
//!
//! A name is written twice: as `org.opencontainers.image.ref.name`, by which skopeo and umoci find an image
//! in a layout, and as `io.containerd.image.name`. Both hold the whole name, because a bare tag would not be
//! unique in a layout of many repositories. An entry without a name is an image whose name moved on to
//! another one.

use super::{Result, Store, StoreError, record};
use crate::image::digest::Digest;
use crate::image::manifest::{self, Descriptor};
use crate::image::reference::Reference;
use crate::sys::SysError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// One entry of the index that points to an image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Option<Reference>,
    pub(super) descriptor: Descriptor,
}

/// The document. Entries are kept as JSON so that what other tools wrote survives our changes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<serde_json::Value>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Annotated {
    #[serde(flatten)]
    descriptor: Descriptor,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

/// Makes an empty layout if there is none.
pub(super) fn init(store: &Store) -> Result<()> {
    let index = store.content().join("index.json");
    if index.exists() {
        return Ok(());
    }
    let _lock = lock(store)?;
    if index.exists() {
        return Ok(());
    }
    record::write(&store.content().join("oci-layout"), &serde_json::json!({"imageLayoutVersion": "1.0.0"}))?;
    record::write(
        &index,
        &Document {
            schema_version: 2,
            media_type: Some(manifest::OCI_INDEX.to_owned()),
            manifests: Vec::new(),
            rest: BTreeMap::new(),
        },
    )
}

/// Keeps every entry in the index while it is held.
pub(super) fn keep(store: &Store) -> Result<std::fs::File> {
    let file = store.lock_file("index.lock")?;
    file.lock_shared().map_err(SysError::io("flock", "index.lock"))?;
    Ok(file)
}

/// Keeps other writers of the index away while it is held.
fn lock(store: &Store) -> Result<std::fs::File> {
    let file = store.lock_file("index.lock")?;
    file.lock().map_err(SysError::io("flock", "index.lock"))?;
    Ok(file)
}

fn document(store: &Store) -> Result<Document> {
    let path = store.content().join("index.json");
    let document: Document = record::read(&path)?
        .ok_or_else(|| SysError::on("open", path.to_string_lossy())(nix::errno::Errno::ENOENT))?;
    if document.schema_version != 2 {
        return Err(StoreError::RecordVersion { path, version: document.schema_version, known: 2 });
    }
    Ok(document)
}

fn entry(value: &serde_json::Value) -> Option<Entry> {
    let annotated = Annotated::deserialize(value).ok()?;
    let is_manifest = matches!(
        annotated.descriptor.media_type.as_str(),
        manifest::OCI_MANIFEST | manifest::DOCKER_MANIFEST
    );
    is_manifest.then(|| Entry {
        name: annotated.annotations.get(REF_NAME).and_then(|name| name.parse().ok()),
        descriptor: annotated.descriptor,
    })
}

/// The entries that point to image manifests.
pub(super) fn read(store: &Store) -> Result<Vec<Entry>> {
    Ok(document(store)?.manifests.iter().filter_map(entry).collect())
}

/// The descriptors of all entries, for the collector: an entry that it could not follow must stop it.
pub(super) fn roots(store: &Store) -> Result<Vec<Descriptor>> {
    let path = store.content().join("index.json");
    document(store)?
        .manifests
        .iter()
        .map(|value| {
            Descriptor::deserialize(value).map_err(|source| StoreError::Record { path: path.clone(), source })
        })
        .collect()
}

/// Whether a name may be taken away from another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenName {
    /// The other image keeps an entry without it.
    Move,
    /// [`StoreError::NameTaken`].
    Refuse,
}

/// Points `name` to `descriptor`.
pub(super) fn set(
    store: &Store,
    name: Option<&Reference>,
    descriptor: &Descriptor,
    policy: TakenName,
) -> Result<()> {
    change(store, |entries| {
        let taken = |entry: &Entry| name.is_some() && entry.name.as_ref() == name;
        if let Some(old) = entries.iter().position(taken) {
            if entries[old].descriptor.digest == descriptor.digest {
                return Ok(false);
            }
            if let (TakenName::Refuse, Some(name)) = (policy, name) {
                return Err(StoreError::NameTaken { name: Box::new(name.clone()) });
            }
            unname(entries, old);
        }
        let same = |entry: &Entry| entry.descriptor.digest == descriptor.digest;
        if name.is_none() && entries.iter().any(same) {
            return Ok(false);
        }
        // It has a name now, so an entry without one says nothing more.
        entries.retain(|entry| !(same(entry) && entry.name.is_none()));
        entries.push(Entry { name: name.cloned(), descriptor: descriptor.clone() });
        Ok(true)
    })
}

/// Takes the name of `entries[at]` away; the entry goes too if its manifest has another one.
pub(super) fn unname(entries: &mut Vec<Entry>, at: usize) {
    let digest = entries[at].descriptor.digest;
    if entries.iter().filter(|entry| entry.descriptor.digest == digest).count() > 1 {
        entries.remove(at);
    } else {
        entries[at].name = None;
    }
}

/// Edits the entries under the lock; `edit` says whether it changed any.
pub(super) fn change(store: &Store, edit: impl FnOnce(&mut Vec<Entry>) -> Result<bool>) -> Result<()> {
    let _lock = lock(store)?;
    let mut document = document(store)?;
    let mut entries: Vec<Entry> = document.manifests.iter().filter_map(entry).collect();
    let before = entries.clone();
    if !edit(&mut entries)? {
        return Ok(());
    }
    let path = store.content().join("index.json");
    // What the edit did not touch keeps its place and all that its JSON says.
    document.manifests.retain(|value| entry(value).is_none_or(|old| entries.contains(&old)));
    for added in entries.into_iter().filter(|entry| !before.contains(entry)) {
        let mut annotations = BTreeMap::new();
        if let Some(name) = &added.name {
            annotations.insert(REF_NAME.to_owned(), name.to_string());
            annotations.insert(CONTAINERD_NAME.to_owned(), name.to_string());
        }
        let value = serde_json::to_value(Annotated { descriptor: added.descriptor, annotations })
            .map_err(|source| StoreError::Record { path: path.clone(), source })?;
        document.manifests.push(value);
    }
    record::write(&path, &document)
}

/// The entry of that name or ID.
pub(super) fn find<'a>(store: &Store, entries: &'a [Entry], name_or_id: &str) -> Result<&'a Entry> {
    let named = name_or_id.parse::<Reference>();
    if let Ok(name) = &named {
        let exact = entries.iter().find(|entry| entry.name.as_ref() == Some(name));
        // `repository@digest` names what was pulled under any tag of that repository.
        let by_digest = || {
            entries.iter().find(|entry| {
                name.digest() == Some(&entry.descriptor.digest)
                    && entry.name.as_ref().is_some_and(|have| {
                        have.registry() == name.registry() && have.repository() == name.repository()
                    })
            })
        };
        if let Some(entry) = exact.or_else(by_digest) {
            return Ok(entry);
        }
    }
    match (by_id(store, entries, name_or_id)?, named) {
        (Some(entry), _) => Ok(entry),
        (None, Err(source)) if !is_hex(name_or_id.trim_start_matches("sha256:")) => {
            Err(StoreError::Name { name: name_or_id.to_owned(), source })
        }
        (None, _) => Err(StoreError::NoImage { name: name_or_id.to_owned() }),
    }
}

fn is_hex(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn by_id<'a>(store: &Store, entries: &'a [Entry], text: &str) -> Result<Option<&'a Entry>> {
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    if !is_hex(prefix) {
        return Ok(None);
    }
    let mut found: Option<(&Entry, Digest)> = None;
    for entry in entries {
        // An entry whose manifest cannot be read has no ID to be found by.
        let Ok(manifest) = store.manifest(&entry.descriptor) else { continue };
        let id = manifest.config.digest;
        if !id.hex().starts_with(prefix) {
            continue;
        }
        match found {
            Some((_, other)) if other != id => {
                return Err(StoreError::Ambiguous { prefix: text.to_owned() });
            }
            Some(_) => {}
            None => found = Some((entry, id)),
        }
    }
    Ok(found.map(|(entry, _)| entry))
}
