//! overlayfs.
//!
//! | kernel | how the layers are named |
//! |---|---|
//! | 6.13 | one `lowerdir+` for each, by descriptor |
//! | 6.7 | one `lowerdir+` for each, by name |
//! | before | one `lowerdir` with all names, by the classic mount(2) |
//!
//! fsconfig(2) takes values of at most 255 bytes, so before `lowerdir+` it cannot name more than a few layers.
//! mount(2) takes a page of options, but it needs a place to mount on, which must not be seen: a thread of its
//! own enters a mount namespace of its own, mounts there, and takes a detached copy out.
use super::{SnapshotError, Stack};
use crate::sys::mount::{self, Attr, FsContext, Propagation, Scope};
use crate::sys::{SysError, classic_mount, host, xattr};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

/// The longest value that fsconfig(2) takes.
const VALUE_MAX: usize = 255;
/// The most layers of the classic mount: a page holds as many names `/proc/self/fd/NNNN`.
const CLASSIC_LAYERS_MAX: usize = 200;

/// What a host may have set otherwise for the module: layers are never trusted to redirect a name elsewhere,
/// a copied-up file is whole, and an upper directory may be used again with the same layers.
const OPTIONS: [(&str, &str); 3] = [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// In a user namespace overlayfs keeps its own attributes where its user may write them (Linux 5.11).
const USER_ATTRIBUTES: &str = "userxattr";

/// The user namespace of a process that has begun to work on images does not change.
fn in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(host::in_user_namespace)
}

/// The attribute by which a directory hides what the layers below it have there.
pub fn opaque_attribute() -> &'static CStr {
    if in_user_namespace() { c"user.overlay.opaque" } else { c"trusted.overlay.opaque" }
}

/// Whether the kernel has mounted the snapshot before: its own directory is in `work`.
pub(super) fn has_begun(stack: &Stack<'_>) -> bool {
    stack.work.join("work").exists()
}

/// Whether an error says that this kernel or file system cannot carry the overlay, rather than that something is
/// missing or exhausted.
pub(super) fn is_unsuitable(error: &SnapshotError) -> bool {
    // E2BIG: more layers than the classic call takes. EPERM, EACCES: no right to mount overlays, as in a user namespace
    // before Linux 5.11. EREMOTE: case-folding directories. ENODEV: no overlayfs.
    let unsuitable = [
        Errno::EINVAL,
        Errno::ENODEV,
        Errno::EOPNOTSUPP,
        Errno::ENOSYS,
        Errno::EPERM,
        Errno::EACCES,
        Errno::EREMOTE,
        Errno::E2BIG,
    ];
    matches!(error, SnapshotError::Mount { source, .. } if unsuitable.contains(&source.errno))
}

/// What the kernel would mount over without a word, to fail later; looked for once.
pub(super) fn obstacle(stack: &Stack<'_>) -> Option<&'static str> {
    if has_begun(stack) {
        return None;
    }
    let upper = open(stack.upper).ok()?;
    let probe = if in_user_namespace() { c"user.overlay.probe" } else { c"trusted.overlay.probe" };
    match xattr::set(&upper, probe, b"y") {
        Ok(()) => {
            // It is overlayfs's to ignore.
            let _ = xattr::remove(&upper, probe);
            None
        }
        Err(error) if matches!(error.errno, Errno::EOPNOTSUPP | Errno::EPERM) => {
            Some("the file system keeps no extended attributes for it")
        }
        Err(_) => None,
    }
}

pub(super) fn mount(stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
    if stack.lowers.is_empty() {
        return Err(SnapshotError::NoLayers);
    }
    for naming in [Naming::Descriptors, Naming::Names] {
        match with_context(stack, naming) {
            // The kernel does not know the option in this form; before overlayfs had its own parameters (6.5) it
            // takes no descriptor at all, with EOPNOTSUPP. An error in a layer shows in the next form again.
            Err(SnapshotError::Mount { source, .. })
                if matches!(source.errno, Errno::EINVAL | Errno::EOPNOTSUPP) => {}
            result => return result,
        }
    }
    classic(stack)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    Descriptors,
    Names,
}

fn open(path: &Path) -> Result<OwnedFd, SnapshotError> {
    // Not O_PATH: fsconfig(2) takes such descriptors for layers only since Linux 6.15.
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty())
        .map_err(SysError::on("open", path.to_string_lossy()))
        .map_err(|source| SnapshotError::Layer { path: path.to_owned(), source })
}

/// A name of at most [`VALUE_MAX`] bytes without characters that overlayfs gives a meaning to.
fn proc_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The path itself where it will do, because that is what `/proc/self/mountinfo` shows.
fn short_name(path: &Path, fd: &OwnedFd) -> String {
    let plain = |text: &&str| text.len() <= VALUE_MAX && !text.contains([':', ',', '\\']);
    path.to_str().filter(plain).map_or_else(|| proc_name(fd), str::to_owned)
}

