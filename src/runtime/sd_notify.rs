//! The notify socket of a container (sd_notify(3)): the container says that it is ready, and the runtime passes
//! that on to whoever started the runtime.
//!
//! ```text
//! service manager <--NOTIFY_SOCKET-- runtime <--STATE/notify/notify.sock-- container (/run/notify/notify.sock)
//!                   READY=1, MAINPID=…, BARRIER=1                          bind mount, read-only
//! ```
//! Only that it is ready is passed on, and with our own word for its process: what else a container may say
//! (MAINPID, FDSTORE, STOPPING) would let it act for the whole service. runc does the same.
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{Mount, MountBuilder, Spec};

use super::state::{StateDir, StateError};
use crate::error::{ErrorKind, Kind};
use crate::sys::{SysError, socket};

/// In the container.
const INSIDE: &str = "/run/notify";
/// In the container's directory under the state root, and its name in [`INSIDE`].
pub(super) const DIRECTORY: &str = "notify";
pub(super) const SOCKET: &str = "notify.sock";
/// No notification is longer than a page.
const MAX_MESSAGE: usize = 4096;
/// As long as runc waits for a service manager that may not know the barrier.
const BARRIER_MS: u16 = 30_000;

/// Why a notification could not be passed on.
#[derive(Debug, thiserror::Error)]
pub enum NotifySocketError {
    /// The container's record.
    #[error(transparent)]
    State(#[from] StateError),
    /// A call on the container's side of the socket.
    #[error("the notify socket of the container")]
    Container(#[source] SysError),
    /// The caller's socket.
    #[error("NOTIFY_SOCKET {address:?}")]
    Host {
        /// As given.
        address: String,
        /// The call.
        #[source]
        source: SysError,
    },
}

impl Kind for NotifySocketError {
    fn kind(&self) -> ErrorKind {
        match self {
            NotifySocketError::State(source) => source.kind(),
            NotifySocketError::Container(source) | NotifySocketError::Host { source, .. } => source.kind(),
        }
    }
}

/// Adds the socket's directory and its name to a configuration; `create` makes the directory.
pub fn offer(spec: &mut Spec, state_root: &Path, id: &str) {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default()
        .destination(INSIDE)
        .source(state_root.join(id).join(DIRECTORY))
        .options(options)
        .build();
    // All of its fields are given.
    let mut mounts: Vec<Mount> = spec.mounts().clone().unwrap_or_default();
    mounts.extend(mount.ok());
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut().as_mut() {
        let mut env = process.env().clone().unwrap_or_default();
        env.push(variable());
        process.set_env(Some(env));
    }
}

/// What the container's environment has of it.
#[must_use]
pub fn variable() -> String {
    format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}")
}

/// Whether [`offer`] was called on this configuration.
pub(super) fn is_offered(spec: &Spec, state_root: &Path, id: &str) -> bool {
    let directory = state_root.join(id).join(DIRECTORY);
    let mut mounts = spec.mounts().iter().flatten().rev();
    mounts.any(|mount| mount.source().as_ref() == Some(&directory))
}

/// Both ends: the container's socket, bound, and the caller's, connected.
#[derive(Debug)]
pub struct Proxy {
    container: OwnedFd,
    host: OwnedFd,
    told: bool,
}

impl AsFd for Proxy {
    /// Readable when the container has said something.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.container.as_fd()
    }
}

impl Proxy {
    /// Binds the socket of a created container and connects to the caller's `address` (a path, or `@` and a
    /// name); `None` for a container that was created without one.
    pub fn new(state_root: &Path, id: &str, address: &str) -> Result<Option<Proxy>, NotifySocketError> {
        let Some(directory) = StateDir::notify_directory(state_root, id)? else { return Ok(None) };
        let container = socket::bind_datagram_at(&directory, SOCKET).map_err(NotifySocketError::Container)?;
        let host = socket::connect_datagram(address)
            .map_err(|source| NotifySocketError::Host { address: address.into(), source })?;
        Ok(Some(Proxy { container, host, told: false }))
    }

    /// Passes on that the container is ready, once, with `main` as the service's process.
    pub fn pass_on(&mut self, main: Pid) -> Result<bool, SysError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match socket::try_receive(&self.container, &mut buffer) {
                Ok(None) => return Ok(self.told),
                // Longer than a notification can be: none of ours.
                Err(SysError { errno: Errno::EMSGSIZE, .. }) => {}
                Err(error) => return Err(error),
                Ok(Some(message)) => {
                    let ready = ready_line(&buffer[..message.length]);
                    if let (Some(ready), false) = (ready, self.told) {
                        self.told = true;
                        socket::send(&self.host, &[ready, b"\n"].concat(), &[])?;
                        socket::send(&self.host, format!("MAINPID={main}\n").as_bytes(), &[])?;
                    }
                }
            }
        }
    }

    /// Waits until the container is ready or its process has ended, and passes it on; the caller has taken note of
    /// it when this returns.
    pub fn wait(mut self, main: Pid, process: impl AsFd) -> Result<(), SysError> {
        loop {
            let mut fds = [
                PollFd::new(self.container.as_fd(), PollFlags::POLLIN),
                PollFd::new(process.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(SysError::on("poll", "notify socket")(errno)),
            }
            let ended = fds[1].any().unwrap_or(false);
            if self.pass_on(main)? {
                return self.barrier();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// sd_notify_barrier(3): the service manager closes a pipe of ours when it has read all that came before. It
    /// looks up who sent a message, and we are about to end.
    fn barrier(&self) -> Result<(), SysError> {
        let (ours, theirs) = pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
        socket::send(&self.host, b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        // A failure only makes our end earlier than it might be.
        if poll(&mut [PollFd::new(ours.as_fd(), PollFlags::empty())], BARRIER_MS) == Ok(0) {
            tracing::warn!("the service manager did not answer the notification's barrier within 30 s");
        }
        Ok(())
    }
}

/// The line of a message that says so.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message.split(|&byte| byte == b'\n').find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_that_it_is_ready_is_heard() {
        assert_eq!(ready_line(b"STATUS=up\nREADY=1\nMAINPID=1\n"), Some(&b"READY=1"[..]));
        assert_eq!(ready_line(b"MAINPID=1\nXREADY=1"), None);
    }

    #[test]
    fn the_configuration_names_the_socket_where_it_is_mounted() {
        let mut spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","root":{"path":"r"},"process":{"cwd":"/","user":{"uid":0,"gid":0},"args":["x"]}}"#,
        )
        .unwrap();
        let root = Path::new("/run/x");
        assert!(!is_offered(&spec, root, "id"));
        offer(&mut spec, root, "id");
        assert!(is_offered(&spec, root, "id") && !is_offered(&spec, root, "other"));
        let mount = &spec.mounts().as_ref().unwrap()[0];
        assert_eq!(mount.destination(), Path::new("/run/notify"));
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["NOTIFY_SOCKET=/run/notify/notify.sock"]);
    }
}
