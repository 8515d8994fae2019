//! Why the store cannot do what it was asked.
use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::reference::{Reference, ReferenceError};
use crate::image::unpack::UnpackError;
use crate::sys::SysError;
use std::path::PathBuf;

/// An error of the image store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call on the store's own files failed.
    #[error("the image store could not complete an operation on its files")]
    System(#[from] SysError),
    /// One of the store's own records is no JSON of the expected shape.
    #[error("record {path:?} of the image store is damaged")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    /// A record was written by a newer corten.
    #[error("record {path:?} has version {version}, and this corten knows only version {known}")]
    RecordVersion { path: PathBuf, version: u32, known: u32 },
    /// A record or a JSON blob is larger than any honest one.
    #[error("{path:?} has {size} bytes: at most {limit} are allowed")]
    TooLarge { path: PathBuf, size: u64, limit: u64 },
    /// A blob that an image needs is absent.
    #[error("blob {digest} is not in the image store")]
    NoBlob { digest: Digest },
    /// A layer that an image needs is absent.
    #[error("layer {chain_id} is not unpacked in the image store: pull or load the image again")]
    NoLayer { chain_id: Digest },
    /// More or fewer bytes than the descriptor promises.
    #[error("blob {digest} has {actual} bytes, but its descriptor says {expected}")]
    BlobSize { digest: Digest, expected: u64, actual: u64 },
    /// Content does not have the digest that it is named by.
    #[error("content named {expected} has digest {actual}")]
    BlobDigest { expected: Digest, actual: Digest },
    /// An unpacked layer does not have the diffID that the image's configuration promises.
    #[error("the unpacked layer has diffID {actual}, but the image configuration says {expected}")]
    DiffId { expected: Digest, actual: Digest },
    /// A layer could not be unpacked.
    #[error("cannot unpack the layer with diffID {diff_id}")]
    Unpack {
        diff_id: Digest,
        #[source]
        source: Box<UnpackError>,
    },
    /// No image goes by that name or ID.
    #[error("no image is known as {name:?}")]
    NoImage { name: String },
    /// Neither a name nor an ID.
    #[error("{name:?} names no image")]
    Name {
        name: String,
        #[source]
        source: ReferenceError,
    },
    /// A shortened ID that begins several images' IDs.
    #[error("{prefix:?} begins the IDs of several images")]
    Ambiguous { prefix: String },
    /// The name stays with the image that has it.
    #[error("the name {name} is another image's")]
    NameTaken { name: Box<Reference> },
    /// Containers still use it.
    #[error("image {name} is used by container {}", holders.join(", "))]
    InUse { name: String, holders: Vec<String> },
    /// A repair needs the store for itself.
    #[error("a pull, a load or another repair is using the image store: try again when it has ended")]
    Busy,
    /// `rmi ID` of an image with several names.
    #[error("image {id} has several names ({}): remove them one by one, or force", names.join(", "))]
    SeveralNames { id: Digest, names: Vec<String> },
    /// The holder of a lease becomes a file name.
    #[error("{holder:?} cannot hold an image: want letters, digits, '_', '.' and '-'")]
    Holder { holder: String },
    /// A stored manifest or configuration cannot be read.
    #[error("the {what} {digest} cannot be used")]
    Manifest {
        what: &'static str,
        digest: Digest,
        #[source]
        source: crate::image::manifest::ManifestError,
    },
}

impl Kind for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            StoreError::System(source) => source.kind(),
            StoreError::RecordVersion { .. } => ErrorKind::Unsupported,
            StoreError::Record { .. }
            | StoreError::TooLarge { .. }
            | StoreError::BlobSize { .. }
            | StoreError::BlobDigest { .. }
            | StoreError::DiffId { .. } => ErrorKind::Corrupt,
            StoreError::NoBlob { .. } | StoreError::NoLayer { .. } | StoreError::NoImage { .. } => {
                ErrorKind::NotFound
            }
            StoreError::Unpack { source, .. } => source.kind(),
            StoreError::Name { .. } | StoreError::Ambiguous { .. } | StoreError::Holder { .. } => {
                ErrorKind::InvalidInput
            }
            StoreError::NameTaken { .. } => ErrorKind::AlreadyExists,
            StoreError::InUse { .. } | StoreError::SeveralNames { .. } | StoreError::Busy => {
                ErrorKind::WrongState
            }
            StoreError::Manifest { source, .. } => source.kind(),
        }
    }
}
