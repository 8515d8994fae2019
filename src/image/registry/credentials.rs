//! Where a user's credentials for a registry are found: `auth.json` of podman and `config.json` of Docker.
use crate::image::reference::Reference;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Why credentials could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read the registry credentials in {}", path.display())]
    Read {
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
    #[error("credentials for {key} in {} are an identity token, which is not supported", path.display())]
    IdentityToken { path: PathBuf, key: String },
}

/// A user name and a password; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
}

impl Credentials {
    /// From a command line or a file.
    pub fn new(user: &str, password: &str) -> Credentials {
        Credentials { user: user.to_owned(), password: password.to_owned() }
    }

    /// The value of an `Authorization` header.
    pub fn basic(&self) -> String {
        format!("Basic {}", BASE64.encode(format!("{}:{}", self.user, self.password)))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// The environment in which files are looked for.
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
        }
    }

    /// The files in the order of containers-auth.json(5).
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        // podman's default for root without a session.
        let runtime = self.runtime_dir.clone().unwrap_or_else(|| PathBuf::from("/run/containers/0"));
        files.push(match &self.runtime_dir {
            Some(_) => runtime.join("containers/auth.json"),
            None => runtime.join("auth.json"),
        });
        let config = self.config_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".config")));
        files.extend(config.map(|directory| directory.join("containers/auth.json")));
        let docker =
            self.docker_config.clone().or_else(|| self.home.as_ref().map(|home| home.join(".docker")));
        files.extend(docker.map(|directory| directory.join("config.json")));
        files
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Credentials(Credentials),
    /// Only a helper program has them, which is not called.
    Helper {
        program: String,
        path: PathBuf,
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

#[derive(Deserialize)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Looks for credentials for the registry of `reference`.
pub fn find(reference: &Reference, environment: &Environment) -> Result<Found, CredentialsError> {
    if let Some(path) = &environment.auth_file {
        let bytes = read(path)?.ok_or_else(|| CredentialsError::Read {
            path: path.clone(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        return find_in(reference, path, &bytes);
    }
    let mut helper = Found::Nothing;
    for path in environment.files() {
        let Some(bytes) = read(&path)? else { continue };
        match find_in(reference, &path, &bytes)? {
            Found::Credentials(credentials) => return Ok(Found::Credentials(credentials)),
            found @ Found::Helper { .. } if helper == Found::Nothing => helper = found,
            _ => {}
        }
    }
    Ok(helper)
}

/// The bytes of a file, or nothing if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    let fail = |source| CredentialsError::Read { path: path.to_owned(), source };
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
        return Err(CredentialsError::TooLarge { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

fn find_in(reference: &Reference, path: &Path, bytes: &[u8]) -> Result<Found, CredentialsError> {
    let file: AuthFile = serde_json::from_slice(bytes)
        .map_err(|source| CredentialsError::Json { path: path.to_owned(), source })?;
    for wanted in keys(reference) {
        let mut matching: Vec<_> = file.auths.iter().filter(|(key, _)| normalise(key) == wanted).collect();
        // Two spellings of one registry: the choice must not depend on the order of a hash map.
        matching.sort_by_key(|(key, _)| (key.as_str() != wanted, key.as_str()));
        for (key, entry) in matching {
            if let Some(credentials) = decode(path, key, entry)? {
                return Ok(Found::Credentials(credentials));
            }
        }
    }
    let registry = reference.registry();
    let helper = file.cred_helpers.get(registry).or(file.creds_store.as_ref());
    Ok(helper
        .map_or(Found::Nothing, |program| Found::Helper { program: program.clone(), path: path.to_owned() }))
}

fn decode(path: &Path, key: &str, entry: &AuthEntry) -> Result<Option<Credentials>, CredentialsError> {
    if entry.identitytoken.as_ref().is_some_and(|token| !token.is_empty()) {
        return Err(CredentialsError::IdentityToken { path: path.to_owned(), key: key.to_owned() });
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

/// What an entry for `reference` may be called, the most specific first (containers-auth.json(5)).
fn keys(reference: &Reference) -> Vec<String> {
    let mut keys = Vec::new();
    let mut name = format!("{}/{}", reference.registry(), reference.repository());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(reference: &str, json: &str) -> Result<Found, CredentialsError> {
        find_in(&reference.parse().unwrap(), Path::new("auth.json"), json.as_bytes())
    }

    fn entry(user: &str) -> String {
        format!(r#"{{"auth":"{}"}}"#, BASE64.encode(format!("{user}:p:w")))
    }

    #[test]
    fn the_most_specific_entry_wins() {
        let json = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{},"quay.io":{},"quay.io/team":{},"localhost:5000":{}}}}}"#,
            entry("hub"),
            entry("quay"),
            entry("team"),
            entry("local")
        );
        for (reference, user) in [
            ("busybox", "hub"),
            ("quay.io/other/app", "quay"),
            ("quay.io/team/app", "team"),
            ("quay.io/teams/app", "quay"),
            ("localhost:5000/app", "local"),
        ] {
            let want = Found::Credentials(Credentials::new(user, "p:w"));
            assert_eq!(lookup(reference, &json).unwrap(), want, "{reference}");
        }
        for reference in ["ghcr.io/a/b", "localhost:5001/app", "localhost/app", "evilquay.io/a"] {
            assert_eq!(lookup(reference, &json).unwrap(), Found::Nothing, "{reference}");
        }
    }

    #[test]
    fn other_forms() {
        let plain = r#"{"auths":{"a.io":{"username":"u","password":"p"},"b.io":{}}}"#;
        assert_eq!(lookup("a.io/x", plain).unwrap(), Found::Credentials(Credentials::new("u", "p")));
        assert_eq!(lookup("b.io/x", plain).unwrap(), Found::Nothing);
        let helper = r#"{"auths":{"a.io":{}},"credsStore":"desktop"}"#;
        assert!(matches!(lookup("a.io/x", helper).unwrap(), Found::Helper { .. }));
        for bad in [r#"{"auths":{"a.io":{"auth":"!"}}}"#, r#"{"auths":{"a.io":{"auth":"eA=="}}}"#] {
            assert!(matches!(lookup("a.io/x", bad), Err(CredentialsError::Auth { .. })));
        }
        assert!(matches!(lookup("a.io/x", "[]"), Err(CredentialsError::Json { .. })));
        let token = r#"{"auths":{"a.io":{"auth":"eDp5","identitytoken":"t"}}}"#;
        assert!(matches!(lookup("a.io/x", token), Err(CredentialsError::IdentityToken { .. })));
    }

    #[test]
    fn passwords_are_not_printed() {
        let text = format!("{:?}", Credentials::new("user", "secret"));
        assert!(text.contains("user") && !text.contains("secret"), "{text}");
    }

    #[test]
    fn a_chosen_file_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let reference: Reference = "a.io/x".parse().unwrap();
        let mut environment =
            Environment { home: Some(directory.path().to_owned()), ..Environment::default() };
        environment.runtime_dir = Some(directory.path().to_owned());
        assert_eq!(find(&reference, &environment).unwrap(), Found::Nothing);
        environment.auth_file = Some(directory.path().join("absent"));
        assert!(matches!(find(&reference, &environment), Err(CredentialsError::Read { .. })));
    }
}
