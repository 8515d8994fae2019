//! The layers of one image: fetched and unpacked in parallel, committed in order.
use super::pipe::{self, CHUNK};
use super::{Need, Options, PullError, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{Config, Descriptor, Layer, Manifest};
use crate::image::reference::Reference;
use crate::image::registry::{Client, RegistryError};
use crate::image::store::{Claim, Import, MachineSlot, PartialBlob, Slot, StagingLayer, StoreError};
use crate::image::unpack::Unpacked;
use crate::sys::SysError;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// When unpacking fails, the rest of the blob is still fetched if it is no longer than this, because a wrong
/// digest explains the failure better than the bytes that it brought.
const EXPLAIN_MAX: u64 = 64 << 20;
/// Between two looks at what another process holds.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Work<'a> {
    pub(super) client: &'a Client,
    pub(super) import: &'a Import<'a>,
    pub(super) reference: &'a Reference,
    pub(super) options: &'a Options<'a>,
    /// What an earlier attempt had left was not the beginning of the blob; it is gone now.
    pub(super) damaged: &'a AtomicBool,
}

/// One layer that needs something.
struct Task<'a> {
    at: usize,
    layer: &'a Layer,
    need: Need,
    /// The place of the unpacked layer, if it is to be unpacked.
    staging: Option<StagingLayer<'a>>,
}

/// A layer whose blob is in the store, and which is ready to be committed.
struct Ready<'a> {
    at: usize,
    staged: Option<(StagingLayer<'a>, Unpacked)>,
}

