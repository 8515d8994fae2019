//! The files themselves: read bounded, changed whole.
use super::{AuthFile, BASE64, Credentials, CredentialsError, Environment, FILE_MAX, Helper, Secret};
use super::{normalise, server};
use base64::Engine;
use serde_json::{Map, Value, json};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Into a file, which its owner alone can read.
    File(PathBuf),
    /// To the helper of this name.
    Helper(String),
}

/// Where credentials were taken away.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Erased {
    pub files: Vec<PathBuf>,
    pub helpers: Vec<String>,
}

impl Environment {
    /// Keeps credentials for a registry: with the helper that a file names for it, else in the user's choice of a
    /// file, else in podman's place, which does not outlive the session.
    ///
    /// # Errors
    /// A file or a helper fails, or there is no place for a file.
    pub fn keep(&self, registry: &str, credentials: &Credentials) -> Result<Kept, CredentialsError> {
        for path in self.places() {
            let Some(bytes) = read(&path)? else { continue };
            if let Some((helper, name)) = self.helper_in(registry, &path, &bytes)? {
                helper.store(&server(registry), credentials)?;
                return Ok(Kept::Helper(name));
            }
        }
        let path = self.places().into_iter().next().ok_or(CredentialsError::NoPlace)?;
        change(&path, |auths| {
            remove(auths, registry);
            auths.insert(registry.to_owned(), entry(credentials));
        })?;
        Ok(Kept::File(path))
    }

    /// Removes the credentials for a registry from every file and helper; those for a part of it stay.
    ///
    /// # Errors
    /// A file or a helper fails.
    pub fn erase(&self, registry: &str) -> Result<Erased, CredentialsError> {
        let mut erased = Erased::default();
        for path in self.places() {
            let Some(bytes) = read(&path)? else { continue };
            if let Some((helper, name)) = self.helper_in(registry, &path, &bytes)?
                && helper.get(&server(registry))?.is_some()
            {
                helper.erase(&server(registry))?;
                erased.helpers.push(name);
            }
            let file: AuthFile = parse(&path, &bytes)?;
            if file.auths.keys().any(|key| normalise(key) == registry) {
                change(&path, |auths| remove(auths, registry))?;
                erased.files.push(path);
            }
        }
        Ok(erased)
    }

    fn places(&self) -> Vec<PathBuf> {
        match &self.auth_file {
            Some(path) => vec![path.clone()],
            None => self.files(),
        }
    }

    fn helper_in(
        &self,
        registry: &str,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Option<(Helper, String)>, CredentialsError> {
        let file: AuthFile = parse(path, bytes)?;
        let store = file.creds_store.clone().filter(|name| !name.is_empty());
        let Some(name) = file.helper_of(registry).cloned().or(store) else { return Ok(None) };
        match Helper::find(&name, &self.path)? {
            Some(helper) => Ok(Some((helper, name))),
            None => Err(CredentialsError::NoHelper { program: name, path: path.to_owned() }),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, CredentialsError> {
    serde_json::from_slice(bytes).map_err(|source| CredentialsError::Json { path: path.to_owned(), source })
}

fn entry(credentials: &Credentials) -> Value {
    match &credentials.secret {
        Secret::Password(password) => {
            json!({"auth": BASE64.encode(format!("{}:{password}", credentials.user))})
        }
        Secret::Identity(token) => json!({"identitytoken": token}),
        Secret::Registry(token) => json!({"registrytoken": token}),
    }
}

fn remove(auths: &mut Map<String, Value>, registry: &str) {
    auths.retain(|key, _| normalise(key) != registry);
}

/// The bytes of a file, or nothing if it is not there.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
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

/// Replaces a file by one with other `auths`; what else it has stays. Written beside, synced, renamed.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<(), CredentialsError> {
    let fail = |source| CredentialsError::Write { path: path.to_owned(), source };
    // A link, as people have who keep such files elsewhere, is kept.
    let path = match std::fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("")).join(target),
        Err(_) => path.to_owned(),
    };
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
    let lock = File::open(directory).map_err(fail)?;
    // Another login in the same directory takes a moment.
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => lock.lock().map_err(fail)?,
        Err(TryLockError::Error(source)) => return Err(fail(source)),
        Ok(()) => {}
    }
    let mut whole: Map<String, Value> = match read(&path)? {
        Some(bytes) if !bytes.trim_ascii().is_empty() => parse(&path, &bytes)?,
        _ => Map::new(),
    };
    let auths = whole.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        edit(auths);
    }
    let mut text = serde_json::to_vec_pretty(&whole)
        .map_err(|source| CredentialsError::Json { path: path.clone(), source })?;
    text.push(b'\n');
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The lock keeps other writers away; what a dead one left is taken over.
    let beside = directory.join(format!(".{name}.corten"));
    let written = match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => File::options().write(true).create_new(true).mode(0o600).open(&beside),
    };
    written
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, &path))
        .and_then(|()| lock.sync_all())
        .map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn environment(directory: &Path) -> Environment {
        Environment {
            runtime_dir: Some(directory.join("run")),
            home: Some(directory.to_owned()),
            path: directory.join("bin").into_os_string(),
            ..Environment::default()
        }
    }

    #[test]
    fn credentials_are_kept_and_erased() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        let path = directory.path().join("run/containers/auth.json");
        let kept = environment.keep("a.io", &Credentials::new("u", "p:w")).unwrap();
        assert_eq!(kept, Kept::File(path.clone()));
        environment.keep("docker.io", &Credentials::new("hub", "p")).unwrap();
        environment.keep("a.io", &Credentials::new("u2", "p")).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let found = |registry: &str| environment.find(registry, "x").unwrap();
        assert_eq!(found("a.io"), super::super::Found::Credentials(Credentials::new("u2", "p")));
        assert_eq!(found("docker.io"), super::super::Found::Credentials(Credentials::new("hub", "p")));
        let erased = environment.erase("a.io").unwrap();
        assert_eq!(erased.files, std::slice::from_ref(&path));
        assert_eq!(environment.erase("a.io").unwrap(), Erased::default());
        assert_eq!(found("a.io"), super::super::Found::Nothing);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_else_a_file_has_and_a_link_to_it_stay() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real.json"), directory.path().join("link.json"));
        let text =
            r#"{"auths":{"a.io/team":{"auth":"eDp5"},"https://a.io/v2/":{"auth":"eDp5"}},"detachKeys":"x"}"#;
        std::fs::write(&real, text).unwrap();
        symlink("real.json", &link).unwrap();
        let mut environment = environment(directory.path());
        environment.auth_file = Some(link.clone());
        environment.keep("a.io", &Credentials::identity("t")).unwrap();
        assert!(link.is_symlink());
        let value: Value = serde_json::from_slice(&std::fs::read(&real).unwrap()).unwrap();
        let want = json!({"auths": {"a.io/team": {"auth": "eDp5"}, "a.io": {"identitytoken": "t"}}, "detachKeys": "x"});
        assert_eq!(value, want);
    }

    #[test]
    fn a_helper_that_is_named_and_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let environment = environment(directory.path());
        std::fs::create_dir(directory.path().join(".docker")).unwrap();
        std::fs::write(directory.path().join(".docker/config.json"), r#"{"credsStore":"absent"}"#).unwrap();
        let error = environment.keep("a.io", &Credentials::new("u", "p")).unwrap_err().to_string();
        assert!(error.contains("docker-credential-absent") && error.contains("config.json"), "{error}");
    }
}
