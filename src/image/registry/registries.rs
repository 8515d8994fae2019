//! `registries.conf`, version 2 (containers-registries.conf(5)): which registries are mirrored, moved or blocked,
//! and what short names mean.
use super::endpoint::{Access, Endpoint, Security, Wanted};
use crate::error::{ErrorKind, Kind};
use crate::image::reference::{self, Reference, ReferenceError};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
const SYSTEM: &str = "/etc/containers";

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

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Conf {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    #[serde(default)]
    registry: Vec<RawRegistry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// Version 1, in which it was `registries.search`.
    registries: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawRegistry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<RawMirror>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawMirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

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

/// The environment in which files are looked for.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `$CONTAINERS_REGISTRIES_CONF`: then no other file is read, and it must exist.
    pub chosen: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME/containers` or `~/.config/containers`
    pub user: Option<PathBuf>,
    /// `/etc/containers`
    pub system: PathBuf,
}

impl Files {
    /// What this process was started with.
    pub fn of_process() -> Files {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(".config")));
        Files {
            chosen: path("CONTAINERS_REGISTRIES_CONF"),
            user: config.map(|directory| directory.join("containers")),
            system: PathBuf::from(SYSTEM),
        }
    }
}

impl Registries {
    /// Reads the files: the user's `registries.conf` or else the system's, then what is in `registries.conf.d` of
    /// the system and of the user, in the order of names; a later one wins.
    pub fn read(files: &Files) -> Result<Registries> {
        let mut all = Registries::default();
        if let Some(path) = &files.chosen {
            let text = read(path)?.ok_or_else(|| RegistriesError::Read {
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?;
            all.add(path, &text)?;
            return Ok(all);
        }
        let mains = files.user.iter().chain([&files.system]).map(|dir| dir.join("registries.conf"));
        for path in mains {
            if let Some(text) = read(&path)? {
                all.add(&path, &text)?;
                break;
            }
        }
        for directory in [&files.system].into_iter().chain(&files.user) {
            for path in drop_ins(&directory.join("registries.conf.d"))? {
                if let Some(text) = read(&path)? {
                    all.add(&path, &text)?;
                }
            }
        }
        Ok(all)
    }

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

impl RawRegistry {
    fn checked(
        self,
        path: &Path,
        wrong: &dyn Fn(&'static str, &str, &'static str) -> RegistriesError,
    ) -> Result<Registry> {
        let (prefix, location) = match (self.prefix, self.location) {
            (Some(prefix), location) if !prefix.is_empty() => (prefix, location),
            (_, Some(location)) => (location.clone(), Some(location)),
            _ => return Err(wrong("prefix", "", "a registry wants a prefix or a location")),
        };
        let prefix = prefix.trim_end_matches('/').to_owned();
        let place = |text: &str| !text.is_empty() && !text.contains("://") && !text.contains(['@', ' ']);
        if !place(&prefix) {
            return Err(wrong("prefix", &prefix, "want HOST[:PORT][/PATH] or *.DOMAIN"));
        }
        if prefix.contains('*') && (!prefix.starts_with("*.") || prefix[1..].contains(['*', '/'])) {
            return Err(wrong("prefix", &prefix, "the only wildcard is *.DOMAIN"));
        }
        let location = location.filter(|location| !location.is_empty());
        let mut mirrors = Vec::new();
        for mirror in self.mirror {
            if !place(&mirror.location) || mirror.location.contains('*') {
                return Err(wrong("mirror.location", &mirror.location, "want HOST[:PORT][/PATH]"));
            }
            let asked = match mirror.pull_from_mirror.as_deref() {
                _ if self.mirror_by_digest_only => Asked::ForDigests,
                None | Some("all" | "") => Asked::Always,
                Some("digest-only") => Asked::ForDigests,
                Some("tag-only") => Asked::ForTags,
                Some(other) => {
                    return Err(wrong("pull-from-mirror", other, "want all, digest-only or tag-only"));
                }
            };
            let location = mirror.location.trim_end_matches('/').to_owned();
            mirrors.push(Place { location, wanted: Wanted::of(mirror.insecure), asked });
        }
        if let Some(location) = location.as_deref().filter(|l| !place(l) || l.contains('*') && *l != prefix) {
            return Err(wrong("location", location, "want HOST[:PORT][/PATH]"));
        }
        let location = location.map(|l| l.trim_end_matches('/').to_owned()).filter(|l| *l != prefix);
        Ok(Registry {
            prefix,
            location,
            wanted: Wanted::of(self.insecure),
            blocked: self.blocked,
            replaced: false,
            mirrors,
            path: path.to_owned(),
        })
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

/// The text of a file, or nothing if it is not there.
fn read(path: &Path) -> Result<Option<String>> {
    let fail = |source| RegistriesError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(fail(error)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(RegistriesError::TooLarge { path: path.to_owned() });
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| fail(io::ErrorKind::InvalidData.into()))
}

/// The files of a folder whose names end in `.conf`, in the order of names.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>> {
    let fail = |source| RegistriesError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(fail)?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}
