//! The process that stays with a container: it creates it, holds its streams, writes its log, serves its
//! clients, and when it ends records how and cleans up. It outlives the command that began it.
//!
//! ```text
//! command: lock, mount, fork --+-- STARTED or FAILED <---------------- socket ---+
//!                              |                                                 |
//! monitor: detach -> create -> start -> run.json -> streams until init ends -> exit.json
//!                 \-> clean up -> FAILED              -> delete -> unlock -> EXIT to the clients
//! ```
//! It has one thread, waits in poll(2) alone, and keeps no more memory than its buffers: what the creation
//! needed is given back before it begins to wait.
use super::attach::{Exit, FromMonitor};
use super::error::{EngineError, Failure};
use super::launch::Prepared;
use super::names::Id;
use super::options::{Options, VolumeSource};
use super::record::{Durability, Ended, Lock, Record, Run, private_directory, write_json};
use super::timestamp::Timestamp;
use super::{Engine, logs};
use crate::error::{Kind, chain};
use crate::image::store::Store;
use crate::runtime::cgroup::{Cgroup, Driver};
use crate::runtime::create::{CreateError, CreateRequest, StartMode, Started, Stdio, create};
use crate::runtime::delete::delete;
use crate::runtime::start::StartError;
use crate::runtime::state::{ProcessId, State};
use crate::sys::{SysError, background, packet, process, socket};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

mod client;
mod streams;

use streams::Streams;

/// What a monitor is to do.
#[derive(Debug)]
pub struct Job {
    /// Where everything is.
    pub engine: Engine,
    /// The image store, whose lease ends with a container that removes itself.
    pub store: Store,
    /// The container.
    pub record: Record,
    /// Its id.
    pub id: Id,
    /// Its lock, which this process and then the monitor alone has.
    pub lock: Lock,
    /// What the runtime creates.
    pub prepared: Prepared,
    /// The command stays attached: when it goes, standard input ends.
    pub foreground: bool,
    /// A container that cannot be started stays, with its error recorded.
    pub keep_failed: bool,
}

/// Starts the monitor and returns the client's end of its first socket.
///
/// # Errors
/// Nothing was started. The caller still has to remove what it made.
pub fn spawn(job: Job) -> Result<OwnedFd, EngineError> {
    let (ours, theirs) = socket::pair()?;
    match background::fork()? {
        // Dropping the job closes the lock and the mount here; the monitor has them.
        background::Side::Parent(_) => Ok(ours),
        background::Side::Child => {
            drop(ours);
            let code = match supervise(job, theirs) {
                Ok(()) => 0,
                // Its clients were told, and nobody else is there to read it.
                Err(_) => 1,
            };
            background::exit(code)
        }
    }
}

/// What is left of a job while the container runs.
struct Watch {
    engine: Engine,
    store: Store,
    id: Id,
    name: String,
    auto_remove: bool,
    keep_failed: bool,
    durability: Durability,
    anonymous: Vec<String>,
    lock: Lock,
}

fn supervise(job: Job, socket: OwnedFd) -> Result<(), EngineError> {
    background::detach(&[job.lock.as_fd(), job.prepared.root_mount.as_fd(), socket.as_fd()])?;
    let (tty, interactive, foreground) =
        (job.record.options.tty, job.record.options.interactive, job.foreground);
    let watch = Watch {
        engine: job.engine,
        store: job.store,
        name: job.record.name,
        auto_remove: job.record.options.auto_remove,
        keep_failed: job.keep_failed,
        durability: if job.record.options.auto_remove { Durability::Volatile } else { Durability::Synced },
        anonymous: anonymous_volumes(&job.record.options),
        id: job.id,
        lock: job.lock,
    };
    let begun = begin(&watch, Creation { prepared: job.prepared, tty, interactive });
    let (started, mut streams, log, time) = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            let told = FromMonitor::Failed(failure.clone()).encode();
            watch.give_up(failure);
            // A command that went away does not want to know.
            let _ = packet::try_send(&socket, &told);
            return Ok(());
        }
    };
    let pid = started.pid.as_raw().unsigned_abs();
    // The first frame on an empty socket always fits.
    let _ = packet::try_send(&socket, &FromMonitor::Started { pid }.encode());
    streams.add_first(socket, foreground);
    background::give_back_memory();
    let log = streams.run(&started.pidfd, log)?;
    let exit = watch.finish(&started, time, log.dropped())?;
    streams.linger(exit);
    Ok(())
}

/// The volumes that go away with the container.
pub fn anonymous_volumes(options: &Options) -> Vec<String> {
    let name = |source: &VolumeSource| match source {
        VolumeSource::Anonymous(name) => name.clone(),
        _ => None,
    };
    options.volumes.iter().filter_map(|volume| name(&volume.source)).collect()
}

/// What is needed until the program runs, and freed then.
struct Creation {
    prepared: Prepared,
    tty: bool,
    interactive: bool,
}

type Begun = (Started, Streams, logs::Writer, Timestamp);

