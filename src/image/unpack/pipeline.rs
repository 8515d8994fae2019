//! Decompression and hashing on one processor, the making of files on another.
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
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

/// Bytes that go from thread to thread at once: what was inflated is hashed while it is in the cache.
const CHUNK: usize = 256 << 10;
/// Chunks that wait: with those in use at most 2 MiB for each layer.
const WAITING: usize = 6;

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
        let (to_tree, chunks) = sync_channel(WAITING);
        let (give_back, unused) = channel();
        let builder = scope.spawn(move || build(root, limits, &chunks, &give_back));
        let decoded =
            Decoder::new(blob, compression, growth).and_then(|decoder| decode(decoder, &unused, to_tree));
        let built = match builder.join() {
            Ok(built) => built,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match decoded {
            Ok(Some(digest)) => Ok((digest, built?)),
            // Nobody wanted more: the builder tells why.
            Ok(None) => match built {
                Ok(_) => Err(UnpackError::Decode(DecodeError::Truncated)),
                Err(error) => Err(error),
            },
            // A builder that failed because the stream broke off is not the cause.
            Err(DecodeError::TooLarge { limit }) if limit == available => {
                Err(UnpackError::NoSpace { available })
            }
            Err(error) => Err(UnpackError::Decode(error)),
        }
    })
}

/// Returns the digest of the whole stream, or nothing when nobody wants the rest.
fn decode<R: Read>(
    mut decoder: Decoder<R>,
    unused: &Receiver<Vec<u8>>,
    to_tree: SyncSender<Vec<u8>>,
) -> std::result::Result<Option<Digest>, DecodeError> {
    let mut hasher = Hasher::new();
    loop {
        let mut chunk = unused.try_recv().unwrap_or_default();
        // Zeroed once; after that it keeps its length.
        chunk.resize(CHUNK, 0);
        let filled = decoder.fill(&mut chunk)?;
        let last = filled < CHUNK;
        chunk.truncate(filled);
        hasher.update(&chunk);
        if to_tree.send(chunk).is_err() {
            return Ok(None);
        }
        if last {
            return Ok(Some(hasher.finish()));
        }
    }
}

fn build(
    root: OwnedFd,
    limits: &Limits,
    chunks: &Receiver<Vec<u8>>,
    give_back: &Sender<Vec<u8>>,
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
        // The decoder may have ended; the buffer is freed.
        let _ = give_back.send(chunk);
    }
    parser.finish()?;
    tree.finish()?;
    Ok(tree)
}
