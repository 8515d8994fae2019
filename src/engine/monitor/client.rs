//! One connection of a monitor.
use crate::engine::attach::{FromClient, MAX_FRAME, Streams};
use crate::sys::packet::{Received, Sent, try_receive, try_send};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// A connected client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: OwnedFd,
    /// Frames that the socket has not taken yet, oldest first. While there are any, no more output is read
    /// from the container, so that there are never more than a few.
    pending: VecDeque<Vec<u8>>,
    /// What it asked for; nothing before its HELLO.
    pub(super) streams: Streams,
    /// The container's standard input ends with it.
    pub(super) owns_stdin: bool,
    gone: bool,
    /// Since when the socket has taken nothing of what is pending.
    stuck_since: Option<Instant>,
}

/// What a client asks of the monitor.
pub(super) enum Request {
    Stdin(Vec<u8>),
    StdinEof,
    Resize { rows: u16, columns: u16 },
}

impl Client {
    pub(super) fn new(socket: OwnedFd, streams: Streams, owns_stdin: bool) -> Self {
        Self { socket, pending: VecDeque::new(), streams, owns_stdin, gone: false, stuck_since: None }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.gone && !self.pending.is_empty()
    }

    /// Since when it takes nothing, if there is something to take.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        self.stuck_since.filter(|_| self.is_behind())
    }

    /// Sends a frame, or keeps it until the socket has room.
    pub(super) fn send(&mut self, frame: &[u8]) {
        if self.gone {
            return;
        }
        if !self.pending.is_empty() {
            self.pending.push_back(frame.to_vec());
            return;
        }
        match try_send(&self.socket, frame) {
            Sent::Done => {}
            Sent::Full => {
                self.pending.push_back(frame.to_vec());
                self.stuck_since = Some(Instant::now());
            }
            Sent::Gone => self.gone = true,
        }
    }

    /// Sends what is pending as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.pending.front() {
            match try_send(&self.socket, frame) {
                Sent::Done => {
                    self.pending.pop_front();
                    self.stuck_since = Some(Instant::now());
                }
                Sent::Full => return,
                Sent::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    /// Receives one frame. A client that breaks the protocol is dropped.
    pub(super) fn receive(&mut self) -> Option<Request> {
        let mut buffer = [0; MAX_FRAME];
        let length = match try_receive(&self.socket, &mut buffer) {
            Received::Packet(length) => length,
            Received::Nothing => return None,
            Received::Gone => {
                self.gone = true;
                return None;
            }
        };
        match FromClient::decode(&buffer[..length]) {
            Ok(FromClient::Hello(streams)) => {
                self.streams = streams;
                None
            }
            Ok(FromClient::Stdin(bytes)) if self.streams.stdin => Some(Request::Stdin(bytes.to_vec())),
            Ok(FromClient::StdinEof) if self.streams.stdin => Some(Request::StdinEof),
            Ok(FromClient::Resize { rows, columns }) => Some(Request::Resize { rows, columns }),
            Ok(FromClient::Stdin(_) | FromClient::StdinEof) => None,
            Err(_) => {
                self.gone = true;
                None
            }
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.gone = true;
    }
}
