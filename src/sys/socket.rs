//! Unix sockets that keep message boundaries and carry descriptors.
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recv, recvmsg, sendmsg, socket, socketpair,
};

use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::SysError;

/// At most this many descriptors are taken from one message: as many as a host has cgroup hierarchies, and some.
const MAX_FDS: usize = 20;
/// How many callers may wait until they are accepted.
const BACKLOG: i32 = 64;

/// A connected pair of SOCK_SEQPACKET sockets, close-on-exec.
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .map_err(SysError::on("socketpair", "AF_UNIX"))
}

/// Sends one message with descriptors. EPIPE when the other side is gone; no SIGPIPE.
pub fn send(socket: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SysError> {
    let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    loop {
        let flags = MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.as_fd().as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("sendmsg", format!("{} bytes", bytes.len()))(errno)),
        }
    }
}

/// One received message.
#[derive(Debug)]
pub struct Received {
    /// Length of the message in the caller's buffer; 0 at the end of the stream.
    pub length: usize,
    /// The descriptors that came with it, close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// Receives one message into `buffer`; one that does not fit is refused (EMSGSIZE), not cut.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received, SysError> {
    receive_with(socket, buffer, MsgFlags::empty())
}

/// The same without waiting; `None` if there is nothing yet.
pub fn try_receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<Received>, SysError> {
    match receive_with(socket, buffer, MsgFlags::MSG_DONTWAIT) {
        Err(SysError { errno: Errno::EAGAIN, .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// The length of the next message, which stays; 0 at the end of the stream. Waits for it.
pub fn next_length(socket: impl AsFd) -> Result<usize, SysError> {
    loop {
        // The kernel tells the whole length of what was cut to nothing (recv(2), MSG_TRUNC).
        match recv(socket.as_fd().as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map_err(SysError::on("recv", "")),
        }
    }
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], flags: MsgFlags) -> Result<Received, SysError> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = loop {
        match recvmsg::<()>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC | flags) {
            Ok(message) => break message,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("recvmsg", "")(errno)),
        }
    };
    let mut fds = Vec::new();
    for part in message.cmsgs().map_err(SysError::on("recvmsg", "control data"))? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel installed these for us with this message; nobody else owns them.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(SysError::on("recvmsg", "message longer than its bound")(Errno::EMSGSIZE));
    }
    Ok(Received { length: message.bytes, fds })
}

/// A path of a unix socket may have 107 bytes; `/proc/self/fd/N/NAME` reaches any directory.
fn short_address(directory: impl AsFd, name: &str) -> Result<UnixAddr, SysError> {
    let path = format!("/proc/self/fd/{}/{name}", directory.as_fd().as_raw_fd());
    UnixAddr::new(path.as_str()).map_err(SysError::on("sockaddr_un", name))
}

/// Binds a listening SOCK_SEQPACKET socket `name` in `directory`.
pub fn listen_at(directory: impl AsFd, name: &str) -> Result<OwnedFd, SysError> {
    let address = short_address(directory, name)?;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::on("socket", "AF_UNIX"))?;
    bind(fd.as_raw_fd(), &address).map_err(SysError::on("bind", name))?;
    listen(&fd, Backlog::new(BACKLOG).map_err(SysError::on("listen", name))?)
        .map_err(SysError::on("listen", name))?;
    Ok(fd)
}

/// Connects to the SOCK_SEQPACKET socket `name` in `directory`.
pub fn connect_at(directory: impl AsFd, name: &str) -> Result<OwnedFd, SysError> {
    let address = short_address(directory, name)?;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::on("socket", "AF_UNIX"))?;
    connect(fd.as_raw_fd(), &address).map_err(SysError::on("connect", name))?;
    Ok(fd)
}

/// Binds a SOCK_DGRAM socket `name` in `directory`, to which everybody who reaches it may send. One that was left
/// there is replaced.
pub fn bind_datagram_at(directory: impl AsFd, name: &str) -> Result<OwnedFd, SysError> {
    match unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(SysError::on("unlinkat", name)(errno)),
    }
    let address = short_address(&directory, name)?;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::on("socket", "AF_UNIX"))?;
    bind(fd.as_raw_fd(), &address).map_err(SysError::on("bind", name))?;
    fchmodat(&directory, name, Mode::from_bits_truncate(0o777), FchmodatFlags::FollowSymlink)
        .map_err(SysError::on("fchmodat", name))?;
    Ok(fd)
}

/// Connects to a SOCK_DGRAM socket: a path, or `@` and a name of the abstract namespace (as in sd_notify(3)).
pub fn connect_datagram(address: &str) -> Result<OwnedFd, SysError> {
    let named = match address.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes()),
        None => UnixAddr::new(address),
    };
    let named = named.map_err(SysError::on("sockaddr_un", address))?;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::on("socket", "AF_UNIX"))?;
    connect(fd.as_raw_fd(), &named).map_err(SysError::on("connect", address))?;
    Ok(fd)
}

/// Connects to a caller's SOCK_STREAM socket (console and pidfd sockets).
pub fn connect_stream(path: &Path) -> Result<OwnedFd, SysError> {
    let shown = || path.display().to_string();
    let address = UnixAddr::new(path).map_err(SysError::on("sockaddr_un", shown()))?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(SysError::on("socket", "AF_UNIX"))?;
    connect(fd.as_raw_fd(), &address).map_err(SysError::on("connect", shown()))?;
    Ok(fd)
}

/// Accepts one connection, close-on-exec.
pub fn accept(listener: impl AsFd) -> Result<OwnedFd, SysError> {
    loop {
        match accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: a new descriptor that nobody else owns.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("accept4", "")(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_descriptors_and_keeps_its_bounds() {
        let (left, right) = pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        send(&left, b"one", &[file.as_fd()]).unwrap();
        send(&left, b"two and more", &[]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(next_length(&right).unwrap(), 3);
        let first = receive(&right, &mut buffer).unwrap();
        assert_eq!((&buffer[..first.length], first.fds.len()), (&b"one"[..], 1));
        assert_eq!(next_length(&right).unwrap(), 12);
        assert_eq!(receive(&right, &mut buffer).unwrap_err().errno, Errno::EMSGSIZE);
        drop(left);
        assert_eq!(next_length(&right).unwrap(), 0);
        assert_eq!(receive(&right, &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn a_socket_in_a_deep_directory_is_reached() {
        let top = tempfile::tempdir().unwrap();
        let deep = top.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let directory = std::fs::File::open(&deep).unwrap();
        let listener = listen_at(&directory, "s").unwrap();
        let client = connect_at(&directory, "s").unwrap();
        let server = accept(&listener).unwrap();
        send(&client, b"x", &[]).unwrap();
        assert_eq!(receive(&server, &mut [0; 4]).unwrap().length, 1);
    }
}
