//! Why a request failed, and the gRPC code that says so.
use crate::agent::pull::PullFailure;
use crate::agent::streaming::StreamError;
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind, chain};
use crate::image::reference::ReferenceError;
use crate::image::store::StoreError;
use crate::sys::SysError;
use tonic::{Code, Status};

/// An error of one request; its fields name what the request named.
#[derive(Debug, thiserror::Error)]
pub enum CriError {
    /// A field without which the request means nothing.
    #[error("the request has no {field}")]
    Missing {
        /// Its name in the definition of CRI.
        field: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("{field} {value:?}: {reason}")]
    Invalid {
        /// Its name in the definition of CRI.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that corten does not do.
    #[error("{what}: {reason}")]
    NotBuilt {
        /// The call or field.
        what: &'static str,
        /// Why, or what to do instead.
        reason: &'static str,
    },
    /// No pod has this id.
    #[error("no such pod sandbox: {given}")]
    NoSandbox {
        /// What was given.
        given: String,
    },
    /// No container of a pod has this id.
    #[error("no such container: {given}")]
    NoContainer {
        /// What was given.
        given: String,
    },
    /// Another pod or container has the same name, and is not what was asked for.
    #[error("{kind} {id} has the same metadata, and {difference}; remove it or raise the attempt")]
    Exists {
        /// `pod sandbox` or `container`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Why it is not returned.
        difference: &'static str,
    },
    /// A pod or container is not in the state that the call needs.
    #[error("{kind} {id} is {state}; {needed}")]
    State {
        /// `pod sandbox` or `container`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// What it is.
        state: &'static str,
        /// What it must be.
        needed: &'static str,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A pull.
    #[error(transparent)]
    Pull(#[from] PullFailure),
    /// The image store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The name of an image.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A stream, or a command that is run for its output.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// That of a request that asked for the same.
    #[error(transparent)]
    Shared(std::sync::Arc<CriError>),
    /// The request's work ended without a word.
    #[error("the request was broken off")]
    Lost,
    /// What a record keeps for this door cannot be read or written.
    #[error("what is kept of {id}")]
    Kept {
        /// Id of the pod or container.
        id: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// The result of one request.
pub type Result<T> = std::result::Result<T, CriError>;

impl Kind for CriError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Invalid { .. } => ErrorKind::InvalidInput,
            Self::NotBuilt { .. } => ErrorKind::Unsupported,
            Self::NoSandbox { .. } | Self::NoContainer { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::AlreadyExists,
            Self::State { .. } => ErrorKind::WrongState,
            Self::Engine(error) => error.kind(),
            Self::Pull(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Reference(error) => error.kind(),
            Self::Stream(error) => error.kind(),
            Self::Sys(error) => error.kind(),
            Self::Shared(error) => error.kind(),
            Self::Lost => ErrorKind::System,
            Self::Kept { .. } => ErrorKind::Corrupt,
        }
    }
}

impl From<CriError> for Status {
    fn from(error: CriError) -> Self {
        let code = match (origin(&error), error.kind()) {
            (_, ErrorKind::Exhausted) => Code::ResourceExhausted,
            (Origin::Host, _) => Code::Internal,
            (Origin::Program, ErrorKind::NotFound | ErrorKind::PermissionDenied) => Code::InvalidArgument,
            (_, kind) => code(kind),
        };
        Self::new(code, chain(&error))
    }
}

/// What an error speaks of: clients take NOT_FOUND for a pod, container or image that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// What the request named.
    Request,
    /// The program that is to be run.
    Program,
    /// A system call, whose errno says nothing about what the client asked for.
    Host,
}

fn origin(error: &CriError) -> Origin {
    let of_engine = |error: &EngineError| match error {
        EngineError::Sys(_) => Origin::Host,
        EngineError::Start { .. } => Origin::Program,
        _ => Origin::Request,
    };
    match error {
        CriError::Sys(_) | CriError::Stream(StreamError::Sys(_)) => Origin::Host,
        CriError::Engine(error) | CriError::Stream(StreamError::Engine(error)) => of_engine(error),
        CriError::Shared(error) => origin(error),
        _ => Origin::Request,
    }
}

/// The code for a kind of error (google/rpc/code.proto).
pub fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::WrongState => Code::FailedPrecondition,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Exhausted => Code::ResourceExhausted,
        ErrorKind::Corrupt => Code::DataLoss,
        ErrorKind::Network => Code::Unavailable,
        ErrorKind::TimedOut => Code::DeadlineExceeded,
        ErrorKind::System => Code::Internal,
    }
}

/// [`CriError::Invalid`] as a result.
pub fn invalid<T>(field: &'static str, value: impl Into<String>, reason: &'static str) -> Result<T> {
    Err(CriError::Invalid { field, value: value.into(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::error::Failure;

    #[test]
    fn codes_follow_kinds() {
        let status: Status = CriError::NoSandbox { given: "abc".into() }.into();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such pod sandbox: abc"));
        let engine = EngineError::NoSuchContainer { given: "abc".into() };
        assert_eq!(Status::from(CriError::from(engine)).code(), Code::NotFound);
        let errno = SysError::on("open", "/x")(nix::errno::Errno::ENOENT);
        assert_eq!(Status::from(CriError::from(errno)).code(), Code::Internal);
        let failure = Failure { kind: ErrorKind::NotFound, exit_code: 127, chain: "no program".into() };
        let start = CriError::Shared(std::sync::Arc::new(EngineError::Start { failure }.into()));
        assert_eq!(Status::from(start).code(), Code::InvalidArgument);
        let built = CriError::NotBuilt { what: "CheckpointContainer", reason: "no" };
        assert_eq!(Status::from(built).code(), Code::Unimplemented);
    }
}
