//! From unpacked layers to one writable tree.
//!
//! A snapshot driver stacks directories and returns a mount that is attached nowhere: whoever sets up a
//! container attaches it in the container's own mount namespace, and no other process ever sees it. The
//! kernel removes it with its last descriptor.
//!
//! The contract, which `tests.rs` holds every driver to:
//!
//! * The tree is that of the layers merged, the top one first: of one name the topmost counts, directories of one name
//!   are one directory, a character device 0:0 hides a name in the layers below it, and the attribute
//!   `trusted.overlay.opaque=y` (`user.overlay.opaque` in a user namespace) what a directory has there. Neither shows.
//! * Content, type, owner, mode, modification time, links, devices and extended attributes are the layers'.
//! * The layers are never written to, and any number of snapshots stands on them at the same time.
//! * What is written lies under `upper` alone, and the next mount of the same snapshot has it. A snapshot is gone when
//!   `upper` and `work` are removed; a driver keeps nothing anywhere else.
//! * A mount that failed or was broken off leaves what the next one starts from, and never half a tree.
//! * At least 128 layers.
//! * [`Driver::upper`] says what `upper` holds, for whoever makes a layer of it.
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::root::Root;
use nix::errno::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

mod copy;
pub mod overlay;
#[cfg(test)]
mod tests;

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
    #[error("cannot copy the layers of the image")]
    Copy {
        #[source]
        source: SysError,
    },
    #[error(
        "{path:?} was written through another storage driver: a container keeps the one that it began with"
    )]
    OtherDriver { path: PathBuf },
    #[error("{given:?} is no storage driver: want auto, overlay or copy")]
    UnknownDriver { given: String },
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
            SnapshotError::NoLayers | SnapshotError::UnknownDriver { .. } => ErrorKind::InvalidInput,
            SnapshotError::OtherDriver { .. } => ErrorKind::WrongState,
            SnapshotError::Copy { source }
            | SnapshotError::Layer { source, .. }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// overlayfs over one directory for each layer.
    Overlay,
    /// A whole copy for each container.
    Copy,
}

/// What an upper directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// What differs from the layers, in overlayfs's own form: a layer as the store unpacks it.
    Layer,
    /// The whole tree.
    Whole,
}

impl Driver {
    /// Mounts `stack`, attached nowhere.
    pub fn mount(self, stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
        match self {
            Driver::Overlay if copy::has_begun(stack) => {
                Err(SnapshotError::OtherDriver { path: stack.upper.to_owned() })
            }
            Driver::Overlay => overlay::mount(stack),
            Driver::Copy => copy::mount(stack),
        }
    }

    /// What is in the `upper` of a snapshot of this driver.
    pub fn upper(self) -> Upper {
        match self {
            Driver::Overlay => Upper::Layer,
            Driver::Copy => Upper::Whole,
        }
    }

    /// Which driver a snapshot was begun with, as far as its directories tell: one that was never mounted has none, and
    /// counts as overlayfs's.
    pub fn of(stack: &Stack<'_>) -> Driver {
        if copy::has_begun(stack) { Driver::Copy } else { Driver::Overlay }
    }
}

/// Which driver new snapshots get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// overlayfs where it works, else copies, with a warning that tells why.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Driver),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Choice::Auto => "auto",
            Choice::Only(Driver::Overlay) => "overlay",
            Choice::Only(Driver::Copy) => "copy",
        })
    }
}

impl std::str::FromStr for Choice {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Choice, SnapshotError> {
        match text {
            "auto" => Ok(Choice::Auto),
            "overlay" => Ok(Choice::Only(Driver::Overlay)),
            "copy" => Ok(Choice::Only(Driver::Copy)),
            _ => Err(SnapshotError::UnknownDriver { given: text.to_owned() }),
        }
    }
}

/// Mounts `stack` by the driver that it was begun with, or else by the chosen one.
pub fn mount(choice: Choice, stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
    match choice {
        _ if Driver::of(stack) == Driver::Copy => Driver::Copy.mount(stack),
        Choice::Only(driver) => driver.mount(stack),
        Choice::Auto => {
            let reason = match overlay::obstacle(stack) {
                Some(reason) => reason.to_owned(),
                None => match Driver::Overlay.mount(stack) {
                    Err(error) if overlay::is_unsuitable(&error) && !overlay::has_begun(stack) => {
                        crate::error::chain(&error)
                    }
                    result => return result,
                },
            };
            tracing::warn!("overlayfs cannot be used, so that the image is copied: {reason}");
            Driver::Copy.mount(stack)
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
