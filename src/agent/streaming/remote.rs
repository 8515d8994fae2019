//! Kubernetes' remote command protocol: a process's streams, the size of its terminal, and how it ended.
//!
//! ```text
//! stdin, resize  client -> process       resize: {"Width":80,"Height":24} again and again
//! stdout, stderr process -> client
//! error          we -> client, once: a Status in JSON from version 4 on, before that a text in case of an error
//! ```
use super::Wanted;
use super::channel::{Gone, Input, OPENING, Output};
use super::drain::{Drain, drain};
use super::error::StreamError;
use super::process::{End, Pending, Process, Size, Source};
use super::spdy::{Opened, get};
use crate::error::chain;
use crate::sys::pty;
use serde::Deserialize;
use serde_json::{Value, json};
use std::future::pending;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Most bytes of an event of a terminal's size that has not ended yet.
const MAX_EVENT: usize = 4096;

/// How errors are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A text.
    Text,
    /// A Status.
    Status,
}

/// The versions that are spoken over SPDY; each has streams by name.
pub(super) const PROTOCOLS: [(&str, Version, Resizes); 4] = [
    ("v4.channel.k8s.io", Version::Status, Resizes(true)),
    ("v3.channel.k8s.io", Version::Text, Resizes(true)),
    ("v2.channel.k8s.io", Version::Text, Resizes(false)),
    ("channel.k8s.io", Version::Text, Resizes(false)),
];

/// Whether the client opens a stream for the size of its terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Resizes(pub(super) bool);

/// A client's streams.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) error: Output,
    pub(super) resize: Option<Input>,
    pub(super) version: Version,
}

/// Waits for the streams that a client announced; `None` if they do not come, or others come.
pub(super) async fn gather(
    mut opened: mpsc::Receiver<Opened>,
    wanted: Wanted,
    version: Version,
    resizes: Resizes,
) -> Option<Client> {
    let names = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty && resizes.0),
    ];
    let all = async {
        let mut streams: [Option<Opened>; 5] = Default::default();
        while names.iter().zip(&streams).any(|((_, wanted), stream)| *wanted && stream.is_none()) {
            let stream = opened.recv().await?;
            let name = get(&stream.headers, "streamtype")?.to_owned();
            let at = names.iter().position(|(known, wanted)| *wanted && *known == name)?;
            if streams[at].replace(stream).is_some() {
                return None;
            }
        }
        Some(streams)
    };
    let [error, stdin, stdout, stderr, resize] = timeout(OPENING, all).await.ok().flatten()?;
    Some(Client {
        stdin: stdin.map(|stream| stream.input),
        stdout: stdout.map(|stream| stream.output),
        stderr: stderr.map(|stream| stream.output),
        error: error?.output,
        resize: resize.map(|stream| stream.input),
        version,
    })
}

/// Connects a client with a process until the process ends and all it wrote is on its way, and tells how it ended.
/// What the process left running with its outputs open is not waited for.
pub(super) async fn run(client: Client, process: Pending<Process>) {
    let Client { stdin, stdout, stderr, error, resize, version } = client;
    let result = match process.await {
        Ok(process) => connect(process, stdin, [stdout, stderr], resize).await,
        Err(error) => Err(error),
    };
    let text = match version {
        Version::Status => Some(status(&result).to_string()),
        Version::Text => message(&result),
    };
    if let Some(text) = text
        && error.send(text.as_bytes()).await.is_err()
    {
        return;
    }
    // A client that has gone needs no end.
    let _ = error.finish().await;
}

async fn connect(
    process: Process,
    stdin: Option<Input>,
    outputs: [Option<Output>; 2],
    resize: Option<Input>,
) -> Result<End, StreamError> {
    let (ended, drain) = drain();
    let [stdout, stderr] = outputs;
    let running = async {
        let how = process.end.await;
        ended.is_now();
        how
    };
    let all = async {
        let (how, _, _) = tokio::join!(
            running,
            copy(process.stdout, stdout, drain.clone()),
            copy(process.stderr, stderr, drain)
        );
        how
    };
    let input = async {
        if let (Some(mut from), Some(mut to)) = (stdin, process.stdin) {
            while let Some(bytes) = from.next_bytes().await {
                if to.write(&bytes).await.is_err() {
                    // It does not read any more; nor do we.
                    return;
                }
            }
            // It may have ended meanwhile.
            let _ = to.close().await;
        }
    };
    let sizes = async {
        if let (Some(from), Some(size)) = (resize, process.size) {
            follow(from, &size).await;
        }
    };
    let inputs = async {
        tokio::join!(input, sizes);
        pending::<Result<End, StreamError>>().await
    };
    tokio::select! {
        how = all => how,
        never = inputs => never,
    }
}

/// Passes on what a process writes until its end, or until what the process wrote has been passed on.
async fn copy(from: Option<Source>, to: Option<Output>, mut drain: Drain) -> Result<(), Gone> {
    if let Some(mut from) = from {
        let over = drain.over();
        tokio::pin!(over);
        loop {
            let bytes = tokio::select! {
                biased;
                read = from.read() => read.unwrap_or_default(),
                () = &mut over => break,
            };
            if let Some(to) = &to {
                to.send(&bytes).await?;
            }
            if bytes.is_empty() || drain.enough(bytes.len()) {
                break;
            }
        }
    }
    match to {
        Some(to) => to.finish().await,
        None => Ok(()),
    }
}

/// The size of a terminal as clients tell it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    width: u16,
    height: u16,
}

/// Sets the size of a terminal whenever the client tells it. Nothing waits: of many sizes the last one stays.
async fn follow(mut from: Input, size: &Size) {
    let mut text = Vec::new();
    while let Some(bytes) = from.next_bytes().await {
        text.extend_from_slice(&bytes);
        let mut events = serde_json::Deserializer::from_slice(&text).into_iter::<Event>();
        let mut last = None;
        while let Some(Ok(event)) = events.next() {
            last = Some(event);
        }
        let done = events.byte_offset();
        text.drain(..done);
        if let Some(Event { width, height }) = last {
            size.set(pty::Size { rows: height, columns: width });
        }
        if text.len() > MAX_EVENT {
            return;
        }
    }
}

/// What clients before version 4 are told: nothing if all is well.
fn message(result: &Result<End, StreamError>) -> Option<String> {
    match result {
        Ok(End::Code(0) | End::Container) => None,
        Ok(End::Code(code)) => Some(non_zero(*code)),
        Err(error) => Some(format!("error executing command in container: {}", chain(error))),
    }
}

fn non_zero(code: u8) -> String {
    format!("command terminated with non-zero exit code: {code}")
}

/// A `Status` of Kubernetes' meta/v1.
fn status(result: &Result<End, StreamError>) -> Value {
    match result {
        Ok(End::Code(0) | End::Container) => json!({"metadata": {}, "status": "Success"}),
        Ok(End::Code(code)) => json!({
            "metadata": {},
            "status": "Failure",
            "message": non_zero(*code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            let text = chain(error);
            json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {text}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": text}]},
                "code": 500,
            })
        }
    }
}
