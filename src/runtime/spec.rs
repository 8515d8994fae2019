//! Reading a bundle's config.json.
//!
//! runc reads it with Go's encoding/json, which is more forgiving than the types of oci-spec: `null` is the
//! same as absent, a missing structure is an empty one, and a capability that it does not know is a warning.
//! The usual file is parsed once, straight into the types; only one that is refused is parsed again, as a
//! tree, in which those liberties are evened out.
mod template;

pub use template::{Cgroups, Ordered, template};

use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use oci_spec::runtime::{Capability, Process, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest config.json (and process.json) that is read, in bytes. A seccomp profile takes some 50 KiB.
pub const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// Why a config.json could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// There is no such file.
    #[error("JSON specification file {} not found", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// It is larger than [`MAX_SIZE`].
    #[error("{} is larger than {MAX_SIZE} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
    },
    /// It is no JSON.
    #[error("{} is not valid JSON", path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// A value has the wrong type, or one that is not known.
    #[error("{}: {field}", path.display())]
    Value {
        /// Which file.
        path: PathBuf,
        /// Path of the value, as in `linux.namespaces[1].type`.
        field: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Kind for SpecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::Read { source, .. } => source.kind(),
            Self::TooLarge { .. } | Self::Syntax { .. } | Self::Value { .. } => ErrorKind::InvalidInput,
        }
    }
}

/// Reads the configuration `name` of a bundle, `config.json` as a rule. Unknown fields are ignored, as in runc. The values are not checked
/// against each other: that is `validate::check`.
pub fn load(bundle: &Path, name: &Path) -> Result<Spec, SpecError> {
    let path = bundle.join(name);
    parse(&read(&path)?, &path)
}

/// Reads a process description (`exec --process`).
pub fn load_process(path: &Path) -> Result<Process, SpecError> {
    parse(&read(path)?, path)
}

fn read(path: &Path) -> Result<Vec<u8>, SpecError> {
    let unreadable = |error| SpecError::Read {
        path: path.into(),
        source: SysError::io("read", path.display().to_string())(error),
    };
    let file = std::fs::File::open(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let source = SysError::io("open", path.display().to_string())(error);
        let path = path.into();
        if missing { SpecError::Missing { path, source } } else { SpecError::Read { path, source } }
    })?;
    // As long as the file says, and a byte to find its end with: a buffer that grows is copied, in pages that are new.
    let length = file.metadata().map_or(0, |status| status.len().min(MAX_SIZE));
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0).max(4 * 1024) + 1);
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(SpecError::TooLarge { path: path.into() });
    }
    Ok(bytes)
}

/// Reads a document; `path` is for messages.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], path: &Path) -> Result<T, SpecError> {
    if exact_capabilities(bytes)
        && let Ok(value) = serde_json::from_slice(bytes)
    {
        return Ok(value);
    }
    let mut tree: Value =
        serde_json::from_slice(bytes).map_err(|source| SpecError::Syntax { path: path.into(), source })?;
    forgive(&mut tree);
    serde_path_to_error::deserialize(tree).map_err(|error| {
        let field = match error.path().to_string() {
            root if root == "." => "the document".to_string(),
            field => field,
        };
        SpecError::Value { path: path.into(), field, source: error.into_inner() }
    })
}

/// Whether all capabilities are spelled as the specification has them. The type also takes `kill` and `KILL`,
/// which runc ignores with a warning: a container must not get more from us. Looks at the text, which costs
/// nothing beside parsing it again.
fn exact_capabilities(bytes: &[u8]) -> bool {
    const KEY: &str = "\"capabilities\"";
    const SETS: [&str; 5] = ["bounding", "effective", "inheritable", "permitted", "ambient"];
    let Ok(mut rest) = std::str::from_utf8(bytes) else { return false };
    while let Some((_, after)) = rest.split_once(KEY) {
        rest = after;
        let sets = rest.split_once('}').map_or(rest, |(sets, _)| sets);
        // Every second piece is what stands between two quotes.
        let mut words = sets.split('"').skip(1).step_by(2);
        if !words.all(|word| is_exact(word) || SETS.contains(&word)) {
            return false;
        }
    }
    true
}

fn is_exact(name: &str) -> bool {
    let capital = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.strip_prefix("CAP_").is_some_and(|rest| !rest.starts_with("CAP_") && rest.bytes().all(capital))
}

/// A capability by its name in the specification, `CAP_KILL`.
pub fn capability(name: &str) -> Option<Capability> {
    serde_json::from_value(name.into()).ok().filter(|_| is_exact(name))
}

/// Evens out what Go's decoder and runc accept and the types do not.
fn forgive(tree: &mut Value) {
    drop_nulls(tree);
    let Some(top) = tree.as_object_mut() else { return };
    let is_spec = ["root", "process", "linux", "mounts"].iter().any(|key| top.contains_key(*key));
    if is_spec {
        top.entry("ociVersion").or_insert_with(|| "".into());
        if let Some(process) = top.get_mut("process") {
            forgive_process(process);
        }
    } else {
        forgive_process(tree);
    }
}

