//! The mount API of Linux 5.2 and `mount_setattr` of 5.12: mounts are file descriptors.
//!
//! A mount is made detached (`fsmount`, `open_tree`), gets its attributes, and is then attached to a
//! directory or file that is an open descriptor too. No step resolves a path that somebody could change
//! between a check and its use (CVE-2021-30465, CVE-2025-31133).
use super::SysError;
use nix::NixPath;
use nix::errno::Errno;
use std::ffi::{CStr, CString};
use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// Attributes of one mount (not of its superblock): `mount_setattr(2)`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Attr(u64);

impl Attr {
    /// Read-only.
    pub const RDONLY: Attr = Attr(0x1);
    /// Set-user-ID, set-group-ID and file capabilities have no effect.
    pub const NOSUID: Attr = Attr(0x2);
    /// Device nodes cannot be opened.
    pub const NODEV: Attr = Attr(0x4);
    /// No file can be executed.
    pub const NOEXEC: Attr = Attr(0x8);
    /// The bits that hold the access time mode; to change the mode, clear these and set one.
    pub const ATIME: Attr = Attr(0x70);
    /// Access times as `relatime` does: the mode whose bits are zero.
    pub const RELATIME: Attr = Attr(0);
    /// No access times.
    pub const NOATIME: Attr = Attr(0x10);
    /// Every access time.
    pub const STRICTATIME: Attr = Attr(0x20);
    /// No access times of directories.
    pub const NODIRATIME: Attr = Attr(0x80);
    /// Symbolic links are not followed (Linux 5.14).
    pub const NOSYMFOLLOW: Attr = Attr(0x20_0000);
    /// The mount maps the owners of files.
    pub const IDMAP: Attr = Attr(0x10_0000);

    /// No attribute.
    pub const fn empty() -> Attr {
        Attr(0)
    }

    /// Whether no bit is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Attr) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of either.
    pub const fn union(self, other: Attr) -> Attr {
        Attr(self.0 | other.0)
    }
}

impl BitOr for Attr {
    type Output = Attr;
    fn bitor(self, other: Attr) -> Attr {
        self.union(other)
    }
}

impl BitOrAssign for Attr {
    fn bitor_assign(&mut self, other: Attr) {
        self.0 |= other.0;
    }
}

impl BitAnd for Attr {
    type Output = Attr;
    fn bitand(self, other: Attr) -> Attr {
        Attr(self.0 & other.0)
    }
}

impl Not for Attr {
    type Output = Attr;
    fn not(self) -> Attr {
        Attr(!self.0)
    }
}

impl fmt::Debug for Attr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Attr({:#x})", self.0)
    }
}

/// What a mount shares with its peers: `mount_namespaces(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Propagation {
    /// Nothing in either direction.
    Private,
    /// Everything in both directions.
    Shared,
    /// Receives, does not send.
    Slave,
    /// Private, and cannot be bind-mounted.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Propagation::Private => libc::MS_PRIVATE,
            Propagation::Shared => libc::MS_SHARED,
            Propagation::Slave => libc::MS_SLAVE,
            Propagation::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// Whether a call concerns one mount or the whole tree of mounts below it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This mount.
    Mount,
    /// This mount and all below it.
    Tree,
}

impl Scope {
    fn at_flag(self) -> libc::c_int {
        match self {
            Scope::Mount => 0,
            Scope::Tree => AT_RECURSIVE,
        }
    }
}

const AT_RECURSIVE: libc::c_int = 0x8000;
const OPEN_TREE_CLONE: libc::c_uint = 0x1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC.cast_unsigned();
const FSOPEN_CLOEXEC: libc::c_uint = 0x1;
const FSPICK_CLOEXEC: libc::c_uint = 0x1;
const FSPICK_EMPTY_PATH: libc::c_uint = 0x8;
const FSMOUNT_CLOEXEC: libc::c_uint = 0x1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;

/// `struct mount_attr` of linux/mount.h, version 0.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn descriptor(result: libc::c_long) -> Result<OwnedFd, Errno> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this call, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_string(call: &'static str, text: &[u8]) -> Result<CString, SysError> {
    CString::new(text)
        .map_err(|_| Errno::EINVAL)
        .map_err(SysError::on(call, String::from_utf8_lossy(text).into_owned()))
}

