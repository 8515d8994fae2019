//! Decompression, hashing and file creation at the same time.
use super::decode::{DecodeError, Decoder};
use super::tar::Parser;
use super::tree::Tree;
use super::{Limits, Result, UnpackError};
use crate::image::digest::{Digest, Hasher};
use crate::image::manifest::Compression;
use crate::sys::SysError;
use nix::sched::CloneFlags;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes that go from thread to thread at once.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for each of the two readers: with those in use at most 5 MiB for each layer.
const WAITING: usize = 8;

type Chunk = Arc<Vec<u8>>;

/// Unpacks into `root` and tells the digest of the tar stream.
pub(super) fn run(
    blob: impl Read + Send,
    compression: Compression,
    root: OwnedFd,
    limits: &Limits,
) -> Result<(Digest, Tree)> {
    let mut growth = limits.growth;
    let stat = nix::sys::statvfs::fstatvfs(&root).map_err(SysError::on("fstatvfs", "layer root"))?;
    let available = stat.blocks_available().saturating_mul(stat.fragment_size());
    growth.bytes = growth.bytes.min(available);

    thread::scope(|scope| {
        let (to_hash, hash_chunks) = sync_channel(WAITING);
        let (to_tree, tree_chunks) = sync_channel(WAITING);
        let (give_back, unused) = channel();
        let recycle = give_back.clone();
        let decoder = scope.spawn(move || {
            let decoder = Decoder::new(blob, compression, growth)?;
            decode(decoder, &unused, &to_hash, &to_tree)
        });
        let builder = scope.spawn(move || build(root, limits, &tree_chunks, &recycle));
        let mut hasher = Hasher::new();
        for chunk in hash_chunks {
            hasher.update(&chunk);
            give(&give_back, chunk);
        }
        let decoded = join(decoder);
        let built = join(builder);
        match decoded {
            // Nobody wanted more: the builder tells why.
            Ok(Ending::Stopped | Ending::Complete) => Ok((hasher.finish(), built?)),
            // A builder that failed because the stream broke off is not the cause.
            Err(DecodeError::TooLarge { limit }) if limit == available => {
                Err(UnpackError::NoSpace { available })
            }
            Err(error) => Err(UnpackError::Decode(error)),
        }
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    Stopped,
}

fn decode<R: Read>(
    mut decoder: Decoder<R>,
    unused: &Receiver<Vec<u8>>,
    to_hash: &SyncSender<Chunk>,
    to_tree: &SyncSender<Chunk>,
) -> std::result::Result<Ending, DecodeError> {
    loop {
        let mut buffer = unused.try_recv().unwrap_or_default();
        // Zeroed once; after that it keeps its length.
        buffer.resize(CHUNK, 0);
        let filled = decoder.fill(&mut buffer)?;
        let last = filled < CHUNK;
        buffer.truncate(filled);
        let chunk = Arc::new(buffer);
        if to_tree.send(Arc::clone(&chunk)).is_err() || to_hash.send(chunk).is_err() {
            return Ok(Ending::Stopped);
        }
        if last {
            return Ok(Ending::Complete);
        }
    }
}

/// Whoever drops a chunk last gives its buffer back.
fn give(back: &Sender<Vec<u8>>, chunk: Chunk) {
    if let Some(buffer) = Arc::into_inner(chunk) {
        // The decoder has ended; the buffer is freed.
        let _ = back.send(buffer);
    }
}

fn build(
    root: OwnedFd,
    limits: &Limits,
    chunks: &Receiver<Chunk>,
    recycle: &Sender<Vec<u8>>,
) -> Result<Tree> {
    // Files get their final mode when they are created, so this thread needs its own umask, which is kept
    // with the working directory (clone(2), CLONE_FS).
    nix::sched::unshare(CloneFlags::CLONE_FS).map_err(SysError::on("unshare", "CLONE_FS"))?;
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    let mut parser = Parser::new();
    let mut tree = Tree::new(root, limits);
    for chunk in chunks {
        let mut input = chunk.as_slice();
        while let Some(event) = parser.next(&mut input)? {
            tree.event(event)?;
        }
        give(recycle, chunk);
    }
    parser.finish()?;
    tree.finish()?;
    Ok(tree)
}
