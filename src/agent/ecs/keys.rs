//! The key with which clients of the API sign, made at the first start.
//!
//! `<root>/agent/ecs-credentials`, mode 0600, is in the form of an AWS shared credentials file:
//!
//! ```text
//! [corten]
//! aws_access_key_id = …
//! aws_secret_access_key = …
//! ```
use super::error::EcsError;
use crate::sys::{SysError, random};
use base64::Engine as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Name of the file in the agent's directory.
pub const FILE: &str = "ecs-credentials";
/// Name of the profile in it.
const PROFILE: &str = "corten";
/// No file of ours is longer.
const MAX_FILE: u64 = 16 * 1024;

/// A key; its `Debug` does not tell the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// Which key a request is signed with.
    pub id: String,
    /// What it is signed with.
    pub secret: String,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Keys {
    /// Reads the key of a directory, or makes one.
    ///
    /// # Errors
    /// [`EcsError::Credentials`] if others than its owner can read the file, or it has no key.
    pub fn load(directory: &Path) -> Result<Self, EcsError> {
        let path = directory.join(FILE);
        let failed = |call: &'static str| SysError::io(call, path.display().to_string());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Self::make(directory)?;
                File::open(&path).map_err(failed("open"))?
            }
            Err(error) => return Err(failed("open")(error).into()),
        };
        let wrong = |reason| EcsError::Credentials { path: path.clone(), reason };
        let about = file.metadata().map_err(failed("fstat"))?;
        if about.mode() & 0o077 != 0 {
            return Err(wrong("others than its owner have rights to it; set its mode to 0600"));
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(failed("read"))?;
        parse(&text).ok_or_else(|| wrong("it has no profile [corten] with a key; remove it to have one made"))
    }

    /// Makes one: whoever finds a file finds a whole one.
    fn make(directory: &Path) -> Result<(), EcsError> {
        let keys = Self::generate()?;
        let (beside, path) = (directory.join(format!("{FILE}.new")), directory.join(FILE));
        let failed = |call: &'static str| SysError::io(call, beside.display().to_string());
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("unlink")(error).into());
            }
            _ => {}
        }
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
        let mut file = options.map_err(failed("open"))?;
        let (id, secret) = (&keys.id, &keys.secret);
        write!(file, "[{PROFILE}]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n")
            .and_then(|()| file.sync_all())
            .map_err(failed("write"))?;
        Ok(std::fs::rename(&beside, &path).map_err(failed("rename"))?)
    }

    fn generate() -> Result<Self, EcsError> {
        let (mut id, mut secret) = ([0u8; 16], [0u8; 30]);
        random::fill(&mut id)?;
        random::fill(&mut secret)?;
        // As AWS: letters and digits of base 32.
        let digit = |byte: &u8| char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[usize::from(byte & 31)]);
        let id: String = id.iter().map(digit).collect();
        let secret = base64::engine::general_purpose::STANDARD.encode(secret);
        Ok(Self { id: format!("AKIA{id}"), secret })
    }
}

/// The key of the profile.
fn parse(text: &str) -> Option<Keys> {
    let header = format!("[{PROFILE}]");
    let of_profile = || {
        let after = text.lines().map(str::trim).skip_while(|line| *line != header).skip(1);
        after.take_while(|line| !line.starts_with('['))
    };
    let value = |key: &str| {
        let mut pairs = of_profile().filter_map(|line| line.split_once('='));
        pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned())
    };
    let keys = Keys { id: value("aws_access_key_id")?, secret: value("aws_secret_access_key")? };
    (!keys.id.is_empty() && !keys.secret.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_key_stays_the_same_and_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::load(directory.path()).unwrap();
        assert_eq!((keys.id.len(), keys.secret.len()), (20, 40));
        assert_eq!(Keys::load(directory.path()).unwrap(), keys);
        let file = File::open(directory.path().join(FILE)).unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        file.set_permissions(std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Keys::load(directory.path()), Err(EcsError::Credentials { .. })));
        assert!(!format!("{keys:?}").contains(&keys.secret));
    }

    #[test]
    fn finds_the_profile_among_others() {
        let text = "[other]\naws_access_key_id=no\n[corten]\naws_access_key_id = A\n\n aws_secret_access_key=s=1\n[x]\n";
        assert_eq!(parse(text), Some(Keys { id: "A".into(), secret: "s=1".into() }));
        assert_eq!(parse("[corten]\naws_access_key_id = A\n"), None);
        assert_eq!(parse(""), None);
    }
}
