//! What can go wrong with networks.
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

/// An error of a network; its fields name the link, address, port or plugin.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl Kind for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Sys(error) => error.kind(),
        }
    }
}
