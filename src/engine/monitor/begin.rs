//! From what is prepared to a running container and our ends of its streams.
use super::watch::Watch;
use crate::engine::error::{EngineError, Failure};
use crate::engine::exit_code;
use crate::engine::launch::Prepared;
use crate::engine::record::{Durability, Record, Run, private_directory, write_json};
use crate::engine::timestamp::Timestamp;
use crate::error::{Kind, chain};
use crate::runtime::cgroup::Driver;
use crate::runtime::create::{CreateError, CreateRequest, StartMode, Started, Stdio, create};
use crate::runtime::rootless::Rootless;
use crate::runtime::start::StartError;
use crate::runtime::state::ProcessId;
use crate::sys::{SysError, process, socket};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is there of a container whose program was executed.
#[derive(Debug)]
pub struct Begun {
    pub started: Started,
    pub ends: Ends,
    pub listener: OwnedFd,
    pub log: File,
    pub time: Timestamp,
}

/// Our ends of the container's streams; none of them ever blocks.
#[derive(Debug)]
pub struct Ends {
    pub stdin: Option<OwnedFd>,
    pub outputs: [Option<OwnedFd>; 2],
}

impl Ends {
    /// Both directions of a terminal are its master.
    fn of_terminal(master: OwnedFd) -> Result<Self, SysError> {
        nonblocking(&master)?;
        let input = process::duplicate(&master)?;
        Ok(Self { stdin: Some(input), outputs: [Some(master), None] })
    }
}

/// Creates and starts a container; `monitor` is who will hold it.
pub fn begin(watch: &Watch, record: &Record, prepared: Prepared, monitor: Pid) -> Result<Begun, Failure> {
    let run_directory = watch.engine.run_directory(&watch.id);
    let options = &record.options;
    let mode = if record.task.is_some() { TASK_LOG_MODE } else { OWN_LOG_MODE };
    let log = watch.engine.log_path(record).and_then(|path| open_log(&path, mode)).map_err(failed)?;
    let (stdio, ends) = stdio(options.tty, options.interactive).map_err(|error| failed(error.into()))?;
    let request = CreateRequest {
        start: StartMode::AtOnce,
        id: watch.id.to_string(),
        bundle: watch.engine.directory(&watch.id),
        state_root: watch.engine.runtime_root(),
        spec: prepared.spec,
        cgroup_driver: Driver::Cgroupfs,
        rootless: Rootless::No,
        stdio,
        pid_file: None,
        pidfd_socket: None,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        root_mount: Some(prepared.root_mount),
        seccomp_cache: Some(watch.engine.state.join("seccomp")),
        copy_up: prepared.copy_up,
    };
    let started = create(request).map_err(|error| create_failure(&error))?;
    let mut started = started.start().map_err(|error| start_failure(&error))?;
    let time = Timestamp::now();
    let monitor = ProcessId::of(monitor)
        .map_err(|error| failed(error.into()))?
        .ok_or_else(|| failed(EngineError::MonitorLost { id: watch.id.to_string() }))?;
    let run = Run { monitor, pid: started.pid.as_raw(), started: time };
    let listener = private_directory(&run_directory)
        .and_then(|()| write_json(&run_directory.join("run.json"), &run, Durability::Volatile))
        .and_then(|()| {
            let directory = File::open(&run_directory)
                .map_err(SysError::io("open", run_directory.display().to_string()))?;
            Ok(socket::listen_at(&directory, "attach.sock")?)
        })
        .map_err(failed)?;
    let ends = match started.console.take() {
        Some(master) => Ends::of_terminal(master).map_err(|error| failed(error.into()))?,
        None => ends,
    };
    Ok(Begun { started, ends, listener, log, time })
}

/// Who may read the log of a container at a shell: its owner.
const OWN_LOG_MODE: u32 = 0o600;
/// Who may read that of a task's container: those who collect logs too.
pub const TASK_LOG_MODE: u32 = 0o640;

/// Opens a log to append to it.
pub fn open_log(path: &Path, mode: u32) -> Result<File, EngineError> {
    Ok(OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)
        .map_err(SysError::io("open", path.display().to_string()))?)
}

fn nonblocking(fd: impl AsFd) -> Result<(), SysError> {
    // A pipe's and a terminal's end has no other status flag that would be lost.
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop).map_err(SysError::on("fcntl", "O_NONBLOCK"))
}

fn stdio(tty: bool, interactive: bool) -> Result<(Stdio, Ends), SysError> {
    if tty {
        return Ok((Stdio::Terminal, Ends { stdin: None, outputs: [None, None] }));
    }
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""));
    let (stdin, input) = if interactive {
        let (read, write) = pipe()?;
        nonblocking(&write)?;
        (read, Some(write))
    } else {
        (File::open("/dev/null").map_err(SysError::io("open", "/dev/null"))?.into(), None)
    };
    let ((out_read, stdout), (err_read, stderr)) = (pipe()?, pipe()?);
    nonblocking(&out_read)?;
    nonblocking(&err_read)?;
    Ok((
        Stdio::Fds { stdin, stdout, stderr },
        Ends { stdin: input, outputs: [Some(out_read), Some(err_read)] },
    ))
}

/// A failure of our own.
pub fn failed(error: EngineError) -> Failure {
    match error {
        EngineError::Start { failure } => failure,
        error => Failure { kind: error.kind(), exit_code: exit_code::TOOL, chain: chain(&error) },
    }
}

fn create_failure(error: &CreateError) -> Failure {
    let exit_code = match error {
        CreateError::Launch(error) => exit_code::of_launch(error),
        _ => exit_code::TOOL,
    };
    Failure { kind: error.kind(), exit_code, chain: chain(error) }
}

fn start_failure(error: &StartError) -> Failure {
    let exit_code = match error {
        StartError::Launch(error) => exit_code::of_launch(error),
        _ => exit_code::TOOL,
    };
    Failure { kind: error.kind(), exit_code, chain: chain(error) }
}
