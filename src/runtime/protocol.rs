//! What init and the process that made it tell each other, over one SOCK_SEQPACKET pair.
//!
//! ```text
//! parent (create, run, exec)              stage (only where namespaces need one)      init
//!    |----------------------------------- Enter + fds -------------------------------->| cgroups that were made meanwhile
//!    |<-------------------- Staged{pid} ------------|
//!    |<---------------------------------- NeedMappings ------------------------------| new user namespace
//!    |----------------------------------- Go --------------------------------------->|
//!    |<---------------------------------- NeedHooks ---------------------------------| prestart, createRuntime
//!    |----------------------------------- Go --------------------------------------->|
//!    |<---------------------------------- Console + fd ------------------------------| new pty
//!    |<---------------------------------- Ready -------------------------------------|
//!    |----------------------------------- Start | Await ---------------------------->|
//!    |       Start may come long before Ready, when init asks for nothing on the way (StartMode::AtOnce)
//!    |       Await: init takes the next Start from a connection to `start.sock`      |
//!    |<---------------------------------- Listener + fd -----------------------------| seccomp notify
//!    |       or ListenerAt{number} before the filter is loaded, and Listening after it
//!    |<---------------------------------- end of stream: execve succeeded -----------|
//! ```
//! `Failed` and `Log` may come at any point; after `Failed` the sender ends.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::error::ErrorKind;
use crate::sys::{SysError, socket};

/// No message is longer.
const MAX_MESSAGE: usize = 64 * 1024;

/// A failure on the container's side, as it crosses to the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{chain}")]
pub struct Failure {
    /// What init was doing.
    pub step: String,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// The errno at the root of it.
    pub errno: Option<i32>,
    /// The whole chain, outermost first.
    pub chain: String,
}

impl crate::error::Kind for Failure {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// From the container's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToParent {
    /// The stage made init; the number is the runtime's view of it.
    Staged {
        /// Init.
        pid: i32,
    },
    /// Init is in its new user namespace and waits for its mappings.
    NeedMappings,
    /// The namespaces are there; network devices and the hooks of the runtime's side are due.
    NeedHooks,
    /// The master side of the container's terminal comes with this.
    Console,
    /// The seccomp notification descriptor comes with this.
    Listener,
    /// A filter that notifies of the very call that would send its descriptor is about to be loaded; the
    /// descriptor will have this number.
    ListenerAt {
        /// In init.
        number: i32,
    },
    /// It is loaded, and the one who is notified let this message through.
    Listening,
    /// All is set up but the start.
    Ready,
    /// A log record.
    Log {
        /// `warn`, `info` or `debug`.
        level: String,
        /// The text.
        message: String,
    },
    /// It failed.
    Failed(Failure),
}

/// To the container's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToChild {
    /// The cgroups to enter come with this: files that take the process which writes `0` to them.
    Enter {
        /// Whether some of the container's cgroups could not be made.
        refused: bool,
    },
    /// What was waited for is done.
    Go,
    /// Execute the program.
    Start,
    /// Wait for a connection to the start socket.
    Await,
}

