//! What a process of a container may do: capabilities, seccomp, limits, identity, labels.
//!
//! [`Plan::new`] is pure; the host's side makes it before the container's process exists (a seccomp
//! profile takes milliseconds to compile). The container's process then applies it, in this order:
//!
//! ```text
//! limits          by the runtime for a process in a user namespace, which cannot raise its own; by the
//!                 process itself in become_user() else
//! label()         after /proc of the container is there, before the capabilities go
//! schedule()      before the capabilities go: real-time policies need CAP_SYS_NICE
//! confine_early() no_new_privs; and the filter if no_new_privs is not wanted: loading one then
//!                 needs CAP_SYS_ADMIN
//! become_user()   bounding set, ids, capability sets
//! confine_late()  the filter if no_new_privs is wanted, as near to execve as can be, so that a
//!                 profile need not allow our own calls
//! ```
pub mod affinity;
pub mod capabilities;
pub mod keyring;
pub mod label;
pub mod memory;
mod numbers;
pub mod rlimits;
pub mod scheduling;
pub mod seccomp;
pub mod user;

use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use oci_spec::runtime::{Linux, LinuxNamespaceType, Process};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Why the security set-up of a container failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// The kernel refuses the capability sets.
    #[error("cannot give the process the capabilities {names}")]
    Capabilities {
        /// Those that this runtime itself does not have, or all if that is not the reason.
        names: String,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// Another call about capabilities failed.
    #[error("cannot set the {set} capability set")]
    CapabilitySet {
        /// Which set.
        set: &'static str,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The kernel refuses a resource limit.
    #[error("cannot set {name} to soft {soft}, hard {hard} (process.rlimits)")]
    Rlimit {
        /// As in config.json.
        name: String,
        /// The wanted soft limit.
        soft: u64,
        /// The wanted hard limit.
        hard: u64,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The out-of-memory score was refused.
    #[error("cannot set oom_score_adj to {value} (process.oomScoreAdj)")]
    OomScore {
        /// The wanted value.
        value: i32,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// User or group ids could not be taken on.
    #[error("cannot become uid {uid}, gid {gid} (process.user)")]
    User {
        /// The wanted user.
        uid: u32,
        /// The wanted group.
        gid: u32,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The session keyring could not be made.
    #[error("cannot create the session keyring {name}")]
    Keyring {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// An LSM label was asked for that the host cannot give.
    #[error("{field} is {value:?}, but {lsm} is not enabled on this host")]
    LsmMissing {
        /// Field of config.json.
        field: &'static str,
        /// What it holds.
        value: String,
        /// Name of the security module.
        lsm: &'static str,
    },
    /// The LSM refused the label.
    #[error("cannot apply {field} {value:?}")]
    Label {
        /// Field of config.json.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// Scheduling parameters were refused.
    #[error("cannot apply {field}")]
    Scheduling {
        /// Field of config.json.
        field: &'static str,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The kernel refuses the memory policy.
    #[error("cannot apply linux.memoryPolicy{hint}")]
    MemoryPolicy {
        /// What may be the reason, after `: `, or nothing.
        hint: &'static str,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// A value in config.json makes no sense.
    #[error("{field}: {reason}")]
    Invalid {
        /// Field of config.json.
        field: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The user namespace does not know the user or the group.
    #[error(
        "cannot set {what} to unmapped {} in user namespace (process.user.{what} {id})",
        if *what == "uid" { "user" } else { "group" }
    )]
    Unmapped {
        /// `uid` or `gid`.
        what: &'static str,
        /// As given.
        id: u32,
    },
    /// The user namespace has given up setgroups(2).
    #[error(
        "cannot set any additional groups in a rootless container (process.user.additionalGids {gids:?}): its user namespace denies setgroups, as one that an ordinary user mapped alone does"
    )]
    NoFurtherGroups {
        /// What was asked for.
        gids: Vec<u32>,
    },
    /// The seccomp profile could not be compiled.
    #[error("cannot compile the seccomp profile: {step}")]
    Compile {
        /// What was being done.
        step: String,
        /// What libseccomp said.
        #[source]
        source: libseccomp::error::SeccompError,
    },
    /// The exported seccomp program could not be read back.
    #[error("cannot export the compiled seccomp profile")]
    Export {
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The seccomp program is larger than the kernel takes.
    #[error(
        "the seccomp profile compiles to {instructions} instructions, the kernel takes {}",
        crate::sys::seccomp::MAX_INSTRUCTIONS
    )]
    TooLong {
        /// Its length.
        instructions: usize,
    },
    /// The kernel refused the filter.
    #[error("cannot load the seccomp filter")]
    Load {
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// The notification descriptor could not be handed over.
    #[error("cannot send the seccomp notification descriptor to {}", path.display())]
    Listener {
        /// `linux.seccomp.listenerPath`.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: SysError,
    },
    /// prctl(PR_SET_NO_NEW_PRIVS) failed.
    #[error("cannot set no_new_privs")]
    NoNewPrivileges {
        /// What the kernel said.
        #[source]
        source: SysError,
    },
}

impl Kind for SecurityError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Capabilities { source, .. }
            | Self::CapabilitySet { source, .. }
            | Self::Rlimit { source, .. }
            | Self::OomScore { source, .. }
            | Self::User { source, .. }
            | Self::Keyring { source, .. }
            | Self::Label { source, .. }
            | Self::Scheduling { source, .. }
            | Self::MemoryPolicy { source, .. }
            | Self::Export { source }
            | Self::Load { source }
            | Self::Listener { source, .. }
            | Self::NoNewPrivileges { source } => source.kind(),
            Self::NoFurtherGroups { .. } => ErrorKind::PermissionDenied,
            Self::LsmMissing { .. } => ErrorKind::Unsupported,
            Self::Unmapped { .. } | Self::Invalid { .. } | Self::Compile { .. } | Self::TooLong { .. } => {
                ErrorKind::InvalidInput
            }
        }
    }
}

/// Everything that one process of a container gets; see the module's documentation for the order.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Capability sets.
    pub capabilities: capabilities::Plan,
    /// Resource limits and the out-of-memory score.
    pub limits: rlimits::Plan,
    /// Ids.
    pub user: user::Plan,
    /// AppArmor and SELinux.
    pub labels: label::Plan,
    /// Scheduler, I/O priority, personality.
    pub scheduling: scheduling::Plan,
    /// NUMA memory policy.
    pub memory: Option<memory::Plan>,
    /// Whether execve may give privileges.
    pub no_new_privileges: bool,
    /// The compiled profile.
    pub seccomp: Option<seccomp::Program>,
}

fn limits_set_by(linux: Option<&Linux>) -> rlimits::SetBy {
    let mut namespaces = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    match namespaces.any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        true => rlimits::SetBy::Runtime,
        false => rlimits::SetBy::Process,
    }
}

