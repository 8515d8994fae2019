//! Resource limits by number: prlimit(2), for the calling process or another.
use super::SysError;
use nix::errno::Errno;
use nix::unistd::Pid;

/// A soft and a hard limit; `u64::MAX` is "unlimited" (RLIM64_INFINITY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is enforced.
    pub soft: u64,
    /// The ceiling of `soft` for an unprivileged process.
    pub hard: u64,
}

/// The resources of getrlimit(2), with their numbers on every 64-bit architecture we build for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Resource {
    Cpu = 0,
    Fsize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Nproc = 6,
    Nofile = 7,
    Memlock = 8,
    As = 9,
    Locks = 10,
    Sigpending = 11,
    Msgqueue = 12,
    Nice = 13,
    Rtprio = 14,
    Rttime = 15,
}

/// Sets a limit of a process.
pub fn set(pid: Pid, resource: Resource, limit: Limit) -> Result<(), SysError> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    // SAFETY: the kernel reads one rlimit64 from this stack, and no old value is asked for.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid.as_raw(),
            resource as u32,
            &raw const new,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    Errno::result(rc)
        .map(drop)
        .map_err(SysError::on("prlimit", format!("{resource:?} soft={} hard={}", limit.soft, limit.hard)))
}

/// A limit of the calling process.
pub fn get(resource: Resource) -> Result<Limit, SysError> {
    let mut old = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64 to this stack; no new value is given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource as u32,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut old,
        )
    };
    Errno::result(rc).map_err(SysError::on("prlimit", format!("{resource:?}")))?;
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_can_be_set_to_what_it_is() {
        let limit = get(Resource::Core).expect("getrlimit");
        set(nix::unistd::getpid(), Resource::Core, limit).expect("setrlimit");
        assert!(limit.soft <= limit.hard);
    }
}
