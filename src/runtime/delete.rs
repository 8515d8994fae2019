//! Deleting a container, whatever state a crash left it in.
use std::path::Path;

use oci_spec::runtime::Spec;

use super::cgroup::{self, Cgroup, Driver};
use super::hooks::{self, Phase};
use super::rdt::{Group, RdtError};
use super::state::{ProcessId, State, StateDir, StateError, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, pidfd};

/// A killed process has this long to end; longer means that it hangs in the kernel.
const KILL_DEADLINE_MS: u32 = 10_000;

/// Why a container was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Its record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It still runs, and force was not asked for.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// Which.
        id: String,
        /// What it is.
        status: Status,
    },
    /// A process could not be ended.
    #[error("ending process {pid} of container {id:?}")]
    Kill {
        /// Which.
        id: String,
        /// Its number.
        pid: i32,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A killed process did not end.
    #[error("process {pid} of container {id:?} was killed, but has not ended within 10 s")]
    Hangs {
        /// Which.
        id: String,
        /// Its number.
        pid: i32,
    },
    /// Its resctrl group could not be removed.
    #[error("removing the resctrl group of container {id:?}")]
    Rdt {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: RdtError,
    },
    /// Its cgroups could not be removed.
    #[error("removing the cgroups of container {id:?}")]
    Cgroup {
        /// Which.
        id: String,
        /// Why.
        #[source]
        source: cgroup::Error,
    },
}

impl Kind for DeleteError {
    fn kind(&self) -> ErrorKind {
        match self {
            DeleteError::State(source) => source.kind(),
            DeleteError::NotStopped { .. } => ErrorKind::WrongState,
            DeleteError::Kill { source, .. } => source.kind(),
            DeleteError::Hangs { .. } => ErrorKind::TimedOut,
            DeleteError::Rdt { source, .. } => source.kind(),
            DeleteError::Cgroup { source, .. } => source.kind(),
        }
    }
}

/// Removes what there is of a container: processes (with `force`), cgroups, record. Runs its poststop hooks.
///
/// With `force` a container that does not exist is no error, and one whose create still runs is taken from it.
pub fn delete(state_root: &Path, id: &str, force: bool) -> Result<(), DeleteError> {
    match delete_existing(state_root, id, force) {
        Err(DeleteError::State(StateError::NotFound { .. })) if force => Ok(()),
        other => other,
    }
}

fn delete_existing(state_root: &Path, id: &str, force: bool) -> Result<(), DeleteError> {
    // Most often nobody holds the lock, and one look is enough.
    if let Some(dir) = StateDir::try_open_locked(state_root, id)? {
        return delete_locked(state_root, id, force, dir);
    }
    if let Ok(state) = State::load(state_root, id) {
        let status = state.status(state_root)?;
        refuse_running(id, force, status)?;
        if status == Status::Creating && state.creator.pid() != nix::unistd::getpid() {
            // It holds the lock that we are about to wait for, perhaps in a hook that never ends.
            end(id, state.creator, || ())?;
        }
    }
    delete_locked(state_root, id, force, StateDir::open_locked(state_root, id)?)
}

/// runc deletes a created container too: nothing of the user's ran yet.
fn refuse_running(id: &str, force: bool, status: Status) -> Result<(), DeleteError> {
    if force || matches!(status, Status::Stopped | Status::Created) {
        return Ok(());
    }
    Err(DeleteError::NotStopped { id: id.into(), status })
}

fn delete_locked(state_root: &Path, id: &str, force: bool, dir: StateDir) -> Result<(), DeleteError> {
    let state = match State::read(&dir) {
        Ok(Some(state)) => state,
        Ok(None) => {
            // Nothing else was made yet; or the record was emptied since, by a crash of the host for one.
            if alive_init(&dir).is_some() {
                refuse_running(id, force, Status::Creating)?;
                salvage(id, &dir)?;
            }
            return Ok(dir.remove()?);
        }
        Err(error) if force => {
            tracing::warn!("{}; deleting what can be found of it", crate::error::chain(&error));
            salvage(id, &dir)?;
            return Ok(dir.remove()?);
        }
        Err(error) => return Err(error.into()),
    };
    refuse_running(id, force, state.status(state_root)?)?;
    if let Some(init) = state.init {
        end(id, init, || thaw(&state))?;
    }
    remove_cgroup(&state).map_err(|source| DeleteError::Cgroup { id: id.into(), source })?;
    state
        .rdt
        .as_ref()
        .map_or(Ok(()), Group::remove)
        .map_err(|source| DeleteError::Rdt { id: id.into(), source })?;
    dir.remove()?;
    run_poststop(&state);
    Ok(())
}

/// The init that the file beside the record names; one of which it cannot be told counts as alive.
fn alive_init(dir: &StateDir) -> Option<ProcessId> {
    State::read_init(dir).ok().flatten().filter(|init| init.is_alive().unwrap_or(true))
}

