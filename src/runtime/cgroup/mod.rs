//! Cgroups of containers on v1, hybrid and v2 hosts, by the cgroup file system and, where asked, by systemd.
//!
//! ```text
//! Host::detect ─> plan ─> Paths (written to the state) ─> Cgroup::create ─> placement ─> .. ─> remove
//!                                                    ├──> Cgroup::begin ─> birthplace ─> complete (v1, while init is born)
//!                                                    └──> Cgroup::open (from the state, by a later command)
//! ```
//!
//! A process enters its cgroups without the kernel's `cgroup_threadgroup_rwsem`, whose writers wait for an RCU
//! grace period (milliseconds): on v1 it writes `0` to `tasks` of each hierarchy itself while it is
//! single-threaded, on v2 it is born there (`CLONE_INTO_CGROUP`). See [`Placement`].
use std::collections::HashMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::rootless::Rootless;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

mod create;
mod delegate;
mod devices;
mod dir;
mod events;
mod freezer;
mod host;
mod make;
mod paths;
mod placement;
mod processes;
pub mod stats;
mod systemd;
mod values;

pub use delegate::delegate_of;
pub use events::{Oom, OomWatch};
pub use host::{Controller, Host, Mode, Mounted, Version};
pub use make::Begun;
pub use paths::{Hierarchy, Paths, plan};
pub use placement::{Below, Placement};
pub use processes::remove_empty;
pub use systemd::{Error as SystemdError, Manager, Unit};

use dir::Dir;

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// We do, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd does, asked over D-Bus.
    Systemd,
    /// Nobody: the container stays in the cgroups of its caller.
    Disabled,
}

/// What went wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup file system is mounted.
    #[error("no cgroup hierarchy is mounted (none in /proc/self/mountinfo); mount one on /sys/fs/cgroup")]
    NoHierarchy,
    /// A table of the kernel is not as its manual page says.
    #[error("{file}: cannot make sense of {line:?}")]
    Malformed { file: String, line: String },
    /// `cgroupsPath` names no cgroup.
    #[error("cgroup path {path:?}: {reason}")]
    BadPath { path: PathBuf, reason: &'static str },
    /// The systemd driver.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// Somebody lives in the cgroup already.
    #[error("cgroup {} is in use: it holds {count} process(es)", path.display())]
    NotEmpty { path: PathBuf, count: usize },
    /// A value of `linux.resources` is out of its range or contradicts another.
    #[error("linux.resources.{field}: {reason}")]
    Invalid { field: String, reason: String },
    /// This version of cgroups has nothing for a limit.
    #[error("linux.resources.{field} has no counterpart in cgroup {}", match version { Version::V1 => "v1", Version::V2 => "v2" })]
    NoCounterpart { field: &'static str, version: Version },
    /// The host does not have the controller, or not where the container's cgroup is.
    #[error(
        "cannot set {value:?} as {file}: the cgroup controller {controller} is not available here; {}",
        how_to_enable(*version, controller)
    )]
    NoController { controller: String, file: String, value: String, version: Version },
    /// The host does not know the file of a limit, or refuses its value.
    #[error("cannot set a limit")]
    Limit(#[source] SysError),
    /// The devices program of v2.
    #[error("cannot restrict devices of cgroup {}", path.display())]
    Devices { path: PathBuf, source: SysError },
    /// A memory limit below what is in use, with `checkBeforeUpdate`.
    #[error("memory limit {limit} is not above the {usage} bytes in use")]
    BelowUsage { limit: i64, usage: u64 },
    /// The controllers asked for do not work in a threaded cgroup.
    #[error("cgroup {} is threaded or below processes: memory and io limits do not work there (cgroups(7))", path.display())]
    Threaded { path: PathBuf },
    /// A limit is asked for, and the host did not let us make the cgroup for it.
    #[error(
        "cannot set {file} to {value:?}: the container could not get a cgroup (a rootless container has limits only in a cgroup that is delegated to its user)"
    )]
    Refused {
        file: String,
        value: String,
        /// Why there is no cgroup.
        source: SysError,
    },
    /// A limit is asked for, and the container has no cgroup: disabled, or refused when it was created.
    #[error("cannot set {file} to {value:?}: the container has no cgroup")]
    Nowhere { file: String, value: String },
    /// The container has no cgroup in which this could be done.
    #[error("the container has no {what} cgroup")]
    None { what: &'static str },
    /// Processes did not do as told before the deadline.
    #[error("cgroup {}: {what}; still there: {pids}", path.display())]
    TimedOut { path: PathBuf, what: &'static str, pids: String },
    /// A system call failed.
    #[error(transparent)]
    System(#[from] SysError),
}

/// The result of this module's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Systemd(source) => source.kind(),
            Self::NoHierarchy | Self::NoCounterpart { .. } | Self::NoController { .. } => {
                ErrorKind::Unsupported
            }
            Self::Malformed { .. } => ErrorKind::System,
            Self::BadPath { .. } | Self::Invalid { .. } | Self::BelowUsage { .. } => ErrorKind::InvalidInput,
            Self::NotEmpty { .. } => ErrorKind::AlreadyExists,
            Self::Threaded { .. } | Self::Nowhere { .. } | Self::None { .. } => ErrorKind::WrongState,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Limit(source)
            | Self::Devices { source, .. }
            | Self::Refused { source, .. }
            | Self::System(source) => source.kind(),
        }
    }
}

