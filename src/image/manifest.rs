//! Manifests, indexes and image configurations: from hostile bytes to checked values.
//!
//! One document has one meaning. CVE-2021-41190 was a document that is a manifest to one reader and an index
//! to another; hence a document with the fields of both, or with a `mediaType` that is not what the registry
//! or the parent's descriptor called it, is refused. Duplicate fields are refused too.

use crate::error::{ErrorKind, Kind};
use crate::image::digest::{Digest, DigestError};
use crate::image::platform::Platform;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// The largest manifest or index, in bytes; registries refuse larger ones too.
pub const MANIFEST_MAX: u64 = 4 << 20;
/// The largest image configuration, in bytes.
pub const CONFIG_MAX: u64 = 8 << 20;
/// The most layers of an image: what overlayfs takes (`OVL_MAX_STACK` in fs/overlayfs/params.h).
pub const LAYERS_MAX: usize = 500;
/// The most URLs of a foreign layer.
pub const URLS_MAX: usize = 16;
/// The most entries of an index.
pub const ENTRIES_MAX: usize = 1024;

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest of {size} bytes is too large: at most {MANIFEST_MAX} are allowed")]
    TooLarge { size: u64 },
    #[error("image configuration of {size} bytes is too large: at most {CONFIG_MAX} are allowed")]
    ConfigTooLarge { size: u64 },
    #[error("manifest is not valid JSON of its kind")]
    Json(#[source] serde_json::Error),
    #[error("image configuration is not valid")]
    Config(#[source] serde_json::Error),
    #[error(
        "manifest has schema version 1, which is not supported: push the image again with a newer client"
    )]
    Schema1,
    #[error("manifest has schema version {version}, want 2")]
    SchemaVersion { version: u64 },
    #[error("media type {media_type:?} is no image manifest and no index")]
    MediaType { media_type: String },
    #[error("document is ambiguous: it calls itself {inner:?} but was announced as {outer:?}")]
    MediaTypeMismatch { inner: String, outer: String },
    #[error("document is ambiguous: it is {kind} and has the field {field:?} too")]
    Ambiguous { kind: &'static str, field: &'static str },
    #[error("manifest is neither an image manifest nor an index: it lacks {field:?}")]
    Missing { field: &'static str },
    #[error("manifest is no container image: its configuration has the media type {media_type:?}")]
    NotAnImage { media_type: String },
    #[error("manifest is an artifact of the type {artifact_type:?}, no container image")]
    Artifact { artifact_type: String },
    #[error("layer {digest} has the media type {media_type:?}, which is not supported")]
    LayerMediaType { digest: Digest, media_type: String },
    #[error("layer {digest} is foreign: its content is elsewhere; --foreign-layers fetches it from there")]
    ForeignLayer { digest: Digest },
    #[error("image has {count} layers, at most {LAYERS_MAX} are supported")]
    TooManyLayers { count: usize },
    #[error("layer {digest} has {count} URLs, at most {URLS_MAX} are supported")]
    TooManyUrls { digest: Digest, count: usize },
    #[error("index has {count} entries, at most {ENTRIES_MAX} are supported")]
    TooManyEntries { count: usize },
    #[error("image manifest has {layers} layers, but its configuration has {diff_ids} diff_ids")]
    LayerCount { layers: usize, diff_ids: usize },
    #[error("image configuration has the rootfs type {kind:?}, want \"layers\"")]
    RootfsType { kind: String },
    #[error("image configuration has an invalid diff_id")]
    DiffId(#[source] DigestError),
    #[error("image has no variant for the platform {wanted}; it has {}", list(offered))]
    NoPlatform { wanted: Platform, offered: Vec<String> },
}

fn list(offered: &[String]) -> String {
    if offered.is_empty() { "none".to_owned() } else { offered.join(", ") }
}

impl Kind for ManifestError {
    fn kind(&self) -> ErrorKind {
        match self {
            ManifestError::NoPlatform { .. } => ErrorKind::NotFound,
            ManifestError::Schema1
            | ManifestError::MediaType { .. }
            | ManifestError::NotAnImage { .. }
            | ManifestError::Artifact { .. }
            | ManifestError::LayerMediaType { .. }
            | ManifestError::ForeignLayer { .. } => ErrorKind::Unsupported,
            ManifestError::TooLarge { .. }
            | ManifestError::ConfigTooLarge { .. }
            | ManifestError::TooManyLayers { .. }
            | ManifestError::TooManyUrls { .. }
            | ManifestError::TooManyEntries { .. } => ErrorKind::Exhausted,
            _ => ErrorKind::Corrupt,
        }
    }
}

type Result<T> = std::result::Result<T, ManifestError>;

/// What a blob is, how large it is and which bytes it must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// As written by whoever made the image.
    pub media_type: String,
    /// Of the blob as it is transferred, compressed or not.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
}

/// How a layer's tar stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar stream.
    None,
    Gzip,
    Zstd,
}

