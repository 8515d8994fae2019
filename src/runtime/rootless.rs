//! Running without the rights of the host's root: what is forgiven then, and what can be refused in advance.
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::rootfs::{HostSources, RootfsError, RootfsPlan, Wanted};
use super::validate::ValidateError;
use crate::error::{ErrorKind, Kind};

pub mod mapping;

/// `--rootless`: whether the runtime goes on where the host refuses it a cgroup that nobody asked for by name
/// and in which nothing is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rootless {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// It does unless the caller is root of the host.
    #[default]
    Auto,
}

impl Rootless {
    /// To be asked only once something was refused: reading the answer costs root system calls.
    pub fn forgives(self) -> bool {
        match self {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => !geteuid().is_root() || in_user_namespace(),
        }
    }
}

pub use crate::sys::host::in_user_namespace;

/// Who calls the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

impl Caller {
    /// This process.
    pub fn current() -> Caller {
        Caller { uid: geteuid().as_raw(), gid: getegid().as_raw() }
    }
}

/// Opens the sources of bind mounts for a container in a new user namespace, whose root may not be allowed to
/// walk to them. An ordinary user may not copy mounts outside of that namespace; and its root is the user itself.
/// Where no user namespace is wanted, only those that the runtime alone can prepare.
pub fn open_sources(plan: &RootfsPlan, user_namespace: bool) -> Result<HostSources, RootfsError> {
    if !user_namespace || !geteuid().is_root() {
        return plan.open_sources(Wanted::Mapped);
    }
    match plan.open_sources(Wanted::All) {
        // Root of a user namespace without a mount namespace of its own is no better off.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && in_user_namespace() => {
            plan.open_sources(Wanted::Mapped)
        }
        other => other,
    }
}

/// What runc asks of the configuration of a container that an ordinary user makes
/// (libcontainer/configs/validate/rootless.go). Root of a user namespace is not an ordinary user there.
pub fn check(spec: &Spec, caller: Caller) -> Result<(), ValidateError> {
    let linux = spec.linux().as_ref();
    let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let user = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let user = user.ok_or(ValidateError::Value {
        field: "linux.namespaces".into(),
        reason: "rootless containers require user namespaces: an entry of type \"user\" is missing",
    })?;
    if user.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
        // What is mapped there is not in this configuration.
        return Ok(());
    }
    let maps = [
        ("uid", linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default()),
        ("gid", linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default()),
    ];
    check_owners(spec, &maps)?;
    let gids = spec.process().as_ref().and_then(|process| process.user().additional_gids().as_deref());
    if gids.is_some_and(|gids| !gids.is_empty()) && mapping::denies_setgroups(caller, maps[1].1) {
        return Err(ValidateError::Value {
            field: "process.user.additionalGids".into(),
            reason: "cannot set any additional groups in a rootless container that maps only its user's own group",
        });
    }
    Ok(())
}

/// The kernel says no more than EINVAL for an owner that the container's user namespace does not map.
fn check_owners(spec: &Spec, maps: &[(&str, &[LinuxIdMapping])]) -> Result<(), ValidateError> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        for option in mount.options().iter().flatten() {
            for (name, map) in maps {
                let id = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
                let Some(id) = id.and_then(|id| id.parse::<u32>().ok()) else { continue };
                if !is_mapped(map, id) {
                    return Err(ValidateError::Value {
                        field: format!("mounts[{index}].options: {option}"),
                        reason: "cannot be the owner in a rootless container whose mappings do not have the id",
                    });
                }
            }
        }
    }
    Ok(())
}

fn is_mapped(map: &[LinuxIdMapping], id: u32) -> bool {
    map.iter().any(|line| id.checked_sub(line.container_id()).is_some_and(|offset| offset < line.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Caller = Caller { uid: 1000, gid: 100 };

    fn checked(linux: &str, gids: &str, options: &str) -> Result<(), String> {
        let text = format!(
            r#"{{"ociVersion": "1.0.2", "linux": {linux},
                "process": {{"cwd": "/", "args": ["x"], "user": {{"additionalGids": {gids}}}}},
                "mounts": [{{"destination": "/dev/pts", "type": "devpts", "options": {options}}}]}}"#
        );
        check(&serde_json::from_str(&text).unwrap(), USER).map_err(|error| error.to_string())
    }

    const OWN: &str = r#"{"namespaces": [{"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": 100, "size": 1}]}"#;
    const MANY: &str = r#"{"namespaces": [{"type": "user"}],
        "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 9000, "size": 9}],
        "gidMappings": [{"containerID": 0, "hostID": 100, "size": 1}, {"containerID": 1, "hostID": 9000, "size": 9}]}"#;

    #[test]
    fn an_ordinary_user_needs_a_user_namespace() {
        let error = checked(r#"{"namespaces": [{"type": "pid"}]}"#, "[]", "[]").unwrap_err();
        assert!(error.contains("rootless containers require user namespaces"), "{error}");
        let joined = r#"{"namespaces": [{"type": "user", "path": "/proc/9/ns/user"}]}"#;
        checked(joined, "[5]", r#"["gid=5"]"#).unwrap();
    }

    #[test]
    fn owners_of_mounts_are_mapped() {
        checked(OWN, "[]", r#"["uid=0", "gid=0", "gid"]"#).unwrap();
        let error = checked(OWN, "[]", r#"["gid=5"]"#).unwrap_err();
        assert!(error.starts_with("mounts[0].options: gid=5: "), "{error}");
        checked(MANY, "[]", r#"["gid=9"]"#).unwrap();
        assert!(checked(MANY, "[]", r#"["uid=10"]"#).is_err());
    }

    #[test]
    fn further_groups_need_a_mapping_that_the_helper_writes() {
        let error = checked(OWN, "[0]", "[]").unwrap_err();
        assert!(error.contains("cannot set any additional groups in a rootless container"), "{error}");
        checked(MANY, "[5]", "[]").unwrap();
    }
}
