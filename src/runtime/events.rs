//! What happens to a running container: figures at intervals, and running out of memory.
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::cgroup::stats::Stats;
use super::cgroup::{self, Cgroup, Oom};
use super::state::{State, StateError, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, pidfd};

/// One thing that happened.
#[derive(Debug)]
pub enum Event {
    /// An interval has passed.
    Stats(Box<Stats>),
    /// The container ran out of memory.
    Oom,
}

/// Why the events of a container cannot be followed; callers match the first text.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// It does not run.
    #[error("container with id {id} is not running")]
    NotRunning {
        /// Which.
        id: String,
    },
    /// Its record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its cgroups could not be read.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// A call failed.
    #[error("waiting for events")]
    System(#[from] SysError),
    /// The events could not be passed on.
    #[error("passing on events")]
    Tell(#[source] std::io::Error),
}

impl Kind for EventsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotRunning { .. } => ErrorKind::WrongState,
            Self::State(source) => source.kind(),
            Self::Cgroup(source) => source.kind(),
            Self::System(source) => source.kind(),
            Self::Tell(_) => ErrorKind::System,
        }
    }
}

/// The figures of now.
///
/// # Errors
/// [`EventsError::NotRunning`], and those of reading.
pub fn stats(state_root: &Path, id: &str) -> Result<Stats, EventsError> {
    Ok(Cgroup::open(&alive(state_root, id)?.cgroup)?.stats()?)
}

/// Calls `tell` for each event until the container ends.
///
/// # Errors
/// [`EventsError::NotRunning`], those of reading and of `tell`.
pub fn follow(
    state_root: &Path,
    id: &str,
    interval: Duration,
    mut tell: impl FnMut(Event) -> std::io::Result<()>,
) -> Result<(), EventsError> {
    let state = alive(state_root, id)?;
    let not_running = || EventsError::NotRunning { id: id.into() };
    let init = state.init.ok_or_else(not_running)?;
    let process = pidfd::open(init.pid)?;
    // Only now the number cannot go to another process any more.
    if !init.is_alive()? {
        return Err(not_running());
    }
    let cgroup = Cgroup::open(&state.cgroup)?;
    let mut watch = match cgroup.watch_oom() {
        // A rootless container without a memory cgroup has figures still.
        Err(cgroup::Error::None { .. }) => None,
        other => Some(other?),
    };
    let mut next = Instant::now() + interval;
    loop {
        let mut fds = vec![PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        fds.extend(watch.as_ref().map(|watch| PollFd::new(watch.as_fd(), watch.interest())));
        let left = next.saturating_duration_since(Instant::now());
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", "events")(errno).into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        let ended = ready.first() == Some(&true);
        // The kernel counts what killed it before its end, but on v2 tells it up to 10 ms later (cgroup_file_notify):
        // so a last look.
        if (ended || ready.get(1) == Some(&true))
            && let Some(seen) = watch.as_mut()
        {
            match seen.look()? {
                Oom::Happened(count) => {
                    (0..count).try_for_each(|_| tell(Event::Oom)).map_err(EventsError::Tell)?;
                }
                Oom::Nothing => {}
                Oom::Gone => watch = None,
            }
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            tell(Event::Stats(Box::new(cgroup.stats()?))).map_err(EventsError::Tell)?;
            next = Instant::now() + interval;
        }
    }
}

fn alive(state_root: &Path, id: &str) -> Result<State, EventsError> {
    let state = State::load(state_root, id)?;
    match state.status(state_root)? {
        Status::Creating | Status::Stopped => Err(EventsError::NotRunning { id: id.into() }),
        Status::Created | Status::Running | Status::Paused => Ok(state),
    }
}
