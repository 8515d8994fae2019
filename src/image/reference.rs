//! Image references: `[REGISTRY[:PORT]/]REPOSITORY[:TAG][@DIGEST]`.
//!
//! The grammar is that of distribution's `reference` package, and the short names are Docker's: no registry
//! means `docker.io`, no directory there means `library/`, neither tag nor digest means `latest`.

use crate::error::{ErrorKind, Kind};
use crate::image::digest::{Digest, DigestError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

#[cfg(test)]
mod tests;

/// Where short names live.
const DEFAULT_REGISTRY: &str = "docker.io";
/// The longest registry plus repository, in bytes (distribution's `RepositoryNameTotalLengthMax`).
const NAME_MAX: usize = 255;
/// The longest tag, in bytes.
const TAG_MAX: usize = 128;
/// The longest whole reference: name, tag, digest and the signs between them.
const REFERENCE_MAX: usize = NAME_MAX + 1 + TAG_MAX + 1 + "sha256:".len() + 64;

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing at all.
    #[error("the image reference is empty")]
    Empty,
    /// Longer than any reference may be.
    #[error("image reference of {length} bytes is too long: at most {REFERENCE_MAX} are allowed")]
    TooLong { length: usize },
    /// Registry and repository together are longer than 255 bytes.
    #[error("image name {name:?} is too long: at most {NAME_MAX} bytes are allowed")]
    NameTooLong { name: String },
    /// The part before the first slash is no `host[:port]`.
    #[error("invalid registry {registry:?} in image reference {text:?}")]
    Registry { text: String, registry: String },
    /// The repository breaks the grammar.
    #[error(
        "invalid repository {repository:?} in image reference {text:?}: \
         want lower-case letters and digits, separated by /, ., _, __ or dashes"
    )]
    Repository { text: String, repository: String },
    /// The tag breaks the grammar.
    #[error(
        "invalid tag {tag:?} in image reference {text:?}: \
         want at most {TAG_MAX} letters, digits, _, . and -, not starting with . or -"
    )]
    Tag { text: String, tag: String },
    /// What follows `@` is no digest.
    #[error("invalid image reference {text:?}")]
    Digest {
        text: String,
        #[source]
        source: DigestError,
    },
    /// 64 hexadecimal digits: an image ID, which must not be taken for a repository on Docker Hub.
    #[error("{text:?} is an image ID, not a reference: a reference names a repository")]
    ImageId { text: String },
}

impl Kind for ReferenceError {
    fn kind(&self) -> ErrorKind {
        match self {
            ReferenceError::Digest { source, .. } => source.kind(),
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// A normalised reference; it always has a registry, a repository, and a tag or a digest (or both).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// `host[:port]`, as users name it (`docker.io`, not the host of its API).
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path under the registry, such as `library/busybox`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; absent only when there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest that must be meant.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The short form in which Docker would print it: `busybox:latest`, `user/app:1`; the whole where a short one would
    /// mean another image, as that of `docker.io/127.0.0.1/x`.
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(rest) = full.strip_prefix("docker.io/") else { return full };
        let short = rest.strip_prefix("library/").unwrap_or(rest);
        if short.parse().as_ref() == Ok(self) { short.to_owned() } else { full }
    }

    /// The same repository and tag, pinned to a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if text.len() > REFERENCE_MAX {
            return Err(ReferenceError::TooLong { length: text.len() });
        }
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::ImageId { text: text.to_owned() });
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|source| ReferenceError::Digest { text: text.to_owned(), source })?;
                (named, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(named);
        // Without a registry a colon can only start the tag; with one, its port was cut off already.
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_registry(text, registry)?;
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !is_repository(path) {
            return Err(ReferenceError::Repository { text: text.to_owned(), repository: path.to_owned() });
        }
        if registry.len() + 1 + repository.len() > NAME_MAX {
            return Err(ReferenceError::NameTooLong { name: format!("{registry}/{repository}") });
        }
        let tag = match tag {
            Some(tag) if is_tag(tag) => Some(tag.to_owned()),
            Some(tag) => return Err(ReferenceError::Tag { text: text.to_owned(), tag: tag.to_owned() }),
            None if digest.is_none() => Some("latest".to_owned()),
            None => None,
        };
        Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// Whether a name has no registry, so that it may mean another one than Docker Hub.
pub fn is_short(text: &str) -> bool {
    let named = text.split('@').next().unwrap_or_default();
    !matches!(named.split_once('/'), Some((first, _)) if is_registry(first))
}

/// `host[:port]` and the repository of a name without tag and digest, if both are valid.
pub fn host_and_path(name: &str) -> Option<(&str, &str)> {
    let (registry, path) = name.split_once('/')?;
    let valid = name.len() <= NAME_MAX && check_registry(name, registry).is_ok() && is_repository(path);
    valid.then_some((registry, path))
}

/// Whether a text is `host[:port]`.
pub fn is_host(text: &str) -> bool {
    check_registry(text, text).is_ok()
}

/// The first component is a registry if it cannot be a directory on Docker Hub: it has a dot, a port or an
/// upper-case letter, or is `localhost` (distribution's `splitDockerDomain`).
fn split_registry(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((first, rest)) if is_registry(first) => {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, named),
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':', '['])
        || first == "localhost"
        || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(text: &str, registry: &str) -> Result<(), ReferenceError> {
    let fail = || ReferenceError::Registry { text: text.to_owned(), registry: registry.to_owned() };
    let port = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or_else(fail)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| fail())?;
            match port {
                "" => None,
                _ => Some(port.strip_prefix(':').ok_or_else(fail)?),
            }
        }
        None => {
            let (host, port) = match registry.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (registry, None),
            };
            if !host.split('.').all(is_host_label) {
                return Err(fail());
            }
            port
        }
    };
    match port {
        Some(port)
            if !port.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(port.parse(), Ok(1u16..)) =>
        {
            Err(fail())
        }
        _ => Ok(()),
    }
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= 63
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_repository(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let separator = |byte: u8| matches!(byte, b'.' | b'_' | b'-');
    let bytes = component.as_bytes();
    if !bytes.iter().all(|&byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || separator(byte)) {
        return false;
    }
    let ends_well = |byte: Option<&u8>| byte.is_some_and(|&byte| !separator(byte));
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes
            .split(|&byte| !separator(byte))
            .all(|run| matches!(run, b"" | b"." | b"_" | b"__") || run.iter().all(|&byte| byte == b'-'))
}

/// `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`
fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