/// A layer of an image manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub descriptor: Descriptor,
    pub compression: Compression,
    /// Its media type says that it may not be distributed: the registry need not have it.
    pub foreign: bool,
    /// Where it may be beside the registry; only a foreign layer has any.
    pub urls: Vec<String>,
}

impl Layer {
    /// A layer, if its media type is one that can be unpacked.
    pub fn new(descriptor: Descriptor) -> Result<Layer> {
        // OCI's and Docker's names of the same thing; the former are deprecated (image-spec 1.1, layer.md).
        let media_type = descriptor
            .media_type
            .replace(".layer.nondistributable.", ".layer.")
            .replace(".rootfs.foreign.diff.", ".rootfs.diff.");
        let foreign = media_type != descriptor.media_type;
        let compression = match media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Compression::None
            }
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Compression::Gzip,
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
            _ => {
                return Err(ManifestError::LayerMediaType {
                    digest: descriptor.digest,
                    media_type: descriptor.media_type,
                });
            }
        };
        Ok(Layer { descriptor, compression, foreign, urls: Vec::new() })
    }
}

impl Manifest {
    /// Checks that the registry or the archive has all layers.
    ///
    /// # Errors
    /// [`ManifestError::ForeignLayer`]
    pub fn refuse_foreign(&self) -> Result<()> {
        match self.layers.iter().find(|layer| layer.foreign) {
            Some(layer) => Err(ManifestError::ForeignLayer { digest: layer.descriptor.digest }),
            None => Ok(()),
        }
    }
}

/// An image manifest, OCI's or Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// [`OCI_MANIFEST`] or [`DOCKER_MANIFEST`].
    pub media_type: &'static str,
    pub config: Descriptor,
    /// Bottom to top.
    pub layers: Vec<Layer>,
}

/// One entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub descriptor: Descriptor,
    /// For which platform the entry is, if it says so.
    pub platform: Option<Platform>,
}

/// An OCI index or a Docker manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// [`OCI_INDEX`] or [`DOCKER_LIST`].
    pub media_type: &'static str,
    pub entries: Vec<Entry>,
}

/// What a registry returns for a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<RawLayer>>,
    manifests: Option<Vec<RawEntry>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLayer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    urls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry {
    media_type: String,
    digest: oci_spec::image::Digest,
    size: u64,
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// Reads a manifest or an index.
///
/// `announced` is the media type that the registry's `Content-Type` or the parent's descriptor gives; the
/// generic types that some registries send (`application/json`, `text/plain`) announce nothing.
pub fn parse(bytes: &[u8], announced: Option<&str>) -> Result<Document> {
    let size = bytes.len() as u64;
    if size > MANIFEST_MAX {
        return Err(ManifestError::TooLarge { size });
    }
    let announced = announced
        .map(|text| text.split_once(';').map_or(text, |(media_type, _)| media_type).trim())
        .filter(|text| !matches!(*text, "" | "application/json" | "application/octet-stream" | "text/plain"));
    if matches!(announced, Some(DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)) {
        return Err(ManifestError::Schema1);
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
    match raw.schema_version {
        2 => {}
        1 => return Err(ManifestError::Schema1),
        version => return Err(ManifestError::SchemaVersion { version }),
    }
    let media_type = match (announced, raw.media_type.as_deref()) {
        (Some(outer), Some(inner)) if outer != inner => {
            return Err(ManifestError::MediaTypeMismatch {
                inner: inner.to_owned(),
                outer: outer.to_owned(),
            });
        }
        (Some(media_type), _) | (None, Some(media_type)) => media_type,
        // Only OCI documents may lack the field.
        (None, None) if raw.manifests.is_some() => OCI_INDEX,
        (None, None) => OCI_MANIFEST,
    };
    match media_type {
        OCI_MANIFEST => manifest(OCI_MANIFEST, raw).map(Document::Manifest),
        DOCKER_MANIFEST => manifest(DOCKER_MANIFEST, raw).map(Document::Manifest),
        OCI_INDEX => index(OCI_INDEX, raw).map(Document::Index),
        DOCKER_LIST => index(DOCKER_LIST, raw).map(Document::Index),
        other => Err(ManifestError::MediaType { media_type: other.to_owned() }),
    }
}

/// Whether a descriptor of this media type points to a manifest or an index.
pub fn is_document(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | OCI_INDEX | DOCKER_MANIFEST | DOCKER_LIST)
}

fn manifest(media_type: &'static str, raw: Raw) -> Result<Manifest> {
    let ambiguous = |field| Err(ManifestError::Ambiguous { kind: "an image manifest", field });
    if raw.manifests.is_some() {
        return ambiguous("manifests");
    }
    if raw.fs_layers.is_some() {
        return ambiguous("fsLayers");
    }
    let config = raw.config.ok_or(ManifestError::Missing { field: "config" })?;
    let layers = raw.layers.ok_or(ManifestError::Missing { field: "layers" })?;
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        return Err(match raw.artifact_type {
            Some(artifact_type) => ManifestError::Artifact { artifact_type },
            None => ManifestError::NotAnImage { media_type: config.media_type },
        });
    }
    if config.size > CONFIG_MAX {
        return Err(ManifestError::ConfigTooLarge { size: config.size });
    }
    if layers.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers { count: layers.len() });
    }
    let layers = layers.into_iter().map(layer).collect::<Result<_>>()?;
    Ok(Manifest { media_type, config, layers })
}

