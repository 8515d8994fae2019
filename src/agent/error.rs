//! Why the agent cannot serve.
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind};
use crate::image::store::StoreError;
use crate::sys::SysError;
use std::path::PathBuf;

use super::config::ConfigError;

/// An error of the agent itself; those of requests are told in their protocol's form.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The image store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A second agent on the same files.
    #[error("another agent runs on {}", root.display())]
    Busy {
        /// Where images and containers are.
        root: PathBuf,
    },
    /// A door that cannot be opened.
    #[error("cannot open the door {door} at {address}")]
    Listen {
        /// Which.
        door: &'static str,
        /// Path of its socket, folder, or address and port.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The asynchronous runtime cannot be started, or a signal cannot be waited for.
    #[error("cannot start to serve")]
    Runtime(#[source] std::io::Error),
    /// A door that ended though nobody asked for that.
    #[error("the door {door} ended by itself")]
    Closed {
        /// Which.
        door: &'static str,
    },
    /// The ECS door.
    #[error(transparent)]
    Ecs(#[from] super::ecs::EcsError),
}

impl Kind for AgentError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(error) => error.kind(),
            Self::Engine(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Sys(error) => error.kind(),
            Self::Busy { .. } => ErrorKind::WrongState,
            Self::Listen { source, .. } | Self::Runtime(source) => of_io(source),
            Self::Ecs(error) => error.kind(),
            Self::Closed { .. } => ErrorKind::System,
        }
    }
}

/// The kind of an error of the standard library.
pub fn of_io(error: &std::io::Error) -> ErrorKind {
    match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        std::io::ErrorKind::TimedOut => ErrorKind::TimedOut,
        _ => ErrorKind::System,
    }
}
