//! The loop of a monitor: between the container's streams, its log and its clients.
//!
//! Rules: every byte of the container goes to the log, and to each client in order; while a client has not
//! taken what it was sent, nothing more is read from the container, so that it waits as it would for a
//! terminal; a client that goes away is forgotten. The container's end is never waited for behind a client.
use super::Ends;
use super::client::{Client, Request};
use crate::engine::attach::{Exit, FromMonitor, MAX_BODY, Output, Streams as Wanted};
use crate::engine::error::EngineError;
use crate::engine::logs;
use crate::sys::{SysError, pty, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};

/// More than anybody needs; it bounds what a loop of connecting clients costs.
const MAX_CLIENTS: usize = 64;

/// What a slot of poll(2) is about.
#[derive(Debug, Clone, Copy)]
enum Source {
    Init,
    Listener,
    Output(usize),
    Stdin,
    Client(usize),
}

/// The open ends of a running container.
pub(super) struct Streams {
    ends: Ends,
    listener: OwnedFd,
    clients: Vec<Client>,
    tty: bool,
    /// Input that the container has not taken yet; while there is some, no client is read.
    input: Vec<u8>,
    /// A client said that there is no more input.
    input_ends: bool,
}

impl Streams {
    pub(super) fn new(ends: Ends, listener: OwnedFd, tty: bool) -> Self {
        Self { ends, listener, clients: Vec::new(), tty, input: Vec::new(), input_ends: false }
    }

    /// The command that started the container; in the background it only wants to hear of the start.
    pub(super) fn add_first(&mut self, socket: OwnedFd, foreground: bool) {
        if foreground {
            let all = Wanted { stdin: self.ends.stdin.is_some(), output: true };
            self.clients.push(Client::new(socket, all, true));
        }
    }

    /// Runs until init ends and what it wrote has been read.
    pub(super) fn run(&mut self, init: &OwnedFd, mut log: logs::Writer) -> Result<logs::Writer, EngineError> {
        loop {
            let ready = self.wait(init)?;
            let mut ended = false;
            for (source, flags) in ready {
                match source {
                    Source::Init => ended = true,
                    Source::Listener => self.accept(),
                    Source::Output(which) => drop(self.read(which, &mut log)),
                    Source::Stdin => self.write_input(),
                    Source::Client(at) => self.serve(at, flags),
                }
            }
            self.forget_gone();
            if ended {
                // Its processes are all gone, so that this comes to an end: at most what the pipes hold.
                for which in 0..self.ends.outputs.len() {
                    while self.read(which, &mut log) {}
                }
                return Ok(log);
            }
        }
    }

