//! A process to whose streams a client is connected.
use super::channel::CHUNK;
use super::error::StreamError;
use super::monitor::Monitor;
use crate::sys::reactor::{self, AsyncFd};
use crate::sys::{SysError, pty};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::{Error, Result};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

/// What is not there yet.
pub(super) type Pending<T> = Pin<Box<dyn Future<Output = std::result::Result<T, StreamError>> + Send>>;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// An added process: its exit code, or 128 + the signal.
    Code(u8),
    /// A container; its exit code is told elsewhere.
    Container,
}

/// A running process: our ends of its streams, as far as they are wanted, and its end. With a terminal all of it is
/// standard output.
pub(super) struct Process {
    pub(super) stdin: Option<Sink>,
    pub(super) stdout: Option<Source>,
    pub(super) stderr: Option<Source>,
    pub(super) size: Option<Size>,
    pub(super) end: Pending<End>,
}

/// Where a process reads.
#[derive(Debug)]
pub(super) enum Sink {
    Pipe(pipe::Sender),
    Terminal(Arc<Terminal>),
    /// Standard input of a container; whether it ends with ours.
    Monitor(Arc<Monitor>, bool),
}

/// Where what it writes is read.
#[derive(Debug)]
pub(super) enum Source {
    Pipe(pipe::Receiver),
    Terminal(Arc<Terminal>),
    Queue(mpsc::Receiver<Vec<u8>>),
}

/// What has the size of its terminal.
#[derive(Debug)]
pub(super) enum Size {
    Terminal(Arc<Terminal>),
    Monitor(Arc<Monitor>),
}

impl Sink {
    /// Writes all of it, waiting for the process to take it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(terminal) => terminal.write(bytes).await,
            Self::Monitor(monitor, _) => monitor.write(bytes).await,
        }
    }

    /// There is no more. A terminal has no end: its user types one.
    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Pipe(_) | Self::Terminal(_) | Self::Monitor(_, false) => Ok(()),
            Self::Monitor(monitor, true) => monitor.end_input().await,
        }
    }
}

impl Source {
    /// Reads what there is, waiting for some; nothing at the end. Loses nothing when it is dropped before its end.
    pub(super) async fn read(&mut self) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(CHUNK);
        match self {
            Self::Pipe(pipe) => {
                pipe.read_buf(&mut buffer).await?;
            }
            Self::Terminal(terminal) => {
                buffer.resize(CHUNK, 0);
                let length = terminal.read(&mut buffer).await?;
                buffer.truncate(length);
            }
            Self::Queue(queue) => return Ok(queue.recv().await.unwrap_or_default()),
        }
        Ok(buffer)
    }
}

impl Size {
    /// Sets it, if that is possible at the moment: the next change will tell again.
    pub(super) fn set(&self, size: pty::Size) {
        match self {
            // A terminal that is being closed has no size.
            Self::Terminal(terminal) => drop(pty::set_size(terminal.master.get_ref().as_fd(), size)),
            Self::Monitor(monitor) => monitor.resize(size),
        }
    }
}

/// The master side of a terminal. When the last part of it is dropped, the terminal hangs up.
#[derive(Debug)]
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> std::result::Result<Arc<Self>, SysError> {
        let flags = fcntl(&master, FcntlArg::F_GETFL).map_err(SysError::on("fcntl", "terminal"))?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&master, FcntlArg::F_SETFL(flags)).map_err(SysError::on("fcntl", "terminal"))?;
        Ok(Arc::new(Self { master: reactor::watch(master, Interest::READABLE | Interest::WRITABLE)? }))
    }

    async fn read(&self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            match ready.try_io(|master| nix::unistd::read(master.get_ref(), buffer).map_err(Error::from)) {
                // Nobody has the other side open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(0),
                Ok(result) => return result,
                Err(_) => {}
            }
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut ready = self.master.writable().await?;
            let written =
                ready.try_io(|master| nix::unistd::write(master.get_ref(), rest).map_err(Error::from));
            if let Ok(written) = written {
                rest = &rest[written?..];
            }
        }
        Ok(())
    }
}
