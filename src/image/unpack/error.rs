//! Why a layer cannot be unpacked.
use super::decode::DecodeError;
use super::path::NameError;
use super::tar::TarError;
use super::worker::{Told, WorkerError};
use super::xattr::AttributeError;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

/// An error of unpacking.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    #[error("cannot decompress the layer")]
    Decode(#[source] DecodeError),
    #[error("layer is no acceptable tar archive")]
    Tar(#[from] TarError),
    #[error("cannot unpack {path:?}")]
    Entry {
        path: String,
        #[source]
        source: EntryError,
    },
    #[error("layer has more than {limit} entries")]
    TooManyEntries { limit: u64 },
    #[error("layer needs more than the {available} bytes that are free")]
    NoSpace { available: u64 },
    #[error("cannot prepare the unpacking")]
    System(#[from] SysError),
    /// What the unpacking process has said.
    #[error(transparent)]
    Told(Told),
    #[error("cannot unpack in a process apart")]
    Worker(#[from] WorkerError),
}

/// What is wrong with one entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("{0}")]
    Name(NameError),
    #[error("{0}")]
    Attribute(AttributeError),
    #[error("it would replace the layer's root directory")]
    Root,
    #[error("its parent {ancestor:?} is no directory")]
    NotADirectory { ancestor: String },
    #[error("a whiteout must be an empty file")]
    Whiteout,
    #[error("it is the device 0:0, which would hide files of other layers")]
    WhiteoutDevice,
    #[error("its link target is invalid")]
    Target,
    #[error("its link target leads out of the layer")]
    TargetEscapes,
    #[error("it is a hard link to {target:?}, which is a directory")]
    LinkToDirectory { target: String },
    #[error("it is a hard link to {target:?}, which is not there")]
    LinkWithoutTarget { target: String },
    #[error("it is a hard link to {target:?}, which comes after it or is the link itself")]
    LinkBeforeTarget { target: String },
    #[error("it is a hard link to {target:?} of a layer below, which is no regular file")]
    LinkToSpecial { target: String },
    #[error("the names of the layer's directories take more than {limit} bytes")]
    TooManyNames { limit: u64 },
    #[error(transparent)]
    System(#[from] SysError),
}

impl Kind for UnpackError {
    fn kind(&self) -> ErrorKind {
        match self {
            UnpackError::Decode(source) => source.kind(),
            UnpackError::Tar(_) => ErrorKind::Corrupt,
            UnpackError::Entry { source: EntryError::System(source), .. } | UnpackError::System(source) => {
                source.kind()
            }
            UnpackError::Entry { source: EntryError::TooManyNames { .. }, .. } => ErrorKind::Exhausted,
            UnpackError::Entry { .. } => ErrorKind::Corrupt,
            UnpackError::TooManyEntries { .. } | UnpackError::NoSpace { .. } => ErrorKind::Exhausted,
            UnpackError::Told(told) => told.kind(),
            UnpackError::Worker(source) => source.kind(),
        }
    }
}
