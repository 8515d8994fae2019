//! Freezing and thawing a container.
use std::path::Path;

use super::cgroup::{self, Cgroup};
use super::state::{State, StateError, Status};
use crate::error::{ErrorKind, Kind};

/// Why a container was not frozen or thawed; callers match the texts.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Its record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// Only what runs can be paused.
    #[error("container not running")]
    NotRunning,
    /// Only what is paused can be resumed.
    #[error("container not paused")]
    NotPaused,
    /// The freezer failed.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
}

impl Kind for PauseError {
    fn kind(&self) -> ErrorKind {
        match self {
            PauseError::State(source) => source.kind(),
            PauseError::NotRunning | PauseError::NotPaused => ErrorKind::WrongState,
            PauseError::Cgroup(source) => source.kind(),
        }
    }
}

/// Freezes every process of a running or created container.
pub fn pause(state_root: &Path, id: &str) -> Result<(), PauseError> {
    let state = State::load(state_root, id)?;
    match state.status(state_root)? {
        Status::Running | Status::Created => Ok(Cgroup::open(&state.cgroup)?.freeze()?),
        _ => Err(PauseError::NotRunning),
    }
}

/// Thaws a paused container.
pub fn resume(state_root: &Path, id: &str) -> Result<(), PauseError> {
    let state = State::load(state_root, id)?;
    match state.status(state_root)? {
        Status::Paused => Ok(Cgroup::open(&state.cgroup)?.thaw()?),
        _ => Err(PauseError::NotPaused),
    }
}
