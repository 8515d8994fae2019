//! Adding a process to a running container.
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::setsid;
use oci_spec::runtime::Process;

use super::cgroup::{self, Below, Cgroup};
use super::create::{CreateError, Started, Stdio, check_preserved, send_fd, write_pid_file};
use super::init::{self, InitError};
use super::launch::{Child, LaunchError, Side, Target, fail, launch};
use super::namespaces::{Namespaces, flag};
use super::notify::{self, NotifyError};
use super::plan::{PlanError, ProcessPlan};
use super::program::Found;
use super::protocol::{Channel, ToChild, ToParent};
use super::records;
use super::rootless::Rootless;
use super::security::{SecurityError, affinity};
use super::start::{await_exec, log};
use super::state::{ProcessId, State, StateDir, StateError, Status};
use super::validate;
use crate::error::{ErrorKind, Kind};
use crate::sys::exe;
use crate::sys::mount::change_root;
use crate::sys::pty::Pty;
use crate::sys::root::Root;
use crate::sys::{SysError, pidfd};

/// What to add to which container.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container's id.
    pub id: String,
    /// Directory of the records of containers.
    pub state_root: PathBuf,
    /// The process, as in config.json.
    pub process: Process,
    /// Standard streams.
    pub stdio: Stdio,
    /// A file that gets the process's number.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets its pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// Descriptors 3 to 2+n of the caller stay open in the container.
    pub preserve_fds: u32,
    /// Run it also in a paused container, where it waits until that is resumed.
    pub ignore_paused: bool,
    /// Where compiled seccomp filters are kept, if anywhere.
    pub seccomp_cache: Option<PathBuf>,
    /// What is forgiven where the host does not let it into the container's cgroups.
    pub rootless: Rootless,
    /// Sub-cgroups for it: (v1 controllers or none for all, path below the container's cgroup).
    pub cgroups: Vec<(Option<String>, PathBuf)>,
}

/// Why the process could not be added.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The container's record could not be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// It does not run; callers match this text.
    #[error("cannot exec in a stopped container")]
    NotRunning,
    /// It has no mount namespace, and its root is not in ours.
    #[error(
        "the container has no mount namespace, and its root is not mounted in this one: exec must be called where it was created"
    )]
    RootElsewhere,
    /// It is paused; callers match this text.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    /// The process cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The container's cgroup could not be used.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The process, or anything on the container's side.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// What exec has in common with create.
    #[error(transparent)]
    Common(#[from] CreateError),
    /// The seccomp agent did not get its descriptor.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Its processors.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// A call of the runtime's.
    #[error("joining the container")]
    System(#[from] SysError),
}

impl Kind for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            ExecError::State(source) => source.kind(),
            ExecError::NotRunning | ExecError::Paused | ExecError::RootElsewhere => ErrorKind::WrongState,
            ExecError::Plan(source) => source.kind(),
            ExecError::Cgroup(source) => source.kind(),
            ExecError::Launch(source) => source.kind(),
            ExecError::Common(source) => source.kind(),
            ExecError::Notify(source) => source.kind(),
            ExecError::Security(source) => source.kind(),
            ExecError::System(source) => source.kind(),
        }
    }
}

