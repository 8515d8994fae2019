//! The loop of a monitor: between the container's streams, its log and its clients.
//!
//! Rules: every byte of the container goes to the log, and to each client in order; while a client has not
//! taken what it was sent, nothing more is read from the container, so that it waits as it would for a
//! terminal, but in a task not for ever; a client that goes away is forgotten. The container's end is never waited for behind a client.
use super::begin::Ends;
use super::client::{Client, Request};
use super::poll_set::PollSet;
use crate::engine::attach::{Exit, FromMonitor, MAX_BODY, Output, Streams as Wanted};
use crate::engine::logs;
use crate::sys::{pty, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// More than anybody needs; it bounds what a loop of connecting clients costs.
const MAX_CLIENTS: usize = 64;

/// Reads of at most [`MAX_BODY`] that empty the largest pipe that root can make (32 MiB is far above any default).
const MAX_DRAIN: usize = 32 * 1024 * 1024 / MAX_BODY;

/// What of a container's streams poll(2) tells about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stream {
    Listener,
    Output(usize),
    Stdin,
    Client(usize),
}

/// When a container's standard input ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputRule {
    /// When a client says so, or the command that started the container goes.
    Command,
    /// When the first client that may give some says so or goes.
    FirstClient,
    /// With the container.
    Kept,
}

/// The open ends of a running container.
#[derive(Debug)]
pub(super) struct Streams {
    ends: Ends,
    listener: OwnedFd,
    clients: Vec<Client>,
    tty: bool,
    rule: InputRule,
    /// Input that the container has not taken yet; while there is some, no client is read.
    input: Vec<u8>,
    /// A client said that there is no more input.
    input_ends: bool,
    /// A client that takes nothing for so long is dropped, if there is a limit.
    patience: Option<Duration>,
}

impl Streams {
    pub(super) fn new(ends: Ends, listener: OwnedFd, tty: bool, rule: InputRule) -> Self {
        Self {
            ends,
            listener,
            clients: Vec::new(),
            tty,
            rule,
            input: Vec::new(),
            input_ends: false,
            patience: None,
        }
    }

    /// From now on a client that takes nothing for `patience` is dropped.
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// When the next client is to be dropped.
    pub(super) fn drops_at(&self) -> Option<Instant> {
        let patience = self.patience?;
        self.clients.iter().filter_map(Client::stuck_since).min().map(|since| since + patience)
    }

    /// The command that started the container; in the background it only wants to hear of the start.
    pub(super) fn add_first(&mut self, socket: OwnedFd, foreground: bool) {
        if foreground {
            let all = Wanted { stdin: self.ends.stdin.is_some(), output: true };
            self.clients.push(Client::new(socket, all, true));
        }
    }

    /// Adds what is to be waited for.
    pub(super) fn watch<'fd, S: Copy>(&'fd self, set: &mut PollSet<'fd, S>, wrap: impl Fn(Stream) -> S) {
        if self.clients.len() < MAX_CLIENTS {
            set.add(wrap(Stream::Listener), &self.listener, PollFlags::POLLIN);
        }
        let behind = self.clients.iter().any(Client::is_behind);
        for (at, output) in self.ends.outputs.iter().enumerate() {
            if let (Some(fd), false) = (output, behind) {
                set.add(wrap(Stream::Output(at)), fd, PollFlags::POLLIN);
            }
        }
        if let (Some(fd), false) = (&self.ends.stdin, self.input.is_empty()) {
            set.add(wrap(Stream::Stdin), fd, PollFlags::POLLOUT);
        }
        for (at, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if self.input.is_empty() {
                flags |= PollFlags::POLLIN;
            }
            if client.is_behind() {
                flags |= PollFlags::POLLOUT;
            }
            set.add(wrap(Stream::Client(at)), &client.socket, flags);
        }
    }

    /// Does what is possible now. After the last of a round, [`Streams::forget_gone`].
    pub(super) fn handle(&mut self, stream: Stream, flags: PollFlags, log: &mut logs::Writer) {
        match stream {
            Stream::Listener => self.accept(),
            Stream::Output(which) => drop(self.read(which, log)),
            Stream::Stdin => self.write_input(),
            Stream::Client(at) => self.serve(at, flags),
        }
    }

    /// Reads what is left. The container's processes are all gone, so that this is at most what the pipes hold; of one
    /// that could not be ended, no more than that is read either.
    pub(super) fn drain(&mut self, log: &mut logs::Writer) {
        for which in 0..self.ends.outputs.len() {
            let mut reads = 0..MAX_DRAIN;
            while self.read(which, log) && reads.next().is_some() {}
        }
    }

    fn accept(&mut self) {
        // A client that broke off meanwhile is none; with too many, the next one waits until one leaves.
        if let Ok(socket) = socket::accept(&self.listener) {
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
                Some(Request::StdinEof) if self.rule != InputRule::Kept => self.end_input(),
                Some(Request::Resize { rows, columns }) => self.resize(rows, columns),
                Some(Request::Stdin(_) | Request::StdinEof) | None => {}
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

    /// Drops the clients that went away, and those that are out of patience.
    pub(super) fn forget_gone(&mut self) {
        if let Some(patience) = self.patience {
            let stuck =
                |client: &Client| client.stuck_since().is_some_and(|since| since.elapsed() >= patience);
            self.clients.iter_mut().filter(|client| stuck(client)).for_each(Client::hang_up);
        }
        let ends = |client: &Client| match self.rule {
            InputRule::Command => client.owns_stdin,
            InputRule::FirstClient => client.streams.stdin,
            InputRule::Kept => false,
        };
        if self.clients.iter().any(|client| client.is_gone() && ends(client)) {
            self.end_input();
        }
        self.clients.retain(|client| !client.is_gone());
    }

    /// Tells every client how it ended, and gives those that have not taken all of it yet. Nothing of the container
    /// is held any more.
    pub(super) fn say_goodbye(self, exit: Exit) -> Vec<Client> {
        let frame = FromMonitor::Exit(exit).encode();
        let mut clients = self.clients;
        // Who is about to connect is told too: it asked before the end was recorded.
        while clients.len() < MAX_CLIENTS
            && let Ok(true) = is_readable(&self.listener)
            && let Ok(socket) = socket::accept(&self.listener)
        {
            clients.push(Client::new(socket, Wanted::default(), false));
        }
        for client in &mut clients {
            client.send(&frame);
        }
        clients.retain(Client::is_behind);
        clients
    }
}

fn is_readable(fd: &OwnedFd) -> Result<bool, Errno> {
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).map(|count| count > 0)
}
