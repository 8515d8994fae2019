//! Creating a container.
//!
//! What can be left behind by a kill at any point is written down before it is made: the record with the
//! cgroups' paths comes first. All mounts are in the container's own mount namespace and end with it; without one
//! they are below a directory beside the record, and are detached with it.
mod bring_up;
mod error;

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::unistd::Pid;
use oci_spec::runtime::Spec;

use self::bring_up::bring_up;
pub(super) use self::bring_up::{send_fd, write_pid_file};
pub use self::error::CreateError;
use super::cgroup::{self, Cgroup, Driver, Host, Placement};
use super::init::{self, HostMounts};
use super::launch::{Child, LaunchError, Side, Target, launch};
use super::namespaces::flag;
use super::notify;
use super::plan::{Plan, PlanError};
use super::protocol::{ToChild, ToParent};
use super::rdt::{self, RdtError};
use super::rootless::{self, Caller, Rootless};
use super::sd_notify;
use super::security::seccomp::Listener;
use super::start::{StartError, await_exec, run_poststart};
use super::state::{Intent, START_SOCKET, State, StateDir, StateError, Status};
use super::validate;
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
        // It may have ended, and has said why.
        self.child.channel.tell_with(&ToChild::Await, &[listener.as_fd()]).map_err(LaunchError::System)?;
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
    let point =
        plan.rootfs.shares_mounts().then(|| half.dir()?.make_root_directory().map_err(CreateError::from));
    let point = point.transpose()?;
    if let Some(rdt) = &rdt {
        rdt.make()?;
    }
    // A process in a user namespace may not be allowed to walk to the sources, nor to the root.
    let user_namespace = plan.namespaces.kinds() & flag::USER != 0;
    let sources = rootless::open_sources(&plan.rootfs, user_namespace).map_err(PlanError::from)?;
    let mut mounts = HostMounts { root: root_mount, sources, cgroups_refused: None, point };
    let mut target = Target {
        oom_score_adj: plan.process.security.limits.take_own_oom_score(),
        namespaces: &plan.namespaces,
        of_process: None,
        placement: Placement::default(),
        more_to_enter: false,
    };
    let resources = request.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let annotations = request.spec.annotations().as_ref();
    // In a user namespace init first asks for its mappings, or a stage speaks first: no other message may come before the answer.
    let alone = !user_namespace && !plan.namespaces.needs_stage();
    let begun = Cgroup::begin(&half.state.cgroup, resources, request.rootless).filter(|_| alone);
    let (cgroup, mut first) = match begun {
        Some(mut begun) => {
            target.placement = begun.birthplace()?;
            target.more_to_enter = true;
            // Where the cgroups fail, this ends before they are removed, because it was declared after them.
            let child = match launch(&target)? {
                Side::Init(channel) => init::run(plan, channel, request, &half.state, mounts),
                Side::Parent(child) => child,
            };
            let cgroup = begun.complete()?;
            begun.keep();
            (cgroup, Some(child))
        }
        None => {
            let paths = &half.state.cgroup;
            (Cgroup::create(host, paths, resources, annotations, request.rootless)?, None)
        }
    };
    // Not before: where it fails it leaves nothing, and cgroups that are in use are another container's, whose
    // processes discarding ours must not kill.
    half.cgroup_began = true;
    if let Some(owner) = cgroup::delegate_of(&request.spec)
        && nix::unistd::geteuid().is_root()
    {
        cgroup.delegate(owner)?;
    }
    mounts.cgroups_refused = Some(cgroup.is_refused());
    let mut born_there = target.placement.clone_into.is_some();
    target.more_to_enter = false;
    target.placement = cgroup.placement()?;
    if let Some(child) = &first {
        child.enter(&target.placement, cgroup.is_refused()).map_err(LaunchError::System)?;
    } else {
        born_there = target.placement.clone_into.is_some();
    }
    // Twice at most: the second one is not born there.
    loop {
        let mut child = match first.take().map_or_else(|| launch(&target), |child| Ok(Side::Parent(child))) {
            Ok(Side::Init(channel)) => init::run(plan, channel, request, &half.state, mounts),
            Ok(Side::Parent(child)) => child,
            Err(LaunchError::Stillborn) if born_there => {
                target.placement.write_instead()?;
                born_there = false;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match bring_up(half, &cgroup, &plan, request, &mut child) {
            Err(CreateError::Launch(LaunchError::Vanished { .. })) if born_there && child.is_stillborn() => {
                target.placement.write_instead()?;
                born_there = false;
            }
            outcome => return Ok((child, outcome?)),
        }
    }
}
