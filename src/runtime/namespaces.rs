//! Which namespaces a container gets: new ones, and ones that it joins by path.
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Spec};

use super::rootless::Caller;
use super::rootless::mapping::{self, MappingError};
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::process::{CLONE_NEWTIME, setns, unshare};

/// `CLONE_NEW*` bits as clone3 takes them.
pub mod flag {
    #![allow(missing_docs)]
    use nix::sched::CloneFlags;

    const fn bits(flag: CloneFlags) -> u64 {
        flag.bits().cast_unsigned() as u64
    }

    pub const PID: u64 = bits(CloneFlags::CLONE_NEWPID);
    pub const NETWORK: u64 = bits(CloneFlags::CLONE_NEWNET);
    pub const MOUNT: u64 = bits(CloneFlags::CLONE_NEWNS);
    pub const IPC: u64 = bits(CloneFlags::CLONE_NEWIPC);
    pub const UTS: u64 = bits(CloneFlags::CLONE_NEWUTS);
    pub const USER: u64 = bits(CloneFlags::CLONE_NEWUSER);
    pub const CGROUP: u64 = bits(CloneFlags::CLONE_NEWCGROUP);
    pub const PARENT: u64 = bits(CloneFlags::CLONE_PARENT);
    pub const TIME: u64 = crate::sys::process::CLONE_NEWTIME;
}

