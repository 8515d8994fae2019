//! The command's end of a monitor's socket.
use super::Engine;
use super::attach::{Exit, FromClient, FromMonitor, MAX_BODY, MAX_FRAME, Output, Streams};
use super::error::EngineError;
use super::names::Id;
use super::signals::Forwarded;
use crate::runtime::kill::kill;
use crate::sys::packet::{Received, Sent, try_receive, try_send};
use crate::sys::{SysError, pty, socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A connection to a monitor.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    id: Id,
}

/// What a monitor told.
#[derive(Debug)]
enum Event {
    Started,
    Output(Output, Vec<u8>),
    Exit(Exit),
    /// It went away.
    Gone,
}

/// What passes between the command's streams and the container's.
#[derive(Debug, Clone, Copy)]
pub struct Session {
    /// Standard input is passed on.
    pub stdin: bool,
    /// The container has a terminal: ours becomes its other side.
    pub tty: bool,
    /// Signals that we get are passed on.
    pub signals: bool,
}

impl Client {
    /// The socket that [`super::launch::launch`] returned.
    pub fn new(socket: OwnedFd, id: Id) -> Self {
        Self { socket, id }
    }

    /// Connects to a running container's monitor; `None` if it does not run.
    pub fn connect(engine: &Engine, id: &Id, streams: Streams) -> Result<Option<Self>, EngineError> {
        let path = engine.run_directory(id);
        let directory = match File::open(&path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SysError::io("open", path.display().to_string())(error).into()),
        };
        let socket = match socket::connect_at(&directory, "attach.sock") {
            Ok(socket) => socket,
            Err(SysError { errno: Errno::ENOENT | Errno::ECONNREFUSED, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let client = Self { socket, id: id.clone() };
        // It went away meanwhile; an empty socket has room.
        let sent = try_send(&client.socket, &FromClient::Hello(streams).encode());
        Ok((sent == Sent::Done).then_some(client))
    }

    /// Waits until the monitor told how the start went.
    pub fn started(&self) -> Result<(), EngineError> {
        loop {
            wait_readable(&self.socket, None)?;
            match self.receive()? {
                Some(Event::Started) => return Ok(()),
                Some(Event::Gone) => return Err(EngineError::MonitorLost { id: self.id.to_string() }),
                // A monitor says nothing else before.
                Some(_) | None => {}
            }
        }
    }

    /// Waits for the container's end, for at most `limit`; `None` if it passed or the monitor was killed.
    pub fn wait(&self, limit: Option<Duration>) -> Result<Option<Exit>, EngineError> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if !wait_readable(&self.socket, left)? {
                return Ok(None);
            }
            match self.receive()? {
                Some(Event::Exit(exit)) => return Ok(Some(exit)),
                Some(Event::Gone) => return Ok(None),
                Some(_) | None => {}
            }
        }
    }

