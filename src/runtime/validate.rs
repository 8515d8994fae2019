//! What a configuration must fulfil before anything is made for it; pure.
//!
//! The rules are runc's (libcontainer/configs/validate, libcontainer/specconv) and the runtime
//! specification's. Each message names the field.
use super::rootless::mapping::LINES_MAX;
use crate::error::{ErrorKind, Kind};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};
use std::collections::HashMap;
use std::path::Path;

/// A configuration that contradicts itself or the specification.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// A field that must be there is not.
    #[error("{field} must be specified")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// A list that must have an entry has none.
    #[error("{field} must not be empty")]
    Empty {
        /// Which.
        field: String,
    },
    /// A path must be absolute.
    #[error("{field} must be an absolute path, is {value:?}")]
    Relative {
        /// Which.
        field: String,
        /// What it holds.
        value: String,
    },
    /// The same namespace twice.
    #[error("malformed spec file: duplicated ns {name:?} (linux.namespaces)")]
    DuplicateNamespace {
        /// Its type.
        name: &'static str,
    },
    /// A field needs a namespace of its own.
    #[error("unable to {what} without a private {namespace} namespace ({field})")]
    NeedsNamespace {
        /// What is asked for.
        what: &'static str,
        /// What it needs.
        namespace: &'static str,
        /// Which field.
        field: &'static str,
    },
    /// A sysctl that would change the host.
    #[error("sysctl {name:?} {reason} (linux.sysctl)")]
    Sysctl {
        /// As given.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// No propagation.
    #[error(
        "linux.rootfsPropagation={value} is not supported: it is none of (r)shared, (r)private, (r)slave, (r)unbindable"
    )]
    Propagation {
        /// What it holds.
        value: String,
    },
    /// A value that no rule above covers.
    #[error("{field}: {reason}")]
    Value {
        /// Which field.
        field: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl Kind for ValidateError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

/// Checks a whole configuration, for create and run.
pub fn check(spec: &Spec) -> Result<(), ValidateError> {
    let root = spec.root().as_ref().ok_or(ValidateError::Missing { field: "root" })?;
    if root.path().as_os_str().is_empty() {
        return Err(ValidateError::Empty { field: "root.path".into() });
    }
    check_process(spec.process().as_ref().ok_or(ValidateError::Missing { field: "process" })?)?;
    let namespaces = Namespaces::new(spec.linux().as_ref())?;
    check_names(spec, &namespaces)?;
    for mount in spec.mounts().iter().flatten() {
        let destination = mount.destination();
        if destination.as_os_str().is_empty() {
            return Err(ValidateError::Empty { field: "mounts[].destination".into() });
        }
        if destination.is_relative() {
            // runc takes it as relative to the root, with this warning.
            tracing::warn!(destination = %destination.display(), "mount destination is not absolute");
        }
    }
    check_hooks(spec)?;
    let Some(linux) = spec.linux().as_ref() else { return Ok(()) };
    check_mappings(linux, &namespaces)?;
    check_paths(linux, &namespaces)?;
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name) {
        check_sysctl(name, &namespaces)?;
    }
    check_time(linux, &namespaces)
}

/// Checks what the process of a container, or of an exec, must fulfil.
pub fn check_process(process: &Process) -> Result<(), ValidateError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(ValidateError::Empty { field: "process.args".into() });
    }
    if !process.cwd().is_absolute() {
        return Err(ValidateError::Relative {
            field: "process.cwd".into(),
            value: process.cwd().display().to_string(),
        });
    }
    let texts = process.args().iter().chain(process.env().iter()).flatten();
    if texts.clone().any(|text| text.contains('\0')) {
        return Err(value("process.args, process.env", "an entry contains a NUL byte"));
    }
    if process.user().umask().is_some_and(|mask| mask > 0o7777) {
        return Err(value("process.user.umask", "is more than 07777"));
    }
    // setresuid(2) reads the largest number as "leave it" (CVE-2016-3697 was of that family).
    let ids = [process.user().uid(), process.user().gid()];
    if ids.contains(&u32::MAX)
        || process.user().additional_gids().iter().flatten().any(|gid| *gid == u32::MAX)
    {
        return Err(value("process.user", "4294967295 is no valid id"));
    }
    Ok(())
}

