//! The caller's end of a console socket, and commands on a terminal of their own.

use crate::{events, sys};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        self.receive_message().1
    }

    /// The same with the message that it comes with.
    pub fn receive_message(&self) -> (String, OwnedFd) {
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
        let length = message.bytes;
        (String::from_utf8_lossy(&name[..length]).into_owned(), fds.remove(0))
    }

    /// The master of the container's terminal, as a file.
    pub fn master(&self) -> File {
        File::from(self.receive())
    }
}

/// A command on a terminal of its own, 33 rows of 77 columns.
#[derive(Debug)]
pub struct OnTerminal {
    /// The command.
    pub child: Child,
    master: File,
    slave: File,
    seen: String,
}

impl OnTerminal {
    /// Starts it.
    pub fn new(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("a terminal");
        let slave = File::from(slave);
        let end = || Stdio::from(slave.try_clone().expect("dup"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("start on a terminal");
        Self { child, master: File::from(master), slave, seen: String::new() }
    }

    /// Waits for a text on the screen, and forgets what came until its end.
    #[track_caller]
    pub fn until(&mut self, text: &str) {
        while !self.seen.contains(text) {
            assert!(
                events::readable(self.master.as_fd(), events::patience()),
                "{text:?} did not come: {:?}",
                self.seen
            );
            let mut buffer = [0; 1024];
            let length = self.master.read(&mut buffer).expect("read from the terminal");
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        let end = self.seen.find(text).expect("what was waited for") + text.len();
        self.seen.drain(..end);
    }

    /// Types a text.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to the terminal");
    }

    /// Whether the terminal edits lines, as it did before the command.
    pub fn edits_lines(&self) -> bool {
        let mode = nix::sys::termios::tcgetattr(&self.slave).expect("mode of the terminal");
        mode.local_flags.contains(nix::sys::termios::LocalFlags::ICANON)
    }

    /// Changes the terminal's size and tells the command.
    pub fn resize(&self, rows: &str, columns: &str) {
        let path = nix::unistd::ttyname(&self.slave).expect("name of the terminal");
        let status = Command::new("stty").arg("-F").arg(path).args(["rows", rows, "cols", columns]).status();
        assert!(status.expect("stty").success(), "stty");
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).expect("SIGWINCH");
    }
}