impl Plan {
    /// Plans for `process`; seccomp and personality come from `linux`, for the container's own process
    /// and for those that join it. `filters` is where compiled filters are kept.
    pub fn new(
        process: &Process,
        linux: Option<&Linux>,
        filters: Option<&Path>,
    ) -> Result<Plan, SecurityError> {
        let profile = linux.and_then(|linux| linux.seccomp().as_ref());
        Ok(Plan {
            capabilities: capabilities::Plan::new(process.capabilities().as_ref()),
            limits: rlimits::Plan::new(process, limits_set_by(linux))?,
            user: user::Plan::new(process.user()),
            labels: label::Plan::new(process),
            scheduling: scheduling::Plan::new(process, linux)?,
            memory: linux
                .and_then(|linux| linux.memory_policy().as_ref())
                .map(memory::Plan::new)
                .transpose()?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            seccomp: profile.map(|profile| seccomp::compile(profile, filters)).transpose()?.flatten(),
        })
    }

    /// LSM labels that take effect at execve.
    pub fn label(&self, procfs: BorrowedFd<'_>) -> Result<(), SecurityError> {
        self.labels.apply(procfs)
    }

    /// Scheduler, I/O priority, personality and memory policy.
    pub fn schedule(&self) -> Result<(), SecurityError> {
        self.scheduling.apply()?;
        self.memory.as_ref().map_or(Ok(()), memory::Plan::apply)
    }

    /// no_new_privs, or the filter if that is not wanted. The descriptor is the filter's listener, if the
    /// profile notifies.
    pub fn confine_early(&self) -> Result<Option<OwnedFd>, SecurityError> {
        if self.no_new_privileges {
            nix::sys::prctl::set_no_new_privs()
                .map_err(SysError::on("prctl", "PR_SET_NO_NEW_PRIVS"))
                .map_err(|source| SecurityError::NoNewPrivileges { source })?;
            return Ok(None);
        }
        self.load_filter()
    }

    /// Bounding set, ids, capability sets.
    pub fn become_user(&self) -> Result<(), SecurityError> {
        // Before setuid, because a user other than root may not raise a hard limit.
        self.limits.apply_own()?;
        // Before setuid, because dropping from the bounding set needs CAP_SETPCAP.
        self.capabilities.drop_bounding()?;
        // Without this, setuid(2) to a user other than root empties the permitted set, and with it what
        // the last step is to set (capabilities(7), "Effect of user ID changes on capabilities").
        self.keep_capabilities(true)?;
        self.user.apply()?;
        self.keep_capabilities(false)?;
        self.capabilities.apply()
    }

    /// The filter, if no_new_privs is wanted; [`Self::confine_early`] loaded it otherwise.
    pub fn confine_late(&self) -> Result<Option<OwnedFd>, SecurityError> {
        if self.no_new_privileges { self.load_filter() } else { Ok(None) }
    }

    fn load_filter(&self) -> Result<Option<OwnedFd>, SecurityError> {
        self.seccomp.as_ref().map_or(Ok(None), seccomp::Program::load)
    }

    fn keep_capabilities(&self, keep: bool) -> Result<(), SecurityError> {
        nix::sys::prctl::set_keepcaps(keep)
            .map_err(SysError::on("prctl", "PR_SET_KEEPCAPS"))
            .map_err(|source| SecurityError::CapabilitySet { set: "permitted", source })
    }
}
