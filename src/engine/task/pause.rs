//! The pause process: pid 1 of a task's PID namespace. It reaps what is left to it, and has nothing.
//!
//! A container with `CAP_SYS_PTRACE` in that namespace can look at /proc/1: its root is an empty file system, it has
//! no descriptors and none of the host's namespaces, and its executable cannot be written (`sys::exe`). Others
//! cannot look, because it is not dumpable.
use super::namespaces::Shared;
use super::{TaskSpec, namespaces};
use crate::engine::error::EngineError;
use crate::runtime::cgroup::{Cgroup, Placement};
use crate::runtime::namespaces::flag;
use crate::sys::mount::{Attr, FsContext, Propagation, Scope, move_mount, pivot_root, set_root_propagation};
use crate::sys::process::{Clone3, Forked, clone3, exit_now, setns, unshare, wait};
use crate::sys::{SysError, background, caps, pidfd, socket};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Linux has 64 capability bits at most.
const MAX_CAPABILITY: u8 = 63;
/// What the kernel kills last but what may not be killed at all; the kubelet's value for it.
const OOM_SCORE: &str = "-998";

/// Starts it in `cgroup`, and holds its namespace by a file in `directory`/ns. It stays when the caller ends.
pub(super) fn start(spec: &TaskSpec, directory: &Path, cgroup: &Cgroup) -> Result<(), EngineError> {
    // By writing: a process that is born in a cgroup below one in which `cgroup.kill` was used may die at once.
    let placement = cgroup.placement_by_writing()?;
    let joined = [Shared::Net, Shared::Ipc, Shared::Uts]
        .into_iter()
        .filter(|kind| kind.is_of(spec))
        .map(|kind| {
            let path = kind.path(directory);
            File::open(&path).map_err(SysError::io("open", path.display().to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let (ours, theirs) = socket::pair()?;
    match clone3(Clone3 { flags: flag::PID, cgroup: None })? {
        Forked::Child => {
            drop(ours);
            // It cannot be told what failed in more detail than this: it has nobody but its maker.
            let outcome = isolate(&joined, placement, directory).and_then(|signals| settle(signals, theirs));
            let code = match outcome {
                Ok(never) => match never {},
                Err(error) => error.errno as i32,
            };
            exit_now(code.clamp(1, 255))
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            let held = ready(&ours).and_then(|()| namespaces::hold_of(pid.as_raw(), Shared::Pid, directory));
            if held.is_err() {
                // Nobody would find it: its cgroup may not have it yet.
                let _ = pidfd::send_signal(&pidfd, Signal::SIGKILL as i32);
                let code = wait(pid)?.code();
                if matches!(&held, Err(EngineError::Sys(error)) if error.errno == Errno::EPIPE) {
                    let errno = Errno::from_raw(code);
                    return Err(SysError::on("pause process", "isolation")(errno).into());
                }
            }
            held
        }
    }
}

fn ready(socket: &OwnedFd) -> Result<(), EngineError> {
    let mut byte = [0; 1];
    match socket::receive(socket, &mut byte)?.length {
        0 => Err(SysError::on("recv", "pause process")(Errno::EPIPE).into()),
        _ => Ok(()),
    }
}

/// In the child: gives up all that it has from its maker.
fn isolate(joined: &[File], placement: Placement, directory: &Path) -> Result<SignalFd, SysError> {
    for tasks in &placement.tasks {
        nix::unistd::write(tasks, b"0").map_err(SysError::on("write", "tasks"))?;
    }
    // Who may not lower it keeps what it has.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    nix::unistd::setsid().map_err(SysError::on("setsid", ""))?;
    for namespace in joined {
        // Zero: of whichever kind it is.
        setns(namespace, 0)?;
    }
    unshare(flag::MOUNT | flag::CGROUP)?;
    set_root_propagation(Propagation::Private, Scope::Tree)?;
    let empty = FsContext::open("tmpfs")?;
    empty.set_string("size", "4096")?;
    let empty = empty.mount(Attr::NOSUID | Attr::NODEV | Attr::NOEXEC | Attr::RDONLY)?;
    let place = File::open(directory).map_err(SysError::io("open", directory.display().to_string()))?;
    move_mount(empty.as_fd(), place.as_fd(), "pause root")?;
    pivot_root(empty.as_fd())?;
    for bit in 0..=MAX_CAPABILITY {
        if caps::in_bounding(bit) == Some(true) {
            caps::drop_bounding(bit)?;
        }
    }
    caps::clear_ambient()?;
    caps::set(&caps::Sets::default())?;
    nix::sys::prctl::set_dumpable(false).map_err(SysError::on("prctl", "PR_SET_DUMPABLE"))?;
    nix::sys::prctl::set_name(c"pause").map_err(SysError::on("prctl", "PR_SET_NAME"))?;
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
        set.add(signal);
    }
    set.thread_block().map_err(SysError::on("sigprocmask", "SIG_BLOCK"))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(SysError::on("signalfd", ""))
}

/// Tells the maker that it is there, and reaps until it is told to end.
fn settle(signals: SignalFd, maker: OwnedFd) -> Result<std::convert::Infallible, SysError> {
    background::close_others(0, &[signals.as_fd(), maker.as_fd()])?;
    socket::send(&maker, b"1", &[])?;
    drop(maker);
    background::give_back_memory();
    loop {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
        let info = match signals.read_signal() {
            Ok(Some(info)) => info,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(errno) => return Err(SysError::on("read", "signalfd")(errno)),
        };
        // A sender outside of this PID namespace has the number 0 here; no container of the task may end the
        // others (pid_namespaces(7)).
        if info.ssi_signo != Signal::SIGCHLD as u32 && info.ssi_pid == 0 {
            exit_now(0)
        }
    }
}
