//! How a process becomes the monitor of a task.
use super::Monitor;
use crate::engine::Engine;
use crate::engine::error::EngineError;
use crate::engine::monitor::begin::failed;
use crate::engine::names::Id;
use crate::engine::task::control::{self, Reply};
use crate::sys::{SysError, background, exe, packet, process, socket};
use nix::sys::stat::{Mode, umask};
use std::os::fd::{AsFd, OwnedFd};

/// Leaves a child in the background that is the monitor of the task; returns in the caller, which is to end.
///
/// Standard input is the socket of whoever waits for the task: on it comes the task's lock, and the monitor's answer
/// goes back.
///
/// # Errors
/// There is no monitor, and nothing was made.
pub fn become_monitor(engine: Engine, id: Id) -> Result<(), EngineError> {
    let spawner = process::duplicate(std::io::stdin())?;
    // Before anything of a container can see this process (CVE-2019-5736).
    match exe::seal().and_then(|()| background::fork()) {
        Ok(background::Side::Parent(_)) => Ok(()),
        Ok(background::Side::Child) => background::exit(match supervise(engine, id, spawner) {
            Ok(()) => 0,
            // Who waits was told, and nobody else is there to read it.
            Err(_) => 1,
        }),
        Err(error) => {
            tell(&spawner, error.clone().into());
            Err(error.into())
        }
    }
}

fn tell(spawner: &OwnedFd, error: EngineError) {
    if let Ok(packet) = control::encode(&Reply::Failed(failed(error).into())) {
        // Who went away does not want to know.
        let _ = packet::try_send(spawner, &packet);
    }
}

fn supervise(engine: Engine, id: Id, spawner: OwnedFd) -> Result<(), EngineError> {
    background::detach(&[spawner.as_fd()])?;
    // Names are for people: `ps` shows it.
    let _ = nix::sys::prctl::set_name(c"corten-monitor");
    umask(Mode::from_bits_truncate(0o022));
    let told = process::duplicate(&spawner)?;
    let mut monitor = match begin(engine, id, spawner) {
        Ok(monitor) => monitor,
        Err(error) => {
            tell(&told, error);
            return Ok(());
        }
    };
    drop(told);
    monitor.run()
}

fn begin(engine: Engine, id: Id, spawner: OwnedFd) -> Result<Monitor, EngineError> {
    let lost = || EngineError::MonitorLost { id: id.to_string() };
    let lock = socket::receive(&spawner, &mut [0; 16])?.fds.into_iter().next().ok_or_else(lost)?;
    // What the containers' processes leave behind comes to us, and not to init.
    nix::sys::prctl::set_child_subreaper(true).map_err(SysError::on("prctl", "PR_SET_CHILD_SUBREAPER"))?;
    Monitor::begin(engine, id, spawner, lock)
}