impl<'a> Work<'a> {
    /// Makes every layer and its blob present; returns how many were unpacked and the bytes downloaded.
    pub(super) fn run(&self, manifest: &'a Manifest, config: &Config) -> Result<(usize, u64)> {
        let tasks = self.claim(manifest, config)?;
        let order: Vec<(usize, &Layer)> = tasks.iter().map(|task| (task.at, task.layer)).collect();
        let unpacked = tasks.iter().filter(|task| task.staging.is_some()).count();
        let workers = self.options.parallel.clamp(1, 16).min(tasks.len());
        let downloaded = AtomicU64::new(0);
        let tasks: Vec<std::sync::Mutex<Option<Task<'a>>>> =
            tasks.into_iter().map(|task| std::sync::Mutex::new(Some(task))).collect();
        let next = AtomicUsize::new(0);
        let (to, from) = mpsc::channel();
        let (tasks, next, downloaded_ref) = (&tasks, &next, &downloaded);
        thread::scope(|scope| {
            for _ in 0..workers {
                let to = to.clone();
                scope.spawn(move || {
                    while let Some(slot) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let task = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                        let Some(task) = task else { continue };
                        let result = self.layer(task, downloaded_ref);
                        let failed = result.is_err();
                        // The caller stops listening after a failure.
                        if to.send(result).is_err() || failed {
                            return;
                        }
                    }
                });
            }
            drop(to);
            let result = self.commit(&order, from);
            if result.is_err() {
                // Nobody needs the rest: the other threads must not keep the error waiting.
                next.store(tasks.len(), Ordering::Relaxed);
                self.client.cancel();
            }
            result
        })?;
        Ok((unpacked, downloaded.load(Ordering::Relaxed)))
    }

    /// Claims what is to be unpacked, from the bottom up as the store wants it; waits for layers that another pull
    /// is about to publish.
    fn claim(&self, manifest: &'a Manifest, config: &Config) -> Result<Vec<Task<'a>>> {
        let store = self.import.store();
        let need = |layer: &Layer, unpacked: bool| match (
            store.has_blob(&layer.descriptor.digest, layer.descriptor.size),
            unpacked,
        ) {
            (true, true) => Need::Nothing,
            (true, false) => Need::Unpacking,
            (false, true) => Need::Blob,
            (false, false) => Need::Both,
        };
        let chain = config.chain();
        let layers = || manifest.layers.iter().enumerate();
        let expected: Vec<_> = layers()
            .map(|(at, layer)| (layer.descriptor.clone(), need(layer, store.has_layer(&chain[at]))))
            .collect();
        self.options.progress.begin(&expected);
        let mut tasks = Vec::new();
        for (at, layer) in layers() {
            let staging = match self.import.layer(&config.diff_ids, at)? {
                Slot::Present => None,
                Slot::Build(staging) => Some(staging),
            };
            let need = need(layer, staging.is_none());
            if need != Need::Nothing {
                tasks.push(Task { at, layer, need, staging });
            } else if expected[at].1 != Need::Nothing {
                // Another pull has just done it.
                self.options.progress.done(at);
            }
        }
        Ok(tasks)
    }

    /// Publishes layers in order as they become ready; the first failure ends it.
    fn commit(&self, order: &[(usize, &Layer)], from: mpsc::Receiver<Result<Ready<'a>>>) -> Result<()> {
        let mut waiting = BTreeMap::new();
        let mut order = order.iter().peekable();
        for ready in from {
            let ready = ready?;
            waiting.insert(ready.at, ready.staged);
            while let Some((at, layer)) = order.peek()
                && let Some(staged) = waiting.remove(at)
            {
                if let Some((staging, unpacked)) = staged {
                    staging.commit(unpacked).map_err(|source| self.unpack_error(layer, source))?;
                }
                self.options.progress.done(*at);
                order.next();
            }
        }
        Ok(())
    }

    fn layer(&self, task: Task<'a>, downloaded: &AtomicU64) -> Result<Ready<'a>> {
        let Task { at, layer, need, staging } = task;
        // Before the slot, because whoever has a slot must not wait for another process.
        let blob = match need {
            Need::Unpacking | Need::Nothing => None,
            Need::Blob | Need::Both => self.take(at, layer)?,
        };
        let _slot = self.slot(layer)?;
        let Some(staging) = staging else {
            if let Some(blob) = blob {
                self.fetch(at, layer, blob, downloaded, None)?;
            }
            return Ok(Ready { at, staged: None });
        };
        let bad = |source| self.unpack_error(layer, source);
        let unpacked = match blob {
            None => {
                let blob: File = self.import.store().open_blob(&layer.descriptor.digest)?;
                self.options.progress.verified(at);
                staging.unpack_file(blob.into(), layer.compression, &self.options.limits).map_err(bad)?
            }
            Some(blob) => {
                let (writer, reader) = pipe::pipe().map_err(StoreError::from)?;
                thread::scope(|scope| {
                    let fetching = scope.spawn(move || self.fetch(at, layer, blob, downloaded, Some(writer)));
                    let unpacked = staging.unpack_file(reader, layer.compression, &self.options.limits);
                    let fetched = fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    // A download that failed is the reason why unpacking did.
                    fetched.and_then(|()| unpacked.map_err(bad))
                })?
            }
        };
        Ok(Ready { at, staged: Some((staging, unpacked)) })
    }

    /// Takes the layer's blob to fetch it, or waits until another pull has done so or given up; nothing if it is
    /// here then.
    fn take(&self, at: usize, layer: &Layer) -> Result<Option<PartialBlob>> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        loop {
            match self.import.take_blob(&digest, size).map_err(|source| self.blob_error(layer, source))? {
                Claim::Whole => return Ok(None),
                Claim::Held(blob) => return Ok(Some(blob)),
                Claim::Elsewhere { length } => {
                    self.options.progress.waiting(at, length);
                    self.pause(layer)?;
                }
            }
        }
    }

    /// Waits until the machine has room for one layer more.
    fn slot(&self, layer: &Layer) -> Result<MachineSlot> {
        loop {
            match self.import.store().machine_slot(self.options.machine.max(1))? {
                Some(slot) => return Ok(slot),
                None => self.pause(layer)?,
            }
        }
    }

    /// A lock of another process cannot be waited for together with the end of this pull.
    fn pause(&self, layer: &Layer) -> Result<()> {
        if self.client.wait(PAUSE) {
            return Ok(());
        }
        Err(RegistryError::Cancelled { subject: self.client.blob_subject(&layer.descriptor.digest) }.into())
    }

    fn blob_error(&self, layer: &Layer, source: StoreError) -> PullError {
        PullError::Blob {
            reference: Box::new(self.reference.clone()),
            digest: layer.descriptor.digest,
            source: Box::new(source),
        }
    }

    fn unpack_error(&self, layer: &Layer, source: StoreError) -> PullError {
        PullError::Layer {
            reference: Box::new(self.reference.clone()),
            digest: layer.descriptor.digest,
            source: Box::new(source),
        }
    }

    /// Downloads a blob into the store, and passes its bytes on to whoever unpacks them: first those that an earlier
    /// attempt has left, which are hashed again like the others.
    fn fetch(
        &self,
        at: usize,
        layer: &Layer,
        mut blob: PartialBlob,
        downloaded: &AtomicU64,
        writer: Option<pipe::Writer>,
    ) -> Result<()> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let found = blob.found();
        let mut out = Out { writer, gave_up: false, spare: Vec::new() };
        if found > 0 {
            self.options.progress.resumed(at, found);
            self.pass_found(layer, &mut blob, &mut out)?;
        }
        let mut reader = self.client.foreign_blob(&layer.descriptor, &layer.urls, found);
        let mut seen = found;
        loop {
            let mut chunk = out.buffer();
            let mut filled = 0;
            while filled < CHUNK {
                let count = match reader.read(&mut chunk[filled..]) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => return Err(self.broken_off(blob, &chunk[..filled], error)),
                };
                filled += count;
                self.options.progress.downloaded(at, count as u64);
            }
            if filled == 0 {
                break;
            }
            chunk.truncate(filled);
            seen += filled as u64;
            downloaded.fetch_add(filled as u64, Ordering::Relaxed);
            let failed =
                |source| PullError::Write { reference: Box::new(self.reference.clone()), digest, source };
            blob.write_all(&chunk).map_err(failed)?;
            out.pass(chunk);
            if out.gave_up && size - seen > EXPLAIN_MAX {
                // Unpacking has failed. Perhaps only because of what was here before.
                self.damaged.fetch_or(found > 0, Ordering::Relaxed);
                return blob.discard().map_err(|source| self.blob_error(layer, source));
            }
        }
        if let Some(writer) = out.writer {
            writer.end();
        }
        match blob.commit() {
            Ok(()) => {}
            Err(StoreError::BlobDigest { actual, .. }) => {
                self.damaged.fetch_or(found > 0, Ordering::Relaxed);
                return Err(self.wrong_digest(digest, actual));
            }
            Err(source) => return Err(self.blob_error(layer, source)),
        }
        self.options.progress.verified(at);
        Ok(())
    }

    /// Reads what an earlier attempt has left.
    fn pass_found(&self, layer: &Layer, blob: &mut PartialBlob, out: &mut Out) -> Result<()> {
        loop {
            let mut chunk = out.buffer();
            let read = blob.read_found(&mut chunk);
            let failed = SysError::io("read", layer.descriptor.digest.hex());
            let count = read.map_err(|error| self.blob_error(layer, failed(error).into()))?;
            if count == 0 {
                return Ok(());
            }
            chunk.truncate(count);
            out.pass(chunk);
        }
    }

    /// Keeps what came for the next attempt, unless the registry sends something else than the manifest promises.
    fn broken_off(&self, mut blob: PartialBlob, rest: &[u8], error: RegistryError) -> PullError {
        let kept = match &error {
            RegistryError::TooLong { .. } | RegistryError::WrongSize { .. } => blob.discard().map_err(drop),
            _ => blob.write_all(rest).map_err(drop),
        };
        if kept.is_err() {
            tracing::warn!("what came of a blob could not be kept for the next pull");
        }
        error.into()
    }

    fn wrong_digest(&self, want: Digest, got: Digest) -> PullError {
        RegistryError::WrongDigest { subject: self.client.blob_subject(&want), want, got }.into()
    }
}

/// Where a blob's bytes go beside the store.
struct Out {
    /// Whoever unpacks them; gone when unpacking has failed.
    writer: Option<pipe::Writer>,
    /// Unpacking has failed.
    gave_up: bool,
    /// The buffer that is used again where nobody unpacks.
    spare: Vec<u8>,
}

impl Out {
    /// A buffer of [`CHUNK`] bytes.
    fn buffer(&mut self) -> Vec<u8> {
        let mut chunk = match &self.writer {
            Some(writer) => writer.buffer(),
            None => std::mem::take(&mut self.spare),
        };
        chunk.resize(CHUNK, 0);
        chunk
    }

    /// Passes a chunk on.
    fn pass(&mut self, chunk: Vec<u8>) {
        match &self.writer {
            None => self.spare = chunk,
            Some(writer) => {
                if !writer.send(chunk) {
                    self.writer = None;
                    self.gave_up = true;
                }
            }
        }
    }
}