fn begin(watch: &Watch, creation: Creation) -> Result<Begun, Failure> {
    let failed = |error: EngineError| Failure { kind: error.kind(), exit_code: 125, chain: chain(&error) };
    let run_directory = watch.engine.run_directory(&watch.id);
    let log = open_log(watch).map_err(failed)?;
    let (stdio, ends) = stdio(creation.tty, creation.interactive).map_err(|error| failed(error.into()))?;
    let request = CreateRequest {
        start: StartMode::AtOnce,
        id: watch.id.to_string(),
        bundle: watch.engine.directory(&watch.id),
        state_root: watch.engine.runtime_root(),
        spec: creation.prepared.spec,
        cgroup_driver: Driver::Cgroupfs,
        stdio,
        pid_file: None,
        pidfd_socket: None,
        preserve_fds: 0,
        no_pivot: false,
        no_new_keyring: false,
        root_mount: Some(creation.prepared.root_mount),
        seccomp_cache: Some(watch.engine.state.join("seccomp")),
        copy_up: creation.prepared.copy_up,
    };
    let started = create(request).map_err(|error| create_failure(&error))?;
    let mut started = started.start().map_err(|error| start_failure(&error))?;
    let time = Timestamp::now();
    let monitor = ProcessId::of(nix::unistd::getpid())
        .ok_or_else(|| failed(EngineError::MonitorLost { id: watch.id.to_string() }))?;
    let run = Run { monitor, pid: started.pid.as_raw(), started: time };
    let listening = private_directory(&run_directory)
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
    Ok((started, Streams::new(ends, listening, creation.tty), log, time))
}

fn open_log(watch: &Watch) -> Result<logs::Writer, EngineError> {
    let path = watch.engine.directory(&watch.id).join("log");
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(SysError::io("open", path.display().to_string()))?;
    Ok(logs::Writer::new(file))
}

/// Our ends of the container's streams; none of them ever blocks.
pub(super) struct Ends {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) outputs: [Option<OwnedFd>; 2],
}

impl Ends {
    /// Both directions of a terminal are its master.
    fn of_terminal(master: OwnedFd) -> Result<Self, SysError> {
        nonblocking(&master)?;
        let input = process::duplicate(&master)?;
        Ok(Self { stdin: Some(input), outputs: [Some(master), None] })
    }
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

fn create_failure(error: &CreateError) -> Failure {
    let exit_code = match error {
        CreateError::Launch(error) => super::exit_code::of_launch(error),
        _ => 125,
    };
    Failure { kind: error.kind(), exit_code, chain: chain(error) }
}

fn start_failure(error: &StartError) -> Failure {
    let exit_code = match error {
        StartError::Launch(error) => super::exit_code::of_launch(error),
        _ => 125,
    };
    Failure { kind: error.kind(), exit_code, chain: chain(error) }
}

impl Watch {
    /// The container could not be started: nothing of the attempt stays, but its error is recorded.
    fn give_up(mut self, failure: Failure) {
        self.auto_remove |= !self.keep_failed;
        let ended = Ended {
            code: failure.exit_code,
            oom_killed: false,
            started: None,
            finished: Timestamp::now(),
            error: Some(failure.chain),
        };
        // The failure itself is what is told; what cannot be removed now is found by the next delete.
        let _ = delete(&self.engine.runtime_root(), self.id.as_str(), true);
        let _ = self.close(&ended);
    }

    /// Reaps init, records how it ended and removes what was there for its run.
    fn finish(self, started: &Started, time: Timestamp, dropped: u64) -> Result<Exit, EngineError> {
        let status = started.wait()?;
        let exit =
            Exit { code: u8::try_from(status.code() & 0xff).unwrap_or(255), oom_killed: self.oom_killed() };
        let error =
            (dropped > 0).then(|| format!("{dropped} bytes of output could not be written to the log"));
        let ended = Ended {
            code: exit.code,
            oom_killed: exit.oom_killed,
            started: Some(time),
            finished: Timestamp::now(),
            error,
        };
        // What cannot be removed is kept in the runtime's record, where delete finds it.
        let _ = delete(&self.engine.runtime_root(), self.id.as_str(), true);
        self.close(&ended)?;
        Ok(exit)
    }

    /// Whether the kernel killed one of the container's processes for want of memory; asked before the cgroup
    /// is removed.
    fn oom_killed(&self) -> bool {
        State::load(&self.engine.runtime_root(), self.id.as_str())
            .ok()
            .and_then(|state| Cgroup::open(&state.cgroup).ok())
            .and_then(|cgroup| cgroup.oom_kills().ok())
            .is_some_and(|kills| kills > 0)
    }

    /// Records the end, or removes the container if it was to go away, and lets go of its lock.
    fn close(self, ended: &Ended) -> Result<(), EngineError> {
        let closed = if self.auto_remove {
            let volumes = self.anonymous.iter().try_for_each(|name| self.engine.remove_volume(name));
            let files = self.engine.discard(&self.id, &self.name);
            // Last: while its files are there, its image is in use.
            let lease = self.store.release(self.id.as_str()).map_err(EngineError::from);
            volumes.and(files).and(lease)
        } else {
            // Before the run's record goes, so that the end is never unknown.
            let path = self.engine.directory(&self.id).join("exit.json");
            write_json(&path, ended, self.durability).and_then(|()| self.engine.discard_run(&self.id))
        };
        drop(self.lock);
        closed
    }
}
