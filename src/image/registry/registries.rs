//! `registries.conf`, version 2 (containers-registries.conf(5)): which registries are mirrored, moved or blocked,
//! and what short names mean.
use super::endpoint::{Access, Endpoint, Security, Wanted};
use crate::error::{ErrorKind, Kind};
use crate::image::reference::{self, Reference, ReferenceError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

mod conf;
#[cfg(test)]
mod tests;

pub use conf::Files;
use conf::{Conf, FILE_MAX};

/// Why `registries.conf` cannot be used, or forbids what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than {FILE_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is no registries.conf of version 2", path.display())]
    Syntax {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("{}: {key} = {value:?}: {problem}", path.display())]
    Value { path: PathBuf, key: &'static str, value: String, problem: &'static str },
    #[error("registry {prefix} is blocked by {}: {reference} is not fetched", path.display())]
    Blocked { prefix: String, path: PathBuf, reference: Box<Reference> },
    #[error("{location:?}, which {} asks in place of {reference}, gives no valid name", path.display())]
    Location { location: String, path: PathBuf, reference: Box<Reference> },
    #[error(
        "{name:?} may be any of {}: {} wants a registry to be named (short-name-mode = \"enforcing\")",
        candidates.join(", "), path.display()
    )]
    ShortName { name: String, candidates: Vec<String>, path: PathBuf },
    #[error("{} makes {name:?} of a short name", path.display())]
    Candidate {
        name: String,
        path: PathBuf,
        #[source]
        source: ReferenceError,
    },
}

impl Kind for RegistriesError {
    fn kind(&self) -> ErrorKind {
        match self {
            RegistriesError::Blocked { .. } => ErrorKind::PermissionDenied,
            _ => ErrorKind::InvalidInput,
        }
    }
}

type Result<T> = std::result::Result<T, RegistriesError>;

/// Which references a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Always,
    ForDigests,
    ForTags,
}

#[derive(Debug, Clone)]
struct Place {
    location: String,
    wanted: Wanted,
    asked: Asked,
}

#[derive(Debug, Clone)]
struct Registry {
    /// `host[:port][/path]`, or `*.domain`
    prefix: String,
    /// In place of the prefix; the prefix itself if absent.
    location: Option<String>,
    wanted: Wanted,
    blocked: bool,
    /// The mirrors alone are asked.
    replaced: bool,
    mirrors: Vec<Place>,
    /// Where it is written.
    path: PathBuf,
}

/// What to do about a short name that may mean several images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum ShortNameMode {
    /// Refuse.
    Enforcing,
    /// Try each.
    #[default]
    Permissive,
}

/// All files of `registries.conf` together.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    registries: Vec<Registry>,
    search: Vec<String>,
    mode: ShortNameMode,
    /// Short name to full name without tag.
    aliases: BTreeMap<String, (String, PathBuf)>,
    /// Where `search` or the mode is written.
    path: PathBuf,
}

impl Registries {
    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let conf: Conf = toml::from_str(text)
            .map_err(|source| RegistriesError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
        let wrong = |key, value: &str, problem| RegistriesError::Value {
            path: path.to_owned(),
            key,
            value: value.chars().take(200).collect(),
            problem,
        };
        if conf.registries.is_some() {
            return Err(wrong("registries", "…", "it is version 1 of the format, which is not supported"));
        }
        if let Some(search) = conf.unqualified_search_registries {
            self.search = search;
            self.path = path.to_owned();
        }
        match conf.short_name_mode.as_deref() {
            None => {}
            Some("enforcing") => self.mode = ShortNameMode::Enforcing,
            Some("permissive" | "disabled") => self.mode = ShortNameMode::Permissive,
            Some(other) => {
                return Err(wrong("short-name-mode", other, "want enforcing, permissive or disabled"));
            }
        }
        for (name, value) in conf.aliases {
            // An empty value takes an alias back.
            match value.as_str() {
                "" => drop(self.aliases.remove(&name)),
                _ => drop(self.aliases.insert(name, (value, path.to_owned()))),
            }
        }
        for raw in conf.registry {
            let registry = raw.checked(path, &wrong)?;
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// The same, with `mirror` in place of all of `registry`, `host[:port]`, which itself is not asked.
    #[must_use]
    pub fn replaced(mut self, registry: &str, mirror: &Mirror) -> Registries {
        self.registries.retain(|other| other.prefix != registry);
        self.registries.push(Registry {
            prefix: registry.to_owned(),
            location: None,
            wanted: Wanted::Configured,
            blocked: false,
            replaced: true,
            mirrors: vec![Place {
                location: mirror.location.clone(),
                wanted: Wanted::Exactly(mirror.security),
                asked: Asked::Always,
            }],
            path: PathBuf::new(),
        });
        self
    }

    /// What a name that a user typed may mean, in the order in which it is to be tried: a short name goes by the
    /// aliases, then by the registries to search, and is Docker Hub's if there are neither.
    ///
    /// # Errors
    /// The name is none; [`RegistriesError::ShortName`].
    pub fn candidates(&self, text: &str) -> std::result::Result<Vec<Reference>, NameError> {
        let plain: Reference = text.parse()?;
        if !reference::is_short(text) {
            return Ok(vec![plain]);
        }
        let end = text.find([':', '@']).unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let parse = |full: String, path: &Path| {
            let parsed = full.parse();
            parsed.map_err(|source| RegistriesError::Candidate { name: full, path: path.to_owned(), source })
        };
        if let Some((full, path)) = self.aliases.get(name) {
            return Ok(vec![parse(format!("{full}{rest}"), path)?]);
        }
        let candidates: Vec<Reference> = self
            .search
            .iter()
            .map(|registry| parse(format!("{registry}/{text}"), &self.path))
            .collect::<Result<_>>()?;
        match candidates.len() {
            0 => Ok(vec![plain]),
            2.. if self.mode == ShortNameMode::Enforcing => {
                let candidates = candidates.iter().map(ToString::to_string).collect();
                let (name, path) = (text.to_owned(), self.path.clone());
                Err(RegistriesError::ShortName { name, candidates, path }.into())
            }
            _ => Ok(candidates),
        }
    }

    fn find(&self, reference: &Reference) -> Option<(&Registry, usize)> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let matching = self
            .registries
            .iter()
            .filter_map(|registry| matches(&registry.prefix, &name).map(|length| (registry, length)));
        // The longest prefix says the most.
        matching.max_by_key(|(registry, _)| registry.prefix.len())
    }
}

/// Why a name is no image.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Registries(#[from] RegistriesError),
}

