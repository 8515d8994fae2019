//! Starting a created container from another process.
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;

use super::hooks::{self, HookError, Phase};
use super::launch::LaunchError;
use super::notify::{self, NotifyError};
use super::protocol::{Channel, ToChild, ToParent};
use super::security::seccomp::Listener;
use super::state::{ProcessId, START_SOCKET, State, StateDir, StateError, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, socket};

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is not in the created state.
    #[error("{}", not_startable(*status))]
    Status {
        /// What it is.
        status: Status,
    },
    /// The container's side failed.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A poststart hook failed; the container was killed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The seccomp agent did not get its descriptor.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// A call failed.
    #[error("starting container {id:?}")]
    System {
        /// Which.
        id: String,
        /// The call.
        #[source]
        source: SysError,
    },
}

/// runc's words.
fn not_startable(status: Status) -> String {
    match status {
        Status::Running => "cannot start an already running container".into(),
        Status::Stopped => "cannot start a container that has stopped".into(),
        other => format!("cannot start a container in the {other} state"),
    }
}

impl Kind for StartError {
    fn kind(&self) -> ErrorKind {
        match self {
            StartError::State(source) => source.kind(),
            StartError::Status { .. } => ErrorKind::WrongState,
            StartError::Launch(source) => source.kind(),
            StartError::Hook(source) => source.kind(),
            StartError::Notify(source) => source.kind(),
            StartError::System { source, .. } => source.kind(),
        }
    }
}

/// Starts the program of a created container.
pub fn start(state_root: &Path, id: &str) -> Result<(), StartError> {
    let dir = StateDir::open_locked(state_root, id)?;
    let state = State::read(&dir)?.ok_or_else(|| StateError::NotFound { id: id.into() })?;
    let status = state.status(state_root)?;
    if status != Status::Created {
        return Err(StartError::Status { status });
    }
    let channel = match socket::connect_at(dir.as_dir(), START_SOCKET) {
        Ok(socket) => Channel::new(socket),
        // Init ended between the look at it and now.
        Err(SysError { errno: Errno::ECONNREFUSED, .. }) => {
            return Err(StartError::Status { status: Status::Stopped });
        }
        Err(source) => return Err(StartError::System { id: id.into(), source }),
    };
    dir.remove_start_socket()?;
    channel.send(&ToChild::Start, None).map_err(LaunchError::System)?;
    await_exec(&channel, state.init, |fd| -> Result<(), StartError> {
        let spec = State::load_spec(state_root, id)?;
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let listener = profile.and_then(Listener::of);
        let init = state.init.map_or(nix::unistd::Pid::from_raw(0), ProcessId::pid);
        Ok(notify::send(listener.as_ref(), &state, Status::Created, init, fd)?)
    })?;
    run_poststart(&state, state_root)
}

/// Waits until the process has executed its program, which closes its side of the channel, or told why not.
/// `listener` gets the descriptor of a seccomp filter that notifies.
pub(super) fn await_exec<E: From<LaunchError> + From<NotifyError>>(
    channel: &Channel,
    process: Option<ProcessId>,
    listener: impl Fn(&OwnedFd) -> Result<(), E>,
) -> Result<(), E> {
    loop {
        match channel.receive::<ToParent>().map_err(LaunchError::System)? {
            None => return Ok(()),
            Some((ToParent::Failed(failure), _)) => return Err(LaunchError::Container(failure).into()),
            Some((ToParent::Listener, Some(fd))) => listener(&fd)?,
            Some((ToParent::ListenerAt { number }, _)) => listener(&notify::fetch(process, number)?)?,
            Some((ToParent::Log { level, message }, _)) => log(&level, &message),
            Some(_) => {}
        }
    }
}

/// A record of init's, in our own log.
pub(super) fn log(level: &str, message: &str) {
    match level {
        "warn" => tracing::warn!("{message}"),
        "info" => tracing::info!("{message}"),
        _ => tracing::debug!("{message}"),
    }
}

/// runtime-spec 1.3: a poststart hook that fails fails the start, and the container is ended.
pub(super) fn run_poststart(state: &State, state_root: &Path) -> Result<(), StartError> {
    let Some(hooks) = state.hooks.as_ref().and_then(|hooks| hooks.poststart().as_deref()) else {
        return Ok(());
    };
    let text = state.oci_json(state.status(state_root)?);
    hooks::run_all(Phase::Poststart, Some(hooks), &state.bundle, &text).map_err(|error| {
        if let Some(init) = state.init.filter(|init| init.is_alive().unwrap_or(false)) {
            // It may have ended just now.
            let _ = nix::sys::signal::kill(init.pid(), nix::sys::signal::Signal::SIGKILL);
        }
        StartError::Hook(error)
    })
}
