//! `state.json`: what the runtime knows of a container between its calls.
//!
//! ```text
//! (nothing) --mkdir, intent written--> Creating --init is up, pid written--> Created
//!     Created --start.sock removed--> Running <--freezer--> Paused
//!     Created, Running, Paused --init has ended--> Stopped --delete--> (nothing)
//! ```
//! Only the intent and the process are stored; the status is read from them and from the kernel, so it cannot
//! be out of date.
mod dir;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::fstatat;
use nix::unistd::Pid;
use oci_spec::runtime::{Hooks, Spec};
use serde::{Deserialize, Serialize};

use self::dir::{CONFIG, INIT, STATE, read_json};
pub use self::dir::{START_SOCKET, StateDir, check_id};
use super::{cgroup, rdt};
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::process::start_time;

/// The version of the record's form that this build writes and reads.
const VERSION: u32 = 1;
/// Why a container's record could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An id that runc would refuse.
    #[error("invalid container ID format: {id:?}")]
    InvalidId {
        /// As given.
        id: String,
    },
    /// No container of that id; callers match this text.
    #[error("container does not exist: {id:?}")]
    NotFound {
        /// As given.
        id: String,
    },
    /// The id is taken.
    #[error("container with given ID already exists: {id:?}")]
    AlreadyExists {
        /// As given.
        id: String,
    },
    /// Reading or writing failed.
    #[error("state of container {id:?}")]
    Io {
        /// Whose.
        id: String,
        /// The call that failed.
        #[source]
        source: SysError,
    },
    /// The record does not parse.
    #[error("state of container {id:?} ({file}) is damaged")]
    Damaged {
        /// Whose.
        id: String,
        /// Which file.
        file: &'static str,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// Whether it is paused could not be asked.
    #[error("state of container {id:?}")]
    Freezer {
        /// Whose.
        id: String,
        /// Why.
        #[source]
        source: cgroup::Error,
    },
    /// Written by another version of corten.
    #[error("state of container {id:?} has form {version}, this corten reads {VERSION}")]
    Version {
        /// Whose.
        id: String,
        /// What it says.
        version: u32,
    },
}

impl Kind for StateError {
    fn kind(&self) -> ErrorKind {
        match self {
            StateError::InvalidId { .. } => ErrorKind::InvalidInput,
            StateError::NotFound { .. } => ErrorKind::NotFound,
            StateError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            StateError::Io { source, .. } => source.kind(),
            StateError::Freezer { source, .. } => source.kind(),
            StateError::Damaged { .. } => ErrorKind::Corrupt,
            StateError::Version { .. } => ErrorKind::Unsupported,
        }
    }
}

/// A process that is still the same one: its number and when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// In the runtime's PID namespace.
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// Names a process that is alive now.
    ///
    /// # Errors
    /// Those of reading `/proc`: they do not tell that there is no such process.
    pub fn of(pid: Pid) -> Result<Option<ProcessId>, SysError> {
        Ok(start_time(pid)?.map(|start_time| ProcessId { pid: pid.as_raw(), start_time }))
    }

    /// Whether it has not ended (a zombie has).
    ///
    /// # Errors
    /// As [`ProcessId::of`].
    pub fn is_alive(self) -> Result<bool, SysError> {
        Ok(start_time(self.pid())? == Some(self.start_time))
    }

    /// Its number.
    pub fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its create has not ended, or was killed.
    Creating,
    /// Init waits for start.
    Created,
    /// The program runs.
    Running,
    /// Frozen.
    Paused,
    /// Init has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// The record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// `ociVersion` of the configuration.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// User id of the creator.
    pub owner: u32,
    /// From the configuration.
    pub annotations: BTreeMap<String, String>,
    /// The process that runs create; it is written with the intent, before anything else is made.
    pub creator: ProcessId,
    /// Init, once it is there; in a file of its own.
    #[serde(skip)]
    pub init: Option<ProcessId>,
    /// `CLONE_NEW*` bits of the namespaces that exec must join.
    pub namespaces: u64,
    /// The cgroups that are, or were about to be, made.
    pub cgroup: cgroup::Paths,
    /// The resctrl group that is, or was about to be, made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<rdt::Group>,
    /// The hooks that are still to run.
    pub hooks: Option<Hooks>,
}

/// What a new record is made from.
#[derive(Debug)]
pub struct Intent<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Absolute path of the bundle.
    pub bundle: &'a Path,
    /// Absolute path of the root file system.
    pub rootfs: PathBuf,
    /// The configuration.
    pub spec: &'a Spec,
    /// `CLONE_NEW*` bits.
    pub namespaces: u64,
    /// The cgroups to be made.
    pub cgroup: cgroup::Paths,
    /// The resctrl group to be made.
    pub rdt: Option<rdt::Group>,
}