impl Access {
    /// Where an image is asked for, in this order: the mirrors that are for such a reference, then the registry.
    ///
    /// # Errors
    /// [`RegistriesError::Blocked`], [`RegistriesError::Location`]
    pub fn sources(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let Some((registry, length)) = self.registries.find(reference) else {
            return Ok(vec![Endpoint::of(reference, self)]);
        };
        registry.check_blocked(reference)?;
        let mut sources = Vec::new();
        for mirror in &registry.mirrors {
            let asked = match mirror.asked {
                Asked::Always => true,
                Asked::ForDigests => reference.digest().is_some(),
                Asked::ForTags => reference.digest().is_none(),
            };
            if asked {
                let place = (mirror.location.as_str(), mirror.wanted, true);
                sources.push(registry.endpoint(reference, length, place, self)?);
            }
        }
        if !registry.replaced {
            sources.push(self.primary(reference)?);
        }
        Ok(sources)
    }

    /// Where an image is pushed to, or a registry is logged in to: never a mirror.
    ///
    /// # Errors
    /// [`RegistriesError::Blocked`], [`RegistriesError::Location`]
    pub fn primary(&self, reference: &Reference) -> Result<Endpoint> {
        let Some((registry, length)) = self.registries.find(reference) else {
            return Ok(Endpoint::of(reference, self));
        };
        registry.check_blocked(reference)?;
        match &registry.location {
            Some(location) => registry.endpoint(reference, length, (location, registry.wanted, false), self),
            None => {
                let (host, repository) = (reference.registry(), reference.repository());
                Ok(Endpoint::at(host, repository, registry.wanted, false, self))
            }
        }
    }
}

impl Registry {
    fn check_blocked(&self, reference: &Reference) -> Result<()> {
        if self.blocked {
            return Err(RegistriesError::Blocked {
                prefix: self.prefix.clone(),
                path: self.path.clone(),
                reference: Box::new(reference.clone()),
            });
        }
        Ok(())
    }

    /// `location` in place of the first `length` bytes of the reference's name.
    fn endpoint(
        &self,
        reference: &Reference,
        length: usize,
        (location, wanted, mirror): (&str, Wanted, bool),
        access: &Access,
    ) -> Result<Endpoint> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let moved = format!("{location}{}", &name[length..]);
        let valid = reference::host_and_path(&moved).filter(|_| moved.contains('/'));
        let (host, repository) = valid.ok_or_else(|| RegistriesError::Location {
            location: location.to_owned(),
            path: self.path.clone(),
            reference: Box::new(reference.clone()),
        })?;
        Ok(Endpoint::at(host, repository, wanted, mirror, access))
    }
}

/// How many bytes of `name`, `host[:port]/path`, a prefix stands for; nothing if it does not match.
fn matches(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split('/').next().unwrap_or_default();
        return (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
}

/// Another registry that has the same repositories, by its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    location: String,
    security: Security,
}

impl Mirror {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is anything else, also if a path follows.
    pub fn parse(text: &str) -> std::result::Result<Mirror, super::UrlError> {
        let url = super::origin::Url::parse(text)?;
        match url.to_string().strip_prefix(&url.origin.to_string()) {
            Some("/") => {
                let security = if url.origin.is_encrypted() { Security::Verified } else { Security::Plain };
                Ok(Mirror { location: url.origin.authority(), security })
            }
            _ => Err(super::UrlError::Malformed { text: text.chars().take(200).collect() }),
        }
    }
}
