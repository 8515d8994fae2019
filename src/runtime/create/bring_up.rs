//! The runtime's side of setting a container up: what it does for its init, which cannot do it itself.
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::unistd::Pid;

use super::{CreateError, CreateRequest, Half, StartMode, Stdio};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::hooks::{self, HookError, Phase};
use crate::runtime::launch::{Child, LaunchError};
use crate::runtime::notify::{self, NotifyError};
use crate::runtime::plan::Plan;
use crate::runtime::protocol::{ToChild, ToParent};
use crate::runtime::start::log;
use crate::runtime::state::{ProcessId, Status};
use crate::sys::appear::appear;
use crate::sys::{exe, socket};

/// From the birth of init to the point where it is ready; gives its terminal.
pub(super) fn bring_up(
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
    exe::let_go();
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
            (ToParent::Listener, Some(fd)) => hand_over(half, plan, child, &fd)?,
            (ToParent::ListenerAt { number }, _) => {
                hand_over(half, plan, child, &notify::fetch(half.state.init, number)?)?;
            }
            (ToParent::Console | ToParent::Listener | ToParent::Listening | ToParent::Staged { .. }, _) => {}
        }
    }
}

/// Gives the listener of init's filter to the agent that the profile names.
fn hand_over(half: &Half, plan: &Plan, child: &Child, listener: &OwnedFd) -> Result<(), NotifyError> {
    let program = plan.process.security.seccomp.as_ref();
    let agent = program.and_then(|program| program.listener.as_ref());
    notify::send(agent, &half.state, Status::Creating, child.pid, listener)
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
    let bundle = &half.state.bundle;
    hooks::run_all(Phase::Prestart, all.prestart().as_deref(), bundle, &state(Status::Created))?;
    hooks::run_all(Phase::CreateRuntime, all.create_runtime().as_deref(), bundle, &state(Status::Creating))
}

/// conmon takes the pid file for the sign of success: it appears whole, digits only, without a newline.
pub(in crate::runtime) fn write_pid_file(path: &Path, pid: Pid) -> Result<(), CreateError> {
    appear(path, pid.to_string().as_bytes())
        .map_err(|source| CreateError::PidFile { path: path.display().to_string(), source })
}

/// Sends a descriptor to a caller's socket, with its role as the message.
pub(in crate::runtime) fn send_fd(what: &'static str, path: &Path, fd: &OwnedFd) -> Result<(), CreateError> {
    socket::connect_stream(path)
        .and_then(|stream| socket::send(&stream, what.as_bytes(), &[fd.as_fd()]))
        .map_err(|source| CreateError::Socket { what, path: path.display().to_string(), source })
}