fn layer(raw: RawLayer) -> Result<Layer> {
    let RawLayer { media_type, digest, size, urls } = raw;
    if urls.len() > URLS_MAX {
        return Err(ManifestError::TooManyUrls { digest, count: urls.len() });
    }
    let layer = Layer::new(Descriptor { media_type, digest, size })?;
    // Of an ordinary layer they are no more than a hint, which nobody follows.
    let urls = if layer.foreign { urls } else { Vec::new() };
    Ok(Layer { urls, ..layer })
}

fn index(media_type: &'static str, raw: Raw) -> Result<Index> {
    let ambiguous = |field| Err(ManifestError::Ambiguous { kind: "an index", field });
    if raw.config.is_some() {
        return ambiguous("config");
    }
    if raw.layers.is_some() {
        return ambiguous("layers");
    }
    if raw.fs_layers.is_some() {
        return ambiguous("fsLayers");
    }
    let entries = raw.manifests.ok_or(ManifestError::Missing { field: "manifests" })?;
    if entries.len() > ENTRIES_MAX {
        return Err(ManifestError::TooManyEntries { count: entries.len() });
    }
    // An entry that this build cannot use (another digest algorithm) must not hide the ones that it can.
    let entries = entries
        .into_iter()
        .filter_map(|entry| {
            let digest = Digest::try_from(&entry.digest).ok()?;
            Some(Entry {
                descriptor: Descriptor { media_type: entry.media_type, digest, size: entry.size },
                platform: entry.platform.map(|p| Platform::new(&p.os, &p.architecture, p.variant.as_deref())),
            })
        })
        .collect();
    Ok(Index { media_type, entries })
}

impl Index {
    /// The entry that suits `wanted` best: the closest variant, and an entry that names no platform only when
    /// none that does suits.
    ///
    /// # Errors
    /// [`ManifestError::NoPlatform`], which lists what the index has.
    pub fn choose(&self, wanted: &Platform) -> Result<&Entry> {
        let usable = || self.entries.iter().filter(|entry| is_document(&entry.descriptor.media_type));
        let ranked = usable().filter_map(|entry| {
            let rank = entry.platform.as_ref().map_or(Some(0), |offered| wanted.suits(offered))?;
            Some((rank, entry))
        });
        // The first of equals wins, as in other clients.
        let best = ranked.reduce(|best, next| if next.0 > best.0 { next } else { best });
        best.map(|(_, entry)| entry).ok_or_else(|| ManifestError::NoPlatform {
            wanted: wanted.clone(),
            offered: usable().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect(),
        })
    }
}

/// A checked image configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub configuration: ImageConfiguration,
    /// Digests of the layers' tar streams, bottom to top.
    pub diff_ids: Vec<Digest>,
}

impl Config {
    /// Reads an image configuration.
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        let size = bytes.len() as u64;
        if size > CONFIG_MAX {
            return Err(ManifestError::ConfigTooLarge { size });
        }
        let configuration: ImageConfiguration =
            serde_json::from_slice(bytes).map_err(ManifestError::Config)?;
        let rootfs = configuration.rootfs();
        if rootfs.typ() != "layers" {
            return Err(ManifestError::RootfsType { kind: rootfs.typ().clone() });
        }
        if rootfs.diff_ids().len() > LAYERS_MAX {
            return Err(ManifestError::TooManyLayers { count: rootfs.diff_ids().len() });
        }
        let diff_ids = rootfs
            .diff_ids()
            .iter()
            .map(|text| text.parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(ManifestError::DiffId)?;
        Ok(Config { configuration, diff_ids })
    }

    /// Checks that the manifest has one layer for each diffID.
    pub fn check_layers(&self, layers: usize) -> Result<()> {
        if layers != self.diff_ids.len() {
            return Err(ManifestError::LayerCount { layers, diff_ids: self.diff_ids.len() });
        }
        Ok(())
    }

    /// The platform that the image was made for.
    pub fn platform(&self) -> Platform {
        let config = &self.configuration;
        Platform::new(
            &config.os().to_string(),
            &config.architecture().to_string(),
            config.variant().as_deref(),
        )
    }

    /// The chain IDs of the layers, bottom to top.
    pub fn chain(&self) -> Vec<Digest> {
        chain(&self.diff_ids)
    }
}

/// Chain IDs (image-spec `config.md`, "Layer ChainID"): each names a layer with all that is below it.
pub fn chain(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => *diff_id,
        };
        chain.push(next);
    }
    chain
}
