//! Unix sockets that keep packets apart (SOCK_SEQPACKET).
use super::SysError;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, recv,
    send, socket, socketpair,
};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

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

/// Two connected sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(SysError::on("socketpair", ""))
}

/// A listening socket at `path`, in a directory that only its owner enters: that is what guards it, as the
/// mode of a socket is set only after it can be connected to.
///
/// # Errors
/// ENAMETOOLONG for a path of more than 107 bytes (unix(7)); see [`in_directory`].
pub fn listener(path: &Path) -> Result<OwnedFd, SysError> {
    let shown = || path.display().to_string();
    let address = UnixAddr::new(path).map_err(SysError::on("bind", shown()))?;
    let server = new_socket(SockFlag::SOCK_NONBLOCK)?;
    bind(server.as_raw_fd(), &address).map_err(SysError::on("bind", shown()))?;
    listen(&server, Backlog::new(16).unwrap_or(Backlog::MAXCONN)).map_err(SysError::on("listen", shown()))?;
    Ok(server)
}

/// Connects to the socket at `path`.
pub fn connect_to(path: &Path) -> Result<OwnedFd, SysError> {
    let shown = || path.display().to_string();
    let address = UnixAddr::new(path).map_err(SysError::on("connect", shown()))?;
    let client = new_socket(SockFlag::empty())?;
    connect(client.as_raw_fd(), &address).map_err(SysError::on("connect", shown()))?;
    Ok(client)
}

/// `name` in an open directory as a path that fits into a socket's address, however deep the directory is.
pub fn in_directory(directory: impl AsFd, name: &str) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd()))
}

fn new_socket(flags: SockFlag) -> Result<OwnedFd, SysError> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC | flags, None)
        .map_err(SysError::on("socket", "AF_UNIX"))
}

/// Takes a connection from a listening socket; `None` if there is none or it was broken off.
pub fn accept(listener: impl AsFd) -> Option<OwnedFd> {
    let fd = accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK).ok()?;
    // SAFETY: accept4(2) has just returned this descriptor and nothing else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
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

/// Receives a packet without waiting; an empty packet counts as the end.
pub fn try_receive(socket: impl AsFd, buffer: &mut [u8]) -> Received {
    loop {
        match recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
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

    #[test]
    fn deep_directories() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let handle = std::fs::File::open(&deep).unwrap();
        let path = in_directory(&handle, "s");
        let server = listener(&path).unwrap();
        assert!(accept(&server).is_none());
        let client = connect_to(&path).unwrap();
        assert_eq!(try_send(&client, b"hi"), Sent::Done);
        assert_eq!(try_receive(accept(&server).unwrap(), &mut [0; 8]), Received::Packet(2));
    }
}
