//! Signals to a container.
use std::path::Path;

use nix::sys::signal::Signal;

use super::cgroup::{self, Cgroup};
use super::namespaces::flag;
use super::processes;
use super::state::{State, StateDir, StateError, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, pidfd};

/// Why a signal was not sent.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The container's record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It has no process any more; callers match this text.
    #[error("container not running")]
    NotRunning,
    /// The call failed.
    #[error("sending signal {signal} to container {id:?}")]
    System {
        /// Which.
        id: String,
        /// By number.
        signal: i32,
        /// The call.
        #[source]
        source: SysError,
    },
    /// Its cgroup could not be used.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}

impl Kind for KillError {
    fn kind(&self) -> ErrorKind {
        match self {
            KillError::State(source) => source.kind(),
            KillError::NotRunning => ErrorKind::WrongState,
            KillError::System { source, .. } => source.kind(),
            KillError::Cgroup(source) => source.kind(),
        }
    }
}

/// Sends `signal` to init, or with `all` to every process of the container.
pub fn kill(state_root: &Path, id: &str, signal: i32, all: bool) -> Result<(), KillError> {
    let state = State::load(state_root, id)?;
    let status = state.status(state_root)?;
    let fails = |source| KillError::System { id: id.into(), signal, source };
    let own_pid_namespace = state.namespaces & flag::PID != 0;
    if all && (status == Status::Stopped || !own_pid_namespace || signal != libc_sigkill()) {
        return kill_all(&state, signal).map_err(|error| match error {
            KillError::System { source, .. } => fails(source),
            other => other,
        });
    }
    let init = match state.init {
        Some(init) if status != Status::Stopped => init,
        _ => return Err(KillError::NotRunning),
    };
    // Held until the signal is sent: a start that comes meanwhile must not find its program killed.
    let waiting = if own_pid_namespace && status == Status::Created {
        match StateDir::try_open_locked(state_root, id)? {
            Some(dir) if state.status(state_root)? == Status::Created => Some(dir),
            _ => None,
        }
    } else {
        None
    };
    let signal = if waiting.is_some() { ending(signal) } else { signal };
    let pidfd = match pidfd::open(init.pid) {
        Err(SysError { errno: nix::errno::Errno::ESRCH, .. }) => return Err(KillError::NotRunning),
        other => other.map_err(fails)?,
    };
    // Between the look at its start time and the pidfd the number may have gone to another process.
    if !init.is_alive().map_err(fails)? {
        return Err(KillError::NotRunning);
    }
    pidfd::send_signal(&pidfd, signal).map_err(fails)?;
    if signal == libc_sigkill() && status == Status::Paused {
        // A frozen process of v1 dies only when it is thawed.
        Cgroup::open(&state.cgroup)?.thaw()?;
    }
    Ok(())
}

/// What ends a program by default ends a container that has none yet, as with runc; the kernel would keep such a
/// signal from the first process of a PID namespace (pid_namespaces(7)).
fn ending(signal: i32) -> i32 {
    let deadly = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    if deadly.iter().any(|one| *one as i32 == signal) { libc_sigkill() } else { signal }
}

fn libc_sigkill() -> i32 {
    Signal::SIGKILL as i32
}

fn kill_all(state: &State, signal: i32) -> Result<(), KillError> {
    let cgroup = Cgroup::open(&state.cgroup)?;
    if signal == libc_sigkill() && cgroup.exists() {
        return Ok(cgroup.kill_all()?);
    }
    for pid in processes::pids(state)? {
        let sent = pidfd::open(pid).and_then(|pidfd| pidfd::send_signal(&pidfd, signal));
        match sent {
            // It ended meanwhile.
            Err(SysError { errno: nix::errno::Errno::ESRCH, .. }) => {}
            other => {
                other.map_err(|source| KillError::System { id: state.id.clone(), signal, source })?;
            }
        }
    }
    Ok(())
}