/// Ends and removes what can be found of a container whose record cannot be read: its init, by the file that
/// names it, and its cgroups, by the configuration. Processes in those are killed only if init was one of them:
/// another container may have the path by now.
fn salvage(id: &str, dir: &StateDir) -> Result<(), DeleteError> {
    let init = alive_init(dir);
    let all =
        State::read_spec(dir).ok().flatten().map(|spec| possible_cgroups(&spec, id)).unwrap_or_default();
    let with_init = all.iter().find_map(|paths| {
        let (cgroup, init) = (Cgroup::open(paths).ok()?, init?);
        cgroup.pids().is_ok_and(|pids| pids.contains(&init.pid)).then_some(cgroup)
    });
    let ours = with_init.as_ref();
    if let Some(init) = init {
        end(id, init, || {
            // Whoever does not die of it is told below.
            let _ = ours.map(Cgroup::thaw);
        })?;
    }
    match ours {
        Some(cgroup) => cgroup.kill_all().and_then(|()| cgroup.remove()),
        None => {
            // Those with processes in them are not ours to touch.
            for paths in all.iter().filter(|paths| paths.unit.is_none()) {
                cgroup::remove_empty(paths);
            }
            Ok(())
        }
    }
    .map_err(|source| DeleteError::Cgroup { id: id.into(), source })
}

/// Where the cgroups of a container of this configuration are, of which nobody knows the driver any more.
fn possible_cgroups(spec: &Spec, id: &str) -> Vec<cgroup::Paths> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let Ok(host) = cgroup::Host::detect() else { return Vec::new() };
    // `slice:prefix:name` is systemd's form; without a path either may have chosen it.
    let of_systemd = path.as_ref().map(|path| path.to_string_lossy().matches(':').count() == 2);
    let drivers: &[Driver] = match of_systemd {
        Some(true) => &[Driver::Systemd],
        Some(false) => &[Driver::Cgroupfs],
        None => &[Driver::Cgroupfs, Driver::Systemd],
    };
    drivers.iter().filter_map(|driver| cgroup::plan(&host, path.as_deref(), id, *driver).ok()).collect()
}

/// Kills what is left in the cgroup, then removes it.
pub(super) fn remove_cgroup(state: &State) -> Result<(), cgroup::Error> {
    if state.cgroup.unit.is_some() {
        let cgroup = Cgroup::open(&state.cgroup)?;
        // First, because systemd asks them to end and waits for that.
        if !cgroup.pids()?.is_empty() {
            cgroup.kill_all()?;
        }
        return cgroup.remove();
    }
    // Most often all have ended: then one call for each hierarchy is enough.
    if cgroup::remove_empty(&state.cgroup) {
        return Ok(());
    }
    let cgroup = Cgroup::open(&state.cgroup)?;
    if !cgroup.pids()?.is_empty() {
        cgroup.kill_all()?;
    }
    cgroup.remove()
}

/// A frozen process of v1 dies only when it is thawed; after the kill, so that nothing of it runs any more.
fn thaw(state: &State) {
    if let Err(error) = Cgroup::open(&state.cgroup).and_then(|cgroup| cgroup.thaw()) {
        // A cgroup that is gone holds nobody; and the wait that follows tells who does not end.
        tracing::debug!("{}", crate::error::chain(&error));
    }
}

/// Kills a process, does what it needs to die, and waits until it has ended.
fn end(id: &str, process: ProcessId, killed: impl FnOnce()) -> Result<(), DeleteError> {
    let fails = |source| DeleteError::Kill { id: id.into(), pid: process.pid, source };
    let pidfd = match pidfd::open(process.pid) {
        Err(SysError { errno: nix::errno::Errno::ESRCH, .. }) => return Ok(()),
        other => other.map_err(fails)?,
    };
    if !process.is_alive().map_err(fails)? {
        return Ok(());
    }
    match pidfd::send_signal(&pidfd, nix::sys::signal::Signal::SIGKILL as i32) {
        Err(SysError { errno: nix::errno::Errno::ESRCH, .. }) => return Ok(()),
        other => other.map_err(fails)?,
    }
    killed();
    if pidfd::wait(&pidfd, Some(KILL_DEADLINE_MS)).map_err(fails)? {
        Ok(())
    } else {
        Err(DeleteError::Hangs { id: id.into(), pid: process.pid })
    }
}

/// runtime-spec: a poststop hook that fails is logged, and the next ones run.
fn run_poststop(state: &State) {
    let Some(list) = state.hooks.as_ref().and_then(|hooks| hooks.poststop().as_deref()) else { return };
    let text = state.oci_json(Status::Stopped);
    for hook in list {
        if let Err(error) =
            hooks::run_all(Phase::Poststop, Some(std::slice::from_ref(hook)), &state.bundle, &text)
        {
            tracing::warn!("{}", crate::error::chain(&error));
        }
    }
}
