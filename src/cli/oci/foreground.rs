//! Waiting for a process of a container: its signals, its terminal, its end.
//!
//! ```text
//! our stdin  --raw-->  pty master  -->  our stdout
//! our signals  ------> the process      (SIGWINCH: the terminal's size; SIGCHLD: reap)
//! ```
//! One loop over one poll(2) does all of it: this process stays single-threaded, because it forks.
use crate::runtime::create::Started;
use crate::runtime::sd_notify::Proxy;
use crate::sys::SysError;
use crate::sys::process::Exit;
use crate::sys::pty::{self, RawMode};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read, write};
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Our signals, held back for a process that is to be started.
pub(super) struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Blocks all signals, to be read from a descriptor from now on. The runtime gives the container's
    /// process an empty mask. A subreaper also reaps what the container's process leaves behind.
    pub(super) fn prepare(subreaper: bool) -> Result<Foreground, SysError> {
        let all = SigSet::all();
        all.thread_block().map_err(SysError::on("sigprocmask", "SIG_BLOCK all"))?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(SysError::on("signalfd", "all"))?;
        if subreaper {
            nix::sys::prctl::set_child_subreaper(true)
                .map_err(SysError::on("prctl", "PR_SET_CHILD_SUBREAPER"))?;
        }
        Ok(Foreground { signals })
    }

    /// Attends to the process until it has ended, and returns its exit code: 128 + n for signal n.
    /// What the container says over its notify socket is passed on meanwhile.
    pub(super) fn attend(self, process: Started, mut notify: Option<Proxy>) -> Result<u8, SysError> {
        let mut terminal = process.console.as_ref().map(Terminal::new).transpose()?;
        let exit = loop {
            if let Some(exit) = self.take_signals(&process, terminal.as_ref())? {
                break exit;
            }
            self.wait(terminal.as_mut(), notify.as_ref())?;
            if let Some(proxy) = &mut notify
                && proxy.pass_on(nix::unistd::getpid())?
            {
                // The rest of what it may say is not ours to tell.
                notify = None;
            }
        };
        if let Some(terminal) = &mut terminal {
            terminal.drain();
        }
        // waitpid(2) gives eight bits, and 128 + 64 is the most that a signal gives.
        Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX))
    }

    /// Handles what has arrived; the end of the process, if that is among it.
    fn take_signals(
        &self,
        process: &Started,
        terminal: Option<&Terminal<'_>>,
    ) -> Result<Option<Exit>, SysError> {
        while let Some(info) = self.signals.read_signal().map_err(SysError::on("read", "signalfd"))? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match (Signal::try_from(number), terminal) {
                (Ok(Signal::SIGCHLD), _) => {
                    if let Some(exit) = reap(process.pid)? {
                        return Ok(Some(exit));
                    }
                }
                (Ok(Signal::SIGWINCH), Some(terminal)) => terminal.resize(),
                // A pipe of ours, not of the container's; and urgent data is never asked for.
                (Ok(Signal::SIGPIPE | Signal::SIGURG), _) => {}
                _ => forward(process, number),
            }
        }
        Ok(None)
    }

    fn wait(&self, terminal: Option<&mut Terminal<'_>>, notify: Option<&Proxy>) -> Result<(), SysError> {
        let input = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let notify = notify.map(|proxy| input(proxy.as_fd()));
        let Some(terminal) = terminal else {
            let mut fds = vec![input(self.signals.as_fd())];
            fds.extend(notify);
            return poll_all(&mut fds);
        };
        let ready = {
            let mut fds = vec![input(self.signals.as_fd())];
            // The terminal's places are fixed, but what it is not asked about leaves none behind.
            let own = terminal.add_to(&mut fds);
            fds.extend(notify);
            poll_all(&mut fds)?;
            let has = |index: usize| {
                let events = fds.get(index).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
                !events.is_empty()
            };
            (own > 0 && has(1), own > 1 && has(2))
        };
        terminal.copy(ready.0, ready.1);
        Ok(())
    }
}

