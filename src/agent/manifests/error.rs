//! Why a file of the folder does not become a pod that runs.
use crate::agent::pull::PullFailure;
use crate::engine::EngineError;
use crate::error::{ErrorKind, Kind};
use crate::image::reference::ReferenceError;
use crate::sys::SysError;

/// An error of one file; who tells it names the file.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It cannot be read.
    #[error("cannot read it")]
    Read(#[source] std::io::Error),
    /// Only regular files count.
    #[error("it is no regular file")]
    NotRegular,
    /// No pod is so long.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// It is no YAML, or not of a Pod's form.
    #[error("{field}: {reason} (line {line}, column {column})")]
    Malformed {
        /// Path of the field: `spec.containers[0].ports`.
        field: String,
        /// What is wrong.
        reason: String,
        /// Counted from 1.
        line: u64,
        /// Counted from 1.
        column: u64,
    },
    /// A value that cannot be used.
    #[error("{field}: {reason}")]
    Value {
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name of an image.
    #[error("{field}: image {image:?}")]
    Image {
        /// Path of the field.
        field: String,
        /// What is there.
        image: String,
        /// What is wrong with it.
        #[source]
        source: ReferenceError,
    },
    /// Another file has the pod already.
    #[error("pod {pod} is already that of {file}")]
    Taken {
        /// Namespace and name.
        pod: String,
        /// The other file.
        file: String,
    },
    /// There are more than a machine runs.
    #[error("there are more than {limit} files")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// An image may not be pulled and is not there.
    #[error("image {image} is not in the store, and its imagePullPolicy is Never")]
    Absent {
        /// Which.
        image: String,
    },
    /// An image cannot be pulled.
    #[error("image {image}")]
    Pull {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: PullFailure,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A volume.
    #[error("volume {volume}")]
    Volume {
        /// Its name.
        volume: String,
        /// Why.
        #[source]
        source: SysError,
    },
    /// A path of the host is not what the pod says.
    #[error("volume {volume}: {path} {reason}")]
    HostPath {
        /// Its name.
        volume: String,
        /// The path.
        path: String,
        /// What it is not.
        reason: &'static str,
    },
}

impl ManifestError {
    /// A value of a field that cannot be used.
    pub fn value(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Value { field: field.into(), reason: reason.into() }
    }
}

impl Kind for ManifestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read(source) => crate::agent::error::of_io(source),
            Self::NotRegular
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Value { .. }
            | Self::Image { .. } => ErrorKind::InvalidInput,
            Self::Taken { .. } => ErrorKind::AlreadyExists,
            Self::TooMany { .. } => ErrorKind::Exhausted,
            Self::Absent { .. } => ErrorKind::NotFound,
            Self::Pull { source, .. } => source.kind(),
            Self::Engine(source) => source.kind(),
            Self::Volume { source, .. } => source.kind(),
            Self::HostPath { .. } => ErrorKind::InvalidInput,
        }
    }
}
