//! Credential helpers: `docker-credential-NAME get|store|erase`, one JSON object or line in, one out
//! (docker/docker-credential-helpers). ECR's, GCR's and the desktops' are such programs.
use super::{Credentials, CredentialsError, Secret};
use crate::sys::program::{Ended, Program};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// A helper may ask a service or, for an unlocked keyring, the user.
const DEADLINE: Duration = Duration::from_secs(60);
/// The largest answer, in bytes; a token of ECR has 2 KiB.
const ANSWER_MAX: usize = 256 << 10;
/// The largest request, in bytes: a pipe takes it without a reader.
const REQUEST_MAX: usize = 60 << 10;
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What a helper says of a registry that it does not know, on standard output, with exit code 1.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// A helper program and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Helper {
    name: String,
    program: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server: String,
    username: String,
    secret: String,
}

impl Helper {
    /// Looks for `docker-credential-NAME` in `$PATH`; nothing if it is not there.
    ///
    /// # Errors
    /// The name is none that a program may have.
    pub fn find(name: &str, path: &OsStr) -> Result<Option<Helper>, CredentialsError> {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 100 || !name.bytes().all(word) {
            return Err(CredentialsError::HelperName { name: name.chars().take(100).collect() });
        }
        let program = std::env::split_paths(path)
            // A relative entry means another program in each directory.
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(format!("docker-credential-{name}")))
            .find(|file| {
                file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
            });
        Ok(program.map(|program| Helper { name: name.to_owned(), program }))
    }

    /// What the helper has for a server.
    ///
    /// # Errors
    /// It failed in another way than not to have any.
    pub fn get(&self, server: &str) -> Result<Option<Credentials>, CredentialsError> {
        let ended = self.run("get", server, server.as_bytes())?;
        if !ended.status.success() {
            return match self.failed("get", server, &ended) {
                CredentialsError::HelperFailed { message, .. } if message.contains(NOT_FOUND) => Ok(None),
                error => Err(error),
            };
        }
        let entry: Entry = serde_json::from_slice(&ended.stdout)
            .map_err(|source| CredentialsError::HelperAnswer { helper: self.name.clone(), source })?;
        Ok(match (entry.username.as_str(), entry.secret) {
            ("", _) => None,
            (TOKEN_USER, token) => Some(Credentials::identity(&token)),
            (user, password) => Some(Credentials::new(user, &password)),
        })
    }

    /// Has the helper keep credentials.
    ///
    /// # Errors
    /// It failed.
    pub fn store(&self, server: &str, credentials: &Credentials) -> Result<(), CredentialsError> {
        let (username, secret) = match &credentials.secret {
            Secret::Password(password) => (credentials.user.clone(), password.clone()),
            Secret::Identity(token) | Secret::Registry(token) => (TOKEN_USER.to_owned(), token.clone()),
        };
        let entry = Entry { server: server.to_owned(), username, secret };
        let request = serde_json::to_vec(&entry)
            .map_err(|source| CredentialsError::HelperAnswer { helper: self.name.clone(), source })?;
        self.done("store", server, &request)
    }

    /// Has the helper forget what it has for a server.
    ///
    /// # Errors
    /// It failed.
    pub fn erase(&self, server: &str) -> Result<(), CredentialsError> {
        self.done("erase", server, server.as_bytes())
    }

    fn done(&self, action: &'static str, server: &str, request: &[u8]) -> Result<(), CredentialsError> {
        let ended = self.run(action, server, request)?;
        if ended.status.success() { Ok(()) } else { Err(self.failed(action, server, &ended)) }
    }

    fn run(&self, action: &'static str, server: &str, request: &[u8]) -> Result<Ended, CredentialsError> {
        let failed = |source| CredentialsError::HelperRun {
            helper: self.name.clone(),
            server: server.to_owned(),
            source: Box::new(source),
        };
        if request.len() > REQUEST_MAX {
            return Err(CredentialsError::HelperRequest { helper: self.name.clone() });
        }
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let stdin = pipe_with(request).map_err(|error| failed(error.into()))?;
        let program = Program {
            path: &self.program,
            arguments: &[action],
            environment: &environment,
            stdin,
            stdout: None,
            deadline: DEADLINE,
            limit: ANSWER_MAX,
        };
        program.run().map_err(failed)
    }

    fn failed(&self, action: &'static str, server: &str, ended: &Ended) -> CredentialsError {
        // Helpers print what is wrong on either.
        let stdout = String::from_utf8_lossy(&ended.stdout);
        let text = [stdout.trim(), ended.stderr.as_str()].join(" ");
        CredentialsError::HelperFailed {
            helper: self.name.clone(),
            action,
            server: server.to_owned(),
            message: text.trim().chars().take(300).collect(),
        }
    }
}

