//! Unpacking layers: from a hostile blob to a directory tree that overlayfs can stack.
//!
//! ```text
//! blob ─▶ decode (thread) ─┬─▶ SHA-256 of the tar stream: the diffID
//!                          └─▶ tar ─▶ path, xattr ─▶ tree (thread): files, on directory descriptors
//! ```
//!
//! Layers of one image are unpacked at the same time, so what depends on the layers below waits for
//! [`Unpacked::settle`], which is called from the bottom up.
//!
//! Decisions that readers of layers have taken differently:
//!
//! * **A parent directory that the layer has no entry for** is made, and gets owner, mode, times and
//!   attributes of the directory that the layers below have there; without one it is 0755, root's, of 1970.
//! * **Such a parent where the layers below have a symbolic link** (`bin/x` on a tree with `bin -> usr/bin`)
//!   hides the link, as it does in podman: an image must be the same tree everywhere.
//! * **A parent that is a symbolic link of the same layer** is an error. No builder writes such layers.
//! * **Whiteouts mean the layers below only**, whatever the order of the entries; what the layer itself has
//!   at that path stays.
//! * **Of several entries with one name the last wins**; a directory and a later directory are one.
//! * **A hard link to a file of a layer below** gets a copy of the file.

use crate::image::digest::Digest;
use crate::image::manifest::Compression;
use crate::sys::SysError;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub mod decode;
mod error;
pub(in crate::image) mod lower;
mod path;
mod pax;
mod pipeline;
mod settle;
pub mod tar;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;
pub mod worker;
mod xattr;

pub use error::{EntryError, UnpackError};
pub use path::{LayerPath, Meaning, NameError, meaning};
pub use pax::PaxError;
pub use xattr::AttributeError;

pub(super) type Result<T> = std::result::Result<T, UnpackError>;

/// How much a layer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How far its blob may grow.
    pub growth: decode::Growth,
    /// The most entries.
    pub entries: u64,
    /// The most bytes of all its directories' paths, which are kept in memory.
    pub names: u64,
}

impl Default for Limits {
    /// Ten million entries, 32 MiB of names: some 250,000 directories, and half of what a pull may have resident.
    fn default() -> Limits {
        Limits { growth: decode::Growth::default(), entries: 10_000_000, names: 32 << 20 }
    }
}

/// A layer's own tree; what depends on the layers below is missing.
#[derive(Debug)]
pub struct Unpacked {
    diff_id: Digest,
    hands: Hands,
}

/// Who has made the tree and remembers it.
#[derive(Debug)]
enum Hands {
    Ours(Box<tree::Tree>),
    Worker(worker::Worker),
}

/// What a finished layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of its regular files.
    pub size: u64,
    /// Entries of its tar stream.
    pub entries: u64,
    /// Nothing of the layers below is to be seen.
    pub opaque_root: bool,
}

/// Makes the directory `name` in `parent` as the root of a layer, and opens it.
pub fn root(parent: &File, name: &str) -> Result<OwnedFd> {
    nix::sys::stat::mkdirat(parent, name, Mode::from_bits_truncate(0o755))
        .map_err(SysError::on("mkdirat", name))?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    Ok(crate::sys::root::open_same_mount(parent.as_fd(), Path::new(name), flags)?)
}

/// Unpacks `blob` into the empty directory `root`, in this process.
///
/// Reads `blob` to its end unless it fails. After an error the directory holds a part of the layer; the
/// caller removes it.
pub fn unpack(
    blob: impl Read + Send,
    compression: Compression,
    root: OwnedFd,
    limits: &Limits,
) -> Result<Unpacked> {
    let (diff_id, tree) = pipeline::run(blob, compression, root, limits)?;
    Ok(Unpacked { diff_id, hands: Hands::Ours(Box::new(tree)) })
}

/// The same in a confined process of its own ([`worker`]). `below` is the directory that the layers below are in.
pub fn unpack_apart(
    blob: impl Read,
    compression: Compression,
    root: OwnedFd,
    below: Option<&File>,
    limits: &Limits,
) -> Result<Unpacked> {
    let (diff_id, worker) =
        worker::pump(blob, |pipe| worker::Worker::start(&pipe, compression, &root, below, limits))?;
    Ok(Unpacked { diff_id, hands: Hands::Worker(worker) })
}

/// The same of a blob that the process can read by itself: a file, or a pipe ([`pipe`]) that is written meanwhile.
pub fn unpack_file_apart(
    blob: OwnedFd,
    compression: Compression,
    root: OwnedFd,
    below: Option<&File>,
    limits: &Limits,
) -> Result<Unpacked> {
    let mut worker = worker::Worker::start(&blob, compression, &root, below, limits)?;
    // So that whoever writes into a pipe is told when the worker is gone.
    drop(blob);
    let diff_id = worker.diff_id()?;
    Ok(Unpacked { diff_id, hands: Hands::Worker(worker) })
}

/// A pipe for [`unpack_file_apart`]: the reading end and the writing end.
pub fn pipe() -> std::result::Result<(OwnedFd, OwnedFd), SysError> {
    worker::pipe()
}

impl Unpacked {
    /// The digest of the tar stream.
    pub fn diff_id(&self) -> &Digest {
        &self.diff_id
    }

    /// Completes the tree on top of `lowers`, the roots of the layers below that can be seen, the top one
    /// first.
    pub fn settle(self, lowers: &[File]) -> Result<Summary> {
        match self.hands {
            Hands::Worker(mut worker) => worker.settle(lowers),
            Hands::Ours(_) => {
                let mut warnings = Vec::new();
                let summary = self.complete(lowers, &mut warnings);
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                summary
            }
        }
    }

    /// The same, with the warnings for the caller.
    fn complete(self, lowers: &[File], warnings: &mut Vec<String>) -> Result<Summary> {
        match self.hands {
            Hands::Worker(mut worker) => worker.settle(lowers),
            Hands::Ours(mut tree) => {
                settle::settle(&mut tree, lowers, warnings)?;
                Ok(tree.summary())
            }
        }
    }
}