fn poll_all(fds: &mut [PollFd<'_>]) -> Result<(), SysError> {
    match poll(fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(SysError::on("poll", "signals and terminal")(errno)),
    }
}

fn forward(process: &Started, number: i32) {
    match crate::sys::pidfd::send_signal(&process.pidfd, number) {
        // It has ended, and SIGCHLD is on its way.
        Ok(()) | Err(SysError { errno: Errno::ESRCH, .. }) => {}
        Err(error) => tracing::warn!(%error, "a signal could not be forwarded"),
    }
}

/// Reaps every child that has ended; one SIGCHLD may stand for many.
fn reap(ours: Pid) -> Result<Option<Exit>, SysError> {
    let mut exit = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == ours => exit = Some(Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == ours => {
                exit = Some(Exit::Signal(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(exit),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(SysError::on("waitpid", "any child")(errno)),
        }
    }
}

/// The pseudo-terminal of the process, between our standard streams.
struct Terminal<'a> {
    master: &'a OwnedFd,
    stdin: std::io::Stdin,
    stdout: std::io::Stdout,
    /// Dropped at the end, which gives our own terminal its mode back.
    _raw: Option<RawMode<std::io::Stdin>>,
    input_ended: bool,
    output_ended: bool,
    /// Typed, but not yet taken by the pseudo-terminal: it is full while the process does not read.
    pending: Vec<u8>,
}

const CHUNK: usize = 32 * 1024;

impl<'a> Terminal<'a> {
    fn new(master: &'a OwnedFd) -> Result<Terminal<'a>, SysError> {
        let flags = fcntl(master, FcntlArg::F_GETFL).map_err(SysError::on("fcntl", "F_GETFL"))?;
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(master, FcntlArg::F_SETFL(flags)).map_err(SysError::on("fcntl", "F_SETFL"))?;
        let stdin = std::io::stdin();
        let raw = if stdin.is_terminal() { Some(RawMode::enter(std::io::stdin())?) } else { None };
        let terminal = Terminal {
            master,
            stdin,
            stdout: std::io::stdout(),
            _raw: raw,
            input_ended: false,
            output_ended: false,
            pending: Vec::new(),
        };
        terminal.resize();
        Ok(terminal)
    }

    /// Gives it the size of our own terminal, if we have one.
    fn resize(&self) {
        if let Ok(size) = pty::size(self.stdin.as_fd()) {
            // A process that has ended needs no size.
            let _ = pty::set_size(self.master.as_fd(), size);
        }
    }

    /// Adds the master and our standard input, in this order; a negative descriptor is not polled, but
    /// keeps its place, so an idle one is asked for nothing instead. Returns how many were added.
    fn add_to<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) -> usize {
        if self.output_ended {
            return 0;
        }
        let mut wanted = PollFlags::POLLIN;
        if !self.pending.is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        fds.push(PollFd::new(self.master.as_fd(), wanted));
        if !self.input_ended && self.pending.is_empty() {
            fds.push(PollFd::new(self.stdin.as_fd(), PollFlags::POLLIN));
            return 2;
        }
        1
    }

    fn copy(&mut self, master_ready: bool, stdin_ready: bool) {
        if master_ready {
            self.copy_out();
        }
        if stdin_ready && self.pending.is_empty() {
            let mut buffer = vec![0; CHUNK];
            match read(self.stdin.as_fd(), &mut buffer) {
                Ok(0) => self.input_ended = true,
                Ok(length) => self.pending.extend_from_slice(&buffer[..length]),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => self.input_ended = true,
            }
        }
        if !self.pending.is_empty() {
            match write(self.master, &self.pending) {
                Ok(length) => drop(self.pending.drain(..length)),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => self.input_ended = true,
            }
        }
    }

    /// One chunk of output; whether there was any.
    fn copy_out(&mut self) -> bool {
        let mut buffer = vec![0; CHUNK];
        match read(self.master, &mut buffer) {
            Ok(length @ 1..) => {
                self.output_ended |= !write_all(self.stdout.as_fd(), &buffer[..length]);
                true
            }
            Err(Errno::EINTR) => true,
            Err(Errno::EAGAIN) => false,
            // EIO: the last one on the other side has gone (pty(7)).
            Ok(_) | Err(_) => {
                self.output_ended = true;
                false
            }
        }
    }

    /// What the process wrote before it ended.
    fn drain(&mut self) {
        while !self.output_ended && self.copy_out() {}
    }
}

/// False if the reader of our output has gone.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // A non-blocking terminal that is full; nobody but its reader can make room.
                let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
                if !matches!(poll(&mut fds, PollTimeout::NONE), Ok(_) | Err(Errno::EINTR)) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}
