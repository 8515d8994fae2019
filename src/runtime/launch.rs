//! Making the process that becomes init (or that exec runs), in its cgroups and namespaces.
//!
//! ```text
//! plain:       runtime --clone3(new namespaces, into cgroup)--> init
//! with stage:  runtime --clone3(into cgroup)--> stage: setns, time --clone3(CLONE_PARENT, new ...)--> init
//!                                                 └── Staged{pid}, ends
//! ```
//! The new process goes on in a copy of the runtime's memory: nothing is executed or parsed twice.
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl::set_dumpable;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, pipe2};

use super::cgroup::Placement;
use super::namespaces::{NamespaceError, Namespaces, flag};
use super::protocol::{Channel, Failure, ToChild, ToParent};
use super::security::{SecurityError, rlimits};
use crate::error::{ErrorKind, Kind};
use crate::sys::process::{
    Clone3, Exit, Forked, clone3, exit_now, set_parent_death_signal, setns, unshare, wait,
};
use crate::sys::{SysError, exe, pidfd, socket};

/// Why no process could be made.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A call of the runtime's side failed.
    #[error("starting the container's process")]
    System(#[from] SysError),
    /// The namespaces could not be made or joined.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The new process could not enter its cgroups.
    #[error("entering the container's cgroups")]
    Placement(#[source] SysError),
    /// The process's OOM score.
    #[error(transparent)]
    Limits(#[from] SecurityError),
    /// systemd did not move the new process into its cgroup.
    #[error("entering the container's unit")]
    Attach(#[source] Box<super::cgroup::Error>),
    /// The container's side failed.
    #[error(transparent)]
    Container(#[from] Failure),
    /// The kernel killed it at its birth ([`Placement::clone_into`]): it is to be made again, by
    /// [`Placement::write_instead`].
    #[error("the container's process was killed by the kernel when it was born in its cgroup")]
    Stillborn,
    /// The container's side ended without a word: killed, by the memory limit for one.
    #[error("the container's process was ended before it was set up{hint}")]
    Vanished {
        /// What may have ended it.
        hint: &'static str,
    },
}

impl Kind for LaunchError {
    fn kind(&self) -> ErrorKind {
        match self {
            LaunchError::System(source) | LaunchError::Placement(source) => source.kind(),
            LaunchError::Namespace(source) => source.kind(),
            LaunchError::Limits(source) => source.kind(),
            LaunchError::Attach(source) => source.kind(),
            LaunchError::Container(failure) => failure.kind(),
            LaunchError::Stillborn | LaunchError::Vanished { .. } => ErrorKind::System,
        }
    }
}

/// Where the new process goes.
#[derive(Debug)]
pub struct Target<'a> {
    /// New namespaces, and ones joined by path.
    pub namespaces: &'a Namespaces,
    /// For exec: the container's init, and the bits of its namespaces to join.
    pub of_process: Option<(OwnedFd, u64)>,
    /// The cgroups.
    pub placement: Placement,
    /// There are more of them, which are made when the new process is there ([`Child::enter`], [`enter_cgroups`]). It
    /// makes its network namespace itself meanwhile, which takes the longest of all.
    pub more_to_enter: bool,
    /// What the new process sets itself: an ordinary user's runtime cannot, once the process has hidden from
    /// all others.
    pub oom_score_adj: Option<i32>,
}

/// How a process ends that the kernel killed at its birth.
const KILLED: Exit = Exit::Signal(Signal::SIGKILL as i32);

/// The child of a launch, on the runtime's side. It is killed when dropped before [`Child::release`].
#[derive(Debug)]
pub struct Child {
    /// As the runtime sees it.
    pub pid: Pid,
    /// Refers to it.
    pub pidfd: OwnedFd,
    /// To talk with it.
    pub channel: Channel,
    /// Whether it has said anything.
    pub heard: bool,
    armed: bool,
}

impl Child {
    /// From now on the child lives on its own.
    pub fn release(&mut self) {
        self.armed = false;
    }

    /// Has it enter the cgroups in which it was not born; `refused`: there could be more of them.
    pub fn enter(&self, placement: &Placement, refused: bool) -> Result<(), SysError> {
        let tasks: Vec<BorrowedFd<'_>> = placement.tasks.iter().map(AsFd::as_fd).collect();
        self.channel.tell_with(&ToChild::Enter { refused }, &tasks)
    }

    /// Whether it was killed before it could say a word; reaps it. For a child that has closed the channel.
    pub fn is_stillborn(&mut self) -> bool {
        self.armed = false;
        wait(self.pid).is_ok_and(|exit| exit == KILLED) && !self.heard
    }

    /// Kills and reaps it.
    pub fn kill(&mut self) {
        self.armed = false;
        // It may have ended by itself; it is a zombie of ours until it is reaped here.
        let _ = pidfd::send_signal(&self.pidfd, Signal::SIGKILL as i32);
        let _ = wait(self.pid);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.armed {
            self.kill();
        }
    }
}

/// The two returns of [`launch`].
#[derive(Debug)]
pub enum Side {
    /// In the new process, in its namespaces and cgroups.
    Init(Channel),
    /// In the runtime.
    Parent(Child),
}

/// Makes the process. Returns in both; whatever fails on the new side is told over the channel and ends it.
pub fn launch(target: &Target<'_>) -> Result<Side, LaunchError> {
    let joins = target.namespaces.open_joins()?;
    let (ours, theirs) = socket::pair()?;
    let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
    let staged = target.of_process.is_some() || target.namespaces.needs_stage();
    let late = if target.more_to_enter { flag::NETWORK } else { 0 };
    let flags = if staged { 0 } else { target.namespaces.clone_flags() & !late };
    match clone3(Clone3 { flags, cgroup: target.placement.clone_into.as_ref().map(AsFd::as_fd) })
        .map_err(|error| unborn(flags, error))?
    {
        Forked::Child => {
            drop(ours);
            // Before the runtime lets go of it, because the last one waits.
            exe::let_go();
            let entered =
                if staged { stage(target, &joins, &theirs) } else { arrive(target, &joins, &theirs) };
            match entered {
                Ok(()) => Ok(Side::Init(theirs)),
                Err(error) => fail(&theirs, "entering namespaces and cgroups", &error),
            }
        }
        Forked::Parent { pid, pidfd } => {
            drop(theirs);
            if let Err(error) = attach(&target.placement, pid, &ours) {
                // It waits, and may have been moved nowhere.
                let _ = pidfd::send_signal(&pidfd, Signal::SIGKILL as i32);
                let _ = wait(pid);
                return Err(error);
            }
            if !staged {
                return Ok(Side::Parent(Child { pid, pidfd, channel: ours, heard: false, armed: true }));
            }
            let staged = staged_child(&ours);
            // The stage ends as soon as it has spoken; its own status says no more than its words.
            let ended = wait(pid);
            let killed = ended.is_ok_and(|exit| exit == KILLED);
            if killed && matches!(staged, Err(LaunchError::Vanished { .. })) {
                return Err(LaunchError::Stillborn);
            }
            let pid = staged?;
            let pidfd = pidfd::open(pid.as_raw())?;
            Ok(Side::Parent(Child { pid, pidfd, channel: ours, heard: false, armed: true }))
        }
    }
}

/// The error of a clone3 with these flags.
fn unborn(flags: u64, error: SysError) -> LaunchError {
    match error.errno {
        Errno::ENOSPC if flags & !flag::PARENT != 0 => NamespaceError::make(flags, error).into(),
        _ => error.into(),
    }
}

fn staged_child(channel: &Channel) -> Result<Pid, LaunchError> {
    match channel.receive::<ToParent>()? {
        Some((ToParent::Staged { pid }, _)) => Ok(Pid::from_raw(pid)),
        Some((ToParent::Failed(failure), _)) => Err(failure.into()),
        _ => Err(LaunchError::Vanished { hint: "" }),
    }
}

/// Where only systemd may put the new process into its cgroup: has that done, and tells the process.
fn attach(placement: &Placement, pid: Pid, channel: &Channel) -> Result<(), LaunchError> {
    if placement.attach(pid.as_raw()).map_err(Box::new).map_err(LaunchError::Attach)? {
        channel.send(&ToChild::Go, None)?;
    }
    Ok(())
}

/// What every new process does first.
fn arrive(target: &Target<'_>, joins: &[OwnedFd], channel: &Channel) -> Result<(), LaunchError> {
    // The runtime may be killed at any point; a half-made init goes with it.
    set_parent_death_signal(Some(Signal::SIGKILL))?;
    if let Some(value) = target.oom_score_adj {
        rlimits::set_oom_score("self", value)?;
    }
    let foreign = target.of_process.is_some() || target.namespaces.new & flag::PID == 0;
    // The mappings that an ordinary user's runtime is to write are files of this process, which it would not
    // own any more: then `init` hides once it has them.
    if foreign && (target.namespaces.new & flag::USER == 0 || nix::unistd::geteuid().is_root()) {
        hide()?;
    }
    enter(&target.placement.tasks)?;
    if target.more_to_enter && target.namespaces.new & flag::NETWORK != 0 {
        unshare(flag::NETWORK).map_err(|source| NamespaceError::make(flag::NETWORK, source))?;
    }
    if target.placement.unit.is_some() && !matches!(channel.receive()?, Some((ToChild::Go, _))) {
        // The runtime has ended.
        exit_now(1);
    }
    target.namespaces.enter(joins)?;
    Ok(())
}

/// Before processes that are not ours can see this one: they must not trace it or reopen its files
/// (CVE-2016-9962). execve ends it.
pub(super) fn hide() -> Result<(), SysError> {
    set_dumpable(false).map_err(SysError::on("prctl", "PR_SET_DUMPABLE"))
}

/// Enters the v1 cgroups: `0` is the writing thread itself, and one thread moves without the lock that
/// `cgroup.procs` takes. The kernel checks the rights of who opened the file, so this works in a user
/// namespace too.
fn enter(tasks: &[OwnedFd]) -> Result<(), LaunchError> {
    for tasks in tasks {
        nix::unistd::write(tasks, b"0")
            .map_err(SysError::on("write", "tasks of a cgroup"))
            .map_err(LaunchError::Placement)?;
    }
    Ok(())
}

/// In the new process: enters the cgroups that were made after its birth, once they are there; whether some of the
/// container's could not be made.
pub(super) fn enter_cgroups(channel: &Channel) -> Result<bool, LaunchError> {
    match channel.receive_with()? {
        Some((ToChild::Enter { refused }, tasks)) => enter(&tasks).map(|()| refused),
        // The runtime has failed or was killed: there is nobody to tell.
        _ => exit_now(1),
    }
}

/// Runs in the stage; returns only in init, its child and then its parent's.
fn stage(target: &Target<'_>, joins: &[OwnedFd], channel: &Channel) -> Result<(), LaunchError> {
    arrive(target, joins, channel)?;
    // A pidfd and no bits at all are EINVAL (setns(2)); a container may share every namespace.
    if let Some((process, flags)) = target.of_process.as_ref().filter(|(_, flags)| *flags != 0) {
        setns(process, *flags)?;
    }
    target.namespaces.make_time_namespace()?;
    let flags = target.namespaces.clone_flags() | flag::PARENT;
    let (spoken, speaking) = pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
    match clone3(Clone3 { flags, cgroup: None }).map_err(|error| unborn(flags, error))? {
        Forked::Child => {
            // The parent death signal is not inherited.
            set_parent_death_signal(Some(Signal::SIGKILL))?;
            drop(speaking);
            // The stage's word must be the first on the channel. The pipe ends when the stage does.
            std::fs::File::from(spoken).read(&mut [0]).map_err(SysError::io("read", "pipe"))?;
            Ok(())
        }
        Forked::Parent { pid, pidfd } => {
            if let Err(error) = channel.send(&ToParent::Staged { pid: pid.as_raw() }, None) {
                // Before the pipe ends: it would take that for our word, and speak before we tell what failed.
                let _ = pidfd::send_signal(&pidfd, Signal::SIGKILL as i32);
                return Err(error.into());
            }
            exit_now(0)
        }
    }
}

/// Tells the runtime what failed, and ends this process.
pub fn fail<E: Kind + 'static>(channel: &Channel, step: &str, error: &E) -> ! {
    let failure = Failure {
        step: step.into(),
        kind: error.kind(),
        errno: root_errno(error),
        chain: shortened(crate::error::chain(error)),
    };
    // The runtime may be gone: then nobody is left to be told.
    let _ = channel.send(&ToParent::Failed(failure), None);
    exit_now(1)
}

/// A chain that quotes what a configuration holds may be longer than a message (CVE-2021-43784 was of that family).
fn shortened(mut chain: String) -> String {
    const MOST: usize = 8 * 1024;
    if chain.len() > MOST {
        // The beginning says what was done, the end what the kernel said.
        let head = (0..=MOST / 2).rfind(|at| chain.is_char_boundary(*at)).unwrap_or(0);
        let tail = (chain.len() - MOST / 2..chain.len()).find(|at| chain.is_char_boundary(*at));
        let tail = tail.unwrap_or(chain.len());
        chain.replace_range(head..tail, " […] ");
    }
    chain
}

fn root_errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    let mut errno = None;
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<SysError>() {
            errno = Some(error.errno as i32);
        }
        next = error.source();
    }
    errno
}