/// The reading end of a pipe in which `bytes` are, and then its end.
fn pipe_with(bytes: &[u8]) -> Result<File, crate::sys::SysError> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map_err(crate::sys::SysError::on("pipe2", "for a credential helper"))?;
    File::from(writer).write_all(bytes).map_err(crate::sys::SysError::io("write", "pipe"))?;
    Ok(File::from(reader))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(directory: &std::path::Path, name: &str, script: &str) -> Helper {
        let path = directory.join(format!("docker-credential-{name}"));
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        let file = File::open(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        Helper::find(name, directory.as_os_str()).unwrap().unwrap()
    }

    #[test]
    fn answers() {
        let directory = tempfile::tempdir().unwrap();
        let found = helper(
            directory.path(),
            "found",
            r#"read s; printf '{"ServerURL":"%s","Username":"u","Secret":"%s"}' "$s" "$1-$s""#,
        );
        assert_eq!(found.get("a.io").unwrap(), Some(Credentials::new("u", "get-a.io")));
        let token = helper(directory.path(), "token", r#"echo '{"Username":"<token>","Secret":"t"}'"#);
        assert_eq!(token.get("a.io").unwrap(), Some(Credentials::identity("t")));
        let none = helper(directory.path(), "none", &format!("echo {NOT_FOUND}; exit 1"));
        assert_eq!(none.get("a.io").unwrap(), None);
        let broken = helper(directory.path(), "broken", "echo the keyring is locked >&2; exit 1");
        let error = broken.get("a.io").unwrap_err().to_string();
        assert!(error.contains("broken") && error.contains("a.io") && error.contains("is locked"), "{error}");
        let mut text = helper(directory.path(), "text", "echo hello");
        assert!(matches!(text.get("a.io"), Err(CredentialsError::HelperAnswer { .. })));
        text.program = directory.path().join("gone");
        assert!(matches!(text.get("a.io"), Err(CredentialsError::HelperRun { .. })));
        let endless = helper(directory.path(), "endless", "exec yes");
        assert!(matches!(endless.get("a.io"), Err(CredentialsError::HelperRun { .. })));
    }

    #[test]
    fn storing_and_erasing() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let keeper =
            helper(directory.path(), "keeper", &format!("echo $1 >> {0}; cat >> {0}", log.display()));
        keeper.store("a.io", &Credentials::new("u", "p\"w")).unwrap();
        keeper.erase("b.io").unwrap();
        let text = std::fs::read_to_string(log).unwrap();
        assert_eq!(
            text,
            "store\n{\"ServerURL\":\"a.io\",\"Username\":\"u\",\"Secret\":\"p\\\"w\"}erase\nb.io"
        );
    }

    #[test]
    fn names_and_places() {
        for name in ["../x", "a/b", "", "a b"] {
            assert!(matches!(
                Helper::find(name, OsStr::new("/bin")),
                Err(CredentialsError::HelperName { .. })
            ));
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("docker-credential-data"), "no program").unwrap();
        assert_eq!(Helper::find("data", directory.path().as_os_str()).unwrap(), None);
        assert_eq!(Helper::find("absent", OsStr::new("/nowhere:.")).unwrap(), None);
    }
}
