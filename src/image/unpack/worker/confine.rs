//! What the worker gives up before it reads a byte of a layer.
//!
//! Whatever the kernel or the host does not have is left out, and the rest holds (docs/kernel-features.md).
use super::WorkerError;
use crate::sys::mount::{Attr, Change, Propagation, Scope};
use crate::sys::rlimit::{self, Limit, Resource};
use crate::sys::{SysError, caps as sets, landlock, mount};
use caps::Capability;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Files of any owner and mode are made, and settling reads those below. SYS_ADMIN is for `trusted.overlay.opaque`, which
/// cannot be read or set without; the filter leaves it no other use.
const KEPT: [Capability; 7] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_MKNOD,
    Capability::CAP_SETFCAP,
    Capability::CAP_SYS_ADMIN,
];

/// Open directories, the layers below, and some.
const FILES: u64 = 1536;
/// Bytes of memory: a zstd window of 128 MiB, names of 64 MiB and what a map of them takes, buffers.
const MEMORY: u64 = 1 << 30;

/// Confines this process, which has one thread. Returns the layer's directory as it is seen from now on.
pub(super) fn confine(root: OwnedFd, below: Option<&OwnedFd>) -> Result<OwnedFd, WorkerError> {
    let root = namespaces(root).map_err(WorkerError::Confine)?;
    limits().map_err(WorkerError::Confine)?;
    capabilities().map_err(WorkerError::Confine)?;
    nix::sys::prctl::set_no_new_privs()
        .map_err(SysError::on("prctl", "PR_SET_NO_NEW_PRIVS"))
        .map_err(WorkerError::Confine)?;
    landlock::confine(root.as_fd(), below.map(AsFd::as_fd)).map_err(WorkerError::Confine)?;
    filter()?;
    Ok(root)
}

/// Leaves the host's mounts, network and IPC. Its only mount is then the layer's directory, on which no device can be
/// opened and nothing executed.
fn namespaces(root: OwnedFd) -> Result<OwnedFd, SysError> {
    // The working directory is carried over into the copies of the mounts; a descriptor is not.
    nix::unistd::fchdir(&root).map_err(SysError::on("fchdir", "layer root"))?;
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    let identity = (nix::unistd::geteuid(), nix::unistd::getegid());
    match nix::sched::unshare(flags) {
        Ok(()) => {}
        Err(Errno::EPERM) => match nix::sched::unshare(flags | CloneFlags::CLONE_NEWUSER) {
            Ok(()) => map_identity(identity)?,
            Err(_) => return Ok(root),
        },
        Err(_) => return Ok(root),
    }
    mount::set_root_propagation(Propagation::Private, Scope::Tree)?;
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let open =
        |path: &str| nix::fcntl::open(path, directory, Mode::empty()).map_err(SysError::on("open", path));
    let here = open(".")?;
    let tree = mount::clone_tree(here.as_fd(), Path::new(""), Scope::Mount)?;
    let bare = Change { set: Attr::NOSUID | Attr::NODEV | Attr::NOEXEC, ..Change::default() };
    mount::set_attr(tree.as_fd(), &bare, Scope::Mount, "layer root")?;
    mount::move_mount(tree.as_fd(), here.as_fd(), "layer root")?;
    match mount::pivot_root(tree.as_fd()) {
        // "/" is the initial ramfs.
        Err(error) if error.errno == Errno::EINVAL => mount::change_root(tree.as_fd())?,
        other => other?,
    }
    open("/")
}

