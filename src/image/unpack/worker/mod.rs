//! Unpacking in a process of its own, which can reach nothing but the layer that it makes.
//!
//! ```text
//!   corten pull                                          corten unpack-layer (its own executable)
//!   ── Start: limits; the layer's directory, the blob ─▶ gives up what it does not need (confine.rs)
//!   ── the blob, through a pipe or as a file ──────────▶ unpack(): inflate, hash, tar, files
//!   ◀─ Unpacked: diffID ───────────────────────────────
//!      compares it, waits for the layers below
//!   ── Lowers: directories below, at most 8 each ──────▶
//!   ── Settle ─────────────────────────────────────────▶ settle()
//!   ◀─ Settled: summary ───────────────────────────────
//!   ◀─ Failed: kind and chain, in place of either answer
//! ```
//!
//! One message is one packet of at most [`MESSAGE_MAX`] bytes of JSON; a larger one is an error, not cut. Whoever is
//! left alone ends: the worker when the socket's other end is closed, the parent's call when the worker is gone. A worker that
//! is dropped is killed and reaped first, so that nobody writes any more where the caller cleans up.
//!
//! The parent believes the worker's diffID: nobody else sees the tar stream, and whoever got hold of the worker writes
//! the tree as he likes, whatever digest the parent has computed itself (docs/threat-model.md).

use super::{Limits, Summary, UnpackError, decode};
use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::manifest::Compression;
use crate::sys::{SysError, socket};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

mod child;
mod confine;
mod parent;
#[cfg(test)]
mod tests;

pub use child::main;
pub(super) use parent::{Worker, pipe, pump};

/// The verb, which is for nobody at a shell.
pub const VERB: &str = "unpack-layer";
/// The largest message.
const MESSAGE_MAX: usize = 64 << 10;
/// Descriptors of one message.
const FDS_MAX: usize = 8;
/// Of an error's chain: the most links, and characters of each.
const CHAIN_MAX: usize = 8;
const LINK_MAX: usize = 1000;

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Request {
    /// With the layer's directory, the blob and, if there are layers below, the directory that they are in.
    Start { compression: Packing, bytes: u64, ratio: u64, free: u64, entries: u64, names: u64 },
    /// With the roots of layers below, the top one first.
    Lowers,
    /// Those were all.
    Settle,
}

/// What the worker says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
enum Reply {
    Unpacked { diff_id: Digest },
    Settled { size: u64, entries: u64, opaque_root: bool, warnings: Vec<String> },
    Failed { kind: ErrorKind, chain: Vec<String> },
}

/// [`Compression`] in a message.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Packing {
        match compression {
            Compression::None => Packing::None,
            Compression::Gzip => Packing::Gzip,
            Compression::Zstd => Packing::Zstd,
        }
    }
}

impl From<Packing> for Compression {
    fn from(packing: Packing) -> Compression {
        match packing {
            Packing::None => Compression::None,
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
        }
    }
}

impl Request {
    fn start(compression: Compression, limits: &Limits) -> Request {
        let Limits { growth: decode::Growth { bytes, ratio, free }, entries, names } = *limits;
        Request::Start { compression: compression.into(), bytes, ratio, free, entries, names }
    }
}

impl Reply {
    fn settled(summary: &Summary, warnings: Vec<String>) -> Reply {
        let Summary { size, entries, opaque_root } = *summary;
        Reply::Settled { size, entries, opaque_root, warnings }
    }

    fn failed(error: &UnpackError) -> Reply {
        let mut chain = Vec::new();
        let mut next: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = next.filter(|_| chain.len() < CHAIN_MAX) {
            chain.push(error.to_string().chars().take(LINK_MAX).collect());
            next = error.source();
        }
        Reply::Failed { kind: error.kind(), chain }
    }
}

/// An error as the worker told it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Told {
    kind: ErrorKind,
    text: String,
    #[source]
    source: Option<Box<Told>>,
}

impl Told {
    /// From a chain of a hostile process: what a terminal would obey is left out.
    fn new(kind: ErrorKind, chain: Vec<String>) -> Told {
        let mut told: Option<Box<Told>> = None;
        for text in chain.into_iter().take(CHAIN_MAX).rev() {
            let text = printable(&text);
            told = Some(Box::new(Told { kind, text, source: told }));
        }
        let unsaid = || Told { kind, text: "the unpacking process does not say why".into(), source: None };
        told.map_or_else(unsaid, |told| *told)
    }
}

impl Kind for Told {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

fn printable(text: &str) -> String {
    text.chars().take(LINK_MAX).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Why the two processes do not understand each other.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error("cannot start the unpacking process")]
    Start(#[source] SysError),
    #[error("cannot confine the unpacking process")]
    Confine(#[source] SysError),
    #[error("the unpacking process cannot load its seccomp filter")]
    Filter(#[source] libseccomp::error::SeccompError),
    #[error("cannot speak to the unpacking process")]
    Talk(#[source] SysError),
    #[error("the unpacking process ended without an answer ({how})")]
    Ended { how: String },
    #[error("a message between the unpacking process and its parent makes no sense")]
    Nonsense,
}

impl Kind for WorkerError {
    fn kind(&self) -> ErrorKind {
        match self {
            WorkerError::Start(source) | WorkerError::Confine(source) | WorkerError::Talk(source) => {
                source.kind()
            }
            WorkerError::Filter(_) | WorkerError::Ended { .. } | WorkerError::Nonsense => ErrorKind::System,
        }
    }
}

fn say<T: Serialize>(socket: &OwnedFd, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), WorkerError> {
    let bytes = serde_json::to_vec(message).map_err(|_| WorkerError::Nonsense)?;
    socket::send(socket, &bytes, fds).map_err(WorkerError::Talk)
}

/// The next message and its descriptors; `None` when the other side is gone.
fn hear<T: DeserializeOwned>(socket: &OwnedFd) -> Result<Option<(T, Vec<OwnedFd>)>, WorkerError> {
    let mut buffer = vec![0; MESSAGE_MAX];
    let received = match socket::receive(socket, &mut buffer) {
        Err(error) if error.errno == nix::errno::Errno::ECONNRESET => return Ok(None),
        other => other.map_err(WorkerError::Talk)?,
    };
    if received.length == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&buffer[..received.length]).map_err(|_| WorkerError::Nonsense)?;
    Ok(Some((message, received.fds)))
}

/// Borrows what a message carries.
fn borrow<F: AsFd>(fds: &[F]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(AsFd::as_fd).collect()
}
