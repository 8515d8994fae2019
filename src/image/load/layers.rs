//! The layers of one image: stored and unpacked in parallel, committed in order.
use super::archive::Section;
use super::{LoadError, Loader, Result};
use crate::image::manifest::{Config, Layer};
use crate::image::store::{BlobWriter, Slot, StagingLayer};
use crate::image::unpack::Unpacked;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// A layer of an image, and where its blob is in the archive.
pub(super) struct Task {
    pub(super) layer: Layer,
    pub(super) blob: Section,
}

/// A layer that was claimed.
struct Claimed<'a> {
    at: usize,
    task: Task,
    staging: Option<StagingLayer<'a>>,
}

type Ready<'a> = (usize, Option<(StagingLayer<'a>, Unpacked)>);

impl<'a> Loader<'a> {
    /// Puts the layers and their blobs into the store; `tasks` are all layers, bottom to top.
    pub(super) fn layers(&self, config: &Config, tasks: Vec<Task>) -> Result<()> {
        let mut claimed = Vec::new();
        for (at, task) in tasks.into_iter().enumerate() {
            let staging = match self.import.layer(&config.diff_ids, at)? {
                Slot::Present => None,
                Slot::Build(staging) => Some(staging),
            };
            claimed.push(Mutex::new(Some(Claimed { at, task, staging })));
        }
        let next = AtomicUsize::new(0);
        let (to, from) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.options.parallel.clamp(1, 16).min(claimed.len()) {
                let (to, next, claimed) = (to.clone(), &next, &claimed);
                scope.spawn(move || {
                    while let Some(slot) = claimed.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let task = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                        let Some(task) = task else { continue };
                        // After a failure nobody listens any more.
                        if to.send(self.layer(task)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(to);
            let result = commit(from);
            if result.is_err() {
                next.store(claimed.len(), Ordering::Relaxed);
            }
            result
        })
    }

    fn layer(&self, claimed: Claimed<'a>) -> Result<Ready<'a>> {
        let Claimed { at, task: Task { layer, blob }, staging } = claimed;
        let digest = layer.descriptor.digest;
        let stored = self.import.store().has_blob(&digest, layer.descriptor.size);
        let writer =
            if stored { None } else { Some(self.import.blob_writer(&digest, layer.descriptor.size)?) };
        let mut copy = Copy { blob, writer, failed: None };
        let Some(staging) = staging else {
            if copy.writer.is_some() {
                io::copy(&mut copy, &mut io::sink()).map_err(|source| LoadError::Write { digest, source })?;
            }
            copy.commit()?;
            return Ok((at, None));
        };
        let unpacked = staging.unpack(&mut copy, layer.compression, &self.options.limits);
        if let Some(source) = copy.failed.take() {
            return Err(LoadError::Write { digest, source });
        }
        let unpacked = unpacked?;
        copy.commit()?;
        Ok((at, Some((staging, unpacked))))
    }
}

/// Publishes layers from the bottom up as they become ready.
fn commit(from: mpsc::Receiver<Result<Ready<'_>>>) -> Result<()> {
    let mut waiting = BTreeMap::new();
    let mut next = 0;
    for ready in from {
        let (at, staged) = ready?;
        waiting.insert(at, staged);
        while let Some(staged) = waiting.remove(&next) {
            if let Some((staging, unpacked)) = staged {
                staging.commit(unpacked)?;
            }
            next += 1;
        }
    }
    Ok(())
}

/// Writes a blob to the store while it is unpacked.
struct Copy {
    blob: Section,
    writer: Option<BlobWriter>,
    failed: Option<io::Error>,
}

impl Copy {
    fn commit(self) -> Result<()> {
        match self.writer {
            Some(writer) => Ok(writer.commit()?),
            None => Ok(()),
        }
    }
}

impl Read for Copy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.blob.read(buffer)?;
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write_all(&buffer[..count])
        {
            let kind = error.kind();
            self.failed = Some(error);
            return Err(kind.into());
        }
        Ok(count)
    }
}
