//! Credentials of a role from a local file in the form of the AWS tools' `credentials`.
use crate::engine::timestamp::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a file.
const FILE_MAX: u64 = 64 * 1024;
/// For how long credentials are said to be good that do not say so themselves: SDKs ask again before.
const HOUR: Duration = Duration::from_secs(3600);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    #[error("ecs.task_roles has no file for the role {role}")]
    NoRole { role: String },
    #[error("cannot read the credentials {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the credentials {} {reason}", path.display())]
    File { path: PathBuf, reason: &'static str },
}

/// Credentials; never printed.
pub(super) struct Credentials {
    access_key: String,
    secret_key: String,
    token: String,
    expiration: Option<String>,
}

impl Credentials {
    /// As an ECS agent gives them.
    pub(super) fn document(&self, role: &str) -> Value {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiration = self.expiration.clone().unwrap_or_else(|| {
            // Whole seconds, as the SDKs' oldest parsers want it.
            let text = Timestamp::from_unix(Duration::from_secs((since + HOUR).as_secs())).to_string();
            text.split('.').next().map_or_else(String::new, |text| format!("{text}Z"))
        });
        json!({
            "RoleArn": role,
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
            "Token": self.token,
            "Expiration": expiration,
        })
    }
}

/// Reads the file of a role, named by its ARN or by the name at its end.
pub(super) fn of_role(roles: &BTreeMap<String, PathBuf>, role: &str) -> Result<Credentials, ProfileError> {
    let name = role.rsplit('/').next().unwrap_or(role);
    let path = roles.get(role).or_else(|| roles.get(name));
    read(path.ok_or_else(|| ProfileError::NoRole { role: role.to_owned() })?)
}

fn read(path: &Path) -> Result<Credentials, ProfileError> {
    let failed = |source| ProfileError::Read { path: path.to_owned(), source };
    let wrong = |reason| ProfileError::File { path: path.to_owned(), reason };
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(wrong("are no regular file"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
        return Err(wrong("can be read by others than root: want owner root and mode 0600"));
    }
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(wrong("are larger than 65536 bytes"));
    }
    parse(&text).map_err(wrong)
}

/// The section `[default]`, or what stands before any section.
fn parse(text: &str) -> Result<Credentials, &'static str> {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut inside = true;
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            inside = section.trim_end_matches(']').trim() == "default";
        } else if let Some((key, value)) = line.split_once('=')
            && inside
            && !line.starts_with(['#', ';'])
        {
            values.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let mut take = |key: &str| values.remove(key).filter(|value| !value.is_empty());
    let expiration = take("aws_expiration").or_else(|| take("expiration"));
    if expiration.as_deref().is_some_and(|time| Timestamp::parse(time).is_none()) {
        return Err("have an expiration that is no RFC 3339 time");
    }
    Ok(Credentials {
        access_key: take("aws_access_key_id").ok_or("have no aws_access_key_id in [default]")?,
        secret_key: take("aws_secret_access_key").ok_or("have no aws_secret_access_key in [default]")?,
        token: take("aws_session_token").unwrap_or_default(),
        expiration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const FILE: &str = "# comment = x\n[other]\naws_access_key_id=NO\n[default]\naws_access_key_id = AKIA\n\
                        aws_secret_access_key=s=e/c\n; aws_session_token = no\n";

    #[test]
    fn the_default_section_is_read() {
        let document = parse(FILE).map(|found| found.document("arn:aws:iam::1:role/app")).unwrap();
        assert_eq!(document["AccessKeyId"], "AKIA");
        assert_eq!(document["SecretAccessKey"], "s=e/c");
        assert_eq!(
            (&document["Token"], &document["RoleArn"]),
            (&json!(""), &json!("arn:aws:iam::1:role/app"))
        );
        let expiration = document["Expiration"].as_str().unwrap();
        assert!(Timestamp::parse(expiration).is_some() && expiration.len() == 20, "{expiration}");
        let document =
            parse(&format!("{FILE}aws_session_token=t\naws_expiration=2030-01-01T00:00:00Z")).unwrap();
        assert_eq!(document.document("r")["Expiration"], "2030-01-01T00:00:00Z");
        for text in ["", "[default]\naws_access_key_id=x", &format!("{FILE}expiration=soon")] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_role_is_named_by_arn_or_name_and_its_file_is_roots_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app");
        std::fs::write(&path, FILE).unwrap();
        let mode = |mode| {
            let file = File::open(&path).unwrap();
            file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let of = |key: &str, role| of_role(&BTreeMap::from([(key.to_owned(), path.clone())]), role).map(drop);
        mode(0o600);
        let arn = "arn:aws:iam::1:role/path/app";
        of("app", arn).unwrap();
        of(arn, arn).unwrap();
        assert!(matches!(of("other", arn), Err(ProfileError::NoRole { .. })));
        mode(0o640);
        assert!(of("app", arn).unwrap_err().to_string().contains("can be read by others"));
    }
}
