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
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

mod error;
mod exec_sync;
mod tokens;

pub use error::StreamError;
pub use exec_sync::{ExecSyncResult, exec_sync};
use tokens::Tokens;

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
    /// Its streams; `tty` says whether the container was made with a terminal.
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
pub async fn open(_node: &Arc<Node>, _stop: Stop) -> Result<Open, AgentError> {
    Err(AgentError::NotBuilt { door: "streaming" })
}
