//! Landlock (landlock(7), Linux 5.13): a process gives up all access to files but below chosen directories.
use super::SysError;
use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `struct landlock_ruleset_attr` (linux/landlock.h) as of version 6; older kernels take a shorter one.
#[repr(C)]
#[derive(Default)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

const VERSION: u32 = 1 << 0;
const RULE_PATH_BENEATH: libc::c_int = 1;

const EXECUTE: u64 = 1 << 0;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_SOCK: u64 = 1 << 9;
const IOCTL_DEV: u64 = 1 << 15;
/// All rights of the first version: up to `MAKE_SYM`.
const FIRST: u64 = (1 << 13) - 1;
/// What later versions brought: linking between directories, truncating, ioctl on devices.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// bind and connect of TCP.
const NETWORK: u64 = 0b11;
/// Abstract Unix sockets and signals to others.
const SCOPES: u64 = 0b11;

/// The version of Landlock that this kernel has and its administrator has switched on.
pub fn version() -> Option<u32> {
    // SAFETY: with this flag the kernel takes no structure.
    let result = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttr>(), 0_usize, VERSION)
    };
    u32::try_from(result).ok().filter(|&version| version > 0)
}

/// Leaves this thread, and those that it starts from now on, nothing but files and directories below `whole`, and reading below
/// `read`; no execution, no sockets, no TCP. Descriptors that are open stay as they are. Needs `no_new_privs`.
///
/// Returns `false` where the kernel has no Landlock, or the first version, which forbids links between directories
/// without a way to allow them.
pub fn confine(whole: BorrowedFd<'_>, read: Option<BorrowedFd<'_>>) -> Result<bool, SysError> {
    let Some(version) = version().filter(|&version| version >= 2) else { return Ok(false) };
    let mut fs = FIRST | REFER;
    let mut attr = RulesetAttr::default();
    if version >= 3 {
        fs |= TRUNCATE;
    }
    if version >= 4 {
        attr.handled_access_net = NETWORK;
    }
    if version >= 5 {
        fs |= IOCTL_DEV;
    }
    if version >= 6 {
        attr.scoped = SCOPES;
    }
    attr.handled_access_fs = fs;
    let size = match version {
        ..=3 => size_of::<u64>(),
        4..=5 => 2 * size_of::<u64>(),
        _ => size_of::<RulesetAttr>(),
    };
    // SAFETY: the structure outlives the call, and `size` is not larger than it.
    let result = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attr, size, 0_u32) };
    let number = Errno::result(result).map_err(SysError::on("landlock_create_ruleset", ""))?;
    let number =
        i32::try_from(number).map_err(|_| SysError::on("landlock_create_ruleset", "")(Errno::EOVERFLOW))?;
    // SAFETY: a new descriptor that nobody else owns.
    let ruleset = unsafe { OwnedFd::from_raw_fd(number) };
    allow(&ruleset, whole, fs & !(EXECUTE | MAKE_SOCK | IOCTL_DEV))?;
    if let Some(read) = read {
        allow(&ruleset, read, READ_FILE | READ_DIR)?;
    }
    // SAFETY: a descriptor and an integer.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    Errno::result(result).map_err(SysError::on("landlock_restrict_self", ""))?;
    Ok(true)
}

fn allow(ruleset: &OwnedFd, directory: BorrowedFd<'_>, access: u64) -> Result<(), SysError> {
    let rule = PathBeneathAttr { allowed_access: access, parent_fd: directory.as_raw_fd() };
    // SAFETY: the structure outlives the call and has the layout of the rule's type.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_fd().as_raw_fd(),
            RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    Errno::result(result).map(drop).map_err(SysError::on("landlock_add_rule", format!("{access:#x}")))
}