/// One end of the pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Takes over a connected socket.
    pub fn new(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// Sends one message, with at most one descriptor.
    pub fn send(&self, message: &impl Serialize, fd: Option<BorrowedFd<'_>>) -> Result<(), SysError> {
        self.send_with(message, fd.as_slice())
    }

    fn send_with(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), SysError> {
        // A message is made of our own enums and strings: it always has a JSON form.
        let bytes = serde_json::to_vec(message).unwrap_or_default();
        socket::send(&self.0, &bytes, fds)
    }

    /// Sends a message to a peer that may have ended: what it said before is still to be received.
    pub fn tell(&self, message: &impl Serialize) -> Result<(), SysError> {
        self.tell_with(message, &[])
    }

    /// The same with descriptors.
    pub fn tell_with(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), SysError> {
        match self.send_with(message, fds) {
            // The latter, once, where it ended with messages of ours unread.
            Err(SysError { errno: Errno::EPIPE | Errno::ECONNRESET, .. }) => Ok(()),
            other => other,
        }
    }

    /// Receives one message and the descriptor that came with it; None at the end of the stream.
    pub fn receive<T: for<'de> Deserialize<'de>>(&self) -> Result<Option<(T, Option<OwnedFd>)>, SysError> {
        Ok(self.receive_with()?.map(|(message, mut fds)| (message, fds.pop())))
    }

    /// The same with all its descriptors.
    pub fn receive_with<T: for<'de> Deserialize<'de>>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, SysError> {
        let length = despite_reset(|| socket::next_length(&self.0))?;
        if length == 0 {
            return Ok(None);
        }
        // Most are of some ten bytes: room for the longest would be mapped and unmapped each time.
        let mut buffer = vec![0; length.min(MAX_MESSAGE)];
        let received = despite_reset(|| socket::receive(&self.0, &mut buffer))?;
        let message = serde_json::from_slice(&buffer[..received.length]).map_err(|_| SysError {
            call: "recvmsg",
            args: "malformed message".into(),
            errno: Errno::EBADMSG,
        })?;
        Ok(Some((message, received.fds)))
    }
}

/// Where the peer ends with messages of ours unread, one call fails for that, before what the peer had said is told.
fn despite_reset<T>(mut receive: impl FnMut() -> Result<T, SysError>) -> Result<T, SysError> {
    match receive() {
        Err(SysError { errno: Errno::ECONNRESET, .. }) => receive(),
        other => other,
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_cross_with_their_descriptor() {
        let (left, right) = socket::pair().unwrap();
        let (left, right) = (Channel::new(left), Channel::new(right));
        let file = std::fs::File::open("/dev/null").unwrap();
        left.send(&ToParent::Console, Some(file.as_fd())).unwrap();
        let (message, fd) = right.receive::<ToParent>().unwrap().unwrap();
        assert_eq!((message, fd.is_some()), (ToParent::Console, true));
        drop(left);
        assert!(right.receive::<ToParent>().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_from_a_peer_that_did_not_listen() {
        let (left, right) = socket::pair().unwrap();
        let (left, right) = (Channel::new(left), Channel::new(right));
        left.send(&ToParent::Ready, None).unwrap();
        right.send(&ToChild::Start, None).unwrap();
        drop(left);
        assert_eq!(right.receive::<ToParent>().unwrap().unwrap().0, ToParent::Ready);
        assert!(right.receive::<ToParent>().unwrap().is_none());
        assert!(right.tell(&ToChild::Start).is_ok(), "there is nobody to tell, and that is no error");
    }

    #[test]
    fn a_peer_that_ended_with_messages_unread_is_no_error() {
        let (left, right) = socket::pair().unwrap();
        let right = Channel::new(right);
        right.send(&ToChild::Go, None).unwrap();
        drop(left);
        for _ in 0..2 {
            assert!(right.tell(&ToChild::Start).is_ok());
        }
        assert!(right.receive::<ToParent>().unwrap().is_none());
    }

    #[test]
    fn a_peer_may_end_between_two_looks_at_its_message() {
        let (left, right) = socket::pair().unwrap();
        let (left, right) = (Channel::new(left), Channel::new(right));
        left.send(&ToParent::Ready, None).unwrap();
        right.send(&ToChild::Start, None).unwrap();
        assert_eq!(socket::next_length(&right).unwrap(), 7);
        drop(left);
        assert_eq!(despite_reset(|| socket::receive(&right, &mut [0; 7])).unwrap().length, 7);
    }

    #[test]
    fn a_malformed_message_is_an_error() {
        let (left, right) = socket::pair().unwrap();
        socket::send(&left, b"{\"Staged\":", &[]).unwrap();
        assert_eq!(Channel::new(right).receive::<ToParent>().unwrap_err().errno, Errno::EBADMSG);
    }
}
