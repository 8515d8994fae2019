//! Where a user's credentials for a registry are found and kept: `auth.json` of podman, `config.json` of Docker,
//! and the helper programs that these name.
use super::endpoint::Endpoint;
use crate::error::{ErrorKind, Kind};
use crate::sys::program::ProgramError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod file;
mod helper;
#[cfg(test)]
mod tests;

pub use file::{Erased, Kept};
pub use helper::Helper;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Docker's name of its own registry in files and for helpers.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Why credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the registry credentials in {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the registry credentials in {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("registry credentials file {} is larger than {FILE_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("registry credentials file {} is not valid", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("credentials for {key} in {} are not base64 of USER:PASSWORD", path.display())]
    Auth { path: PathBuf, key: String },
    #[error(
        "there is no place for registry credentials: neither $XDG_RUNTIME_DIR nor $HOME is set; use --authfile"
    )]
    NoPlace,
    #[error("{name:?} is no name of a credential helper")]
    HelperName { name: String },
    #[error("the credential helper docker-credential-{program}, which {} names, is not in PATH", path.display())]
    NoHelper { program: String, path: PathBuf },
    #[error("cannot ask the credential helper docker-credential-{helper} about {server}")]
    HelperRun {
        helper: String,
        server: String,
        #[source]
        source: Box<ProgramError>,
    },
    #[error(
        "the credential helper docker-credential-{helper} cannot {action} the credentials of {server}: {message:?}"
    )]
    HelperFailed { helper: String, action: &'static str, server: String, message: String },
    #[error("the credential helper docker-credential-{helper} has given no valid answer")]
    HelperAnswer {
        helper: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the credentials are too long for the helper docker-credential-{helper}")]
    HelperRequest { helper: String },
}

impl Kind for CredentialsError {
    fn kind(&self) -> ErrorKind {
        match self {
            CredentialsError::HelperRun { source, .. } => source.kind(),
            CredentialsError::NoHelper { .. } => ErrorKind::NotFound,
            CredentialsError::Write { .. } => ErrorKind::System,
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// What proves who the user is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Secret {
    Password(String),
    /// For the token service, in place of a password (OAuth 2 calls it a refresh token).
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

/// A user name with a password, or a token; the secret is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credentials {
    pub(super) user: String,
    pub(super) secret: Secret,
}

impl Credentials {
    /// From a command line or a file.
    pub fn new(user: &str, password: &str) -> Credentials {
        Credentials { user: user.to_owned(), secret: Secret::Password(password.to_owned()) }
    }

    /// An identity token, which the token service takes in place of a password.
    pub fn identity(token: &str) -> Credentials {
        Credentials { user: String::new(), secret: Secret::Identity(token.to_owned()) }
    }

    /// A token that the registry takes as it is.
    pub fn registry_token(token: &str) -> Credentials {
        Credentials { user: String::new(), secret: Secret::Registry(token.to_owned()) }
    }

    /// The value of an `Authorization` header; tokens are none.
    pub(super) fn basic(&self) -> Option<String> {
        match &self.secret {
            Secret::Password(password) => {
                Some(format!("Basic {}", BASE64.encode(format!("{}:{password}", self.user))))
            }
            _ => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The environment in which files and helpers are looked for.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `$REGISTRY_AUTH_FILE` or the user's choice: then no other file is read, and it must exist.
    pub auth_file: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_CONFIG_HOME`
    pub config_home: Option<PathBuf>,
    /// `$DOCKER_CONFIG`
    pub docker_config: Option<PathBuf>,
    /// `$HOME`
    pub home: Option<PathBuf>,
    /// `$PATH`, in which helpers are looked for.
    pub path: OsString,
    /// The effective user.
    pub uid: u32,
}

impl Environment {
    /// What this process was started with.
    pub fn of_process() -> Environment {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Environment {
            auth_file: path("REGISTRY_AUTH_FILE"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            config_home: path("XDG_CONFIG_HOME"),
            docker_config: path("DOCKER_CONFIG"),
            home: path("HOME"),
            path: std::env::var_os("PATH").unwrap_or_default(),
            uid: nix::unistd::geteuid().as_raw(),
        }
    }

    /// The files in the order of containers-auth.json(5).
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        files.push(match &self.runtime_dir {
            Some(runtime) => runtime.join("containers/auth.json"),
            // podman's place without a session.
            None => PathBuf::from(format!("/run/containers/{}/auth.json", self.uid)),
        });
        let config = self.config_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        files.extend(config.map(|directory| directory.join("containers/auth.json")));
        let docker =
            self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        files.extend(docker.map(|directory| directory.join("config.json")));
        files
    }

    /// Looks for credentials for an endpoint: in each file first what a helper has for this registry alone, then
    /// `auths`, then the helper for all registries.
    fn find(&self, registry: &str, repository: &str) -> Result<Found, CredentialsError> {
        if let Some(path) = &self.auth_file {
            let bytes = file::read(path)?.ok_or_else(|| CredentialsError::Read {
                path: path.clone(),
                source: io::ErrorKind::NotFound.into(),
            })?;
            return self.find_in(registry, repository, path, &bytes);
        }
        let mut absent = Found::Nothing;
        for path in self.files() {
            let Some(bytes) = file::read(&path)? else { continue };
            match self.find_in(registry, repository, &path, &bytes)? {
                found @ Found::Credentials(_) => return Ok(found),
                found @ Found::Helper { .. } if absent == Found::Nothing => absent = found,
                _ => {}
            }
        }
        Ok(absent)
    }

    fn find_in(
        &self,
        registry: &str,
        repository: &str,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Found, CredentialsError> {
        let file: AuthFile = serde_json::from_slice(bytes)
            .map_err(|source| CredentialsError::Json { path: path.to_owned(), source })?;
        let mut absent = Found::Nothing;
        let mut ask = |name: &str| -> Result<Option<Found>, CredentialsError> {
            match Helper::find(name, &self.path)? {
                Some(helper) => Ok(helper.get(&server(registry))?.map(Found::Credentials)),
                None => {
                    // Configurations are copied to where their helpers are not: most images need none.
                    absent = Found::Helper { program: name.to_owned() };
                    Ok(None)
                }
            }
        };
        if let Some(name) = file.helper_of(registry)
            && let Some(found) = ask(name)?
        {
            return Ok(found);
        }
        for wanted in keys(registry, repository) {
            let mut matching: Vec<_> =
                file.auths.iter().filter(|(key, _)| normalise(key) == wanted).collect();
            // Two spellings of one registry: the choice must not depend on the order of a hash map.
            matching.sort_by_key(|(key, _)| (key.as_str() != wanted, key.as_str()));
            for (key, entry) in matching {
                if let Some(credentials) = decode(path, key, entry)? {
                    return Ok(Found::Credentials(credentials));
                }
            }
        }
        if let Some(name) = file.creds_store.as_ref().filter(|name| !name.is_empty())
            && let Some(found) = ask(name)?
        {
            return Ok(found);
        }
        Ok(absent)
    }
}

/// Who has the credentials.
#[derive(Debug, Clone, Default)]
pub enum Keyring {
    /// Nobody.
    #[default]
    Anonymous,
    /// The user gave them, for the registry and not for its mirrors.
    Given(Credentials),
    /// Files and helpers.
    Files(Environment),
}

impl Keyring {
    /// The credentials for an endpoint.
    pub(super) fn find(&self, endpoint: &Endpoint) -> Result<Found, CredentialsError> {
        match self {
            Keyring::Given(credentials) if !endpoint.mirror => Ok(Found::Credentials(credentials.clone())),
            Keyring::Files(environment) => environment.find(&endpoint.registry, &endpoint.repository),
            _ => Ok(Found::Nothing),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Credentials(Credentials),
    /// A helper may have them, which is not installed.
    Helper {
        program: String,
    },
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, AuthEntry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

impl AuthFile {
    /// The helper that is named for one registry.
    fn helper_of(&self, registry: &str) -> Option<&String> {
        let spelt = |key: &&String| normalise(key) == registry;
        let mut keys: Vec<_> = self.cred_helpers.keys().filter(spelt).collect();
        keys.sort();
        keys.first().and_then(|key| self.cred_helpers.get(*key)).filter(|name| !name.is_empty())
    }
}

#[derive(Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

fn decode(path: &Path, key: &str, entry: &AuthEntry) -> Result<Option<Credentials>, CredentialsError> {
    let token = |token: &Option<String>| token.clone().filter(|token| !token.is_empty());
    if let Some(token) = token(&entry.identitytoken) {
        return Ok(Some(Credentials::identity(&token)));
    }
    if let Some(token) = token(&entry.registrytoken) {
        return Ok(Some(Credentials::registry_token(&token)));
    }
    if let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) {
        let bad = || CredentialsError::Auth { path: path.to_owned(), key: key.to_owned() };
        let text =
            BASE64.decode(auth).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(bad)?;
        let (user, password) = text.split_once(':').ok_or_else(bad)?;
        // Docker pads old entries with NULs.
        return Ok(Some(Credentials::new(user, password.trim_end_matches('\0'))));
    }
    Ok(match (&entry.username, &entry.password) {
        (Some(user), Some(password)) => Some(Credentials::new(user, password)),
        _ => None,
    })
}

/// What an entry for a repository may be called, the most specific first (containers-auth.json(5)).
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = format!("{registry}/{repository}");
    while let Some((parent, _)) = name.rsplit_once('/') {
        keys.push(name.clone());
        name = parent.to_owned();
    }
    keys.push(name);
    keys
}

/// `https://index.docker.io/v1/` and its like to the registry's name.
fn normalise(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = match bare {
        // An URL is a Docker entry, which means the whole registry.
        Some(url) => url.split('/').next().unwrap_or(url),
        None => key.trim_end_matches('/'),
    };
    match name {
        "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => "docker.io".to_owned(),
        name => name.to_owned(),
    }
}

/// What Docker calls a registry when it speaks to a helper.
fn server(registry: &str) -> String {
    if registry == "docker.io" { DOCKER_HUB.to_owned() } else { registry.to_owned() }
}
