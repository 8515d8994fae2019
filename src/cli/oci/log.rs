//! The log of the runtime, in logrus' two formats, which containerd and podman parse.
//!
//! Podman reads the whole file as one JSON object, so a call that fails writes its error and nothing else:
//! other records wait until the call has succeeded. On standard error, and with `--debug`, nothing waits.
use crate::runtime::records;
use crate::sys::{SysError, clock};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// `--log-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    /// `time="…" level=… msg="…"`.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// At most so many records wait.
const MAX_WAITING: usize = 64;

struct Log {
    file: Option<File>,
    format: Format,
    threshold: Level,
    waiting: Mutex<Vec<String>>,
}

/// The log of this process, to end the call with.
#[derive(Clone, Copy)]
pub(super) struct Handle(&'static Log);

/// Installs the log. Without a path, records go to standard error.
pub(super) fn init(path: Option<&Path>, format: Format, debug: bool) -> Result<Handle, SysError> {
    let open = |path: &Path| {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o644).custom_flags(OFlag::O_SYNC.bits());
        options.open(path).map_err(SysError::io("open", path.display().to_string()))
    };
    let file = path.map(open).transpose()?;
    let threshold = if debug { Level::DEBUG } else { Level::INFO };
    let log = Log { file, format, threshold, waiting: Mutex::new(Vec::new()) };
    // It lives as long as the process, and the subscriber needs the same object as the handle.
    let log: &'static Log = Box::leak(Box::new(log));
    // A second call in one process is a test's; the first log stays.
    let _ = tracing::subscriber::set_global_default(Records(log));
    Ok(Handle(log))
}

impl Handle {
    /// The call succeeded: what waited is written.
    pub(super) fn succeeded(self) {
        for line in self.0.take_waiting() {
            self.0.write(&line);
        }
    }

    /// The call failed: the error is written, and told on standard error if the log is elsewhere.
    pub(super) fn failed(self, message: &str) {
        self.0.take_waiting();
        self.0.write(&self.0.line("error", message));
        if self.0.file.is_some() {
            // Nothing can be told any more if this fails.
            let _ = writeln!(std::io::stderr(), "{message}");
        }
    }
}

impl Log {
    fn take_waiting(&self) -> Vec<String> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn line(&self, level: &str, message: &str) -> String {
        line(self.format, &clock::now_rfc3339(), level, message)
    }

    fn write(&self, line: &str) {
        // A log that cannot be written must not fail the call that it tells about.
        let _ = match &self.file {
            Some(file) => Write::write_all(&mut &*file, line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

/// One record; logrus' times have no fraction of a second.
fn line(format: Format, now: &str, level: &str, message: &str) -> String {
    let time = now.split_once('.').map_or_else(|| now.to_string(), |(seconds, _)| format!("{seconds}Z"));
    match format {
        Format::Text => format!("time=\"{time}\" level={level} msg={}\n", quoted(message)),
        Format::Json => {
            #[derive(serde::Serialize)]
            struct Record<'a> {
                level: &'a str,
                msg: &'a str,
                time: String,
            }
            let record = Record { level, msg: message, time };
            // Strings always have a JSON form.
            serde_json::to_string(&record).unwrap_or_default() + "\n"
        }
    }
}

/// Go's %q, which is JSON's for all but rare characters.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

struct Records(&'static Log);

impl Subscriber for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0.threshold
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.0.threshold))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Spans are not shown; the number must not be zero.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        let line = self.0.line(level, &records::text(event));
        if self.0.threshold >= Level::DEBUG || self.0.file.is_none() {
            return self.0.write(&line);
        }
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING {
            waiting.push(line);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_logrus() {
        let now = "2026-11-22T10:27:22.179582425Z";
        assert_eq!(
            line(Format::Text, now, "error", "unknown signal \"FOO\""),
            "time=\"2026-11-22T10:27:22Z\" level=error msg=\"unknown signal \\\"FOO\\\"\"\n"
        );
        assert_eq!(
            line(Format::Json, now, "error", "a\nb"),
            "{\"level\":\"error\",\"msg\":\"a\\nb\",\"time\":\"2026-11-22T10:27:22Z\"}\n"
        );
    }
}
