//! New images: a layer on top of another image's, or a root file system alone.
//!
//! A new layer is a file first, with its digest and diffID; then it is unpacked from that file as a pulled one would
//! be. So whoever pulls the image gets the tree that is here, and a stream that no reader takes never becomes an
//! image.

use crate::error::{ErrorKind, Kind};
use crate::image::diff::DiffError;
use crate::image::digest::Digest;
use crate::image::manifest::ManifestError;
use crate::image::store::StoreError;
use crate::image::unpack::decode::DecodeError;
use crate::sys::SysError;

mod change;
mod draft;
mod import;
mod layer;

pub use change::{ChangeError, Instruction};
pub use draft::{Base, Description, Draft};
pub use import::{Import, import};
pub use layer::{NewLayer, Packer};

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot write the new layer down")]
    Diff(#[from] DiffError),
    #[error("the new layer takes more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("cannot read the root file system")]
    Read(#[source] SysError),
    #[error("cannot decompress the root file system")]
    Decode(#[source] DecodeError),
    #[error(
        "the root file system is compressed with {name}, which is not supported: use gzip, zstd or a plain tar archive"
    )]
    Compression { name: &'static str },
    #[error("the root file system is empty: a tar archive has an end mark at least")]
    Empty,
    #[error("cannot keep the new layer")]
    Scratch(#[source] SysError),
    #[error("the configuration {digest} of the image below cannot be used")]
    Config {
        digest: Digest,
        #[source]
        source: serde_json::Error,
    },
    #[error("the image below cannot be built upon")]
    Base(#[from] ManifestError),
    #[error("{field:?} in the configuration of the image below is not what it must be")]
    Field { field: &'static str },
    #[error("cannot store the image")]
    Store(#[from] StoreError),
}

impl Kind for BuildError {
    fn kind(&self) -> ErrorKind {
        match self {
            BuildError::Diff(source) => source.kind(),
            BuildError::TooLarge { .. } => ErrorKind::Exhausted,
            BuildError::Read(source) | BuildError::Scratch(source) => source.kind(),
            BuildError::Decode(source) => source.kind(),
            BuildError::Compression { .. } => ErrorKind::Unsupported,
            BuildError::Empty => ErrorKind::InvalidInput,
            BuildError::Config { .. } | BuildError::Field { .. } => ErrorKind::Corrupt,
            BuildError::Base(source) => source.kind(),
            BuildError::Store(source) => source.kind(),
        }
    }
}

type Result<T> = std::result::Result<T, BuildError>;
