//! From directory trees to tar streams and lists of changes: the way back of [`unpack`](super::unpack).
//!
//! ```text
//! container's upper directory ─▶ walk, top layer alone ─┬─▶ layer: entries and whiteouts ─▶ tar
//!                                                       └─▶ changes: added, changed, deleted
//! upper over the image's layers ─▶ walk, merged ──────────▶ tar of the whole tree
//! ```
//!
//! A tree is a container's: it may be as hostile as a layer. Nothing is resolved further than one component below
//! a directory that is open, no symbolic link is followed, no other mount is entered, and what is opened must be
//! what was seen. Layers are merged here as overlayfs would (overlayfs.rst), without a mount: a running container's
//! upper directory belongs to the mount that has it.
//!
//! The same tree always gives the same bytes: names come in the order of their bytes, a directory before what is in
//! it, and nothing of the clock or of the machine goes into a header.

use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;

mod changes;
mod stream;
#[cfg(test)]
mod tests;
mod walk;
pub mod writer;

pub use changes::{Change, ChangeKind, compare, of_upper};
pub use stream::{Written, write_layer, write_tree};
pub use walk::{Marks, Stacked};

/// Why a tree cannot be read or written down.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("cannot read /{path}")]
    Read {
        path: String,
        #[source]
        source: SysError,
    },
    #[error("cannot write the tar stream")]
    Write(#[source] std::io::Error),
    #[error("/{path} was exchanged while it was read")]
    Changed { path: String },
    #[error("/{path} is longer than a path may be")]
    TooLong { path: String },
    #[error("names that are kept in memory take more than {limit} bytes")]
    TooManyNames { limit: usize },
    #[error("/{path} has a name that means a whiteout in a layer: rename or remove it")]
    Reserved { path: String },
    #[error("/{path} has the attribute {attribute:?} of overlayfs, which corten never asks for")]
    Overlay { path: String, attribute: String },
    #[error("the attributes of /{path} take more than {limit} bytes")]
    Attributes { path: String, limit: usize },
}

impl Kind for DiffError {
    fn kind(&self) -> ErrorKind {
        match self {
            DiffError::Read { source, .. } => source.kind(),
            DiffError::Write(_) => ErrorKind::System,
            DiffError::Changed { .. } => ErrorKind::WrongState,
            DiffError::TooManyNames { .. } | DiffError::Attributes { .. } => ErrorKind::Exhausted,
            DiffError::TooLong { .. } | DiffError::Reserved { .. } | DiffError::Overlay { .. } => {
                ErrorKind::Unsupported
            }
        }
    }
}

type Result<T> = std::result::Result<T, DiffError>;

/// At most this much of a hostile path is repeated.
fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(256)]).into_owned()
}

fn at(path: &[u8]) -> impl Fn(SysError) -> DiffError + '_ {
    move |source| DiffError::Read { path: show(path), source }
}
