//! Our own executable, kept out of a container's reach.
//!
//! A process in a container can open `/proc/PID/exe` of a runtime process that enters it and, once that
//! has ended, write to the host's file through it (CVE-2019-5736). So before anything of a container is
//! touched, this process starts itself again from a read-only detached mount of its own executable, through
//! which nobody can write; where the caller may not mount, from a sealed copy in memory.
use std::ffi::CString;
use std::io::Seek;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::SysError;
use super::process::fexecve;

const SELF_EXE: &str = "/proc/self/exe";

/// The mount that this process was started from, where [`entry`](super::entry) left it open.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Returns when this process runs from a file that a container cannot change; else starts it again from
/// one, with the same arguments and environment.
pub fn seal() -> Result<(), SysError> {
    let exe = open(SELF_EXE, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::on("open", SELF_EXE))?;
    let flags = fstatvfs(&exe).map_err(SysError::on("fstatvfs", SELF_EXE))?.flags();
    if flags.contains(FsFlags::ST_RDONLY) {
        adopt(&exe);
        return Ok(());
    }
    if is_sealed_memory() {
        return Ok(());
    }
    let sealed = match read_only_mount(&exe) {
        Err(SysError { errno: Errno::EPERM | Errno::ENOSYS | Errno::EINVAL, .. }) => sealed_memory()?,
        other => other?,
    };
    let args: Vec<CString> = std::env::args_os().filter_map(c_string).collect();
    let env: Vec<CString> = std::env::vars_os()
        .filter_map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            c_string(name)
        })
        .collect();
    Err(fexecve(&sealed, &args, &env))
}

/// Closes the mount that this process was started from. Its namespace ends with the last such descriptor, and that
/// waits for an RCU grace period, some 60 µs: call it where there is nothing to do but to wait for another process.
/// A process that is forked off has a copy, and calls it, too: first, so that it is not the last.
pub fn let_go() {
    *MOUNT.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Takes over the descriptor through which this process was started (execveat(2) makes a name of it), if it is
/// that of our executable and would otherwise be inherited by whatever we start.
fn adopt(exe: &OwnedFd) {
    // SAFETY: the kernel gives every program AT_EXECFN (getauxval(3)), a C string that lives as long as the process.
    let name = unsafe {
        let name = libc::getauxval(libc::AT_EXECFN) as *const libc::c_char;
        if name.is_null() {
            return;
        }
        std::ffi::CStr::from_ptr(name)
    };
    let number = name.to_str().ok().and_then(|name| name.strip_prefix("/dev/fd/")?.parse::<i32>().ok());
    let Some(number) = number.filter(|number| *number > 2 && super::process::is_inherited(*number)) else {
        return;
    };
    // SAFETY: the descriptor is open (checked above) and stays so during this call: there is no other thread yet.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let same = |one: nix::sys::stat::FileStat, other: nix::sys::stat::FileStat| {
        (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
    };
    if !fstat(borrowed).is_ok_and(|mount| fstat(exe).is_ok_and(|exe| same(mount, exe)))
        || fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).is_err()
    {
        return;
    }
    // SAFETY: nobody else knows of it: the first start of this program left it for the second one.
    let mount = unsafe { OwnedFd::from_raw_fd(number) };
    *MOUNT.lock().unwrap_or_else(PoisonError::into_inner) = Some(mount);
}

fn c_string(text: std::ffi::OsString) -> Option<CString> {
    CString::new(std::os::unix::ffi::OsStringExt::into_vec(text)).ok()
}

/// A detached copy of the mount with only the executable in it, read-only. The namespace that it is in ends
/// with the descriptor, the mount with the process that runs from it.
fn read_only_mount(exe: &OwnedFd) -> Result<OwnedFd, SysError> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // SAFETY: the path is a static C string.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, exe.as_raw_fd(), c"".as_ptr(), flags) };
    Errno::result(fd).map_err(SysError::on("open_tree", SELF_EXE))?;
    // SAFETY: a new descriptor that nobody else owns.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    // SAFETY: mount_attr is a plain C struct of integers.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = libc::MOUNT_ATTR_RDONLY;
    // SAFETY: the struct outlives the call, and its size is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw mut attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result).map_err(SysError::on("mount_setattr", SELF_EXE))?;
    Ok(tree)
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

fn is_sealed_memory() -> bool {
    open(SELF_EXE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .and_then(|exe| fcntl(exe.as_fd(), FcntlArg::F_GET_SEALS))
        .is_ok_and(|bits| SealFlag::from_bits_truncate(bits).contains(seals()))
}

fn sealed_memory() -> Result<OwnedFd, SysError> {
    let copy = memfd_create(c"corten", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .map_err(SysError::on("memfd_create", "corten"))?;
    let mut source = std::fs::File::open(SELF_EXE).map_err(SysError::io("open", SELF_EXE))?;
    let mut target = std::fs::File::from(copy);
    std::io::copy(&mut source, &mut target).map_err(SysError::io("copy_file_range", SELF_EXE))?;
    target.rewind().map_err(SysError::io("lseek", "memfd"))?;
    fcntl(target.as_fd(), FcntlArg::F_ADD_SEALS(seals())).map_err(SysError::on("fcntl", "F_ADD_SEALS"))?;
    Ok(target.into())
}