/// A file system that is being configured: `fsopen(2)` or `fspick(2)`.
///
/// Errors carry what the kernel wrote into the context's log, which names the parameter it rejected.
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    name: String,
}

impl FsContext {
    /// A context for a new mount of the file system type `fstype`.
    pub fn open(fstype: &str) -> Result<FsContext, SysError> {
        let name = c_string("fsopen", fstype.as_bytes())?;
        // SAFETY: `name` is a NUL-terminated string that outlives the call; the call returns a new
        // descriptor or -1.
        let fd = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), FSOPEN_CLOEXEC) })
            .map_err(SysError::on("fsopen", fstype))?;
        Ok(FsContext { fd, name: fstype.to_owned() })
    }

    /// A context that reconfigures the superblock of the mount whose root is `mount`; `name` is for errors.
    pub fn pick(mount: BorrowedFd<'_>, name: &str) -> Result<FsContext, SysError> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is a static NUL-terminated string, `mount` is open for the whole call.
        let fd =
            descriptor(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) })
                .map_err(SysError::on("fspick", name))?;
        Ok(FsContext { fd, name: name.to_owned() })
    }

    /// Sets `key=value`.
    pub fn set_string(&self, key: &str, value: &str) -> Result<(), SysError> {
        let value_c = c_string("fsconfig", value.as_bytes())?;
        self.config(FSCONFIG_SET_STRING, Some(key), Some(&value_c), 0)
            .map_err(|errno| self.error("fsconfig", &format!("{key}={value}"), errno))
    }

    /// Sets the option `key`, which has no value.
    pub fn set_flag(&self, key: &str) -> Result<(), SysError> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0).map_err(|errno| self.error("fsconfig", key, errno))
    }

    /// Sets `key` to an open file.
    pub fn set_fd(&self, key: &str, fd: BorrowedFd<'_>) -> Result<(), SysError> {
        self.config(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
            .map_err(|errno| self.error("fsconfig", key, errno))
    }

    /// Makes the superblock and a detached mount of it. The descriptor is the root of the new mount; it
    /// serves as a directory for `openat` and stays valid after [`move_mount`]. Dropped before that, it
    /// takes the mount with it.
    pub fn mount(self, attr: Attr) -> Result<OwnedFd, SysError> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
            .map_err(|errno| self.error("fsconfig", "create", errno))?;
        // SAFETY: the context descriptor is open for the whole call, which returns a new descriptor or -1.
        descriptor(unsafe { libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), FSMOUNT_CLOEXEC, attr.0) })
            .map_err(|errno| self.error("fsmount", "", errno))
    }

    /// Applies the options to the superblock of a picked mount.
    pub fn reconfigure(self) -> Result<(), SysError> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
            .map_err(|errno| self.error("fsconfig", "reconfigure", errno))
    }

    fn config(
        &self,
        command: libc::c_uint,
        key: Option<&str>,
        value: Option<&CStr>,
        aux: RawFd,
    ) -> Result<(), Errno> {
        let key = key.map(CString::new).transpose().map_err(|_| Errno::EINVAL)?;
        let key = key.as_deref().map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: `key` and `value` are null or NUL-terminated strings that live until the end of this
        // function; the kernel copies them.
        let result =
            unsafe { libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, key, value, aux) };
        Errno::result(result).map(drop)
    }

    /// The error of a call on this context, with the kernel's last messages about it.
    fn error(&self, call: &'static str, what: &str, errno: Errno) -> SysError {
        let mut args = self.name.clone();
        if !what.is_empty() {
            args.push(' ');
            args.push_str(what);
        }
        let mut line = [0_u8; 512];
        // Each read gives one message; ENODATA ends them. The kernel keeps eight (fs_context.c).
        for _ in 0..8 {
            let Ok(length) = nix::unistd::read(&self.fd, &mut line) else { break };
            let text = String::from_utf8_lossy(&line[..length]);
            let text = text.trim();
            // "e " is an error, "w " a warning, "i " information.
            let text =
                text.split_once(' ').filter(|(level, _)| level.len() == 1).map_or(text, |(_, text)| text);
            args.push_str(" (");
            args.push_str(text);
            args.push(')');
        }
        SysError { call, args, errno }
    }
}