impl State {
    /// The record that is written before anything else is made.
    ///
    /// # Errors
    /// Those of finding out who we are.
    pub fn intent(intent: Intent<'_>) -> Result<State, StateError> {
        let me = nix::unistd::getpid();
        let start_time = start_time(me).map_err(StateDir::io(intent.id))?.unwrap_or(0);
        Ok(State {
            version: VERSION,
            oci_version: intent.spec.version().clone(),
            id: intent.id.into(),
            bundle: intent.bundle.into(),
            rootfs: intent.rootfs,
            created: crate::sys::clock::now_rfc3339(),
            owner: nix::unistd::getuid().as_raw(),
            annotations: intent
                .spec
                .annotations()
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            creator: ProcessId { pid: me.as_raw(), start_time },
            init: None,
            namespaces: intent.namespaces,
            cgroup: intent.cgroup,
            rdt: intent.rdt,
            hooks: intent.spec.hooks().clone(),
        })
    }

    /// Reads the record; None when its create was killed before it wrote one.
    pub fn read(dir: &StateDir) -> Result<Option<State>, StateError> {
        Self::read_in(dir.as_dir(), &dir.id)
    }

    fn read_in(dir: impl AsFd, id: &str) -> Result<Option<State>, StateError> {
        let Some(mut state) = read_json::<State>(&dir, id, STATE)? else { return Ok(None) };
        if state.version != VERSION {
            return Err(StateError::Version { id: id.into(), version: state.version });
        }
        state.init = read_json::<Option<ProcessId>>(&dir, id, INIT)?.flatten();
        Ok(Some(state))
    }

    /// Who init is, without the record.
    pub(super) fn read_init(dir: &StateDir) -> Result<Option<ProcessId>, StateError> {
        Ok(read_json::<Option<ProcessId>>(dir.as_dir(), &dir.id, INIT)?.flatten())
    }

    /// The configuration, without the record.
    pub(super) fn read_spec(dir: &StateDir) -> Result<Option<Spec>, StateError> {
        read_json(dir.as_dir(), &dir.id, CONFIG)
    }

    /// Reads the record of `id` under `root`, without waiting for a call that has it locked.
    pub fn load(root: &Path, id: &str) -> Result<State, StateError> {
        let dir = StateDir::open_dir(root, id)?;
        Self::read_in(&dir, id)?.ok_or_else(|| StateError::NotFound { id: id.into() })
    }

    /// The configuration that the container was created with.
    pub fn load_spec(root: &Path, id: &str) -> Result<Spec, StateError> {
        let dir = StateDir::open_dir(root, id)?;
        read_json(&dir, id, CONFIG)?.ok_or_else(|| StateError::NotFound { id: id.into() })
    }

    /// The container's status, from the kernel.
    ///
    /// # Errors
    /// Those of asking: a status that nobody could find out is none to act upon.
    pub fn status(&self, root: &Path) -> Result<Status, StateError> {
        let failed = StateDir::io(&self.id);
        let Some(init) = self.init else {
            let alive = self.creator.is_alive().map_err(failed)?;
            return Ok(if alive { Status::Creating } else { Status::Stopped });
        };
        if !init.is_alive().map_err(failed)? {
            return Ok(Status::Stopped);
        }
        if self.awaits_start(root)? {
            return Ok(Status::Created);
        }
        // A cgroup that is gone or was never made cannot be frozen.
        let frozen = cgroup::Cgroup::open(&self.cgroup)
            .and_then(|cgroup| cgroup.frozen())
            .map_err(|source| StateError::Freezer { id: self.id.clone(), source })?;
        Ok(if frozen { Status::Paused } else { Status::Running })
    }

    fn awaits_start(&self, root: &Path) -> Result<bool, StateError> {
        let dir = match StateDir::open_dir(root, &self.id) {
            Err(StateError::NotFound { .. }) => return Ok(false),
            other => other?,
        };
        match fstatat(&dir, START_SOCKET, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(StateDir::io(&self.id)(SysError::on("fstatat", START_SOCKET)(errno))),
        }
    }

    /// The state as hooks and listeners get it (runtime-spec, "State").
    pub fn oci_json(&self, status: Status) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OciState<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: Status,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a Path,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let pid = self.init.filter(|_| status != Status::Stopped).map(|init| init.pid);
        let state = OciState {
            oci_version: &self.oci_version,
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        // Strings, numbers and maps with string keys always have a JSON form.
        serde_json::to_vec(&state).unwrap_or_default()
    }
}

/// The ids of all containers under `root`, in order, also of those without a readable record.
pub fn ids(root: &Path) -> Result<Vec<String>, StateError> {
    let shown = root.display().to_string();
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StateDir::io("*")(SysError::io("opendir", shown)(error))),
    };
    let mut ids: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    ids.sort();
    Ok(ids)
}

/// All records under `root`, by id; directories without a readable record are left out.
pub fn list(root: &Path) -> Result<Vec<State>, StateError> {
    Ok(ids(root)?.iter().filter_map(|id| State::load(root, id).ok()).collect())
}

#[cfg(test)]
mod tests;
