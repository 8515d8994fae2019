//! The caller's end of a console socket.

use crate::{events, sys};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};
use std::fs::File;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A socket on which a runtime hands over the master of a pseudo-terminal (or a pidfd).
#[derive(Debug)]
pub struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Listens at `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref().to_path_buf();
        let listener = UnixListener::bind(&path).expect("bind the console socket");
        Self { listener, path }
    }

    /// Its path, as an argument.
    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// The descriptor that the runtime sends, awaited.
    pub fn receive(&self) -> OwnedFd {
        assert!(
            events::readable(self.listener.as_fd(), events::patience()),
            "nobody connects to the console socket"
        );
        let (stream, _) = self.listener.accept().expect("accept");
        assert!(
            events::readable(stream.as_fd(), events::patience()),
            "nothing comes through the console socket"
        );
        let mut name = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!([std::os::fd::RawFd; 4]);
        let message: RecvMsg<'_, '_, ()> =
            recvmsg(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
                .expect("recvmsg");
        let mut fds = Vec::new();
        for control in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(sys::own));
            }
        }
        assert_eq!(fds.len(), 1, "exactly one descriptor comes through the console socket");
        fds.remove(0)
    }

    /// The master of the container's terminal, as a file.
    pub fn master(&self) -> File {
        File::from(self.receive())
    }
}
