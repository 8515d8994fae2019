//! Namespaces that the containers of a task share: each is held by a bind mount of its file, so that it needs no
//! process.
use super::{TaskNetwork, TaskSpec, validate};
use crate::engine::error::EngineError;
use crate::engine::record::private_directory;
use crate::runtime::namespaces::flag;
use crate::sys::mount::{Scope, clone_fd, move_mount};
use crate::sys::{SysError, link, process};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A kind of namespace that a task can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shared {
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Processes.
    Pid,
}

impl Shared {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Net, Self::Ipc, Self::Uts, Self::Pid];

    /// Name of its file, here and in /proc/PID/ns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Pid => "pid",
        }
    }

    fn flag(self) -> u64 {
        match self {
            Self::Net => flag::NETWORK,
            Self::Ipc => flag::IPC,
            Self::Uts => flag::UTS,
            Self::Pid => flag::PID,
        }
    }

    /// The file that holds it in the task's directory `<state>/tasks/<id>`.
    pub fn path(self, directory: &Path) -> PathBuf {
        directory.join("ns").join(self.name())
    }

    /// Whether a task has one of its own; else its containers use the host's (for PIDs: each its own).
    pub fn is_of(self, spec: &TaskSpec) -> bool {
        match self {
            Self::Net => spec.network != TaskNetwork::Host,
            Self::Ipc => !spec.host_ipc,
            // On the host's network a task keeps the host's name, which is what others know it by.
            Self::Uts => spec.network != TaskNetwork::Host || spec.hostname.is_some(),
            Self::Pid => spec.shares_pid,
        }
    }
}

/// What every link that comes into a new network namespace begins with: a neighbour must not become the router
/// (CVE-2020-10749), and addresses that are given out need no search for duplicates.
const LINK_DEFAULTS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv6/conf/default/accept_ra", "0"), ("/proc/sys/net/ipv6/conf/default/accept_dad", "0")];

/// Makes the namespaces of a task but that of processes, gives them host name and parameters, and holds them by
/// files in `directory`/ns. The caller is in its own namespaces again when this returns; after an error it is to
/// end.
pub(super) fn make(spec: &TaskSpec, hostname: &str, directory: &Path) -> Result<(), EngineError> {
    let held = directory.join("ns");
    private_directory(&held)?;
    let kinds: Vec<Shared> =
        Shared::ALL.into_iter().filter(|kind| *kind != Shared::Pid && kind.is_of(spec)).collect();
    let bits = kinds.iter().fold(0, |bits, kind| bits | kind.flag());
    if bits == 0 {
        return Ok(());
    }
    let own: Vec<File> = kinds.iter().map(|kind| open_own(*kind)).collect::<Result<_, _>>()?;
    process::unshare(bits)?;
    if kinds.contains(&Shared::Net) {
        link::loopback_up()?;
        for (path, value) in LINK_DEFAULTS {
            // A kernel without IPv6 has none of them.
            let _ = std::fs::write(path, value);
        }
    }
    if kinds.contains(&Shared::Uts) {
        nix::unistd::sethostname(hostname).map_err(SysError::on("sethostname", hostname))?;
    }
    for (key, value) in &spec.sysctls {
        let path = Path::new("/proc/sys").join(validate::sysctl_path(key, spec)?);
        std::fs::write(&path, value).map_err(SysError::io("write", path.display().to_string()))?;
    }
    for kind in &kinds {
        hold(&open_own(*kind)?, &kind.path(directory))?;
    }
    for (kind, own) in kinds.iter().zip(&own) {
        process::setns(own, kind.flag())?;
    }
    Ok(())
}

/// A kind of namespace of this process. The host's /proc, which no container has touched.
fn open_own(kind: Shared) -> Result<File, SysError> {
    open(&format!("/proc/thread-self/ns/{}", kind.name()))
}

fn open(path: &str) -> Result<File, SysError> {
    File::open(path).map_err(SysError::io("open", path))
}

/// Holds a namespace of the process `pid`.
pub(super) fn hold_of(pid: i32, kind: Shared, directory: &Path) -> Result<(), EngineError> {
    Ok(hold(&open(&format!("/proc/{pid}/ns/{}", kind.name()))?, &kind.path(directory))?)
}

/// Mounts a namespace's file at a new file.
fn hold(namespace: &File, path: &Path) -> Result<(), SysError> {
    let shown = path.display().to_string();
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)
        .map_err(SysError::io("open", shown.as_str()))?;
    let mount = clone_fd(namespace.as_fd(), &shown, Scope::Mount)?;
    move_mount(mount.as_fd(), target.as_fd(), &shown)
}

/// Unmounts whatever is mounted at a path of ours; that nothing is, or that it is gone, is no error.
pub(super) fn unmount(path: &Path) -> Result<(), SysError> {
    let failed = |errno| SysError::on("umount2", path.display().to_string())(errno);
    // More than one mount may lie there; the limit ends a loop that somebody keeps feeding.
    for _ in 0..64 {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point; not there.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            // Somebody looks at it: it goes away when they are done.
            Err(Errno::EBUSY) => {
                umount2(path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH).map_err(failed)?;
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
    Err(failed(Errno::EBUSY))
}
