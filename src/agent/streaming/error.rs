//! Why a stream, or a process that is run for one, failed.
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use std::time::Duration;

/// An error of exec, attach or port-forward.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// There are no URLs before the server listens.
    #[error("the streaming server is not open")]
    Closed,
    /// Too many URLs were asked for and not used.
    #[error("{limit} streams have been asked for and not been opened; open them, or wait until they expire")]
    TooManyTokens {
        /// The bound.
        limit: usize,
    },
    /// The process did not end in time, and was killed.
    #[error("the command did not end within {} s and was killed", limit.as_secs_f32())]
    DeadlineExceeded {
        /// What it had.
        limit: Duration,
    },
    /// The task has no network namespace to connect in.
    #[error("task {task} is not running")]
    NotRunning {
        /// Its id.
        task: String,
    },
    /// Nobody listens on the port inside the task.
    #[error("port {port} in task {task}")]
    Connect {
        /// The task's id.
        task: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: SysError,
    },
    /// The container went away while a client was attached, and nobody saw how it ended.
    #[error("the monitor of container {container} is gone")]
    Gone {
        /// Its id.
        container: String,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl Kind for StreamError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::TooManyTokens { .. } => ErrorKind::Exhausted,
            Self::DeadlineExceeded { .. } => ErrorKind::TimedOut,
            Self::Closed | Self::NotRunning { .. } | Self::Gone { .. } => ErrorKind::WrongState,
            Self::Connect { .. } => ErrorKind::Network,
            Self::Engine(error) => error.kind(),
            Self::Sys(error) => error.kind(),
        }
    }
}