fn value(field: impl Into<String>, reason: &'static str) -> ValidateError {
    ValidateError::Value { field: field.into(), reason }
}

/// Which namespaces the container has, and which of them are new.
struct Namespaces {
    /// True for a new one, false for one that is joined by path.
    new: HashMap<LinuxNamespaceType, bool>,
}

impl Namespaces {
    fn new(linux: Option<&Linux>) -> Result<Namespaces, ValidateError> {
        let mut new = HashMap::new();
        for namespace in linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten() {
            let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
            if let Some(path) = path.filter(|path| path.is_relative()) {
                return Err(ValidateError::Relative {
                    field: format!("linux.namespaces[{}].path", name(namespace.typ())),
                    value: path.display().to_string(),
                });
            }
            if new.insert(namespace.typ(), path.is_none()).is_some() {
                return Err(ValidateError::DuplicateNamespace { name: name(namespace.typ()) });
            }
        }
        Ok(Namespaces { new })
    }

    /// New or joined: in any case not the runtime's own (joining the host's by path is the caller's word).
    fn has(&self, kind: LinuxNamespaceType) -> bool {
        self.new.contains_key(&kind)
    }

    fn is_new(&self, kind: LinuxNamespaceType) -> bool {
        self.new.get(&kind) == Some(&true)
    }
}

/// As in config.json.
fn name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

fn check_names(spec: &Spec, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let names =
        [(spec.hostname(), "set hostname", "hostname"), (spec.domainname(), "set domainname", "domainname")];
    for (given, what, field) in names {
        let Some(given) = given.as_ref().filter(|given| !given.is_empty()) else { continue };
        if !namespaces.has(LinuxNamespaceType::Uts) {
            return Err(ValidateError::NeedsNamespace { what, namespace: "UTS", field });
        }
        // __NEW_UTS_LEN (linux/utsname.h).
        if given.len() > 64 {
            return Err(value(field, "is longer than 64 bytes"));
        }
    }
    Ok(())
}

fn check_hooks(spec: &Spec) -> Result<(), ValidateError> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated)] // Callers still use prestart, and the specification still has it.
    let prestart = hooks.prestart();
    let all = [
        ("hooks.prestart", prestart),
        ("hooks.createRuntime", hooks.create_runtime()),
        ("hooks.createContainer", hooks.create_container()),
        ("hooks.startContainer", hooks.start_container()),
        ("hooks.poststart", hooks.poststart()),
        ("hooks.poststop", hooks.poststop()),
    ];
    for (field, hooks) in all {
        for (index, hook) in hooks.iter().flatten().enumerate() {
            if hook.path().is_relative() {
                return Err(ValidateError::Relative {
                    field: format!("{field}[{index}].path"),
                    value: hook.path().display().to_string(),
                });
            }
            if hook.timeout().is_some_and(|timeout| timeout <= 0) {
                return Err(value(format!("{field}[{index}].timeout"), "must be more than zero"));
            }
        }
    }
    Ok(())
}

fn check_mappings(linux: &Linux, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let mappings = [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())];
    for (field, mappings) in mappings {
        let mappings = mappings.as_deref().unwrap_or_default();
        if mappings.is_empty() && namespaces.is_new(LinuxNamespaceType::User) {
            return Err(value(field, "a new user namespace needs mappings"));
        }
        if mappings.len() > LINES_MAX {
            return Err(value(field, "has more than 340 entries"));
        }
        for (index, mapping) in mappings.iter().enumerate() {
            let entry = format!("{field}[{index}]");
            if mapping.size() == 0 {
                return Err(value(format!("{entry}.size"), "must be more than zero"));
            }
            let ends = [mapping.host_id(), mapping.container_id()].map(|id| id.checked_add(mapping.size()));
            if ends.contains(&None) {
                return Err(value(entry, "reaches beyond the largest id"));
            }
        }
    }
    Ok(())
}

