//! Streams of exec, attach and port-forward: SPDY/3.1 and WebSocket.
//!
//! ```text
//! client --RPC: Exec-->  door (cri)  --exec_url(ticket)-->  Streams: token -> ticket
//! client <--http://127.0.0.1:PORT/exec/TOKEN--  door
//! client --GET, Upgrade-->  http: token -> ticket, once  --+-- spdy       streams by header    \   remote   exec, attach
//!                                                          +-- websocket  channels by number    > forward  port-forward
//!                                                          +-- tunnel     SPDY in WebSocket    /
//! ```
//! All that belongs to a connection is one future: when the client goes away, it is dropped with every pipe and
//! socket in it. A process that was added without a terminal goes on then, with its standard input at its end and
//! nobody behind its outputs; one with a terminal is hung up on.
use super::serve::{Open, Stop};
use super::{AgentError, Node};
use crate::engine::names::Id;
use crate::error::chain;
use backend::Tasks;
use http::Door;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

mod backend;
mod channel;
mod drain;
mod error;
mod exec_sync;
mod forward;
mod http;
mod monitor;
mod process;
mod remote;
mod running;
mod spdy;
mod tokens;
mod websocket;

pub use error::StreamError;
pub use exec_sync::{ExecSyncResult, exec_sync};
use tokens::Tokens;

/// The door's name.
const DOOR: &str = "streaming";
/// Connections at a time; more wait.
const MAX_CONNECTIONS: usize = 1024;
/// A client has this long to say what it wants.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Most bytes of a request's head.
const MAX_REQUEST: usize = 64 * 1024;
/// How long nothing is accepted after that failed.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// It will send standard input.
    pub stdin: bool,
    /// It wants standard output.
    pub stdout: bool,
    /// It wants standard error, which a terminal does not have.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

/// A process that a client may add to a container.
#[derive(Debug, Clone)]
pub struct ExecTicket {
    /// The container.
    pub container: Id,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Its streams.
    pub wanted: Wanted,
}

/// A container's init, to whose streams a client may attach.
#[derive(Debug, Clone)]
pub struct AttachTicket {
    /// The container.
    pub container: Id,
    /// The streams that the client will open. What the container has may differ: without a terminal it has no size,
    /// with one it has no standard error, whatever the client believes.
    pub wanted: Wanted,
}

/// A task to whose ports a client may connect.
#[derive(Debug, Clone)]
pub struct PortForwardTicket {
    /// The task.
    pub task: Id,
    /// Ports for clients that do not name one for each connection.
    pub ports: Vec<u16>,
}

/// What a token stands for.
#[derive(Debug)]
enum Ticket {
    Exec(ExecTicket),
    Attach(AttachTicket),
    PortForward(PortForwardTicket),
}

impl Ticket {
    /// The word of the URL and of the metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Attach(_) => "attach",
            Self::PortForward(_) => "portforward",
        }
    }
}

/// Streams that were promised to clients, by the token in the URL that they were given.
#[derive(Debug)]
pub struct Streams {
    tokens: Tokens<Ticket>,
    address: OnceLock<SocketAddr>,
}

impl Streams {
    /// None yet; a URL can be used for `life`.
    pub fn new(life: Duration) -> Self {
        Self { tokens: Tokens::new(life), address: OnceLock::new() }
    }

    /// A URL under which a process can be added to a container, once.
    ///
    /// # Errors
    /// [`StreamError::TooManyTokens`], [`StreamError::Closed`].
    pub fn exec_url(&self, ticket: ExecTicket) -> Result<String, StreamError> {
        self.url(Ticket::Exec(ticket))
    }

    /// A URL under which a client can attach to a container, once.
    ///
    /// # Errors
    /// [`StreamError::TooManyTokens`], [`StreamError::Closed`].
    pub fn attach_url(&self, ticket: AttachTicket) -> Result<String, StreamError> {
        self.url(Ticket::Attach(ticket))
    }

    /// A URL under which connections to ports of a task can be made, over one connection of the client.
    ///
    /// # Errors
    /// [`StreamError::TooManyTokens`], [`StreamError::Closed`].
    pub fn port_forward_url(&self, ticket: PortForwardTicket) -> Result<String, StreamError> {
        self.url(Ticket::PortForward(ticket))
    }

    fn url(&self, ticket: Ticket) -> Result<String, StreamError> {
        let mut address = *self.address.get().ok_or(StreamError::Closed)?;
        // Who is told to go to "any address" of this machine gets to its loopback.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let word = ticket.word();
        Ok(format!("http://{address}/{word}/{}", self.tokens.issue(ticket)?))
    }
}

/// Opens this door.
///
/// # Errors
/// It cannot listen.
pub async fn open(node: &Arc<Node>, mut stop: Stop) -> Result<Open, AgentError> {
    let listen = &node.config.streaming.listen;
    let failed = |source| AgentError::Listen { door: DOOR, address: listen.clone(), source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    // It is opened once.
    let _ = node.streams.address.set(address);
    let door = Door { streams: Arc::clone(&node.streams), backend: Arc::new(Tasks::new(Arc::clone(node))) };
    let serving = async move {
        tokio::select! {
            () = serve(listener, Arc::new(door)) => {}
            () = stop.asked() => {}
        }
        Ok(())
    };
    Ok(Open { name: DOOR, address: address.to_string(), serving: Box::pin(serving) })
}

/// Accepts connections for ever.
async fn serve(listener: TcpListener, door: Arc<Door>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let connection = match listener.accept().await {
            Ok((connection, _)) => connection,
            Err(error) => {
                // A client that has left already, or no descriptors: there will be some when others leave.
                tracing::warn!("cannot accept a stream's connection: {error}");
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        // What people type is sent at once; without it, it is late and no more.
        let _ = connection.set_nodelay(true);
        let (door, place) = (Arc::clone(&door), Arc::new(place));
        let service = service_fn(move |request| {
            let (door, place) = (Arc::clone(&door), Arc::clone(&place));
            async move { Ok::<_, Infallible>(http::answer(door, place, request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE)
            .max_buf_size(MAX_REQUEST)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades();
        tokio::spawn(async move {
            // A client that asks nothing, or nonsense, was told or has left.
            if let Err(error) = connection.await {
                tracing::debug!("streaming: {}", chain(&error));
            }
        });
    }
}