    /// The socket, readable when the monitor says something.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether the end was told or the monitor is gone; takes what is there.
    pub fn has_ended(&self) -> Result<bool, EngineError> {
        loop {
            match self.receive()? {
                Some(Event::Exit(_) | Event::Gone) => return Ok(true),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    fn receive(&self) -> Result<Option<Event>, EngineError> {
        let mut buffer = [0; MAX_FRAME];
        let length = match try_receive(&self.socket, &mut buffer) {
            Received::Packet(length) => length,
            Received::Nothing => return Ok(None),
            Received::Gone => return Ok(Some(Event::Gone)),
        };
        Ok(Some(match FromMonitor::decode(&buffer[..length])? {
            FromMonitor::Started { .. } => Event::Started,
            FromMonitor::Failed(failure) => return Err(EngineError::Start { failure }),
            FromMonitor::Output(output, bytes) => Event::Output(output, bytes.to_vec()),
            FromMonitor::Exit(exit) => Event::Exit(exit),
        }))
    }

    /// Passes streams and signals until the container ends.
    ///
    /// # Errors
    /// [`EngineError::ExitUnknown`] if the monitor is killed; EPIPE if our standard output is closed.
    pub fn attach(
        &self,
        engine: &Engine,
        session: Session,
        signals: &Forwarded,
    ) -> Result<Exit, EngineError> {
        let input = stdin();
        let _raw = match session.tty && session.stdin && input.is_terminal() {
            true => Some(pty::RawMode::enter(input.as_fd())?),
            false => None,
        };
        if session.tty {
            self.resize();
        }
        let mut reading = session.stdin;
        // A frame that the socket had no room for; while there is one, no more input is read.
        let mut pending: Option<Vec<u8>> = None;
        loop {
            let mut wanted = PollFlags::POLLIN;
            if pending.is_some() {
                wanted |= PollFlags::POLLOUT;
            }
            let mut slots = vec![
                PollFd::new(self.socket.as_fd(), wanted),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            if reading && pending.is_none() {
                slots.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
            }
            wait(&mut slots, PollTimeout::NONE)?;
            let ready: Vec<PollFlags> =
                slots.iter().map(|slot| slot.revents().unwrap_or(PollFlags::empty())).collect();
            if let Some(frame) = pending.take_if(|_| ready[0].contains(PollFlags::POLLOUT)) {
                pending = self.offer(frame);
            }
            if !(ready[0] - PollFlags::POLLOUT).is_empty() {
                match self.receive()? {
                    Some(Event::Exit(exit)) => return Ok(exit),
                    Some(Event::Output(output, bytes)) => write_out(output, &bytes)?,
                    Some(Event::Gone) => return Err(EngineError::ExitUnknown { id: self.id.to_string() }),
                    Some(Event::Started) | None => {}
                }
            }
            if !ready[1].is_empty() {
                self.pass_signals(engine, session, signals)?;
            }
            if ready.get(2).is_some_and(|flags| !flags.is_empty()) {
                let frame = read_input(&input)?;
                reading = frame != FromClient::StdinEof.encode();
                pending = self.offer(frame);
            }
        }
    }

    /// Sends a frame; gives it back if there is no room.
    fn offer(&self, frame: Vec<u8>) -> Option<Vec<u8>> {
        // If the other side is gone, receiving tells.
        (try_send(&self.socket, &frame) == Sent::Full).then_some(frame)
    }

    fn resize(&self) {
        if let Some((rows, columns)) = terminal_size() {
            // With a full socket the next change of size tells.
            let _ = try_send(&self.socket, &FromClient::Resize { rows, columns }.encode());
        }
    }

    fn pass_signals(
        &self,
        engine: &Engine,
        session: Session,
        signals: &Forwarded,
    ) -> Result<(), EngineError> {
        while let Some(signal) = signals.next()? {
            if signal == nix::sys::signal::Signal::SIGWINCH as i32 {
                if session.tty {
                    self.resize();
                }
            } else if session.signals {
                // A container that has ended needs no signal: its exit is on the way.
                let _ = kill(&engine.runtime_root(), self.id.as_str(), signal, false);
            }
        }
        Ok(())
    }
}

/// Lines and columns of the terminal that is our standard output or input.
pub fn terminal_size() -> Option<(u16, u16)> {
    let size = pty::size(stdout().as_fd()).or_else(|_| pty::size(stdin().as_fd())).ok()?;
    (size.rows > 0 && size.columns > 0).then_some((size.rows, size.columns))
}

/// Reads what there is of standard input as a frame.
fn read_input(input: &std::io::Stdin) -> Result<Vec<u8>, EngineError> {
    let mut buffer = [0; MAX_BODY];
    match nix::unistd::read(input, &mut buffer) {
        // EIO: our terminal is gone, or we are in its background.
        Ok(0) | Err(Errno::EIO) => Ok(FromClient::StdinEof.encode()),
        Ok(length) => Ok(FromClient::Stdin(&buffer[..length]).encode()),
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(FromClient::Stdin(b"").encode()),
        Err(errno) => Err(SysError::on("read", "standard input")(errno).into()),
    }
}

/// Writes to our own standard output or error at once.
pub fn write_out(output: Output, bytes: &[u8]) -> Result<(), EngineError> {
    match output {
        Output::Stdout => {
            let mut out = stdout().lock();
            out.write_all(bytes)
                .and_then(|()| out.flush())
                .map_err(|error| SysError::io("write", "standard output")(error).into())
        }
        Output::Stderr => stderr()
            .lock()
            .write_all(bytes)
            .map_err(|error| SysError::io("write", "standard error")(error).into()),
    }
}

pub(super) fn wait(slots: &mut [PollFd<'_>], timeout: PollTimeout) -> Result<bool, EngineError> {
    loop {
        match poll(slots, timeout) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("poll", "")(errno).into()),
            Ok(count) => return Ok(count > 0),
        }
    }
}

/// Waits until there is something to read; `false` if `limit` passed first.
pub(super) fn wait_readable(fd: impl AsFd, limit: Option<Duration>) -> Result<bool, EngineError> {
    // Rounded up, so that a wait that ends has lasted at least as long.
    let timeout = limit.map_or(PollTimeout::NONE, |limit| {
        let millis = i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    });
    wait(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout)
}
