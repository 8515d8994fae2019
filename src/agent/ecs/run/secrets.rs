//! Secrets: files of a directory that the configuration names.
use super::failure::Failure;
use crate::agent::ecs::definition::{Definition, Secret};
use crate::sys::root::Root;
use std::path::Path;

/// Most bytes of a secret; those of AWS are as long at most.
const MAX_SECRET: usize = 64 * 1024;

/// Reads the secrets of a container as `NAME=VALUE`. One newline at the end of a file is not part of the value.
pub fn read(directory: Option<&Path>, secrets: &[Secret]) -> Result<Vec<String>, Failure> {
    if secrets.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |name: &str, why: String| Failure::Resource { reason: format!("secret {name:?}: {why}") };
    let first = &secrets[0].value_from;
    let directory = directory.ok_or_else(|| {
        wrong(first, "the agent's configuration names no directory (ecs.secrets)".to_owned())
    })?;
    let root = Root::open_host(directory).map_err(|error| wrong(first, error.to_string()))?;
    secrets
        .iter()
        .map(|secret| {
            let bytes = root
                .read_file_bounded(Path::new(&secret.value_from), MAX_SECRET)
                .map_err(|error| wrong(&secret.value_from, error.to_string()))?;
            let text = String::from_utf8(bytes)
                .map_err(|_| wrong(&secret.value_from, "it is not UTF-8".to_owned()))?;
            let value = text.strip_suffix('\n').unwrap_or(&text);
            if value.contains('\0') {
                return Err(wrong(&secret.value_from, "it has a NUL character".to_owned()));
            }
            Ok(format!("{}={value}", secret.name))
        })
        .collect()
}

/// Whether all secrets of a definition can be read.
pub fn check(directory: Option<&Path>, definition: &Definition) -> Result<(), Failure> {
    definition.container_definitions.iter().try_for_each(|known| read(directory, &known.secrets).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_files_of_the_directory_alone() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("secrets");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(directory.path().join("outside"), "no").unwrap();
        std::fs::write(inside.join("db"), "hunter2\n").unwrap();
        std::os::unix::fs::symlink("../outside", inside.join("link")).unwrap();
        let secret = |file: &str| [Secret { name: "PASSWORD".into(), value_from: file.into() }];
        assert_eq!(read(Some(&inside), &secret("db")).unwrap(), ["PASSWORD=hunter2"]);
        for missing in ["link", "absent"] {
            let error = read(Some(&inside), &secret(missing)).unwrap_err();
            assert!(error.to_string().starts_with("ResourceInitializationError: "), "{error}");
        }
        assert!(read(None, &secret("db")).is_err());
        assert!(read(None, &[]).unwrap().is_empty());
    }
}
