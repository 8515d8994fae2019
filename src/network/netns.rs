//! Network namespaces that no process holds: a bind mount of the namespace's file does.
use super::NetworkError;
use crate::sys::SysError;
use crate::sys::process::{setns, unshare};
use crate::sys::{link, mount, root};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// `CLONE_NEWNET` as setns and unshare take it.
const NETWORK: u64 = CloneFlags::CLONE_NEWNET.bits().cast_unsigned() as u64;

/// Sysctls of a new namespace: what every link that comes into it begins with. A neighbour on the bridge must not
/// become the router (CVE-2020-10749), and addresses that we gave out need no probing for duplicates.
const SYSCTLS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv6/conf/default/accept_ra", "0"), ("/proc/sys/net/ipv6/conf/default/accept_dad", "0")];

/// Makes a network namespace whose loopback link is up, and holds it by a bind mount at `path`: a new file of mode
/// 0600 in a directory that only root writes.
///
/// The calling thread is in its own network namespace again when this returns; a process may have other threads.
///
/// # Errors
/// EEXIST if `path` exists. On an error nothing is left.
pub fn create(path: &Path) -> Result<(), NetworkError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = Path::new(path.file_name().unwrap_or_default());
    let directory = root::open_own(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)?;
    let target =
        root::create_file(directory.as_fd(), name, OFlag::O_RDONLY, Mode::from_bits_truncate(0o600))?;
    let made = apart(|| {
        unshare(NETWORK)?;
        link::loopback_up()?;
        for (path, value) in SYSCTLS {
            // A kernel without IPv6 has none of them.
            let _ = std::fs::write(path, value);
        }
        let mount = mount::clone_fd(own()?.as_fd(), "ns/net", mount::Scope::Mount)?;
        mount::move_mount(mount.as_fd(), target.as_fd(), &path.display().to_string())
    });
    if made.is_err() {
        // The first error counts.
        let _ = remove(path);
    }
    Ok(made?)
}

/// Lets go of the namespace at `path` and removes the file; that there is none is no error.
pub fn remove(path: &Path) -> Result<(), NetworkError> {
    loop {
        match mount::detach_path(path) {
            // More than one may have been mounted there.
            Ok(()) => {}
            Err(SysError { errno: Errno::ENOENT, .. }) => return Ok(()),
            // Not a mount point: the maker came no further.
            Err(SysError { errno: Errno::EINVAL, .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(SysError::io("unlink", path.display().to_string())(error).into())
        }
        _ => Ok(()),
    }
}

/// Moves the calling thread into the namespace at `path` for good.
///
/// # Errors
/// EINVAL if the file is no network namespace.
pub fn enter(path: &Path) -> Result<(), NetworkError> {
    Ok(setns(open(path)?, NETWORK)?)
}

/// The namespace at `path`.
pub(super) fn open(path: &Path) -> Result<OwnedFd, SysError> {
    root::open_own(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC)
}

/// What `work` makes in the namespace `netns`, a socket for one.
pub(super) fn within<T>(netns: &OwnedFd, work: impl FnOnce() -> Result<T, SysError>) -> Result<T, SysError> {
    apart(|| {
        setns(netns, NETWORK)?;
        work()
    })
}

/// Does `work`, which changes the calling thread's network namespace (other threads stay where they are, setns(2)), and
/// brings the thread back. No thread is made for it, because the caller may yet have to fork.
fn apart<T>(work: impl FnOnce() -> Result<T, SysError>) -> Result<T, SysError> {
    let before = own()?;
    let result = work();
    // If this fails the thread is in the wrong namespace: no result may be used.
    setns(before, NETWORK)?;
    result
}

fn own() -> Result<OwnedFd, SysError> {
    // A magic link, which `open` does not follow; /proc is the host's own.
    let path = "/proc/thread-self/ns/net";
    std::fs::File::open(path).map(OwnedFd::from).map_err(SysError::io("open", path))
}