/// Runs a process in a container. It is a child of this process, and runs when this returns.
pub fn exec(request: ExecRequest) -> Result<Started, ExecError> {
    validate::check_process(&request.process).map_err(CreateError::Invalid)?;
    check_preserved(request.preserve_fds)?;
    let state = State::load(&request.state_root, &request.id)?;
    match state.status(&request.state_root)? {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => return Err(ExecError::Paused),
        Status::Creating | Status::Stopped => return Err(ExecError::NotRunning),
    }
    let init = state.init.ok_or(ExecError::NotRunning)?;
    let pidfd = pidfd::open(init.pid)?;
    // Only now the number cannot go to another process any more.
    if !init.is_alive()? {
        return Err(ExecError::NotRunning);
    }
    let root = if state.namespaces & flag::MOUNT == 0 {
        let root = StateDir::mounted_root(&request.state_root, &request.id)?;
        Some(root.ok_or(ExecError::RootElsewhere)?)
    } else {
        None
    };
    let spec = State::load_spec(&request.state_root, &request.id)?;
    let mut plan = ProcessPlan::build(&spec, &request.process, request.seccomp_cache.as_deref())?;
    let affinity = affinity::Plan::new(&request.process, spec.process().as_ref())?;
    let own = affinity.begin()?;
    let mut child = match enter(&request, &state, pidfd, &mut plan) {
        Ok(Side::Init(channel)) => run(&plan, affinity, &Arc::new(channel), &request, &state, root),
        Ok(Side::Parent(child)) => child,
        Err(error) => {
            // The first error is the one to report.
            let _ = affinity::restore(own);
            return Err(error);
        }
    };
    affinity::restore(own)?;
    if let Some(group) = &state.rdt {
        group.add(child.pid).map_err(CreateError::from)?;
    }
    let console = converse(&request, &plan, &state, &child)?;
    if let Some(path) = &request.pid_file {
        write_pid_file(path, child.pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        send_fd("pidfd", path, &child.pidfd)?;
    }
    let pidfd = crate::sys::process::duplicate(&child.pidfd)?;
    child.release();
    Ok(Started { pid: child.pid, pidfd, console })
}

/// Makes the process in the container's namespaces and cgroups.
fn enter(
    request: &ExecRequest,
    state: &State,
    init: OwnedFd,
    plan: &mut ProcessPlan,
) -> Result<Side, ExecError> {
    let namespaces = Namespaces::default();
    let mut target = Target {
        namespaces: &namespaces,
        of_process: Some((init, state.namespaces)),
        placement: cgroup::Placement::default(),
        more_to_enter: false,
        oom_score_adj: plan.security.limits.take_own_oom_score(),
    };
    let init = state.init.ok_or(ExecError::NotRunning)?;
    match place(state, init.pid, &request.cgroups) {
        Ok(placement) => target.placement = placement,
        Err(cgroup::Error::System(error)) if is_forgiven(request, &error) => {}
        Err(error) => return Err(error.into()),
    }
    match launch(&target) {
        // As runc: whoever calls from outside of the subtree that is delegated to him cannot move a process
        // into it. The container's namespaces hold it all the same.
        Err(LaunchError::System(error)) if error.call == "clone3" && is_forgiven(request, &error) => {
            target.placement = cgroup::Placement::default();
            Ok(launch(&target)?)
        }
        Err(LaunchError::Stillborn) if target.placement.clone_into.is_some() => {
            target.placement.write_instead()?;
            Ok(launch(&target)?)
        }
        other => Ok(other?),
    }
}

fn is_forgiven(request: &ExecRequest, error: &SysError) -> bool {
    request.cgroups.is_empty()
        && matches!(error.errno, Errno::EACCES | Errno::EPERM)
        && request.rootless.forgives()
}

/// The container's own cgroups, or those below them that the caller names.
fn place(
    state: &State,
    init: i32,
    below: &[(Option<String>, PathBuf)],
) -> Result<cgroup::Placement, cgroup::Error> {
    let cgroup = Cgroup::open(&state.cgroup)?;
    if below.is_empty() {
        return cgroup.placement_beside(init);
    }
    let below = below.iter().map(|(controllers, path)| Below::new(controllers.as_deref(), path));
    cgroup.below(&below.collect::<Result<Vec<_>, _>>()?)?.placement()
}

/// Serves the new process until it has executed its program.
fn converse(
    request: &ExecRequest,
    plan: &ProcessPlan,
    state: &State,
    child: &Child,
) -> Result<Option<OwnedFd>, ExecError> {
    let mut console = None;
    let hand_over = |fd: &OwnedFd| -> Result<(), ExecError> {
        let listener = plan.security.seccomp.as_ref().and_then(|program| program.listener.as_ref());
        Ok(notify::send(listener, state, Status::Running, child.pid, fd).map_err(CreateError::from)?)
    };
    plan.security.limits.apply_from_runtime(child.pid).map_err(CreateError::from)?;
    exe::let_go();
    loop {
        match child.channel.receive::<ToParent>().map_err(LaunchError::System)? {
            None => return Err(LaunchError::Vanished { hint: "" }.into()),
            Some((ToParent::Console, Some(master))) => match &request.stdio {
                Stdio::ConsoleSocket(path) => send_fd("console", path, &master)?,
                _ => console = Some(master),
            },
            Some((ToParent::Listener, Some(fd))) => hand_over(&fd)?,
            Some((ToParent::ListenerAt { number }, _)) => {
                let process = ProcessId::of(child.pid)?;
                hand_over(&notify::fetch(process, number).map_err(CreateError::from)?)?;
            }
            Some((ToParent::Log { level, message }, _)) => log(&level, &message),
            Some((ToParent::Failed(failure), _)) => return Err(LaunchError::Container(failure).into()),
            Some((ToParent::Ready, _)) => break,
            Some(_) => {}
        }
    }
    // It may have failed since, and has said why.
    child.channel.tell(&ToChild::Start).map_err(LaunchError::System)?;
    await_exec(&child.channel, ProcessId::of(child.pid)?, hand_over)?;
    Ok(console)
}

/// The new process, in the container's namespaces.
fn run(
    plan: &ProcessPlan,
    affinity: affinity::Plan,
    channel: &Arc<Channel>,
    request: &ExecRequest,
    state: &State,
    root: Option<OwnedFd>,
) -> ! {
    let _records = records::forward(channel);
    let settled = affinity.settle().map_err(InitError::from);
    let ready = settled.and_then(|()| set_up(plan, channel, request, state, root)).and_then(|found| {
        channel.send(&ToParent::Ready, None).map_err(LaunchError::System)?;
        match channel.receive::<ToChild>().map_err(LaunchError::System)? {
            Some((ToChild::Start, _)) => {}
            _ => crate::sys::process::exit_now(1),
        }
        init::disarm()?;
        init::exec(plan, channel, request.preserve_fds, &found)
    });
    match ready {
        Ok(never) => match never {},
        Err(error) => fail(channel, error.step("setting up the process"), &error),
    }
}

fn set_up(
    plan: &ProcessPlan,
    channel: &Channel,
    request: &ExecRequest,
    state: &State,
    root: Option<OwnedFd>,
) -> Result<Found, InitError> {
    setsid().map_err(SysError::on("setsid", "")).map_err(init::failed("making a new session"))?;
    if state.namespaces & flag::USER != 0 {
        init::become_namespace_root(plan.security.user.keep_groups)?;
    }
    if let Some(root) = root {
        change_root(root.as_fd()).map_err(init::failed("entering the container's root"))?;
    }
    let terminal = if request.stdio.is_terminal() {
        let root = Root::open_host("/".as_ref()).map_err(init::failed("opening the container's root"))?;
        let pty = Pty::open_in(&root).map_err(init::failed("making a terminal"))?;
        Some(init::finish_terminal(plan, pty, channel)?)
    } else {
        None
    };
    init::attach_stdio(&request.stdio, terminal)?;
    let procfs = init::procfs_for_labels(plan)?;
    let prepared = init::prepare_user(plan, procfs.as_ref().map(AsFd::as_fd))?;
    init::become_user(plan, prepared, channel)
}
