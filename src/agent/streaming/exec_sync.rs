//! A process that is added to a container and waited for, with what it wrote.
//!
//! Three bounds hold whatever the process does: of each output only the first bytes are kept (the rest is read and
//! dropped, so that the process does not block: CVE-2022-31030); after its end nobody waits for what it left running
//! with its outputs open (CVE-2026-53495); and when its time is over, or whoever asked has gone, it is killed.
use super::Node;
use super::drain::{Drain, drain};
use super::error::StreamError;
use super::running::{Abandoned, Running, output};
use crate::engine::EngineError;
use crate::engine::record::Record;
use crate::engine::task::{Exec, ExecRequest, ExecStdio};
use crate::sys::SysError;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// What is read at once; as much as a pipe holds.
const CHUNK: usize = 64 * 1024;

/// How a process ended and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSyncResult {
    /// The beginning of its standard output.
    pub stdout: Vec<u8>,
    /// The beginning of its standard error.
    pub stderr: Vec<u8>,
    /// Exit code, or 128 + the signal.
    pub exit_code: u8,
}

/// Runs `args` in a running container of a task, with no standard input. Keeps the first `limit` bytes of each of
/// its outputs. If this future is dropped, the process is killed.
///
/// # Errors
/// [`StreamError::DeadlineExceeded`] if it did not end within `timeout` (the start included) and was killed;
/// [`StreamError::Engine`] if it could not be started.
pub async fn exec_sync(
    node: &Arc<Node>,
    record: &Record,
    args: Vec<String>,
    timeout: Option<Duration>,
    limit: usize,
) -> Result<ExecSyncResult, StreamError> {
    let (record, request) = (record.clone(), ExecRequest { args, ..ExecRequest::default() });
    let start = move |node: &Node, stdio| node.engine.exec_in_task(&record, &request, stdio);
    let work = run(node, start, limit);
    match timeout {
        None => work.await,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(StreamError::DeadlineExceeded { limit }),
        },
    }
}

async fn run(
    node: &Arc<Node>,
    start: impl FnOnce(&Node, ExecStdio) -> Result<Exec, EngineError> + Send + 'static,
    limit: usize,
) -> Result<ExecSyncResult, StreamError> {
    let (stdout, theirs_out) = output()?;
    let (stderr, theirs_err) = output()?;
    let stdio = ExecStdio::Fds { stdin: None, stdout: Some(theirs_out), stderr: Some(theirs_err) };
    let (mut running, _) = Running::start(node, Abandoned::Killed, move |node| start(node, stdio)).await?;
    let (ended, drain) = drain();
    let end_of_process = async {
        let code = running.ended().await;
        ended.is_now();
        code
    };
    let (code, stdout, stderr) =
        tokio::join!(end_of_process, collect(stdout, drain.clone(), limit), collect(stderr, drain, limit));
    let exit_code = code?;
    Ok(ExecSyncResult { stdout: stdout?, stderr: stderr?, exit_code })
}

/// Reads until the end, or until what the process wrote has been read; keeps the first `limit` bytes.
async fn collect(mut from: pipe::Receiver, mut drain: Drain, limit: usize) -> Result<Vec<u8>, StreamError> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let over = drain.over();
    tokio::pin!(over);
    loop {
        let length = tokio::select! {
            biased;
            read = from.read(&mut buffer) => read.map_err(SysError::io("read", "output of a process"))?,
            () = &mut over => return Ok(kept),
        };
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
        if length == 0 || drain.enough(length) {
            return Ok(kept);
        }
    }
}
