//! Kinds of errors: what a caller can do about a failure, whichever module it came from.

use crate::sys::SysError;
use crate::sys::program::ProgramError;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What went wrong, in the terms in which a caller decides what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The named object does not exist.
    NotFound,
    /// An object of that name is there already.
    AlreadyExists,
    /// The caller's input is malformed or contradicts itself.
    InvalidInput,
    /// The object is not in the state that the operation needs.
    WrongState,
    /// The host or the registry refuses the caller.
    PermissionDenied,
    /// This kernel, host or build cannot do it.
    Unsupported,
    /// A limit or a resource is exhausted.
    Exhausted,
    /// Content does not match its digest, size or format.
    Corrupt,
    /// A remote side could not be reached or broke off.
    Network,
    /// A deadline passed.
    TimedOut,
    /// A system call failed for a reason that is none of the above.
    System,
}

/// An error that knows its [`ErrorKind`]; every module's error enum implements it.
pub trait Kind: std::error::Error {
    /// The kind of this error.
    fn kind(&self) -> ErrorKind;
}

/// The whole chain of an error on one line, outermost first: `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

impl Kind for ProgramError {
    fn kind(&self) -> ErrorKind {
        match self {
            ProgramError::System(error) => error.kind(),
            ProgramError::Deadline { .. } => ErrorKind::TimedOut,
            ProgramError::TooMuchOutput { .. } => ErrorKind::Exhausted,
        }
    }
}

impl Kind for SysError {
    fn kind(&self) -> ErrorKind {
        match self.errno {
            Errno::ENOENT | Errno::ESRCH => ErrorKind::NotFound,
            Errno::EEXIST => ErrorKind::AlreadyExists,
            Errno::EACCES | Errno::EPERM => ErrorKind::PermissionDenied,
            Errno::ENOSYS | Errno::EOPNOTSUPP => ErrorKind::Unsupported,
            Errno::ENOMEM | Errno::ENOSPC | Errno::EMFILE | Errno::ENFILE | Errno::EAGAIN | Errno::EDQUOT => {
                ErrorKind::Exhausted
            }
            Errno::ETIMEDOUT => ErrorKind::TimedOut,
            _ => ErrorKind::System,
        }
    }
}
