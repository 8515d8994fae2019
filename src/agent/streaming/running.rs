//! A process that was added to a container, for the asynchronous side.
use super::error::StreamError;
use super::process::{End, Process, Sink, Size, Source, Terminal};
use super::{ExecTicket, Node};
use crate::engine::EngineError;
use crate::engine::task::{Exec, ExecRequest, ExecStdio};
use crate::error::chain;
use crate::sys::SysError;
use crate::sys::reactor::{self, AsyncFd};
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// What becomes of a process when nobody waits for it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandoned {
    /// It is killed.
    Killed,
    /// It goes on.
    GoesOn,
}

/// A process that was added to a container.
#[derive(Debug)]
pub(super) struct Running {
    exec: Option<Arc<Exec>>,
    /// A descriptor of the same connection, for waiting.
    readable: AsyncFd<OwnedFd>,
    abandoned: Abandoned,
}

impl Running {
    /// Starts it on a thread for blocking calls. If this future is dropped meanwhile, the process is abandoned as
    /// soon as it is there.
    pub(super) async fn start(
        node: &Arc<Node>,
        abandoned: Abandoned,
        start: impl FnOnce(&Node) -> Result<Exec, EngineError> + Send + 'static,
    ) -> Result<(Self, Option<OwnedFd>), StreamError> {
        let node = Arc::clone(node);
        let (answer, started) = oneshot::channel();
        let thread = tokio::task::spawn_blocking(move || {
            if let Err(Ok(exec)) = answer.send(start(&node))
                && abandoned == Abandoned::Killed
            {
                kill(&exec);
            }
        });
        let mut exec = match started.await {
            Ok(exec) => exec?,
            Err(_) => match thread.await {
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The agent ends, and with it the thread that would have started it.
                _ => return Err(StreamError::Closed),
            },
        };
        let console = exec.console.take();
        let readable = exec
            .as_fd()
            .try_clone_to_owned()
            .map_err(SysError::io("dup", "connection to a monitor"))
            .and_then(|fd| reactor::watch(fd, Interest::READABLE));
        let exec = Arc::new(exec);
        match readable {
            Ok(readable) => Ok((Self { exec: Some(exec), readable, abandoned }, console)),
            Err(error) => {
                abandon(exec, abandoned);
                Err(error.into())
            }
        }
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> Result<u8, StreamError> {
        loop {
            let mut ready = self
                .readable
                .readable()
                .await
                .map_err(SysError::io("epoll_wait", "connection to a monitor"))?;
            let exec = self.exec.as_ref().ok_or(StreamError::Closed)?;
            match exec.wait(Some(Duration::ZERO))? {
                Some(code) => {
                    self.exec = None;
                    return Ok(code);
                }
                None => ready.clear_ready(),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(exec) = self.exec.take() {
            abandon(exec, self.abandoned);
        }
    }
}

fn abandon(exec: Arc<Exec>, abandoned: Abandoned) {
    if abandoned == Abandoned::Killed {
        // It asks the monitor, which may take its time.
        tokio::task::spawn_blocking(move || kill(&exec));
    }
}

fn kill(exec: &Exec) {
    if let Err(error) = exec.kill() {
        tracing::warn!(pid = exec.pid, "cannot kill a process that nobody waits for: {}", chain(&error));
    }
}

/// Adds a process for a client.
pub(super) async fn exec(node: &Arc<Node>, ticket: ExecTicket) -> Result<Process, StreamError> {
    let wanted = ticket.wanted;
    let (stdin, their_stdin) = (wanted.stdin && !wanted.tty).then(input).transpose()?.unzip();
    let (stdout, their_stdout) = (wanted.stdout && !wanted.tty).then(output).transpose()?.unzip();
    let (stderr, their_stderr) = (wanted.stderr && !wanted.tty).then(output).transpose()?.unzip();
    let stdio = match wanted.tty {
        true => ExecStdio::Terminal,
        false => ExecStdio::Fds { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr },
    };
    let request = ExecRequest { args: ticket.args, ..ExecRequest::default() };
    let (mut running, console) = Running::start(node, Abandoned::GoesOn, move |node| {
        let id = &ticket.container;
        let record = node.engine.record(id)?;
        let record = record.ok_or_else(|| EngineError::NoSuchContainer { given: id.to_string() })?;
        node.engine.exec_in_task(&record, &request, stdio)
    })
    .await?;
    let terminal = console.map(Terminal::new).transpose()?;
    let end = Box::pin(async move { running.ended().await.map(End::Code) });
    Ok(match terminal {
        Some(terminal) => Process {
            stdin: wanted.stdin.then(|| Sink::Terminal(Arc::clone(&terminal))),
            // Without a reader the terminal would fill up and stop it.
            stdout: Some(Source::Terminal(Arc::clone(&terminal))),
            stderr: None,
            size: Some(Size::Terminal(terminal)),
            end,
        },
        None => Process {
            stdin: stdin.map(Sink::Pipe),
            stdout: stdout.map(Source::Pipe),
            stderr: stderr.map(Source::Pipe),
            size: None,
            end,
        },
    })
}

/// A pipe whose writing end is the process's: our end and its.
pub(super) fn output() -> Result<(pipe::Receiver, OwnedFd), SysError> {
    let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
    Ok((pipe::Receiver::from_owned_fd(ours).map_err(SysError::io("fcntl", "pipe"))?, theirs))
}

/// A pipe whose reading end is the process's: our end and its.
pub(super) fn input() -> Result<(pipe::Sender, OwnedFd), SysError> {
    let (theirs, ours) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
    Ok((pipe::Sender::from_owned_fd(ours).map_err(SysError::io("fcntl", "pipe"))?, theirs))
}