/// Why namespaces could not be planned or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The same kind stands twice in `linux.namespaces`.
    #[error("linux.namespaces: duplicate namespace {kind}")]
    Duplicate {
        /// The kind as config.json spells it.
        kind: String,
    },
    /// A namespace file could not be opened or joined.
    #[error("joining the {kind} namespace {path}")]
    Join {
        /// The kind as config.json spells it.
        kind: String,
        /// Its `path`.
        path: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// A new namespace could not be made.
    #[error("making new namespaces{hint}")]
    Make {
        /// What may be done, after a colon.
        hint: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// The clock offsets could not be written.
    #[error("setting linux.timeOffsets")]
    TimeOffsets(#[source] SysError),
    /// The user mappings could not be written.
    #[error(transparent)]
    Mapping(#[from] MappingError),
}

impl Kind for NamespaceError {
    fn kind(&self) -> ErrorKind {
        match self {
            NamespaceError::Duplicate { .. } => ErrorKind::InvalidInput,
            NamespaceError::Join { source, .. }
            | NamespaceError::Make { source, .. }
            | NamespaceError::TimeOffsets(source) => source.kind(),
            NamespaceError::Mapping(source) => source.kind(),
        }
    }
}

impl NamespaceError {
    /// `source` came of making the kinds in `flags`.
    pub fn make(flags: u64, source: SysError) -> NamespaceError {
        let hint = if source.errno == Errno::ENOSPC { limits(flags, read_limit) } else { String::new() };
        NamespaceError::Make { hint, source }
    }
}

/// The kinds that namespaces(7) has limits of, as their sysctls spell them.
const LIMITED: [(u64, &str); 8] = [
    (flag::USER, "user"),
    (flag::PID, "pid"),
    (flag::NETWORK, "net"),
    (flag::MOUNT, "mnt"),
    (flag::IPC, "ipc"),
    (flag::UTS, "uts"),
    (flag::CGROUP, "cgroup"),
    (flag::TIME, "time"),
];

/// What ENOSPC means, with the limits that one of `flags` may have met: those that are 0, if any is. `read` gives the
/// text of a sysctl.
fn limits(flags: u64, read: impl Fn(&str) -> Option<String>) -> String {
    let all: Vec<(String, Option<String>)> = LIMITED
        .iter()
        .filter(|(kind, _)| flags & kind != 0)
        .map(|(_, name)| (format!("user.max_{name}_namespaces"), read(&format!("max_{name}_namespaces"))))
        .collect();
    let none = all.iter().any(|(_, limit)| limit.as_deref() == Some("0"));
    let shown: Vec<String> = all
        .iter()
        .filter(|(_, limit)| !none || limit.as_deref() == Some("0"))
        .map(|(name, limit)| format!("{name} = {}", limit.as_deref().unwrap_or("?")))
        .collect();
    format!(
        ": as many as the kernel allows a user are there, or they are nested too deeply; raise by sysctl(8) {}",
        shown.join(" or ")
    )
}

fn read_limit(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/user/{name}")).ok()?;
    Some(text.trim().to_owned())
}

/// A namespace to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// One `CLONE_NEW*` bit.
    pub flag: u64,
    /// The kind as config.json spells it.
    pub kind: String,
    /// A namespace file.
    pub path: PathBuf,
}

/// The namespaces of a container, from `linux.namespaces`, mappings and time offsets.
#[derive(Debug, Clone, Default)]
pub struct Namespaces {
    /// Bits of the new ones.
    pub new: u64,
    /// The ones joined by path; the user namespace first, because it gives the right to the others.
    pub join: Vec<Join>,
    users: Vec<LinuxIdMapping>,
    groups: Vec<LinuxIdMapping>,
    time_offsets: String,
}

impl Namespaces {
    /// Reads them from a configuration.
    pub fn plan(spec: &Spec) -> Result<Namespaces, NamespaceError> {
        let mut plan = Namespaces::default();
        let Some(linux) = spec.linux() else { return Ok(plan) };
        let mut seen = 0;
        for namespace in linux.namespaces().iter().flatten() {
            let flag = flag_of(namespace.typ());
            let kind = namespace.typ().to_string();
            if seen & flag != 0 {
                return Err(NamespaceError::Duplicate { kind });
            }
            seen |= flag;
            match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    plan.join.push(Join { flag, kind, path: path.clone() });
                }
                _ => plan.new |= flag,
            }
        }
        plan.join.sort_by_key(|join| join.flag != flag::USER);
        if plan.new & flag::USER != 0 {
            plan.users = linux.uid_mappings().clone().unwrap_or_default();
            plan.groups = linux.gid_mappings().clone().unwrap_or_default();
        }
        for (clock, offset) in linux.time_offsets().iter().flatten() {
            plan.time_offsets.push_str(&format!(
                "{clock} {} {}\n",
                offset.secs().unwrap_or(0),
                offset.nanosecs().unwrap_or(0)
            ));
        }
        Ok(plan)
    }

    /// All kinds in which the container differs from, or was told to join apart from, the runtime.
    pub fn kinds(&self) -> u64 {
        self.join.iter().fold(self.new, |bits, join| bits | join.flag)
    }

    /// Whether the container has the kind `flag` from a path.
    pub fn joins(&self, flag: u64) -> bool {
        self.join.iter().any(|join| join.flag == flag)
    }

    /// Whether a process must stand between the runtime and init. setns into a PID or time namespace, and
    /// new time offsets, only count for children; and a joined namespace must be entered before a new user
    /// namespace takes away the right to, yet after a joined one gives it.
    pub fn needs_stage(&self) -> bool {
        self.new & flag::TIME != 0
            || self.joins(flag::PID)
            || self.joins(flag::TIME)
            || self.joins(flag::USER)
            || (self.new & flag::USER != 0 && !self.join.is_empty())
    }

    /// The bits for the clone that makes init. The cgroup namespace is not among them: its root is the
    /// cgroup at the time of the call, so init makes it after it was placed. Time is the stage's.
    pub fn clone_flags(&self) -> u64 {
        self.new & !(flag::CGROUP | flag::TIME)
    }

    /// Opens the namespaces to join while the host's paths mean what the caller meant.
    pub fn open_joins(&self) -> Result<Vec<OwnedFd>, NamespaceError> {
        let open = |join: &Join| {
            let shown = join.path.display().to_string();
            File::open(&join.path)
                .map(OwnedFd::from)
                .map_err(SysError::io("open", shown.clone()))
                .map_err(|source| NamespaceError::Join { kind: join.kind.clone(), path: shown, source })
        };
        self.join.iter().map(open).collect()
    }

    /// Joins what [`Self::open_joins`] opened, in the same order.
    pub fn enter(&self, fds: &[OwnedFd]) -> Result<(), NamespaceError> {
        for (join, fd) in self.join.iter().zip(fds) {
            setns(fd, join.flag).map_err(|source| NamespaceError::Join {
                kind: join.kind.clone(),
                path: join.path.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    /// In the stage: makes the time namespace of its children and sets its clocks, before anybody is in it
    /// (afterwards the kernel refuses, time_namespaces(7)).
    pub fn make_time_namespace(&self) -> Result<(), NamespaceError> {
        if self.new & flag::TIME == 0 {
            return Ok(());
        }
        unshare(CLONE_NEWTIME).map_err(|source| NamespaceError::make(CLONE_NEWTIME, source))?;
        if self.time_offsets.is_empty() {
            return Ok(());
        }
        std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
            .map_err(SysError::io("write", "/proc/self/timens_offsets"))
            .map_err(NamespaceError::TimeOffsets)
    }

    /// In the parent: writes the mappings of the new user namespace of `pid`, its child.
    pub fn write_mappings(&self, pid: Pid) -> Result<(), NamespaceError> {
        Ok(mapping::write(Caller::current(), pid, &self.users, &self.groups)?)
    }
}

fn flag_of(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Mount => flag::MOUNT,
        LinuxNamespaceType::Cgroup => flag::CGROUP,
        LinuxNamespaceType::Uts => flag::UTS,
        LinuxNamespaceType::Ipc => flag::IPC,
        LinuxNamespaceType::User => flag::USER,
        LinuxNamespaceType::Pid => flag::PID,
        LinuxNamespaceType::Network => flag::NETWORK,
        LinuxNamespaceType::Time => flag::TIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(namespaces: &str) -> Result<Namespaces, NamespaceError> {
        let text = format!(
            r#"{{"ociVersion":"1.0.2","linux":{{"namespaces":{namespaces},
            "uidMappings":[{{"containerID":0,"hostID":1000,"size":10}}],
            "timeOffsets":{{"monotonic":{{"secs":5,"nanosecs":7}}}}}}}}"#
        );
        Namespaces::plan(&serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn a_joined_user_namespace_is_entered_first() {
        let plan = plan(r#"[{"type":"network","path":"/n"},{"type":"user","path":"/u"},{"type":"mount"}]"#);
        let plan = plan.unwrap();
        assert_eq!(plan.join[0].kind, "user");
        assert_eq!(plan.new, flag::MOUNT);
        assert!(plan.needs_stage());
    }

    #[test]
    fn runc_default_needs_no_stage() {
        let plan = plan(r#"[{"type":"pid"},{"type":"network"},{"type":"cgroup"},{"type":"mount"}]"#).unwrap();
        assert!(!plan.needs_stage());
        assert_eq!(plan.clone_flags(), flag::PID | flag::NETWORK | flag::MOUNT);
    }

    #[test]
    fn offsets_read_as_the_kernel_wants_them() {
        let plan = plan(r#"[{"type":"user"},{"type":"time"}]"#).unwrap();
        assert_eq!(plan.time_offsets.as_str(), "monotonic 5 7\n");
    }

    #[test]
    fn a_limit_that_is_reached_is_named() {
        let many = |name: &str| Some(if name.contains("uts") { "0" } else { "900" }.to_owned());
        let hint = limits(flag::USER | flag::UTS, many);
        assert!(hint.ends_with("raise by sysctl(8) user.max_uts_namespaces = 0"), "{hint}");
        let hint = limits(flag::USER | flag::NETWORK, many);
        assert!(hint.ends_with("user.max_user_namespaces = 900 or user.max_net_namespaces = 900"), "{hint}");
        let error = SysError::on("clone3", "")(Errno::EPERM);
        assert_eq!(NamespaceError::make(flag::USER, error).to_string(), "making new namespaces");
    }

    #[test]
    fn a_kind_stands_once() {
        assert!(plan(r#"[{"type":"pid"},{"type":"pid"}]"#).is_err());
    }
}
