//! Handing the seccomp notification descriptor to the agent that the configuration names.
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::value::RawValue;

use super::security::seccomp::Listener;
use super::state::{ProcessId, State, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, pidfd, socket};

/// Why the agent did not get the descriptor.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A rule notifies, and the configuration names no agent.
    #[error("the seccomp profile notifies, but linux.seccomp.listenerPath is not set")]
    NoListener,
    /// The process's descriptor.
    #[error("taking the seccomp listener from the container's process")]
    Fetch(#[source] SysError),
    /// The agent's socket.
    #[error("sending the seccomp listener to linux.seccomp.listenerPath {path}")]
    Send {
        /// Where.
        path: String,
        /// The call.
        #[source]
        source: SysError,
    },
}

impl Kind for NotifyError {
    fn kind(&self) -> ErrorKind {
        match self {
            NotifyError::NoListener => ErrorKind::InvalidInput,
            NotifyError::Fetch(source) | NotifyError::Send { source, .. } => source.kind(),
        }
    }
}

/// How long a process may take from announcing its filter to having loaded it. On a starved machine a wait for RCU alone was
/// seen to take 10 s.
const LOAD_MS: u32 = 60_000;

/// Takes the descriptor of a filter that `process` announced and is about to load: such a filter keeps the process
/// from sending it. The process then stops at its next call until somebody answers.
pub fn fetch(process: Option<ProcessId>, number: i32) -> Result<OwnedFd, NotifyError> {
    let ended = || SysError::on("pidfd_getfd", number.to_string())(Errno::ESRCH);
    let take = || {
        let process = process.ok_or_else(ended)?;
        let pidfd = pidfd::open(process.pid)?;
        // Only now the number cannot go to another process any more.
        if !process.is_alive()? {
            return Err(ended());
        }
        for _ in 0..LOAD_MS {
            match pidfd::descriptor(&pidfd, number) {
                // Loading it makes no event that we could wait for; the end of the process does.
                Err(SysError { errno: Errno::EBADF, .. }) if !pidfd::wait(&pidfd, Some(1))? => {}
                taken => return taken,
            }
        }
        Err(SysError::on("pidfd_getfd", number.to_string())(Errno::ETIMEDOUT))
    };
    take().map_err(NotifyError::Fetch)
}

/// Sends the descriptor with the container process state (runtime-spec, "The Container Process State").
pub fn send(
    listener: Option<&Listener>,
    state: &State,
    status: Status,
    pid: Pid,
    fd: &OwnedFd,
) -> Result<(), NotifyError> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct ProcessState<'a> {
        oci_version: &'a str,
        fds: [&'static str; 1],
        pid: i32,
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata: Option<&'a str>,
        state: &'a RawValue,
    }
    let listener = listener.ok_or(NotifyError::NoListener)?;
    let text = String::from_utf8_lossy(&state.oci_json(status)).into_owned();
    // The state and a few strings always have a JSON form.
    let raw = RawValue::from_string(text).unwrap_or_default();
    let message = ProcessState {
        oci_version: &state.oci_version,
        fds: ["seccompFd"],
        pid: pid.as_raw(),
        metadata: listener.metadata.as_deref(),
        state: &raw,
    };
    let bytes = serde_json::to_vec(&message).unwrap_or_default();
    socket::connect_stream(&listener.path)
        .and_then(|stream| socket::send(&stream, &bytes, &[fd.as_fd()]))
        .map_err(|source| NotifyError::Send { path: listener.path.display().to_string(), source })
}