fn check_paths(linux: &Linux, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let lists =
        [("linux.maskedPaths", linux.masked_paths()), ("linux.readonlyPaths", linux.readonly_paths())];
    for (field, paths) in lists {
        let paths = paths.as_deref().unwrap_or_default();
        if !paths.is_empty() && !namespaces.has(LinuxNamespaceType::Mount) {
            return Err(ValidateError::NeedsNamespace {
                what: "restrict sys entries",
                namespace: "MNT",
                field,
            });
        }
        if let Some(path) = paths.iter().find(|path| !Path::new(path).is_absolute()) {
            return Err(ValidateError::Relative { field: field.into(), value: path.clone() });
        }
    }
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    let known =
        ["", "shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable"];
    if !known.contains(&propagation) {
        return Err(ValidateError::Propagation { value: propagation.into() });
    }
    if !namespaces.has(LinuxNamespaceType::Mount) {
        check_shared_mounts(propagation, namespaces)?;
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        if device.path().is_relative() {
            return Err(ValidateError::Relative {
                field: format!("linux.devices[{index}].path"),
                value: device.path().display().to_string(),
            });
        }
    }
    Ok(())
}

/// What a container can have whose mounts are made among the host's.
fn check_shared_mounts(propagation: &str, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let needs = |what, field| Err(ValidateError::NeedsNamespace { what, namespace: "MNT", field });
    if namespaces.has(LinuxNamespaceType::User) {
        // Root of a user namespace cannot mount in a mount namespace that is not the user namespace's.
        return needs("change the root file system in a user namespace", "linux.namespaces");
    }
    match propagation {
        "" | "private" | "rprivate" | "slave" | "rslave" => Ok(()),
        _ => needs("share mounts", "linux.rootfsPropagation"),
    }
}

/// The IPC sysctls that each IPC namespace has for itself (runc has the same list).
pub const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

fn check_sysctl(name: &str, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let refuse = |reason| Err(ValidateError::Sysctl { name: name.into(), reason });
    // Only what sysctl(8) itself takes: a newline or `=` would be another setting to some readers
    // (CVE-2022-0811).
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte);
    if name.is_empty() || !name.bytes().all(legal) {
        return refuse("is no valid name");
    }
    let dotted = dotted(name);
    // A part of dots alone (slashes, in this form) would climb out of its directory.
    if dotted.split('.').any(|part| part.bytes().all(|byte| byte == b'/')) {
        return refuse("is no valid name");
    }
    if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return match namespaces.has(LinuxNamespaceType::Ipc) {
            true => Ok(()),
            false => refuse("is not allowed in the host's ipc namespace"),
        };
    }
    if dotted.starts_with("net.") {
        return match namespaces.has(LinuxNamespaceType::Network) {
            true => Ok(()),
            false => refuse("not allowed in host network namespace"),
        };
    }
    if dotted == "kernel.domainname" {
        return match namespaces.has(LinuxNamespaceType::Uts) {
            true => Ok(()),
            false => refuse("is not allowed in the host's uts namespace"),
        };
    }
    if dotted == "kernel.hostname" {
        return refuse("is the field hostname's business");
    }
    refuse("is not in a separate kernel namespace")
}

/// `net/ipv4/ip_forward` and `net.ipv4.ip_forward` are the same; whichever separator comes first decides,
/// and the other one then stands for the other character (sysctl(8)).
pub fn dotted(name: &str) -> String {
    let slashed = match (name.find('/'), name.find('.')) {
        (Some(slash), Some(dot)) => slash < dot,
        (slash, _) => slash.is_some(),
    };
    if !slashed {
        return name.to_string();
    }
    name.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}

fn check_time(linux: &Linux, namespaces: &Namespaces) -> Result<(), ValidateError> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    if !namespaces.is_new(LinuxNamespaceType::Time) {
        return Err(ValidateError::NeedsNamespace {
            what: "set clock offsets",
            namespace: "time",
            field: "linux.timeOffsets",
        });
    }
    match offsets.keys().all(|clock| clock == "monotonic" || clock == "boottime") {
        true => Ok(()),
        false => Err(value("linux.timeOffsets", "has a clock other than monotonic and boottime")),
    }
}

#[cfg(test)]
mod tests;
