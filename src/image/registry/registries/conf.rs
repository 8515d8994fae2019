//! The files of `registries.conf`: which there are, and what one of them says.
use super::super::endpoint::Wanted;
use super::{Asked, Place, Registries, RegistriesError, Registry, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
pub(super) const FILE_MAX: u64 = 1 << 20;
const SYSTEM: &str = "/etc/containers";

/// What a file says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Conf {
    pub(super) unqualified_search_registries: Option<Vec<String>>,
    pub(super) short_name_mode: Option<String>,
    #[serde(default)]
    pub(super) registry: Vec<RawRegistry>,
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, String>,
    /// Version 1, in which it was `registries.search`.
    pub(super) registries: Option<toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RawRegistry {
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
}

impl RawRegistry {
    /// A registry as it is used; `wrong` makes an error of a key, its value and what is wrong with it.
    pub(super) fn checked(
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