fn forgive_process(process: &mut Value) {
    let Some(process) = process.as_object_mut() else { return };
    process.entry("user").or_insert_with(|| Value::Object(serde_json::Map::new()));
    // Empty is not absolute, which is what the validation says then.
    process.entry("cwd").or_insert_with(|| "".into());
    let sets = process.get_mut("capabilities").and_then(Value::as_object_mut);
    for (set, names) in sets.into_iter().flatten() {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            // Anything but a string stays, for the error that it deserves.
            let known = name.as_str().is_none_or(|name| capability(name).is_some());
            if !known {
                tracing::warn!(%set, %name, "ignoring an unknown capability");
            }
            known
        });
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        // The same as absent (runtime-spec); the type takes lists alone.
        affinity.retain(|_, list| list != "");
    }
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        // The type spells these two in another way than the specification.
        match flag.as_str() {
            Some("SCHED_FLAG_DL_OVERRUN") => *flag = "SCHED_FLAG_D_L_OVERRUN".into(),
            Some("SCHED_FLAG_RESET_ON_FORK") => *flag = "SCHED_RESET_ON_FORK".into(),
            _ => {}
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        let error = parse::<Spec>(json.as_bytes(), Path::new("config.json")).expect_err("refused");
        crate::error::chain(&error)
    }

    #[test]
    fn a_wrong_value_is_told_by_its_path() {
        let unknown =
            r#"{"ociVersion": "1.0.2", "linux": {"namespaces": [{"type": "pid"}, {"type": "nope"}]}}"#;
        assert!(
            text(unknown).starts_with("config.json: linux.namespaces[1].type: unknown variant `nope`"),
            "{}",
            text(unknown)
        );
        let wrong = r#"{"ociVersion": "1.0.2", "process": {"cwd": 3}}"#;
        assert!(
            text(wrong).starts_with("config.json: process.cwd: invalid type: integer `3`"),
            "{}",
            text(wrong)
        );
        assert!(text("{").starts_with("config.json is not valid JSON: EOF"), "{}", text("{"));
    }

    #[test]
    fn what_runc_forgives_is_forgiven() {
        let json = r#"{"hooks": null, "process": {"args": ["sh"], "cwd": "/", "user": null, "future": 1,
            "capabilities": {"bounding": ["CAP_KILL", "CAP_OF_TOMORROW"], "ambient": null},
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RESET_ON_FORK"]}},
            "root": {"path": "rootfs"}}"#;
        let spec: Spec = parse(json.as_bytes(), Path::new("config.json")).expect("forgiven");
        let process = spec.process().as_ref().expect("given");
        assert_eq!(process.user().uid(), 0);
        let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone());
        assert_eq!(bounding.expect("given").len(), 1);
    }

    #[test]
    fn a_capability_has_one_name() {
        for name in ["KILL", "cap_kill", "Cap_Kill", "CAP_CAP_KILL", "kill"] {
            assert_eq!(capability(name), None, "{name}");
            let json = format!(
                r#"{{"ociVersion": "1.0.2", "process": {{"cwd": "/", "user": {{"uid": 0, "gid": 0}},
                "capabilities": {{"bounding": ["CAP_CHOWN", "{name}"], "effective" : []}}}}}}"#
            );
            let spec: Spec = parse(json.as_bytes(), Path::new("config.json")).expect("forgiven");
            let sets = spec.process().as_ref().expect("given").capabilities().clone().expect("given");
            assert_eq!(sets.bounding().clone().expect("given").len(), 1, "{name}");
        }
        assert_eq!(capability("CAP_KILL"), Some(Capability::Kill));
    }

    #[test]
    fn empty_processors_are_none() {
        let json = r#"{"args": ["sh"], "cwd": "/", "execCPUAffinity": {"initial": "", "final": "0"}}"#;
        let process: Process = parse(json.as_bytes(), Path::new("process.json")).expect("forgiven");
        let affinity = process.exec_cpu_affinity().clone().expect("given");
        assert_eq!((affinity.initial(), affinity.cpu_affinity_final()), (&None, &Some("0".into())));
    }

    #[test]
    fn a_missing_file_and_an_endless_one_are_told() {
        let bundle = tempfile::tempdir().expect("a directory");
        let error = load(bundle.path(), Path::new("config.json")).expect_err("empty");
        assert!(error.to_string().ends_with("config.json not found"), "{error}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        std::os::unix::fs::symlink("/dev/zero", bundle.path().join("config.json")).expect("a link");
        assert!(matches!(load(bundle.path(), Path::new("config.json")), Err(SpecError::TooLarge { .. })));
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(text(&deep).contains("recursion limit"), "{}", text(&deep));
    }
}
