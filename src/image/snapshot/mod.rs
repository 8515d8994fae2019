//! From unpacked layers to one writable tree.
//!
//! A snapshot driver stacks directories and returns a mount that is attached nowhere: whoever sets up a
//! container attaches it in the container's own mount namespace, and no other process ever sees it. The
//! kernel removes it with its last descriptor.
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::root::Root;
use nix::errno::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub mod overlay;

/// Why layers cannot be stacked or looked into.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("an overlay needs at least one layer below")]
    NoLayers,
    #[error("{path:?} cannot be part of an overlay")]
    Layer {
        path: PathBuf,
        #[source]
        source: SysError,
    },
    #[error("cannot mount an overlay of {layers} layers")]
    Mount {
        layers: usize,
        #[source]
        source: SysError,
    },
    #[error("cannot read /{} of the image", path.display())]
    Lookup {
        path: PathBuf,
        #[source]
        source: SysError,
    },
}

impl Kind for SnapshotError {
    fn kind(&self) -> ErrorKind {
        match self {
            SnapshotError::NoLayers => ErrorKind::InvalidInput,
            SnapshotError::Layer { source, .. }
            | SnapshotError::Mount { source, .. }
            | SnapshotError::Lookup { source, .. } => source.kind(),
        }
    }
}

/// The directories of a snapshot, all of them the store's or the engine's own paths.
#[derive(Debug, Clone, Copy)]
pub struct Stack<'a> {
    /// Unpacked layers, the top one first; they are never written to.
    pub lowers: &'a [PathBuf],
    /// What the container writes.
    pub upper: &'a Path,
    /// An empty directory on the file system of `upper`.
    pub work: &'a Path,
}

/// How layers are stacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Driver {
    /// overlayfs over one directory for each layer.
    #[default]
    Overlay,
}

impl Driver {
    /// Mounts `stack`, attached nowhere.
    pub fn mount(self, stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
        match self {
            Driver::Overlay => overlay::mount(stack),
        }
    }
}

/// Reads the file `path` of a mounted tree, `None` if it is not there. Symbolic links are followed as the
/// container would, with the tree as root.
///
/// # Errors
/// [`SnapshotError::Lookup`], also for a file of more than `max` bytes and for what is no regular file.
pub fn lookup(mount: BorrowedFd<'_>, path: &Path, max: usize) -> Result<Option<Vec<u8>>, SnapshotError> {
    let failed =
        |source| SnapshotError::Lookup { path: path.strip_prefix("/").unwrap_or(path).to_owned(), source };
    let fd = mount
        .try_clone_to_owned()
        .map_err(|error| failed(SysError::io("fcntl", "F_DUPFD_CLOEXEC")(error)))?;
    match Root::new(fd).read_file_bounded(path, max) {
        Ok(content) => Ok(Some(content)),
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
