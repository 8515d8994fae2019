//! Creating a container.
//!
//! What can be left behind by a kill at any point is written down before it is made: the record with the
//! cgroups' paths comes first. All mounts are in the container's own mount namespace and end with it.
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use super::cgroup::{self, Cgroup, Driver, Host};
use super::hooks::{self, HookError, Phase};
use super::init::{self, HostMounts};
use super::launch::{Child, LaunchError, Side, Target, launch};
use super::namespaces::{NamespaceError, flag};
use super::netdevices::NetDeviceError;
use super::notify::{self, NotifyError};
use super::plan::{Plan, PlanError};
use super::protocol::{ToChild, ToParent};
use super::rdt::{self, RdtError};
use super::rootless::{self, Caller, Rootless};
use super::sd_notify;
use super::security::SecurityError;
use super::security::seccomp::Listener;
use super::start::{StartError, await_exec, log, run_poststart};
use super::state::{Intent, ProcessId, START_SOCKET, State, StateDir, StateError, Status};
use super::validate::{self, ValidateError};
use crate::error::{ErrorKind, Kind};
use crate::sys::appear::appear;
use crate::sys::process::{Exit, is_inherited, wait};
use crate::sys::{SysError, socket};

/// Where the container's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These.
    Fds {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new pseudo-terminal, whose master side is [`Created::console`].
    Terminal,
    /// A new pseudo-terminal, whose master side is sent to this socket's listener.
    ConsoleSocket(PathBuf),
}

impl Stdio {
    /// Whether a terminal is to be made.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Stdio::Terminal | Stdio::ConsoleSocket(_))
    }
}

/// When the program of a container is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartMode {
    /// When it is asked for.
    OnCall,
    /// [`Created::start`] follows at once, so init need not wait for it: a wait costs two changes of the
    /// processor's task. A terminal, hooks and a new user namespace make it wait all the same.
    AtOnce,
}

/// What to create.
#[derive(Debug)]
pub struct CreateRequest {
    /// When the program is executed.
    pub start: StartMode,
    /// The container's id.
    pub id: String,
    /// Absolute path of the directory to which `root.path` is relative.
    pub bundle: PathBuf,
    /// Directory of the records of containers.
    pub state_root: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// Who makes cgroups.
    pub cgroup_driver: Driver,
    /// What is forgiven where the host refuses us a cgroup.
    pub rootless: Rootless,
    /// Standard streams.
    pub stdio: Stdio,
    /// A file that gets init's number.
    pub pid_file: Option<PathBuf>,
    /// A socket that gets init's pidfd.
    pub pidfd_socket: Option<PathBuf>,
    /// Descriptors 3 to 2+n of the caller stay open in the container.
    pub preserve_fds: u32,
    /// Move the root instead of pivot_root (for a root on a ramfs).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// A detached mount that becomes the root file system: it is attached to `root.path`, an existing
    /// directory, where only the container's mount namespace sees it.
    pub root_mount: Option<OwnedFd>,
    /// Where compiled seccomp filters are kept, if anywhere: a directory that only its owner enters.
    pub seccomp_cache: Option<PathBuf>,
    /// Mount destinations of fresh volumes, into which the image's content is copied.
    pub copy_up: Vec<PathBuf>,
}