    fn wait(&self, init: &OwnedFd) -> Result<Vec<(Source, PollFlags)>, EngineError> {
        let mut sources = vec![Source::Init, Source::Listener];
        let mut slots = vec![
            PollFd::new(init.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let behind = self.clients.iter().any(Client::is_behind);
        for (at, output) in self.ends.outputs.iter().enumerate() {
            if let (Some(fd), false) = (output, behind) {
                sources.push(Source::Output(at));
                slots.push(PollFd::new(fd.as_fd(), PollFlags::POLLIN));
            }
        }
        if let (Some(fd), false) = (&self.ends.stdin, self.input.is_empty()) {
            sources.push(Source::Stdin);
            slots.push(PollFd::new(fd.as_fd(), PollFlags::POLLOUT));
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.input.is_empty() {
                flags |= PollFlags::POLLIN;
            }
            if client.is_behind() {
                flags |= PollFlags::POLLOUT;
            }
            sources.push(Source::Client(at));
            slots.push(PollFd::new(client.socket.as_fd(), flags));
        }
        loop {
            match poll(&mut slots, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => {
                    result.map_err(SysError::on("poll", ""))?;
                    break;
                }
            }
        }
        let ready = |slot: &PollFd<'_>| slot.revents().unwrap_or(PollFlags::empty());
        Ok(sources.into_iter().zip(slots.iter().map(ready)).filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn accept(&mut self) {
        // A client that broke off meanwhile is none; with too many, the next one waits until one leaves.
        if let Ok(socket) = socket::accept(&self.listener)
            && self.clients.len() < MAX_CLIENTS
        {
            self.clients.push(Client::new(socket, Wanted::default(), false));
        }
    }

    /// Passes on what one output has; `false` if it has nothing more for now.
    fn read(&mut self, which: usize, log: &mut logs::Writer) -> bool {
        let Some(fd) = &self.ends.outputs[which] else { return false };
        let mut buffer = [0; MAX_BODY];
        let length = match nix::unistd::read(fd, &mut buffer) {
            Err(Errno::EINTR) => return true,
            Err(Errno::EAGAIN) => return false,
            // A terminal's master says EIO when nobody has its other side open any more; a program may
            // open it again, but then it has its own reason to wait for init.
            Ok(0) | Err(_) => {
                self.ends.outputs[which] = None;
                return false;
            }
            Ok(length) => length,
        };
        let output = if which == 0 { Output::Stdout } else { Output::Stderr };
        log.append(output, &buffer[..length]);
        if self.clients.iter().any(|client| client.streams.output) {
            let frame = FromMonitor::Output(output, &buffer[..length]).encode();
            for client in self.clients.iter_mut().filter(|client| client.streams.output) {
                client.send(&frame);
            }
        }
        true
    }

    fn serve(&mut self, at: usize, flags: PollFlags) {
        let client = &mut self.clients[at];
        if flags.contains(PollFlags::POLLOUT) {
            client.flush();
        }
        if flags.contains(PollFlags::POLLIN) {
            match client.receive() {
                Some(Request::Stdin(bytes)) if self.ends.stdin.is_some() && !self.input_ends => {
                    self.input.extend_from_slice(&bytes);
                    self.write_input();
                }
                Some(Request::StdinEof) => self.end_input(),
                Some(Request::Resize { rows, columns }) => self.resize(rows, columns),
                Some(Request::Stdin(_)) | None => {}
            }
        } else if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL) {
            client.hang_up();
        }
    }

    fn write_input(&mut self) {
        let Some(fd) = &self.ends.stdin else {
            self.input.clear();
            return;
        };
        match nix::unistd::write(fd, &self.input) {
            Ok(written) => drop(self.input.drain(..written)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // The container has closed it.
            Err(_) => {
                self.input.clear();
                self.ends.stdin = None;
            }
        }
        if self.input.is_empty() && self.input_ends {
            self.ends.stdin = None;
        }
    }

    /// A pipe is closed; a terminal has no end, its user types one.
    fn end_input(&mut self) {
        if self.tty {
            return;
        }
        self.input_ends = true;
        if self.input.is_empty() {
            self.ends.stdin = None;
        }
    }

    fn resize(&self, rows: u16, columns: u16) {
        if let (true, Some(master)) = (self.tty, &self.ends.outputs[0]) {
            // A terminal that is being closed has no size.
            let _ = pty::set_size(master.as_fd(), pty::Size { rows, columns });
        }
    }

    fn forget_gone(&mut self) {
        if self.clients.iter().any(|client| client.is_gone() && client.owns_stdin) {
            self.end_input();
        }
        self.clients.retain(|client| !client.is_gone());
    }

    /// Tells every client how it ended, and stays until they have taken all of it or are gone. Nothing of
    /// the container is held any more.
    pub(super) fn linger(mut self, exit: Exit) {
        self.ends = Ends { stdin: None, outputs: [None, None] };
        let frame = FromMonitor::Exit(exit).encode();
        for client in &mut self.clients {
            client.send(&frame);
        }
        loop {
            self.clients.retain(Client::is_behind);
            if self.clients.is_empty() {
                return;
            }
            let mut slots: Vec<PollFd<'_>> = self
                .clients
                .iter()
                .map(|client| PollFd::new(client.socket.as_fd(), PollFlags::POLLOUT))
                .collect();
            match poll(&mut slots, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            for client in &mut self.clients {
                client.flush();
            }
        }
    }
}