impl AsFd for FsContext {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A detached copy (bind mount) of the mount at `path` under `dir`, following symbolic links; with an
/// empty path, of what `dir` itself is. `Scope::Tree` copies the mounts below it too.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &Path, scope: Scope) -> Result<OwnedFd, SysError> {
    open_tree(dir, path, OPEN_TREE_CLONE, scope).map_err(SysError::on("open_tree", display(path)))
}

/// The same; a symbolic link in the last component is copied itself.
pub fn clone_tree_no_follow(dir: BorrowedFd<'_>, path: &Path, scope: Scope) -> Result<OwnedFd, SysError> {
    let flags = OPEN_TREE_CLONE | libc::AT_SYMLINK_NOFOLLOW.cast_unsigned();
    open_tree(dir, path, flags, scope).map_err(SysError::on("open_tree", display(path)))
}

/// The same for what `fd` is; `name` is for errors.
pub fn clone_fd(fd: BorrowedFd<'_>, name: &str, scope: Scope) -> Result<OwnedFd, SysError> {
    open_tree(fd, Path::new(""), OPEN_TREE_CLONE, scope).map_err(SysError::on("open_tree", name))
}

fn open_tree(dir: BorrowedFd<'_>, path: &Path, flags: libc::c_uint, scope: Scope) -> Result<OwnedFd, Errno> {
    let mut flags = flags | OPEN_TREE_CLOEXEC | scope.at_flag().cast_unsigned();
    if path.as_os_str().is_empty() {
        flags |= libc::AT_EMPTY_PATH.cast_unsigned();
    }
    let result = path.with_nix_path(|path| {
        // SAFETY: `path` is NUL-terminated and outlives the call, `dir` is open for the whole call.
        unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) }
    })?;
    descriptor(result)
}

/// Attaches the mount `mount` on the directory or file `target`; `name` is for errors.
///
/// A detached mount is attached, an attached one is moved. Both descriptors may be `O_PATH`.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>, name: &str) -> Result<(), SysError> {
    // SAFETY: both paths are static NUL-terminated strings, both descriptors are open for the whole call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result).map(drop).map_err(SysError::on("move_mount", name))
}

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Bits to set.
    pub set: Attr,
    /// Bits to clear; the kernel clears before it sets.
    pub clear: Attr,
    /// The new propagation, if it shall change.
    pub propagation: Option<Propagation>,
}

impl Change {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.clear.is_empty() && self.propagation.is_none()
    }
}

/// Changes the attributes of the mount whose root is `mount`; `name` is for errors.
pub fn set_attr(mount: BorrowedFd<'_>, change: &Change, scope: Scope, name: &str) -> Result<(), SysError> {
    mount_setattr(mount, c"", change, None, libc::AT_EMPTY_PATH | scope.at_flag())
        .map_err(SysError::on("mount_setattr", name))
}

/// Maps the owners of files in the detached mount `mount` as the user namespace `userns` does.
pub fn set_idmap(
    mount: BorrowedFd<'_>,
    userns: BorrowedFd<'_>,
    scope: Scope,
    name: &str,
) -> Result<(), SysError> {
    let change = Change { set: Attr::IDMAP, ..Change::default() };
    mount_setattr(mount, c"", &change, Some(userns), libc::AT_EMPTY_PATH | scope.at_flag())
        .map_err(SysError::on("mount_setattr", name))
}

/// Sets the propagation of the root mount of this process, and with `Scope::Tree` of all mounts.
pub fn set_root_propagation(propagation: Propagation, scope: Scope) -> Result<(), SysError> {
    let change = Change { propagation: Some(propagation), ..Change::default() };
    mount_setattr(nix::fcntl::AT_FDCWD, c"/", &change, None, scope.at_flag())
        .map_err(SysError::on("mount_setattr", "/"))
}