fn with_context(stack: &Stack<'_>, naming: Naming) -> Result<OwnedFd, SnapshotError> {
    let failed = |source| SnapshotError::Mount { layers: stack.lowers.len(), source };
    let context = FsContext::open("overlay").map_err(failed)?;
    context.set_string("source", "overlay").map_err(failed)?;
    // Open until the superblock is made: names under /proc are resolved when they are set.
    let mut open_dirs = Vec::with_capacity(stack.lowers.len() + 2);
    let mut set = |key: &str, path: &Path| {
        let fd = open(path)?;
        match naming {
            Naming::Descriptors => context.set_fd(key, fd.as_fd()),
            Naming::Names => context.set_string(key, &short_name(path, &fd)),
        }
        .map_err(failed)?;
        open_dirs.push(fd);
        Ok(())
    };
    for lower in stack.lowers {
        set("lowerdir+", lower)?;
    }
    set("upperdir", stack.upper)?;
    set("workdir", stack.work)?;
    for (key, value) in OPTIONS {
        context.set_string(key, value).map_err(failed)?;
    }
    if in_user_namespace() {
        context.set_flag(USER_ATTRIBUTES).map_err(failed)?;
    }
    context.mount(Attr::empty()).map_err(failed)
}

/// mount(2) in a mount namespace that only the calling thread ever sees.
fn classic(stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
    let failed = |source| SnapshotError::Mount { layers: stack.lowers.len(), source };
    if stack.lowers.len() > CLASSIC_LAYERS_MAX {
        let args = format!("more than {CLASSIC_LAYERS_MAX} layers need Linux 6.7");
        return Err(failed(SysError { call: "mount", args, errno: Errno::E2BIG }));
    }
    std::thread::scope(|scope| match scope.spawn(|| classic_in_own_namespace(stack)).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn classic_in_own_namespace(stack: &Stack<'_>) -> Result<OwnedFd, SnapshotError> {
    let failed = |source| SnapshotError::Mount { layers: stack.lowers.len(), source };
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)
        .map_err(SysError::on("unshare", "CLONE_NEWNS"))
        .map_err(failed)?;
    // Before the mount, because it would appear in the peers of a shared mount.
    mount::set_root_propagation(Propagation::Private, Scope::Tree).map_err(failed)?;
    // Opened in this namespace: overlayfs takes layers of the caller's namespace only
    // (clone_private_mount, since Linux 5.14).
    let lowers = stack.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let (upper, work) = (open(stack.upper)?, open(stack.work)?);
    let names: Vec<String> = lowers.iter().map(proc_name).collect();
    let mut options =
        format!("lowerdir={},upperdir={},workdir={}", names.join(":"), proc_name(&upper), proc_name(&work));
    for (key, value) in OPTIONS {
        options.push_str(&format!(",{key}={value}"));
    }
    if in_user_namespace() {
        options.push_str(&format!(",{USER_ATTRIBUTES}"));
    }
    // Any directory of this namespace serves as the place; from now on its path leads to the overlay.
    classic_mount::mount_on(upper.as_fd(), "overlay", &options).map_err(failed)?;
    mount::clone_tree(nix::fcntl::AT_FDCWD, stack.upper, Scope::Mount).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Layers, an upper and a work directory on a file system that can carry an overlay; `None` where this
    /// process may not mount.
    fn stack_of(count: usize) -> Option<(tempfile::TempDir, Vec<PathBuf>)> {
        let may_mount = nix::unistd::geteuid().is_root();
        let dir = tempfile::tempdir_in("/var/tmp").ok()?;
        let lowers: Vec<PathBuf> = (0..count).map(|at| dir.path().join(format!("layer,{at}:x"))).collect();
        for (at, lower) in lowers.iter().enumerate() {
            std::fs::create_dir(lower).unwrap();
            std::fs::write(lower.join("top"), at.to_string()).unwrap();
            std::fs::write(lower.join(format!("of-{at}")), "").unwrap();
        }
        for name in ["upper", "work"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        may_mount.then_some((dir, lowers))
    }

    fn check(how: impl Fn(&Stack<'_>) -> Result<OwnedFd, SnapshotError>, count: usize) {
        let Some((dir, lowers)) = stack_of(count) else { return };
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = match how(&Stack { lowers: &lowers, upper: &upper, work: &work }) {
            Ok(mount) => mount,
            // The tests may run in a container without the right to mount.
            Err(SnapshotError::Mount { source, .. }) if source.errno == Errno::EPERM => return,
            Err(error) => panic!("{}", crate::error::chain(&error)),
        };
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
        let read = |path: &str| super::super::lookup(mount.as_fd(), Path::new(path), 100).unwrap();
        assert_eq!(read("top").as_deref(), Some(&b"0"[..]), "the first layer is the top one");
        assert!(read(&format!("/of-{}", count - 1)).is_some());
        assert_eq!(read("absent"), None);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT;
        nix::fcntl::openat(&mount, "new", flags, Mode::from_bits_truncate(0o600)).unwrap();
        assert!(upper.join("new").exists());
        assert!(!lowers[0].join("new").exists());
    }

    #[test]
    fn by_whatever_the_kernel_has() {
        check(mount, 3);
    }

    #[test]
    fn by_names() {
        // A kernel without lowerdir+ says EINVAL, and the next test covers it.
        check(
            |stack| match with_context(stack, Naming::Names) {
                Err(SnapshotError::Mount { source, .. }) if source.errno == Errno::EINVAL => classic(stack),
                result => result,
            },
            40,
        );
    }

    #[test]
    fn by_the_classic_call_with_many_layers() {
        check(classic, CLASSIC_LAYERS_MAX);
    }

    #[test]
    fn a_missing_layer_is_named() {
        let root = Path::new("/");
        let lowers = [PathBuf::from("/nowhere")];
        let error = mount(&Stack { lowers: &lowers, upper: root, work: root }).unwrap_err();
        assert!(crate::error::chain(&error).contains("/nowhere"));
    }
}
