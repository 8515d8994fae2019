//! Why the agent cannot serve.
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

/// An error of the agent itself; those of requests are told in their protocol's form.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl Kind for AgentError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(error) => error.kind(),
            Self::Sys(error) => error.kind(),
        }
    }
}