/// Why a container could not be created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The configuration contradicts itself, or asks for what is not built.
    #[error(transparent)]
    Invalid(#[from] ValidateError),
    /// The configuration cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The record.
    #[error(transparent)]
    State(#[from] StateError),
    /// The cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// The process, or anything on the container's side.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The resctrl group.
    #[error(transparent)]
    Rdt(#[from] RdtError),
    /// The user namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A network device of the host.
    #[error(transparent)]
    NetDevice(#[from] NetDeviceError),
    /// A hook of the runtime's side.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The seccomp agent did not get its descriptor.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// Limits of the process.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The caller's pid file.
    #[error("writing pid file {path}")]
    PidFile {
        /// Where.
        path: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A socket of the caller.
    #[error("sending the {what} to socket {path}")]
    Socket {
        /// `console` or `pidfd`.
        what: &'static str,
        /// Where.
        path: String,
        /// The call.
        #[source]
        source: SysError,
    },
    /// A descriptor of `--preserve-fds` is not there.
    #[error("descriptor {number} is to be preserved, but the caller did not hand it down")]
    NoDescriptor {
        /// Which.
        number: i32,
    },
    /// A call of the runtime's.
    #[error("creating the container")]
    System(#[from] SysError),
}

impl Kind for CreateError {
    fn kind(&self) -> ErrorKind {
        match self {
            CreateError::Invalid(source) => source.kind(),
            CreateError::Plan(source) => source.kind(),
            CreateError::State(source) => source.kind(),
            CreateError::Cgroup(source) => source.kind(),
            CreateError::Launch(source) => source.kind(),
            CreateError::Rdt(source) => source.kind(),
            CreateError::Namespace(source) => source.kind(),
            CreateError::NetDevice(source) => source.kind(),
            CreateError::Hook(source) => source.kind(),
            CreateError::Notify(source) => source.kind(),
            CreateError::Security(source) => source.kind(),
            CreateError::NoDescriptor { .. } => ErrorKind::InvalidInput,
            CreateError::PidFile { source, .. }
            | CreateError::Socket { source, .. }
            | CreateError::System(source) => source.kind(),
        }
    }
}

/// A created container, whose init waits for [`Created::start`] or [`Created::detach`]. Dropped before
/// that, it is killed; its record stays for delete.
#[derive(Debug)]
pub struct Created {
    child: Child,
    state: State,
    dir: StateDir,
    state_root: PathBuf,
    listener: Option<Listener>,
    told_to_start: bool,
    /// The master side of its terminal, with [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
}

/// A running container.
#[derive(Debug)]
pub struct Started {
    /// Init.
    pub pid: Pid,
    /// Refers to init.
    pub pidfd: OwnedFd,
    /// The master side of its terminal, with [`Stdio::Terminal`].
    pub console: Option<OwnedFd>,
}

impl Started {
    /// Waits for init, a child of this process, and reaps it.
    pub fn wait(&self) -> Result<Exit, SysError> {
        wait(self.pid)
    }
}

impl Created {
    /// Init.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// Refers to init.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.child.pidfd
    }

    /// Executes the program. On failure init has ended, and its record stays for delete.
    pub fn start(mut self) -> Result<Started, StartError> {
        let system = |source| StartError::Launch(LaunchError::System(source));
        if !self.told_to_start {
            self.child.channel.tell(&ToChild::Start).map_err(system)?;
        }
        let (state, pid) = (&self.state, self.child.pid);
        await_exec(&self.child.channel, self.state.init, |fd| -> Result<(), StartError> {
            Ok(notify::send(self.listener.as_ref(), state, Status::Created, pid, fd)?)
        })?;
        self.child.release();
        run_poststart(&self.state, &self.state_root)?;
        let Created { child, console, .. } = self;
        let pidfd = crate::sys::process::duplicate(&child.pidfd).map_err(system)?;
        Ok(Started { pid: child.pid, pidfd, console })
    }

    /// Leaves it waiting at its start socket for [`super::start::start`] of another process.
    pub fn detach(mut self) -> Result<(), CreateError> {
        let listener = socket::listen_at(self.dir.as_dir(), START_SOCKET)?;
        match self.child.channel.send(&ToChild::Await, Some(listener.as_fd())) {
            // It has ended, and has said why.
            Err(SysError { errno: Errno::EPIPE, .. }) => {}
            other => other.map_err(LaunchError::System)?,
        }
        // Init acknowledges that it listens and no longer dies with us.
        match self.child.channel.receive::<ToParent>().map_err(LaunchError::System)? {
            Some((ToParent::Ready, _)) => {
                self.child.release();
                Ok(())
            }
            Some((ToParent::Failed(failure), _)) => Err(LaunchError::Container(failure).into()),
            _ => Err(LaunchError::Vanished { hint: "" }.into()),
        }
    }
}

/// Creates a container up to the point where its init waits for the start. On an error nothing is left of it.
pub fn create(mut request: CreateRequest) -> Result<Created, CreateError> {
    validate::check(&request.spec)?;
    if !nix::unistd::geteuid().is_root() {
        rootless::check(&request.spec, Caller::current())?;
    }
    check_preserved(request.preserve_fds)?;
    let root_mount = request.root_mount.take();
    let plan = Plan::build(&request)?;
    let host = match request.cgroup_driver {
        Driver::Disabled => Host::none(),
        Driver::Cgroupfs | Driver::Systemd => Host::detect()?,
    };
    let cgroups_path = request.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().clone());
    let paths = cgroup::plan(&host, cgroups_path.as_deref(), &request.id, request.cgroup_driver)?;
    let rdt = plan_rdt(&request)?;
    // First of all that is made, because a taken id is the error that callers look for.
    let dir = StateDir::create(&request.state_root, &request.id)?;
    // Before a record names them: delete kills whoever is in the cgroups of a record.
    if let Err(error) = paths.check_unused() {
        dir.remove()?;
        return Err(error.into());
    }
    let state = State::intent(Intent {
        id: &request.id,
        bundle: &request.bundle,
        rootfs: plan.rootfs.rootfs().to_owned(),
        spec: &request.spec,
        namespaces: plan.namespaces.kinds(),
        cgroup: paths,
        rdt: rdt.as_ref().map(|plan| plan.group.clone()),
    });
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            dir.remove()?;
            return Err(error.into());
        }
    };
    let listener = plan.process.security.seccomp.as_ref().and_then(|program| program.listener.clone());
    let told_to_start = plan.start == StartMode::AtOnce;
    let mut half = Half { dir: Some(dir), cgroup_began: false, state };
    let plans = Plans { container: plan, rdt };
    match make(&mut half, &host, plans, &request, root_mount) {
        Ok((child, console)) => {
            // `discard` alone takes the directory.
            let Some(dir) = half.dir.take() else {
                return Err(StateError::NotFound { id: request.id }.into());
            };
            let state = half.state.clone();
            Ok(Created {
                child,
                state,
                dir,
                state_root: request.state_root,
                listener,
                told_to_start,
                console,
            })
        }
        Err(error) => {
            half.discard();
            Err(error)
        }
    }
}

/// One that is not from our caller could be a descriptor of ours, on the host's file system.
pub(super) fn check_preserved(count: u32) -> Result<(), CreateError> {
    match (3..).take(count as usize).find(|&number| !is_inherited(number)) {
        Some(number) => Err(CreateError::NoDescriptor { number }),
        None => Ok(()),
    }
}

/// A container that is being made: what is there of it so far.
#[derive(Debug)]
struct Half {
    dir: Option<StateDir>,
    cgroup_began: bool,
    state: State,
}

impl Half {
    fn dir(&self) -> Result<&StateDir, CreateError> {
        self.dir.as_ref().ok_or_else(|| StateError::NotFound { id: self.state.id.clone() }.into())
    }

    /// Removes it. The error that led here is the one to report; what cannot be removed stays recorded, and
    /// delete finds it.
    fn discard(&mut self) {
        if self.cgroup_began
            && let Err(error) = super::delete::remove_cgroup(&self.state)
        {
            tracing::warn!("{}", crate::error::chain(&error));
            return;
        }
        if let Some(Err(error)) = self.state.rdt.as_ref().map(rdt::Group::remove) {
            tracing::warn!("{}", crate::error::chain(&error));
            return;
        }
        if let Some(Err(error)) = self.dir.take().map(StateDir::remove) {
            tracing::warn!("{}", crate::error::chain(&error));
        }
    }
}

/// What is to be made, planned before anything is.
struct Plans {
    container: Plan,
    rdt: Option<rdt::Plan>,
}

/// The group that `linux.intelRdt` asks for; without it nothing of resctrl is looked at.
fn plan_rdt(request: &CreateRequest) -> Result<Option<rdt::Plan>, RdtError> {
    let wanted = request.spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    wanted.map(|wanted| rdt::Plan::new(wanted, &request.id, &rdt::mount_point()?)).transpose()
}

fn make(
    half: &mut Half,
    host: &Host,
    Plans { container: mut plan, rdt }: Plans,
    request: &CreateRequest,
    root_mount: Option<OwnedFd>,
) -> Result<(Child, Option<OwnedFd>), CreateError> {
    half.dir()?.write_intent(&half.state)?;
    if sd_notify::is_offered(&request.spec, &request.state_root, &request.id) {
        half.dir()?.make_notify_directory()?;
    }
    if let Some(rdt) = &rdt {
        rdt.make()?;
    }
    let resources = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let annotations = request.spec.annotations().as_ref();
    let cgroup = Cgroup::create(host, &half.state.cgroup, resources, annotations, request.rootless)?;
    // Not before: where it fails it leaves nothing, and cgroups that are in use are another container's, whose
    // processes discarding ours must not kill.
    half.cgroup_began = true;
    if let Some(owner) = cgroup::delegate_of(&request.spec)
        && nix::unistd::geteuid().is_root()
    {
        cgroup.delegate(owner)?;
    }
    let mut target = Target {
        oom_score_adj: plan.process.security.limits.take_own_oom_score(),
        namespaces: &plan.namespaces,
        of_process: None,
        placement: cgroup.placement()?,
    };
    // A process in a user namespace may not be allowed to walk to the sources, nor to the root.
    let user_namespace = plan.namespaces.kinds() & flag::USER != 0;
    let sources = rootless::open_sources(&plan.rootfs, user_namespace).map_err(PlanError::from)?;
    // Twice at most: the second one is not born there.
    loop {
        let born_there = target.placement.clone_into.is_some();
        let mut child = match launch(&target) {
            Ok(Side::Init(channel)) => init::run(
                plan,
                channel,
                request,
                &half.state,
                HostMounts { root: root_mount, sources, cgroups_refused: cgroup.is_refused() },
            ),
            Ok(Side::Parent(child)) => child,
            Err(LaunchError::Stillborn) if born_there => {
                target.placement.write_instead()?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match bring_up(half, &cgroup, &plan, request, &mut child) {
            Err(CreateError::Launch(LaunchError::Vanished { .. })) if born_there && child.is_stillborn() => {
                target.placement.write_instead()?;
            }
            outcome => return Ok((child, outcome?)),
        }
    }
}

/// From the birth of init to the point where it is ready; gives its terminal.
fn bring_up(
    half: &mut Half,
    cgroup: &Cgroup,
    plan: &Plan,
    request: &CreateRequest,
    child: &mut Child,
) -> Result<Option<OwnedFd>, CreateError> {
    let resources = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    // While init makes its mounts on another processor: what it need not wait for.
    adopt(half, plan, child)?;
    cgroup.restrict_devices(resources, request.rootless)?;
    half.dir()?.write_config(&request.spec)?;
    if plan.start == StartMode::OnCall {
        let console = converse(half, plan, request, child)?;
        tell_callers(request, child)?;
        return Ok(console);
    }
    tell_callers(request, child)?;
    // It may have failed already, and has said why.
    child.channel.tell(&ToChild::Start).map_err(LaunchError::System)?;
    converse(half, plan, request, child)
}

/// The pid file and the pidfd socket.
fn tell_callers(request: &CreateRequest, child: &Child) -> Result<(), CreateError> {
    if let Some(path) = &request.pid_file {
        write_pid_file(path, child.pid)?;
    }
    if let Some(path) = &request.pidfd_socket {
        send_fd("pidfd", path, &child.pidfd)?;
    }
    Ok(())
}

/// What only the runtime may do to the new process, while it makes its mounts: a process in a user namespace
/// cannot raise its limits or lower its OOM score.
fn adopt(half: &mut Half, plan: &Plan, child: &Child) -> Result<(), CreateError> {
    half.state.init = ProcessId::of(child.pid)?;
    half.dir()?.write_init(half.state.init)?;
    if let Some(group) = &half.state.rdt {
        group.add(child.pid)?;
    }
    Ok(plan.process.security.limits.apply_from_runtime(child.pid)?)
}

/// Serves init until it is ready.
fn converse(
    half: &Half,
    plan: &Plan,
    request: &CreateRequest,
    child: &mut Child,
) -> Result<Option<OwnedFd>, CreateError> {
    let mut console = None;
    loop {
        let (message, fd) = match child.channel.receive::<ToParent>().map_err(LaunchError::System)? {
            Some(message) => message,
            None => return Err(LaunchError::Vanished { hint: why_vanished(half) }.into()),
        };
        child.heard = true;
        match (message, fd) {
            (ToParent::NeedMappings, _) => {
                plan.namespaces.write_mappings(child.pid)?;
                child.channel.tell(&ToChild::Go).map_err(LaunchError::System)?;
            }
            (ToParent::NeedHooks, _) => {
                plan.net_devices.carry_out(child.pid)?;
                run_runtime_hooks(half)?;
                child.channel.tell(&ToChild::Go).map_err(LaunchError::System)?;
            }
            (ToParent::Console, Some(master)) => match &request.stdio {
                Stdio::ConsoleSocket(path) => send_fd("console", path, &master)?,
                _ => console = Some(master),
            },
            (ToParent::Log { level, message }, _) => log(&level, &message),
            (ToParent::Failed(failure), _) => return Err(LaunchError::Container(failure).into()),
            (ToParent::Ready, _) => return Ok(console),
            (ToParent::Listener, Some(fd)) => {
                let program = plan.process.security.seccomp.as_ref();
                let listener = program.and_then(|program| program.listener.as_ref());
                notify::send(listener, &half.state, Status::Creating, child.pid, &fd)?;
            }
            (ToParent::ListenerAt { number }, _) => {
                let fd = notify::fetch(half.state.init, number)?;
                let program = plan.process.security.seccomp.as_ref();
                let listener = program.and_then(|program| program.listener.as_ref());
                notify::send(listener, &half.state, Status::Creating, child.pid, &fd)?;
            }
            (ToParent::Console | ToParent::Listener | ToParent::Listening | ToParent::Staged { .. }, _) => {}
        }
    }
}

/// The likeliest reason for which init was killed while it was set up.
fn why_vanished(half: &Half) -> &'static str {
    let oom = Cgroup::open(&half.state.cgroup).and_then(|cgroup| cgroup.oom_kills());
    if oom.is_ok_and(|kills| kills > 0) {
        ": the kernel killed it for want of memory; linux.resources.memory.limit is too low"
    } else {
        ""
    }
}

fn run_runtime_hooks(half: &Half) -> Result<(), HookError> {
    let Some(all) = &half.state.hooks else { return Ok(()) };
    // The spec places prestart hooks behind the call of `start`, where a container is "created"; it shows the
    // hooks of createRuntime one that is "creating".
    let state = |status| half.state.oci_json(status);
    hooks::run_all(Phase::Prestart, all.prestart().as_deref(), &state(Status::Created))?;
    hooks::run_all(Phase::CreateRuntime, all.create_runtime().as_deref(), &state(Status::Creating))
}

/// conmon takes the pid file for the sign of success: it appears whole, digits only, without a newline.
pub(super) fn write_pid_file(path: &Path, pid: Pid) -> Result<(), CreateError> {
    appear(path, pid.to_string().as_bytes())
        .map_err(|source| CreateError::PidFile { path: path.display().to_string(), source })
}

/// Sends a descriptor to a caller's socket, with its role as the message.
pub(super) fn send_fd(what: &'static str, path: &Path, fd: &OwnedFd) -> Result<(), CreateError> {
    socket::connect_stream(path)
        .and_then(|stream| socket::send(&stream, what.as_bytes(), &[fd.as_fd()]))
        .map_err(|source| CreateError::Socket { what, path: path.display().to_string(), source })
}
