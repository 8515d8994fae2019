//! The connection of a client to a container's monitor, over which it is attached.
use super::error::StreamError;
use super::process::{End, Process, Sink, Size, Source};
use super::{AttachTicket, Node};
use crate::engine::attach::{FromClient, FromMonitor, MAX_BODY, MAX_FRAME, Output, Streams};
use crate::engine::client::Client;
use crate::engine::record::Record;
use crate::engine::{EngineError, names::Id};
use crate::sys::packet::{Received, Sent, try_receive, try_send};
use crate::sys::reactor::{self, AsyncFd};
use crate::sys::{SysError, pty};
use nix::errno::Errno;
use std::io::{Error, Result};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::Interest;
use tokio::sync::mpsc;

/// Frames that wait for the client; after that the monitor waits, and the container.
const FRAMES: usize = 4;

/// A connection; the monitor forgets us when it is dropped.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: AsyncFd<OwnedFd>,
}

/// Connects to the monitor of a running container.
pub(super) async fn attach(
    node: &Arc<Node>,
    ticket: AttachTicket,
) -> std::result::Result<Process, StreamError> {
    let wanted = ticket.wanted;
    let id = ticket.container;
    let (record, socket) = {
        let id = id.clone();
        node.blocking(move |node| connect(node, &id, wanted.stdin, wanted.stdout || wanted.stderr)).await?
    };
    let socket = reactor::watch(socket, Interest::READABLE | Interest::WRITABLE)?;
    let monitor = Arc::new(Monitor { socket });
    let queue = |wanted: bool| wanted.then(|| mpsc::channel(FRAMES)).unzip();
    let (stdout, from_stdout) = queue(wanted.stdout);
    let (stderr, from_stderr) = queue(wanted.stderr);
    let stdin = wanted.stdin.then(|| Sink::Monitor(Arc::clone(&monitor), record.options.task.stdin_once));
    Ok(Process {
        stdin,
        stdout: from_stdout.map(Source::Queue),
        stderr: from_stderr.map(Source::Queue),
        size: record.options.tty.then(|| Size::Monitor(Arc::clone(&monitor))),
        end: Box::pin(async move { monitor.follow(&id, stdout, stderr).await }),
    })
}

fn connect(
    node: &Node,
    id: &Id,
    stdin: bool,
    output: bool,
) -> std::result::Result<(Record, OwnedFd), StreamError> {
    let record =
        node.engine.record(id)?.ok_or_else(|| EngineError::NoSuchContainer { given: id.to_string() })?;
    let client = Client::connect(&node.engine, id, Streams { stdin, output })?;
    let client = client.ok_or_else(|| StreamError::Gone { container: id.to_string() })?;
    let socket = client.socket().try_clone().map_err(SysError::io("dup", "attach.sock"))?;
    Ok((record, socket))
}

impl Monitor {
    /// Passes on what the container writes until its end.
    async fn follow(
        &self,
        id: &Id,
        stdout: Option<mpsc::Sender<Vec<u8>>>,
        stderr: Option<mpsc::Sender<Vec<u8>>>,
    ) -> std::result::Result<End, StreamError> {
        let mut buffer = vec![0; MAX_FRAME];
        loop {
            let mut ready =
                self.socket.readable().await.map_err(SysError::io("epoll_wait", "attach.sock"))?;
            let frame = match try_receive(ready.get_inner(), &mut buffer) {
                Received::Packet(length) => FromMonitor::decode(&buffer[..length])?,
                Received::Nothing => {
                    ready.clear_ready();
                    continue;
                }
                Received::Gone => return Err(StreamError::Gone { container: id.to_string() }),
            };
            match frame {
                FromMonitor::Output(output, bytes) => {
                    let queue = if output == Output::Stdout { &stdout } else { &stderr };
                    if let Some(queue) = queue {
                        // An error says that the client gave this stream up.
                        let _ = queue.send(bytes.to_vec()).await;
                    }
                }
                FromMonitor::Exit(_) => return Ok(End::Container),
                FromMonitor::Started { .. } | FromMonitor::Failed(_) => {}
            }
        }
    }

    async fn send(&self, frame: &[u8]) -> Result<()> {
        loop {
            let mut ready = self.socket.writable().await?;
            match try_send(ready.get_inner(), frame) {
                Sent::Done => return Ok(()),
                Sent::Full => ready.clear_ready(),
                Sent::Gone => return Err(Error::from(Errno::EPIPE)),
            }
        }
    }

    /// Writes to the container's standard input.
    pub(super) async fn write(&self, bytes: &[u8]) -> Result<()> {
        for bytes in bytes.chunks(MAX_BODY) {
            self.send(&FromClient::Stdin(bytes).encode()).await?;
        }
        Ok(())
    }

    /// Ends the container's standard input.
    pub(super) async fn end_input(&self) -> Result<()> {
        self.send(&FromClient::StdinEof.encode()).await
    }

    /// Sets the size of the container's terminal.
    pub(super) fn resize(&self, size: pty::Size) {
        let frame = FromClient::Resize { rows: size.rows, columns: size.columns };
        // With a full socket the next change of size tells; if the monitor is gone, receiving tells.
        let _ = try_send(self.socket.get_ref(), &frame.encode());
    }
}
