//! The container's side: what the new process does between its birth and its program.
//!
//! The order is the point; each step says before which other it must come.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, sethostname, setresgid, setresuid, setsid};

use super::create::{CreateRequest, Stdio};
use super::hooks::{self, HookError, Phase};
use super::launch::{self, LaunchError, fail, hide};
use super::namespaces::{NamespaceError, flag};
use super::plan::{Plan, ProcessPlan};
use super::program::{self, EXEC_STEP, Found, ProgramError};
use super::protocol::{Channel, ToChild, ToParent};
use super::records;
use super::rootfs::{self, HostSources, MountFacts, Prepared, RootSource, RootfsError};
use super::security::{self, SecurityError};
use super::state::{State, Status};
use crate::error::{ErrorKind, Kind};
use crate::sys::background::close_others;
use crate::sys::mount::{Attr, FsContext};
use crate::sys::process::{
    cloexec_from, exit_now, install_stdio, keep_over_exec, next_descriptor, set_parent_death_signal, unshare,
};
use crate::sys::pty::{self, Pty};
use crate::sys::{SysError, link, socket};
use std::ffi::CString;

/// What can fail on the container's side.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A call.
    #[error("{what}")]
    System {
        /// For what.
        what: &'static str,
        /// The call.
        #[source]
        source: SysError,
    },
    /// The channel to the runtime broke.
    #[error(transparent)]
    Channel(#[from] LaunchError),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A hook of the container's side.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// Identity and rights.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// A label is to be set and there is no procfs to set it in.
    #[error("a security label is asked for, but the container has no mount of type proc")]
    NoProc,
    /// The program.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

impl Kind for InitError {
    fn kind(&self) -> ErrorKind {
        match self {
            InitError::System { source, .. } => source.kind(),
            InitError::Channel(source) => source.kind(),
            InitError::Rootfs(source) => source.kind(),
            InitError::Hook(source) => source.kind(),
            InitError::Security(source) => source.kind(),
            InitError::NoProc => ErrorKind::InvalidInput,
            InitError::Program(source) => source.kind(),
        }
    }
}

impl InitError {
    /// What init was doing: executing the program, or `otherwise`.
    pub(super) fn step(&self, otherwise: &'static str) -> &'static str {
        match self {
            InitError::Program(
                ProgramError::NotInPath { .. }
                | ProgramError::Unusable { .. }
                | ProgramError::Directory { .. }
                | ProgramError::Exec { .. },
            ) => EXEC_STEP,
            _ => otherwise,
        }
    }
}

pub(super) fn failed(what: &'static str) -> impl Fn(SysError) -> InitError {
    move |source| InitError::System { what, source }
}

/// Mounts that the runtime's side has opened on the host.
#[derive(Debug)]
pub(super) struct HostMounts {
    /// The root file system, if it is not the bundle's directory.
    pub(super) root: Option<OwnedFd>,
    /// Of bind mounts.
    pub(super) sources: HostSources,
    /// Whether some of the container's cgroups could not be made; `None`: they are being made, and the runtime tells.
    pub(super) cgroups_refused: Option<bool>,
    /// Where the root is mounted without a mount namespace.
    pub(super) point: Option<OwnedFd>,
}

/// Runs init to its program, or reports what failed and ends. It never returns into the runtime's code, of
/// which this process holds copies of everything, its locks too.
pub(super) fn run(
    plan: Plan,
    channel: Channel,
    request: &CreateRequest,
    state: &State,
    mounts: HostMounts,
) -> ! {
    let channel = Arc::new(channel);
    let _records = records::forward(&channel);
    let ready = set_up(&plan, &channel, request, state, mounts).and_then(|prepared| {
        // While it waits, other processes of the container may look into it: the runtime's descriptors, its
        // state directory among them, are a way to the host (CVE-2016-9962).
        let first = 3 + i32::try_from(request.preserve_fds).unwrap_or(0);
        close_others(first, &[channel.as_fd()]).map_err(failed("closing the runtime's descriptors"))?;
        let found = become_user(&plan.process, prepared, &channel)?;
        channel.send(&ToParent::Ready, None).map_err(failed("reporting that the container is ready"))?;
        Ok(found)
    });
    let error = match ready {
        Ok(found) => match await_start(&channel) {
            Ok(Some(starter)) => {
                let starter = Arc::new(starter);
                let _records = records::forward(&starter);
                let error = execute(&plan, &starter, request, state, &found);
                fail(&starter, error.step("starting the program"), &error)
            }
            Ok(None) => execute(&plan, &channel, request, state, &found),
            Err(error) => error,
        },
        Err(error) => error,
    };
    fail(&channel, error.step("setting up the container"), &error)
}

/// Everything that is done as root and with the runtime's descriptors.
fn set_up(
    plan: &Plan,
    channel: &Channel,
    request: &CreateRequest,
    state: &State,
    mounts: HostMounts,
) -> Result<PreparedUser, InitError> {
    become_root(plan, channel)?;
    if plan.namespaces.new & flag::NETWORK != 0 {
        link::loopback_up().map_err(failed("bringing up the loopback link"))?;
    }
    let cgroups_refused = mounts.cgroups_refused.map_or_else(|| launch::enter_cgroups(channel), Ok)?;
    if plan.namespaces.new & flag::CGROUP != 0 {
        // After the placement: the root of the namespace is the cgroup that we are in now.
        unshare(flag::CGROUP)
            .map_err(|source| NamespaceError::make(flag::CGROUP, source))
            .map_err(LaunchError::from)?;
    }
    if has_runtime_hooks(plan) || !plan.net_devices.is_empty() {
        ask(channel, &ToParent::NeedHooks)?;
    }
    setsid().map_err(SysError::on("setsid", "")).map_err(failed("making a new session"))?;
    if !request.no_new_keyring {
        security::keyring::join(&state.id)?;
    }
    let source = mounts.root.map_or(RootSource::Path, |mount| RootSource::Detached { mount, at: None });
    let facts = MountFacts {
        cgroup: Some(&state.cgroup),
        sources: mounts.sources,
        cgroups_refused,
        mount_point: mounts.point,
    };
    let mut prepared = rootfs::prepare(&plan.rootfs, source, facts)?;
    make_cwd(&prepared, &plan.process.cwd)?;
    create_container_hooks(plan, state)?;
    let terminal =
        prepared.take_console().map(|pty| finish_terminal(&plan.process, pty, channel)).transpose()?;
    rootfs::pivot(&plan.rootfs, &prepared)?;
    names(plan)?;
    rootfs::seal(&plan.rootfs, &prepared)?;
    attach_stdio(&request.stdio, terminal)?;
    prepare_user(&plan.process, prepared.proc())
}

/// In a new user namespace: root of it, once the runtime has written the mappings.
fn become_root(plan: &Plan, channel: &Channel) -> Result<(), InitError> {
    let new = plan.namespaces.new & flag::USER != 0;
    if !new && !plan.namespaces.joins(flag::USER) {
        return Ok(());
    }
    if new {
        ask(channel, &ToParent::NeedMappings)?;
    }
    if plan.namespaces.new & flag::PID == 0 {
        hide().map_err(failed("hiding from other containers"))?;
    }
    become_namespace_root(plan.process.security.user.keep_groups)
}

/// Takes id 0 of the user namespace that this process is in.
pub(super) fn become_namespace_root(keep_groups: bool) -> Result<(), InitError> {
    let root = (Uid::from_raw(0), Gid::from_raw(0));
    setresgid(root.1, root.1, root.1)
        .and_then(|()| setresuid(root.0, root.0, root.0))
        .map_err(SysError::on("setresuid", "0"))
        .map_err(failed("becoming root of the user namespace (is id 0 mapped?)"))?;
    if !keep_groups {
        // The groups of the runtime's user mean nothing here; where setgroups is denied they stay, unmapped.
        let _ = setgroups(&[]);
    }
    // A change of identity clears it.
    set_parent_death_signal(Some(nix::sys::signal::Signal::SIGKILL))
        .map_err(failed("asking for a death signal"))
}

/// Sends a request and waits for its Go.
fn ask(channel: &Channel, message: &ToParent) -> Result<(), InitError> {
    channel.send(message, None).map_err(LaunchError::System)?;
    match channel.receive::<ToChild>().map_err(LaunchError::System)? {
        Some((ToChild::Go, _)) => Ok(()),
        // The runtime failed or was killed: there is nobody to tell.
        _ => exit_now(1),
    }
}

fn has_runtime_hooks(plan: &Plan) -> bool {
    plan.hooks.as_ref().is_some_and(|hooks| {
        let prestart = hooks.prestart();
        prestart.iter().chain(hooks.create_runtime()).any(|list| !list.is_empty())
    })
}

fn create_container_hooks(plan: &Plan, state: &State) -> Result<(), HookError> {
    let Some(hooks) = plan.hooks.as_ref().and_then(|hooks| hooks.create_container().as_deref()) else {
        return Ok(());
    };
    let mut state = state.clone();
    // As this PID namespace sees it, which is the one that the hook runs in.
    state.init = Some(super::state::ProcessId { pid: nix::unistd::getpid().as_raw(), start_time: 0 });
    hooks::run_all(Phase::CreateContainer, Some(hooks), &state.bundle, &state.oci_json(Status::Creating))
}

fn names(plan: &Plan) -> Result<(), InitError> {
    if let Some(name) = &plan.hostname {
        sethostname(name).map_err(SysError::on("sethostname", name)).map_err(failed("setting hostname"))?;
    }
    if let Some(name) = &plan.domainname {
        crate::sys::host::set_domain_name(name).map_err(failed("setting domainname"))?;
    }
    Ok(())
}

/// runc makes a working directory that is not there, and so must we: images rely on it. One that is there
/// may be anything that can be entered; a link out of the root ends inside of it.
fn make_cwd(prepared: &Prepared, cwd: &Path) -> Result<(), InitError> {
    let root = prepared.root();
    if root.open(cwd, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok() {
        return Ok(());
    }
    match root.mkdir_all(cwd, Mode::from_bits_truncate(0o755)) {
        // It may be below something that only the container's own user can enter or that is read-only:
        // entering it says what is wrong.
        Err(error) if matches!(error.errno, Errno::EROFS | Errno::EACCES | Errno::ELOOP | Errno::EXDEV) => {
            Ok(())
        }
        made => made.map(drop).map_err(failed("making process.cwd")),
    }
}

/// Sends the master away and keeps the peer.
pub(super) fn finish_terminal(
    process: &ProcessPlan,
    pty: Pty,
    channel: &Channel,
) -> Result<OwnedFd, InitError> {
    let Pty { master, peer } = pty;
    if let Some((rows, columns)) = process.console_size {
        pty::set_size(peer.as_fd(), pty::Size { rows, columns }).map_err(failed("setting consoleSize"))?;
    }
    channel
        .send(&ToParent::Console, Some(master.as_fd()))
        .map_err(failed("sending the terminal to the runtime"))?;
    Ok(peer)
}

/// The standard streams, for init and exec alike.
pub(super) fn attach_stdio(stdio: &Stdio, terminal: Option<OwnedFd>) -> Result<(), InitError> {
    let install =
        |fd: &OwnedFd, target| install_stdio(fd, target).map_err(failed("attaching standard streams"));
    if let Some(peer) = terminal {
        pty::make_controlling(peer.as_fd()).map_err(failed("making the terminal the controlling one"))?;
        return (0..3).try_for_each(|target| install(&peer, target));
    }
    if let Stdio::Fds { stdin, stdout, stderr } = stdio {
        install(stdin, 0)?;
        install(stdout, 1)?;
        install(stderr, 2)?;
    }
    Ok(())
}

/// A procfs in which to write security labels, for a process that joins a container: one that nobody in the
/// container can have mounted something over (CVE-2025-52881).
pub(super) fn procfs_for_labels(process: &ProcessPlan) -> Result<Option<OwnedFd>, InitError> {
    if process.security.labels.is_empty() {
        return Ok(None);
    }
    FsContext::open("proc")
        .and_then(|context| context.mount(Attr::empty()))
        .map(Some)
        .map_err(failed("mounting a procfs for security labels"))
}

/// What is known of the container's user before it takes over.
#[derive(Debug)]
pub(super) struct PreparedUser {
    /// What became of entering `process.cwd` with root's rights.
    entered: Result<(), ProgramError>,
    /// [`Found::home`].
    home: Option<CString>,
}

/// The last steps before the filter, for init and exec alike.
pub(super) fn prepare_user(
    process: &ProcessPlan,
    procfs: Option<BorrowedFd<'_>>,
) -> Result<PreparedUser, InitError> {
    let security = &process.security;
    if !security.labels.is_empty() {
        let procfs = procfs.ok_or(InitError::NoProc)?;
        security.label(procfs)?;
    }
    security.schedule()?;
    // With root's rights first: the user may not enter a directory that the configuration gives it. Where
    // root may not either (a user namespace over foreign files), the user tries in `become_user`.
    let entered = program::enter_cwd(&process.cwd);
    // Nothing of the host's may be open in the program (CVE-2024-21626), whoever forgot to mark it; what is opened
    // from here on is marked.
    cloexec_from(3).map_err(failed("closing descriptors"))?;
    Ok(PreparedUser { entered, home: process.program.home_of(security.user.uid) })
}

/// The filter, unless it comes last, then the container's user, for init and exec alike; returns the file to execute.
///
/// A profile need not allow the runtime more than runc asks for: openat2, close_range and getcwd, among others, come
/// before this.
pub(super) fn become_user(
    process: &ProcessPlan,
    prepared: PreparedUser,
    channel: &Channel,
) -> Result<Found, InitError> {
    let security = &process.security;
    confine(security, channel, When::Early)?;
    security.become_user()?;
    if let Err(error) = prepared.entered {
        // Where the user fails, too, root's error tells more: the second may come of the filter.
        program::enter_cwd(&process.cwd).map_err(|_| error)?;
    }
    // A change of identity clears it.
    set_parent_death_signal(Some(nix::sys::signal::Signal::SIGKILL))
        .map_err(failed("asking for a death signal"))?;
    Ok(Found { path: process.program.find()?, home: prepared.home })
}

/// At which of the two places the seccomp filter may be loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Early,
    Late,
}

/// Takes the step, which may load the filter, and hands its listener over.
fn confine(security: &security::Plan, channel: &Channel, when: When) -> Result<(), InitError> {
    let loads = security.no_new_privileges == (when == When::Late);
    let announced = loads && security.seccomp.as_ref().is_some_and(|program| program.notifies_of_sending);
    let fails = || failed("handing over the seccomp listener");
    if announced {
        let number = next_descriptor().map_err(fails())?;
        channel.send(&ToParent::ListenerAt { number }, None).map_err(fails())?;
    }
    let listener = match when {
        When::Early => security.confine_early()?,
        When::Late => security.confine_late()?,
    };
    match listener {
        Some(_listener) if announced => {
            // It comes back when the agent, who has the listener by then, has answered; with whatever answer.
            let _ = channel.send(&ToParent::Listening, None);
            Ok(())
        }
        Some(listener) => channel.send(&ToParent::Listener, Some(listener.as_fd())).map_err(fails()),
        None => Ok(()),
    }
}

/// Waits for the start; Some: over a new connection to the start socket.
fn await_start(channel: &Channel) -> Result<Option<Channel>, InitError> {
    let listener = match channel.receive::<ToChild>().map_err(LaunchError::System)? {
        Some((ToChild::Start, _)) => {
            disarm()?;
            return Ok(None);
        }
        Some((ToChild::Await, Some(listener))) => listener,
        _ => exit_now(1),
    };
    disarm()?;
    channel.send(&ToParent::Ready, None).map_err(LaunchError::System)?;
    loop {
        let starter = Channel::new(socket::accept(&listener).map_err(failed("waiting for the start"))?);
        // A start that was killed before it asked leaves us waiting for the next one.
        if let Ok(Some((ToChild::Start, _))) = starter.receive::<ToChild>() {
            return Ok(Some(starter));
        }
    }
}

/// From now on this process outlives the one that made it.
pub(super) fn disarm() -> Result<(), InitError> {
    set_parent_death_signal(None).map_err(failed("giving up the death signal"))
}

/// Hooks, the late part of the restrictions, and the program. Returns only on failure.
fn execute(
    plan: &Plan,
    channel: &Channel,
    request: &CreateRequest,
    state: &State,
    found: &Found,
) -> InitError {
    let run = || -> Result<std::convert::Infallible, InitError> {
        if let Some(hooks) = plan.hooks.as_ref().and_then(|hooks| hooks.start_container().as_deref()) {
            let mut state = state.clone();
            state.init = Some(super::state::ProcessId { pid: nix::unistd::getpid().as_raw(), start_time: 0 });
            let text = state.oci_json(Status::Created);
            hooks::run_all(Phase::StartContainer, Some(hooks), &state.bundle, &text)?;
        }
        exec(&plan.process, channel, request.preserve_fds, found)
    };
    match run() {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

/// The end of init and exec alike: descriptors, signals, seccomp, execve.
pub(super) fn exec(
    process: &ProcessPlan,
    channel: &Channel,
    preserve_fds: u32,
    found: &Found,
) -> Result<std::convert::Infallible, InitError> {
    for number in (3..).take(preserve_fds as usize) {
        keep_over_exec(number).map_err(failed("preserving descriptors"))?;
    }
    program::reset_signals().map_err(failed("resetting signals"))?;
    // The filter comes last: it may forbid everything that is done before it.
    confine(&process.security, channel, When::Late)?;
    Err(process.program.exec(found).into())
}
