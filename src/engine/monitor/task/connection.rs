//! One connection to a task's control socket.
use crate::engine::error::Failure;
use crate::engine::task::control::{self, MAX_PACKET, Reply, Request};
use crate::sys::packet::{Sent, try_send_with};
use crate::sys::socket;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A client that has so many packets to take is dropped.
const MAX_PENDING: usize = 256;

/// A connected client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) socket: OwnedFd,
    pub(super) role: Role,
    /// Packets that the socket has not taken yet, oldest first.
    pending: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    gone: bool,
}

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing: it may ask.
    Idle,
    /// The answer to what it asked.
    Asking,
    /// The end of a process.
    Exec,
    /// Events.
    Subscriber,
    /// Nothing more: it is dropped when it has taken what is pending.
    Leaving,
}

impl Connection {
    pub(super) fn new(number: u64, socket: OwnedFd) -> Self {
        Self { number, socket, role: Role::Idle, pending: VecDeque::new(), gone: false }
    }

    pub(super) fn is_behind(&self) -> bool {
        !self.gone && !self.pending.is_empty()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone || self.role == Role::Leaving && self.pending.is_empty()
    }

    pub(super) fn hang_up(&mut self) {
        self.gone = true;
    }

    /// Receives one request with its descriptors. A client that breaks the protocol is dropped.
    pub(super) fn receive(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        let mut buffer = [0; MAX_PACKET];
        let received = match socket::try_receive(&self.socket, &mut buffer) {
            Ok(None) => return None,
            Ok(Some(received)) if received.length > 0 => received,
            Ok(Some(_)) | Err(_) => {
                self.gone = true;
                return None;
            }
        };
        let request = control::decode(&buffer[..received.length]).ok();
        self.gone |= request.is_none();
        Some((request?, received.fds))
    }

    /// Sends a packet, or keeps it until the socket has room.
    pub(super) fn send(&mut self, packet: &[u8], fd: Option<OwnedFd>) {
        if self.gone {
            return;
        }
        if self.pending.is_empty() {
            match offer(&self.socket, packet, fd.as_ref()) {
                Sent::Done => return,
                Sent::Full => {}
                Sent::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
        if self.pending.len() >= MAX_PENDING {
            self.gone = true;
            return;
        }
        self.pending.push_back((packet.to_vec(), fd));
    }

    pub(super) fn reply(&mut self, reply: &Reply, fd: Option<OwnedFd>) {
        match control::encode(reply) {
            Ok(packet) => self.send(&packet, fd),
            // It waits for an answer that cannot be given.
            Err(_) => self.gone = true,
        }
    }

    /// Answers what was asked.
    pub(super) fn answer(&mut self, result: Result<(), Failure>) {
        self.role = Role::Idle;
        match result {
            Ok(()) => self.reply(&Reply::Done, None),
            Err(failure) => self.reply(&Reply::Failed(failure.into()), None),
        }
    }

    /// Sends what is pending as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some((packet, fd)) = self.pending.front() {
            match offer(&self.socket, packet, fd.as_ref()) {
                Sent::Done => drop(self.pending.pop_front()),
                Sent::Full => return,
                Sent::Gone => {
                    self.gone = true;
                    return;
                }
            }
        }
    }
}

fn offer(socket: &OwnedFd, packet: &[u8], fd: Option<&OwnedFd>) -> Sent {
    let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
    try_send_with(socket, packet, &fds)
}
