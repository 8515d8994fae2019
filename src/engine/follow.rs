//! `logs`: what a container wrote, and what it writes while it runs.
use super::Engine;
use super::attach::{Output, Streams};
use super::client::{Client, wait};
use super::error::EngineError;
use super::logs::{Reader, Record as LogRecord, Selection};
use super::record::Record;
use crate::sys::SysError;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fs::File;
use std::os::fd::AsFd;

impl Engine {
    /// Gives the selected records to `sink`; with `follow`, until the container ends. The sink gets each
    /// record once, nothing when there is no more for now, and says `false` when it wants no more.
    pub fn logs(
        &self,
        record: &Record,
        selection: Selection,
        follow: bool,
        mut sink: impl FnMut(Option<&LogRecord<'_>>) -> Result<bool, EngineError>,
    ) -> Result<(), EngineError> {
        let id = record.id()?;
        let path = self.log_path(record)?;
        // Connected before the file is read, so that the end of the container is not missed.
        let client = if follow { Client::connect(self, &id, Streams::default())? } else { None };
        let file = match File::open(&path) {
            Ok(file) => file,
            // It was never started.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(SysError::io("open", path.display().to_string())(error).into()),
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(SysError::on("inotify_init1", ""))?;
        if client.is_some() {
            inotify
                .add_watch(&path, AddWatchFlags::IN_MODIFY)
                .map_err(SysError::on("inotify_add_watch", path.display().to_string()))?;
        }
        let mut reader = Reader::new(file, selection)?;
        let Some(client) = client else {
            reader.read(|record| sink(Some(record)))?;
            return sink(None).map(drop);
        };
        loop {
            // Asked before reading: what was written before the end is in the file by then.
            let ended = client.has_ended()?;
            if !reader.read(|record| sink(Some(record)))? || !sink(None)? || ended {
                return Ok(());
            }
            let mut slots = [
                PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(client.socket().as_fd(), PollFlags::POLLIN),
            ];
            wait(&mut slots, PollTimeout::NONE)?;
            // The events say no more than that there was one.
            let _ = inotify.read_events();
        }
    }
}

/// Joins the records of a stream to what the container wrote: the text, and the end of the line if it is
/// there. With `timestamps`, each line begins with its time.
#[derive(Debug)]
pub struct Lines {
    /// Whether the last record of each stream was a part of a line.
    inside: [bool; 2],
    timestamps: bool,
}

impl Lines {
    /// At the begin of both streams.
    pub fn new(timestamps: bool) -> Self {
        Self { inside: [false; 2], timestamps }
    }

    /// What is to be written for a record.
    pub fn text(&mut self, record: &LogRecord<'_>) -> Vec<u8> {
        let inside = &mut self.inside[usize::from(record.stream == Output::Stderr)];
        let mut text = Vec::with_capacity(record.text.len() + 32);
        if self.timestamps && !*inside {
            text.extend_from_slice(record.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(record.text);
        if !record.partial {
            text.push(b'\n');
        }
        *inside = record.partial;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_times_stand_at_the_begin_of_lines() {
        let record = |partial, text| LogRecord { time: "T", stream: Output::Stdout, partial, text };
        let mut lines = Lines::new(true);
        let all: Vec<u8> = [record(true, &b"a"[..]), record(false, b"b"), record(false, b"c")]
            .iter()
            .flat_map(|record| lines.text(record))
            .collect();
        assert_eq!(all, b"T ab\nT c\n");
    }
}