/// What a caller can do about a controller that is not there.
fn how_to_enable(version: Version, controller: &str) -> String {
    let kernel = format!("has no {controller}, or was started with cgroup_disable={controller}");
    match version {
        Version::V1 => format!(
            "mount it (mount -t cgroup -o {controller} cgroup /sys/fs/cgroup/{controller}) if /proc/cgroups has it \
             with hierarchy 0; otherwise the kernel {kernel}, or it is in use by cgroup v2"
        ),
        Version::V2 => format!(
            "write +{controller} to cgroup.subtree_control of the cgroups above (with systemd: \
             Delegate={controller}); where cgroup.controllers of the uppermost does not list it, the kernel {kernel}"
        ),
    }
}

/// The cgroups of one container.
#[derive(Debug)]
pub struct Cgroup {
    mode: Mode,
    /// Those that are there; the rest could not be made by a rootless runtime, or is removed already.
    dirs: Vec<Dir>,
    paths: Paths,
    /// Some of them were there before we came.
    reused: bool,
    /// Why a rootless runtime could not make the others.
    refused: Option<SysError>,
    /// Keeps a new scope of systemd until the container's first process is in it.
    placeholder: Option<systemd::Placeholder>,
}

impl Cgroup {
    /// Makes the cgroups and sets the limits of `resources`; where that fails, removes again what it made.
    /// Devices are left to [`Cgroup::restrict_devices`].
    ///
    /// `rootless`: without privileges over the host's cgroups. Then a hierarchy that refuses us is left out as
    /// long as no `cgroupsPath` and no limit in it is asked for, and devices stay unrestricted, as with runc.
    /// A limit all the same is [`Error::Refused`].
    ///
    /// `annotations`: those that name properties of a unit count for the systemd driver. Its unit ends when this
    /// value is dropped before a process is in the cgroups.
    ///
    /// # Errors
    /// [`Error::NotEmpty`] for a cgroup in which somebody lives; an error that names the controller, file and
    /// value for a limit that the host cannot give.
    pub fn create(
        _host: &Host,
        paths: &Paths,
        resources: Option<&LinuxResources>,
        annotations: Option<&HashMap<String, String>>,
        rootless: Rootless,
    ) -> Result<Cgroup> {
        create::create(paths, resources, annotations, rootless)
    }

    /// Begins the same where a process can be moved into the cgroups, so that it may be born while they are made: on v1,
    /// by the cgroupfs driver. `None` elsewhere.
    pub fn begin<'a>(
        paths: &'a Paths,
        resources: Option<&'a LinuxResources>,
        rootless: Rootless,
    ) -> Option<Begun<'a>> {
        let moves = paths.unit.is_none() && paths.mode != Mode::Unified;
        moves.then(|| Begun::new(paths, resources, rootless, None))
    }

    /// Sets the device rules of `resources`; the default rules apply also without it. It may come after the
    /// container's first process is there, as long as that still runs our code: it needs no device.
    ///
    /// # Errors
    /// Those of rules that make no sense, and of the devices files or program.
    pub fn restrict_devices(&self, resources: Option<&LinuxResources>, rootless: Rootless) -> Result<()> {
        create::restrict_devices(self, resources, rootless)
    }

    /// The cgroups named by a container's state; those that are not there (any more) are left out.
    ///
    /// # Errors
    /// Only those of opening: no cgroup at all is no error (see [`Cgroup::exists`]).
    pub fn open(paths: &Paths) -> Result<Cgroup> {
        let mut dirs = Vec::with_capacity(paths.hierarchies.len());
        for hierarchy in &paths.hierarchies {
            match Dir::open(hierarchy) {
                Ok(dir) => dirs.push(dir),
                Err(error) if dir::gone(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Cgroup {
            mode: paths.mode,
            dirs,
            paths: paths.clone(),
            reused: false,
            refused: None,
            placeholder: None,
        })
    }

    /// Changes limits; what `resources` leaves out stays as it is. Devices are not touched, as with runc.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; limits before the refused one are changed already.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        create::update(self, resources)
    }

    /// Whether any cgroup of the container is there.
    pub fn exists(&self) -> bool {
        self.paths.hierarchies.iter().any(|one| one.dir().is_dir())
    }

    /// Whether the host refused some of the cgroups, which a rootless runtime goes on without.
    pub fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Where the cgroups are.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The cgroup that a v1 controller, or the v2 hierarchy of a unified host, has for us.
    fn dir_of(&self, controller: Controller) -> Option<&Dir> {
        match self.mode {
            Mode::Unified => self.dirs.first(),
            Mode::V1 | Mode::Hybrid => self.dirs.iter().find(|dir| dir.has(controller)),
        }
    }

    /// The v2 cgroup of a unified or hybrid host.
    fn v2(&self) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.version() == Version::V2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_is_not_there_comes_with_what_to_do() {
        for (version, what) in
            [(Version::V1, "mount -t cgroup -o pids"), (Version::V2, "+pids to cgroup.subtree_control")]
        {
            let (controller, file, value) = ("pids".into(), "pids.max".into(), "5".into());
            let text = Error::NoController { controller, file, value, version }.to_string();
            assert!(
                text.contains("pids.max") && text.contains("controller pids") && text.contains(what),
                "{text}"
            );
        }
    }
}
