//! Another process in a running container.
use super::Engine;
use super::attach::{MAX_BODY, Output};
use super::client::{terminal_size, wait, write_out};
use super::error::{EngineError, Failure};
use super::facts::{held_capabilities, least_oom_score};
use super::launch::{console_size, identify};
use super::record::{Record, Status};
use super::signals::Forwarded;
use super::specgen::process::{complete_env, set};
use super::specgen::{self, ProcessInputs, capabilities};
use super::task::join;
use crate::error::{Kind, chain};
use crate::runtime::create::{Started, Stdio};
use crate::runtime::exec::{ExecError, ExecRequest, exec};
use crate::runtime::rootless::Rootless;
use crate::sys::process::duplicate;
use crate::sys::root::Root;
use crate::sys::{SysError, pidfd, pty};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use oci_spec::runtime::Process;
use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

/// What is to run.
#[derive(Debug, Default)]
pub struct Request {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `-e`, each `KEY=VALUE`.
    pub env: Vec<String>,
    /// `-w`.
    pub cwd: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-d`.
    pub detach: bool,
    /// `--privileged`.
    pub privileged: bool,
}

/// Our ends of the process's streams.
struct Ends {
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

impl Engine {
    /// Runs a process in a container and returns its exit code; 0 at once with `detach`.
    pub fn exec(&self, record: &Record, request: &Request) -> Result<u8, EngineError> {
        let process = self.running_process(record, request)?;
        let signals = if request.detach { None } else { Some(Forwarded::catch()?) };
        let (stdio, mut ends) = stdio(request)?;
        let mut started = self.launch_process(record, process, stdio)?;
        let Some(signals) = signals else { return Ok(0) };
        if let Some(master) = started.console.take() {
            nonblocking(&master)?;
            ends = Ends {
                stdin: request.interactive.then(|| duplicate(&master)).transpose()?,
                outputs: [Some(master), None],
            };
        }
        pump(&started, ends, request.tty, &signals)?;
        let exit = started.wait()?;
        Ok(u8::try_from(exit.code() & 0xff).unwrap_or(255))
    }

    /// Adds a process to a running container. It is a child of this process.
    pub(super) fn add_process(
        &self,
        record: &Record,
        request: &Request,
        stdio: Stdio,
    ) -> Result<Started, EngineError> {
        self.launch_process(record, self.running_process(record, request)?, stdio)
    }

    fn running_process(&self, record: &Record, request: &Request) -> Result<Process, EngineError> {
        let status = self.status(&record.id()?)?;
        let Some(run) = status.run() else {
            return Err(EngineError::WrongState {
                id: record.name.clone(),
                status: status.word().to_owned(),
                needed: "a process can be added to a running one only",
            });
        };
        self.process(record, &status, run.pid, request)
    }

    fn launch_process(
        &self,
        record: &Record,
        process: Process,
        stdio: Stdio,
    ) -> Result<Started, EngineError> {
        exec(ExecRequest {
            rootless: Rootless::No,
            id: record.id.clone(),
            state_root: self.runtime_root(),
            process,
            stdio,
            pid_file: None,
            pidfd_socket: None,
            preserve_fds: 0,
            ignore_paused: false,
            seccomp_cache: Some(self.state.join("seccomp")),
            cgroups: Vec::new(),
        })
        .map_err(|error| exec_failure(&error))
    }

    fn process(
        &self,
        record: &Record,
        status: &Status,
        pid: i32,
        request: &Request,
    ) -> Result<Process, EngineError> {
        let root = Root::open_host(&PathBuf::from(format!("/proc/{pid}/root")))?;
        // The number may have gone to another process before the directory was opened.
        if self.status(&record.id()?)?.run().is_none_or(|now| now.pid != pid) {
            return Err(EngineError::WrongState {
                id: record.name.clone(),
                status: status.word().to_owned(),
                needed: "it ended meanwhile",
            });
        }
        let user = request.user.as_deref().unwrap_or(&record.command.user);
        let identity = identify(&root, user, record)?;
        let held = held_capabilities()?;
        let options = &record.options;
        let privileged = request.privileged || options.privileged;
        let bounding = capabilities::bounding(&options.cap_add, &options.cap_drop, privileged, &held)?;
        let host_name = join::hostname(self, record)?;
        let mut env = complete_env(&record.command.env, request.tty, &host_name, &identity.home);
        for entry in &request.env {
            set(&mut env, entry);
        }
        let mut process = specgen::process(&ProcessInputs {
            options,
            args: &request.args,
            env,
            cwd: request.cwd.as_deref().unwrap_or(&record.command.cwd),
            tty: request.tty,
            identity: &identity,
            bounding: &bounding,
        })?;
        let least = least_oom_score(&held);
        process.set_oom_score_adj(options.task.oom_score_adj.map(|asked| specgen::oom_score(asked, least)));
        if let (true, Some((rows, columns))) = (request.tty, terminal_size()) {
            process.set_console_size(Some(console_size(rows, columns)?));
        }
        Ok(process)
    }
}

/// The streams are pipes of our own: an open file of the caller's in the container would be a way to it.
fn stdio(request: &Request) -> Result<(Stdio, Ends), EngineError> {
    let none = Ends { stdin: None, outputs: [None, None] };
    let null = || -> Result<OwnedFd, EngineError> {
        let file = File::options().read(true).write(true).open("/dev/null");
        Ok(file.map_err(SysError::io("open", "/dev/null"))?.into())
    };
    if request.tty && !request.detach {
        return Ok((Stdio::Terminal, none));
    }
    if request.detach {
        return Ok((Stdio::Fds { stdin: null()?, stdout: null()?, stderr: null()? }, none));
    }
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""));
    let (stdin, input) = if request.interactive {
        let (read, write) = pipe()?;
        nonblocking(&write)?;
        (read, Some(write))
    } else {
        (null()?, None)
    };
    let ((out_read, stdout), (err_read, stderr)) = (pipe()?, pipe()?);
    nonblocking(&out_read)?;
    nonblocking(&err_read)?;
    Ok((
        Stdio::Fds { stdin, stdout, stderr },
        Ends { stdin: input, outputs: [Some(out_read), Some(err_read)] },
    ))
}

fn nonblocking(fd: impl AsFd) -> Result<(), SysError> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).map_err(SysError::on("fcntl", "O_NONBLOCK"))
}

fn exec_failure(error: &ExecError) -> EngineError {
    let exit_code = match error {
        ExecError::Launch(error) => super::exit_code::of_launch(error),
        _ => super::exit_code::TOOL,
    };
    EngineError::Start { failure: Failure { kind: error.kind(), exit_code, chain: chain(error) } }
}

/// Passes streams and signals until the process has ended and what it wrote is read. A child of it that
/// still holds a pipe open is not waited for.
fn pump(started: &Started, mut ends: Ends, tty: bool, signals: &Forwarded) -> Result<(), EngineError> {
    let input = stdin();
    let _raw = match tty && ends.stdin.is_some() && input.is_terminal() {
        true => Some(pty::RawMode::enter(input.as_fd())?),
        false => None,
    };
    let mut reading = ends.stdin.is_some();
    let mut pending: Vec<u8> = Vec::new();
    loop {
        let mut slots = vec![
            PollFd::new(started.pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        for output in ends.outputs.iter().flatten() {
            slots.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        if reading && pending.is_empty() {
            slots.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        if let (Some(stdin), false) = (&ends.stdin, pending.is_empty()) {
            slots.push(PollFd::new(stdin.as_fd(), PollFlags::POLLOUT));
        }
        wait(&mut slots, PollTimeout::NONE)?;
        let ended = slots[0].any().unwrap_or(false);
        let signalled = slots[1].any().unwrap_or(false);
        let has_input = reading && pending.is_empty() && readable(&slots, input.as_fd());
        drop(slots);
        if signalled {
            pass_signals(started, &ends, tty, signals)?;
        }
        for which in 0..ends.outputs.len() {
            while copy(&mut ends.outputs, which)? {
                if !ended {
                    break;
                }
            }
        }
        if ended {
            return Ok(());
        }
        if has_input {
            reading = read_input(&input, &mut pending)?;
        }
        write_input(&mut ends.stdin, &mut pending);
        if !reading && pending.is_empty() && !tty {
            ends.stdin = None;
        }
    }
}

fn readable(slots: &[PollFd<'_>], fd: std::os::fd::BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd;
    slots.iter().any(|slot| slot.as_fd().as_raw_fd() == fd.as_raw_fd() && slot.any().unwrap_or(false))
}

/// Copies what one output has; `false` if it has nothing for now.
fn copy(outputs: &mut [Option<OwnedFd>; 2], which: usize) -> Result<bool, EngineError> {
    let Some(fd) = &outputs[which] else { return Ok(false) };
    let mut buffer = [0; MAX_BODY];
    match nix::unistd::read(fd, &mut buffer) {
        Err(Errno::EINTR) => Ok(true),
        Err(Errno::EAGAIN) => Ok(false),
        // EIO: nobody has the terminal open any more.
        Ok(0) | Err(_) => {
            outputs[which] = None;
            Ok(false)
        }
        Ok(length) => {
            let output = if which == 0 { Output::Stdout } else { Output::Stderr };
            write_out(output, &buffer[..length])?;
            Ok(true)
        }
    }
}

/// `false` at the end of our standard input.
fn read_input(input: &std::io::Stdin, pending: &mut Vec<u8>) -> Result<bool, EngineError> {
    let mut buffer = [0; MAX_BODY];
    match nix::unistd::read(input, &mut buffer) {
        Ok(0) | Err(Errno::EIO) => Ok(false),
        Ok(length) => {
            pending.extend_from_slice(&buffer[..length]);
            Ok(true)
        }
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(true),
        Err(errno) => Err(SysError::on("read", "standard input")(errno).into()),
    }
}

fn write_input(stdin: &mut Option<OwnedFd>, pending: &mut Vec<u8>) {
    let Some(fd) = stdin else {
        pending.clear();
        return;
    };
    if pending.is_empty() {
        return;
    }
    match nix::unistd::write(fd, pending) {
        Ok(written) => drop(pending.drain(..written)),
        Err(Errno::EAGAIN | Errno::EINTR) => {}
        // The process has closed it.
        Err(_) => {
            pending.clear();
            *stdin = None;
        }
    }
}

fn pass_signals(started: &Started, ends: &Ends, tty: bool, signals: &Forwarded) -> Result<(), EngineError> {
    while let Some(signal) = signals.next()? {
        if signal == nix::sys::signal::Signal::SIGWINCH as i32 {
            if let (true, Some(master), Some((rows, columns))) = (tty, &ends.outputs[0], terminal_size()) {
                pty::set_size(master.as_fd(), pty::Size { rows, columns })?;
            }
        } else {
            // A process that has ended needs no signal.
            let _ = pidfd::send_signal(&started.pidfd, signal);
        }
    }
    Ok(())
}
