//! Handing the seccomp notification descriptor to the agent that the configuration names.
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;
use serde::Serialize;
use serde_json::value::RawValue;

use super::security::seccomp::Listener;
use super::state::{State, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, socket};

/// Why the agent did not get the descriptor.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// A rule notifies, and the configuration names no agent.
    #[error("the seccomp profile notifies, but linux.seccomp.listenerPath is not set")]
    NoListener,
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
            NotifyError::Send { source, .. } => source.kind(),
        }
    }
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