fn mount_setattr(
    dir: BorrowedFd<'_>,
    path: &CStr,
    change: &Change,
    userns: Option<BorrowedFd<'_>>,
    flags: libc::c_int,
) -> Result<(), Errno> {
    let mut attr = MountAttr {
        attr_set: change.set.0,
        attr_clr: change.clear.0,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns_fd: 0,
    };
    if let Some(fd) = userns {
        attr.userns_fd = u64::try_from(fd.as_raw_fd()).map_err(|_| Errno::EBADF)?;
    }
    // SAFETY: `attr` is laid out as the kernel's struct, its size is passed along, and the kernel only reads.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw mut attr,
            size_of::<MountAttr>(),
        )
    };
    Errno::result(result).map(drop)
}

/// Makes `root`, the root of a mount, the root and the working directory of this process, and detaches the
/// old root with everything below it. `pivot_root(2)`, "pivot_root(".", ".")": the old root lies on top of
/// the new one for a moment, so that no directory is needed for it.
pub fn pivot_root(root: BorrowedFd<'_>) -> Result<(), SysError> {
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    let old =
        nix::fcntl::open("/", flags, nix::sys::stat::Mode::empty()).map_err(SysError::on("open", "/"))?;
    nix::unistd::fchdir(root).map_err(SysError::on("fchdir", "new root"))?;
    nix::unistd::pivot_root(".", ".").map_err(SysError::on("pivot_root", "."))?;
    // Before the detaching, because that would go on to the host, were any of these mounts still shared with it:
    // they are where the container's root is to be shared. Only now, because it would have ended the sharing of
    // what lies below the new root.
    let slave = Change { propagation: Some(Propagation::Slave), ..Change::default() };
    set_attr(old.as_fd(), &slave, Scope::Tree, "old root")?;
    nix::unistd::fchdir(&old).map_err(SysError::on("fchdir", "old root"))?;
    nix::mount::umount2(".", nix::mount::MntFlags::MNT_DETACH)
        .map_err(SysError::on("umount2", "old root"))?;
    // The working directory is still the old root's top; "/" is the new root in any case.
    change_dir_to_root()
}

/// Moves the mount `root` onto "/" and changes the root directory to it, where `pivot_root` is impossible
/// because "/" is the initial ramfs. The old root stays mounted below.
pub fn move_root(root: BorrowedFd<'_>) -> Result<(), SysError> {
    nix::unistd::fchdir(root).map_err(SysError::on("fchdir", "new root"))?;
    let slash = nix::fcntl::open(
        "/",
        nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(SysError::on("open", "/"))?;
    move_mount(root, slash.as_fd(), "/")?;
    change_root(root)
}

/// `chroot` to an open directory, and makes it the working directory.
pub fn change_root(root: BorrowedFd<'_>) -> Result<(), SysError> {
    nix::unistd::fchdir(root).map_err(SysError::on("fchdir", "new root"))?;
    // SAFETY: the path is a static NUL-terminated string.
    Errno::result(unsafe { libc::chroot(c".".as_ptr()) }).map_err(SysError::on("chroot", "."))?;
    change_dir_to_root()
}

fn change_dir_to_root() -> Result<(), SysError> {
    // SAFETY: the path is a static NUL-terminated string.
    Errno::result(unsafe { libc::chdir(c"/".as_ptr()) }).map(drop).map_err(SysError::on("chdir", "/"))
}

/// Detaches the mount on which `fd` stands, with the mounts below it. Needs /proc, through which it names it.
pub fn detach(fd: BorrowedFd<'_>, name: &str) -> Result<(), SysError> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    nix::mount::umount2(path.as_str(), nix::mount::MntFlags::MNT_DETACH)
        .map_err(SysError::on("umount2", name))
}

/// Detaches what is mounted at the host path `path`, with the mounts below it; does not follow a symbolic
/// link in its last component.
pub fn detach_path(path: &Path) -> Result<(), SysError> {
    use nix::mount::MntFlags;
    nix::mount::umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)
        .map_err(SysError::on("umount2", display(path)))
}

fn display(path: &Path) -> String {
    path.display().to_string()
}
