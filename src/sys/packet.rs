//! Packets on SOCK_SEQPACKET sockets for a program that waits for many at once and never on one of them;
//! [`super::socket`] has the blocking calls and those that make the sockets.
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, recv, send, sendmsg};
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// What became of a packet that was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way.
    Done,
    /// The socket is full.
    Full,
    /// The other side went away.
    Gone,
}

/// What came from a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A packet of this length is in the buffer.
    Packet(usize),
    /// Nothing yet.
    Nothing,
    /// The other side went away.
    Gone,
}

/// Sends a packet without waiting.
pub fn try_send(socket: impl AsFd, packet: &[u8]) -> Sent {
    loop {
        match send(socket.as_fd().as_raw_fd(), packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(_) => return Sent::Done,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return Sent::Full,
            Err(_) => return Sent::Gone,
        }
    }
}

/// Sends a packet with descriptors without waiting.
pub fn try_send_with(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Sent {
    let numbers: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(packet)], control, flags, None) {
            Ok(_) => return Sent::Done,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::ENOBUFS) => return Sent::Full,
            Err(_) => return Sent::Gone,
        }
    }
}

/// Looks at the next packet without waiting and without taking it.
pub fn try_peek(socket: impl AsFd, buffer: &mut [u8]) -> Received {
    receive(socket, buffer, MsgFlags::MSG_PEEK)
}

/// Receives a packet without waiting; an empty packet counts as the end.
pub fn try_receive(socket: impl AsFd, buffer: &mut [u8]) -> Received {
    receive(socket, buffer, MsgFlags::empty())
}

fn receive(socket: impl AsFd, buffer: &mut [u8], flags: MsgFlags) -> Received {
    loop {
        match recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | flags) {
            Ok(0) => return Received::Gone,
            Ok(length) => return Received::Packet(length),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Received::Nothing,
            Err(_) => return Received::Gone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::socket::pair;

    #[test]
    fn packets_keep_their_ends() {
        let (left, right) = pair().unwrap();
        let mut buffer = [0; 64];
        assert_eq!(try_receive(&right, &mut buffer), Received::Nothing);
        assert_eq!(try_send(&left, b"one"), Sent::Done);
        assert_eq!(try_send(&left, b"three"), Sent::Done);
        assert_eq!(try_receive(&right, &mut buffer), Received::Packet(3));
        assert_eq!(try_receive(&right, &mut buffer), Received::Packet(5));
        drop(left);
        assert_eq!(try_receive(&right, &mut buffer), Received::Gone);
        assert_eq!(try_send(&right, b"x"), Sent::Gone);
    }

    #[test]
    fn a_full_socket_does_not_block() {
        let (left, _right) = pair().unwrap();
        let packet = [0; 16 * 1024];
        assert!((0..10_000).any(|_| try_send(&left, &packet) == Sent::Full));
    }
}
