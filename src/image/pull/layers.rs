//! The layers of one image: fetched and unpacked in parallel, committed in order.
use super::pipe::{self, CHUNK};
use super::{Need, Options, PullError, Result};
use crate::image::digest::Digest;
use crate::image::manifest::{Config, Descriptor, Layer, Manifest};
use crate::image::reference::Reference;
use crate::image::registry::{Client, RegistryError, Subject};
use crate::image::store::{Import, Slot, StagingLayer, StoreError};
use crate::image::unpack::Unpacked;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// When unpacking fails, the rest of the blob is still fetched if it is no longer than this, because a wrong
/// digest explains the failure better than the bytes that it brought.
const EXPLAIN_MAX: u64 = 64 << 20;

pub(super) struct Work<'a> {
    pub(super) client: &'a Client,
    pub(super) import: &'a Import<'a>,
    pub(super) reference: &'a Reference,
    pub(super) options: &'a Options<'a>,
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

    /// Claims what is to be unpacked, from the bottom up as the store wants it.
    fn claim(&self, manifest: &'a Manifest, config: &Config) -> Result<Vec<Task<'a>>> {
        let mut tasks = Vec::new();
        let mut needs = Vec::new();
        for (at, layer) in manifest.layers.iter().enumerate() {
            let Descriptor { digest, size, .. } = &layer.descriptor;
            let staging = match self.import.layer(&config.diff_ids, at)? {
                Slot::Present => None,
                Slot::Build(staging) => Some(staging),
            };
            let need = match (self.import.store().has_blob(digest, *size), &staging) {
                (true, None) => Need::Nothing,
                (true, Some(_)) => Need::Unpacking,
                (false, None) => Need::Blob,
                (false, Some(_)) => Need::Both,
            };
            needs.push((layer.descriptor.clone(), need));
            if need != Need::Nothing {
                tasks.push(Task { at, layer, need, staging });
            }
        }
        self.options.progress.begin(&needs);
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
        let Some(staging) = staging else {
            self.fetch(at, layer, downloaded, None)?;
            return Ok(Ready { at, staged: None });
        };
        let bad = |source| self.unpack_error(layer, source);
        let unpacked = if need == Need::Unpacking {
            let blob: File = self.import.store().open_blob(&layer.descriptor.digest)?;
            self.options.progress.verified(at);
            staging.unpack_file(blob.into(), layer.compression, &self.options.limits).map_err(bad)?
        } else {
            let (writer, reader) = pipe::pipe().map_err(StoreError::from)?;
            thread::scope(|scope| {
                let fetching = scope.spawn(move || self.fetch(at, layer, downloaded, Some(writer)));
                let unpacked = staging.unpack_file(reader, layer.compression, &self.options.limits);
                let fetched = fetching.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                // A download that failed is the reason why unpacking did.
                fetched.and_then(|()| unpacked.map_err(bad))
            })?
        };
        Ok(Ready { at, staged: Some((staging, unpacked)) })
    }

    fn unpack_error(&self, layer: &Layer, source: StoreError) -> PullError {
        PullError::Layer {
            reference: Box::new(self.reference.clone()),
            digest: layer.descriptor.digest,
            source: Box::new(source),
        }
    }

    /// Downloads a blob into the store, and passes its bytes on to whoever unpacks them.
    fn fetch(
        &self,
        at: usize,
        layer: &Layer,
        downloaded: &AtomicU64,
        mut writer: Option<pipe::Writer>,
    ) -> Result<()> {
        let Descriptor { digest, size, .. } = layer.descriptor;
        let stored = |source| PullError::Blob {
            reference: Box::new(self.reference.clone()),
            digest,
            source: Box::new(source),
        };
        let mut blob = self.import.blob_writer(&digest, size).map_err(stored)?;
        let mut reader = self.client.blob(&layer.descriptor);
        let mut spare = Vec::new();
        let mut seen = 0;
        loop {
            let mut chunk = match &writer {
                Some(writer) => writer.buffer(),
                None => std::mem::take(&mut spare),
            };
            chunk.resize(CHUNK, 0);
            let mut filled = 0;
            while filled < CHUNK {
                let count = reader.read(&mut chunk[filled..])?;
                if count == 0 {
                    break;
                }
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
            let Some(open) = &writer else {
                spare = chunk;
                continue;
            };
            if !open.send(chunk) {
                if size - seen > EXPLAIN_MAX {
                    return Ok(());
                }
                writer = None;
            }
        }
        if let Some(writer) = writer {
            writer.end();
        }
        match blob.commit() {
            Ok(()) => {}
            Err(StoreError::BlobDigest { actual, .. }) => return Err(self.wrong_digest(digest, actual)),
            Err(source) => return Err(stored(source)),
        }
        self.options.progress.verified(at);
        Ok(())
    }

    fn wrong_digest(&self, want: Digest, got: Digest) -> PullError {
        let subject = Arc::new(Subject::Blob { reference: self.reference.clone(), digest: want });
        RegistryError::WrongDigest { subject, want, got }.into()
    }
}
