//! What a stream is connected with.
use super::error::StreamError;
use super::process::{Pending, Process};
use super::{AttachTicket, ExecTicket, monitor, running};
use crate::agent::Node;
use crate::engine::names::Id;
use crate::engine::task::TaskStatus;
use crate::sys::SysError;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// A connection to a task's port must be there by then.
const CONNECT: Duration = Duration::from_secs(10);
/// Threads that connect at the same time.
const CONNECTING: usize = 16;
/// A thread that connects calls nothing deep.
const STACK: usize = 128 * 1024;

/// What a client can be connected with.
pub(super) trait Backend: std::fmt::Debug + Send + Sync {
    /// Adds a process to a container.
    fn exec(&self, ticket: ExecTicket) -> Pending<Process>;
    /// Attaches to a container.
    fn attach(&self, ticket: AttachTicket) -> Pending<Process>;
    /// Connects to a port of a task.
    fn connect(&self, task: Id, port: u16) -> Pending<TcpStream>;
    /// Counts a request: what it was for, how it ended and how long it took.
    fn observe(&self, _operation: &'static str, _code: &'static str, _took: Duration) {}
}

/// The engine's tasks.
#[derive(Debug)]
pub(super) struct Tasks {
    node: Arc<Node>,
    connecting: Arc<Semaphore>,
}

impl Tasks {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, connecting: Arc::new(Semaphore::new(CONNECTING)) }
    }
}

impl Backend for Tasks {
    fn exec(&self, ticket: ExecTicket) -> Pending<Process> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { running::exec(&node, ticket).await })
    }

    fn attach(&self, ticket: AttachTicket) -> Pending<Process> {
        let node = Arc::clone(&self.node);
        Box::pin(async move { monitor::attach(&node, ticket).await })
    }

    fn connect(&self, task: Id, port: u16) -> Pending<TcpStream> {
        let (node, connecting) = (Arc::clone(&self.node), Arc::clone(&self.connecting));
        Box::pin(async move {
            let id = task.clone();
            let netns = node.blocking(move |node| network(node, &id)).await?;
            // It is never closed.
            let turn = connecting.acquire_owned().await.map_err(|_| StreamError::Closed)?;
            connect(netns, port, turn).await.map_err(|source| StreamError::Connect {
                task: task.to_string(),
                port,
                source,
            })
        })
    }

    fn observe(&self, operation: &'static str, code: &'static str, took: Duration) {
        self.node.metrics.observe("streaming", operation, code, took);
    }
}

/// The network namespace of a task that is ready; none if it is the host's.
fn network(node: &Node, task: &Id) -> Result<Option<PathBuf>, StreamError> {
    match node.engine.task_status(task)? {
        TaskStatus::Ready(run) => Ok(run.netns),
        _ => Err(StreamError::NotRunning { task: task.to_string() }),
    }
}

/// Connects to loopback in a network namespace. A thread that has changed its namespace must not do anything else
/// afterwards: it is made for this, and ends. It keeps its `turn` until then, however soon nobody waits for it.
async fn connect(
    netns: Option<PathBuf>,
    port: u16,
    turn: OwnedSemaphorePermit,
) -> Result<TcpStream, SysError> {
    let (answer, connected) = oneshot::channel();
    std::thread::Builder::new()
        .name("connect".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            // An error says that nobody waits any more.
            let _ = answer.send(connect_here(netns, port));
            drop(turn);
        })
        .map_err(SysError::io("clone", "a thread"))?;
    let gone = || SysError::on("connect", format!("port {port}"))(nix::errno::Errno::ECANCELED);
    let stream = connected.await.map_err(|_| gone())??;
    stream.set_nonblocking(true).map_err(SysError::io("fcntl", "socket"))?;
    TcpStream::from_std(stream).map_err(SysError::io("epoll_ctl", "socket"))
}

fn connect_here(netns: Option<PathBuf>, port: u16) -> Result<std::net::TcpStream, SysError> {
    if let Some(path) = netns {
        let file = File::open(&path).map_err(SysError::io("open", path.display().to_string()))?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(SysError::on("setns", path.display().to_string()))?;
    }
    let try_one = |address: IpAddr| {
        let address = SocketAddr::new(address, port);
        let stream = std::net::TcpStream::connect_timeout(&address, CONNECT);
        // What is forwarded is often typed by a person.
        stream
            .inspect(|stream| drop(stream.set_nodelay(true)))
            .map_err(SysError::io("connect", address.to_string()))
    };
    try_one(Ipv4Addr::LOCALHOST.into())
        .or_else(|error| try_one(Ipv6Addr::LOCALHOST.into()).map_err(|_| error))
}