/// The user keeps his own number, which is all that he has.
fn map_identity((uid, gid): (nix::unistd::Uid, nix::unistd::Gid)) -> Result<(), SysError> {
    let write = |path: &str, text: String| {
        std::fs::write(path, text).map_err(|error| SysError::io("write", path)(error))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn limits() -> Result<(), SysError> {
    for (resource, most) in [(Resource::Nofile, FILES), (Resource::Core, 0), (Resource::As, MEMORY)] {
        let now = rlimit::get(resource)?;
        let most = most.min(now.hard);
        rlimit::set(nix::unistd::Pid::this(), resource, Limit { soft: most, hard: most })?;
    }
    Ok(())
}

fn capabilities() -> Result<(), SysError> {
    let kept: u64 = KEPT.iter().map(Capability::bitmask).sum();
    let now = sets::get()?;
    // Kernels that have no ambient set (before 4.3) need no empty one.
    let _ = sets::clear_ambient();
    if now.effective & Capability::CAP_SETPCAP.bitmask() != 0 {
        for bit in (0..64).take_while(|&bit| sets::in_bounding(bit).is_some()) {
            if kept & 1 << bit == 0 && sets::in_bounding(bit) == Some(true) {
                sets::drop_bounding(bit)?;
            }
        }
    }
    let left = now.permitted & kept;
    sets::set(&sets::Sets { effective: left, permitted: left, inheritable: 0 })
}

/// Calls without conditions: files on descriptors, memory, threads, the socket.
const ALLOWED: [&str; 62] = [
    "read",
    "readv",
    "pread64",
    "write",
    "writev",
    "pwrite64",
    "lseek",
    "close",
    "openat",
    "openat2",
    "fstat",
    "newfstatat",
    "statx",
    "fstatfs",
    "getdents64",
    "fcntl",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat",
    "utimensat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "linkat",
    "unlinkat",
    "renameat",
    "fsetxattr",
    "fgetxattr",
    "flistxattr",
    "fallocate",
    "ftruncate",
    "copy_file_range",
    "sendfile",
    "splice",
    "sync_file_range",
    "umask",
    "futex",
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "set_robust_list",
    "rseq",
    "sched_yield",
    "sched_getaffinity",
    "sigaltstack",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "restart_syscall",
    "exit",
    "exit_group",
    "gettid",
    "getpid",
    "geteuid",
    "getegid",
    "clock_gettime",
    "getrandom",
    "sendmsg",
    "recvmsg",
    "poll",
];

const PROT_EXEC: u64 = 4;
const PR_SET_NAME: u64 = 15;
const EPERM: i32 = Errno::EPERM as i32;

/// Everything else is refused.
fn filter() -> Result<(), WorkerError> {
    match compile().and_then(|filter| filter.load()) {
        Ok(()) => Ok(()),
        // A kernel without filters (CONFIG_SECCOMP_FILTER).
        Err(_) if !crate::sys::seccomp::action_supported(0x7fff_0000) => Ok(()),
        Err(error) => Err(WorkerError::Filter(error)),
    }
}

fn compile() -> Result<ScmpFilterContext, libseccomp::error::SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Errno(EPERM))?;
    // Loading must not need CAP_SYS_ADMIN, and no_new_privs is set.
    filter.set_ctl_nnp(false)?;
    for name in ALLOWED {
        // One that this architecture does not have is not called either.
        if let Ok(call) = ScmpSyscall::from_name(name) {
            filter.add_rule(ScmpAction::Allow, call)?;
        }
    }
    let masked =
        |argument, mask, value| ScmpArgCompare::new(argument, ScmpCompareOp::MaskedEqual(mask), value);
    // Memory is written or executed, never both, and here none is made executable.
    for name in ["mmap", "mprotect"] {
        filter.add_rule_conditional(
            ScmpAction::Allow,
            ScmpSyscall::from_name(name)?,
            &[masked(2, PROT_EXEC, 0)],
        )?;
    }
    let bits = |flags: CloneFlags| u64::from(flags.bits().cast_unsigned());
    let thread = bits(CloneFlags::CLONE_THREAD);
    let spaces = bits(
        CloneFlags::CLONE_NEWUSER
            | CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP,
    );
    filter.add_rule_conditional(
        ScmpAction::Allow,
        ScmpSyscall::from_name("clone")?,
        &[masked(0, thread | spaces, thread)],
    )?;
    // Its flags are in memory, which a filter cannot read; libc then takes clone.
    filter.add_rule(ScmpAction::Errno(Errno::ENOSYS as i32), ScmpSyscall::from_name("clone3")?)?;
    // An umask of the thread's own.
    filter.add_rule_conditional(
        ScmpAction::Allow,
        ScmpSyscall::from_name("unshare")?,
        &[ScmpArgCompare::new(0, ScmpCompareOp::Equal, bits(CloneFlags::CLONE_FS))],
    )?;
    filter.add_rule_conditional(
        ScmpAction::Allow,
        ScmpSyscall::from_name("prctl")?,
        &[ScmpArgCompare::new(0, ScmpCompareOp::Equal, PR_SET_NAME)],
    )?;
    Ok(filter)
}
