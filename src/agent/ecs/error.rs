//! Why the ECS door cannot serve, and what it answers to wrong requests.
use super::definition::Invalid;
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use std::path::PathBuf;

/// An error of the door itself.
#[derive(Debug, thiserror::Error)]
pub enum EcsError {
    /// There are as many as are kept.
    #[error("there are {limit} {what} already, which is the limit")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: usize,
    },
    /// The file of keys is not for its owner alone, or is damaged.
    #[error("credentials {}: {reason}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The kernel does not say how much memory there is.
    #[error("/proc/meminfo has no MemTotal")]
    NoMemoryTotal,
    /// A value of the configuration is wrong.
    #[error("configuration: ecs.{key} {value:?} {reason}")]
    Config {
        /// Which.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl Kind for EcsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Full { .. } => ErrorKind::Exhausted,
            Self::Credentials { .. } => ErrorKind::PermissionDenied,
            Self::NoMemoryTotal => ErrorKind::System,
            Self::Config { .. } => ErrorKind::InvalidInput,
            Self::Engine(error) => error.kind(),
            Self::Sys(error) => error.kind(),
        }
    }
}

/// What is answered to a request that cannot be served: the name of an exception of the API, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Which exception.
    pub exception: Exception,
    /// For people.
    pub message: String,
}

/// Names of exceptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// The request asks for what is not there or not done.
    Client,
    /// A parameter is wrong.
    InvalidParameter,
    /// No such cluster.
    ClusterNotFound,
    /// Something failed here.
    Server,
    /// No such operation.
    UnknownOperation,
    /// The body is not what the operation takes.
    Serialization,
    /// There is no signature.
    MissingAuthenticationToken,
    /// The signature's form is wrong.
    IncompleteSignature,
    /// The key is not known.
    UnrecognizedClient,
    /// The signature does not fit.
    InvalidSignature,
    /// The same client token came with another request.
    Conflict,
    /// A limit is reached.
    LimitExceeded,
}

impl Exception {
    /// As in `__type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "ClientException",
            Self::InvalidParameter => "InvalidParameterException",
            Self::ClusterNotFound => "ClusterNotFoundException",
            Self::Server => "ServerException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Serialization => "SerializationException",
            Self::MissingAuthenticationToken => "MissingAuthenticationTokenException",
            Self::IncompleteSignature => "IncompleteSignatureException",
            Self::UnrecognizedClient => "UnrecognizedClientException",
            Self::InvalidSignature => "InvalidSignatureException",
            Self::Conflict => "ConflictException",
            Self::LimitExceeded => "LimitExceededException",
        }
    }

    /// HTTP status: services of this protocol answer 400 to every error of the client.
    pub fn status(self) -> u16 {
        if self == Self::Server { 500 } else { 400 }
    }
}

impl ApiError {
    /// A `ClientException`.
    pub fn client(message: impl Into<String>) -> Self {
        Self { exception: Exception::Client, message: message.into() }
    }

    /// An `InvalidParameterException`.
    pub fn parameter(message: impl Into<String>) -> Self {
        Self { exception: Exception::InvalidParameter, message: message.into() }
    }

    /// A `ClusterNotFoundException`.
    pub fn no_cluster() -> Self {
        Self { exception: Exception::ClusterNotFound, message: "Cluster not found.".to_owned() }
    }
}

impl From<EcsError> for ApiError {
    fn from(error: EcsError) -> Self {
        match error {
            EcsError::Full { .. } => {
                Self { exception: Exception::LimitExceeded, message: crate::error::chain(&error) }
            }
            _ => Self { exception: Exception::Server, message: crate::error::chain(&error) },
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::client(invalid.to_string())
    }
}
