//! Scheduling: sched_setattr(2), ioprio_set(2), sched_setaffinity(2).
use super::SysError;
use nix::errno::Errno;

/// `struct sched_attr` of its first version (48 bytes; kernel 3.14).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Size of this structure; [`set_attributes`] fills it in.
    size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH: -20 to 19.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR: 1 to 99.
    pub priority: u32,
    /// For SCHED_DEADLINE, nanoseconds.
    pub runtime: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub deadline: u64,
    /// For SCHED_DEADLINE, nanoseconds.
    pub period: u64,
}

/// Sets policy and parameters of the calling thread.
pub fn set_attributes(attributes: Attributes) -> Result<(), SysError> {
    let attributes = Attributes { size: 48, ..attributes };
    // SAFETY: the kernel reads `size` (48) bytes, which is the size of this repr(C) structure.
    let rc = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(rc).map(drop).map_err(SysError::on("sched_setattr", format!("{attributes:?}")))
}

/// I/O scheduling class (linux/ioprio.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum IoClass {
    RealTime = 1,
    BestEffort = 2,
    Idle = 3,
}

const IOPRIO_WHO_PROCESS: libc::c_int = 1;
const IOPRIO_CLASS_SHIFT: u8 = 13;

/// Sets class and level (0 to 7) of the calling thread.
pub fn set_io_priority(class: IoClass, level: u8) -> Result<(), SysError> {
    let value = libc::c_int::from(class as u8) << IOPRIO_CLASS_SHIFT | libc::c_int::from(level);
    // SAFETY: only integers are passed.
    let rc = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) };
    Errno::result(rc).map(drop).map_err(SysError::on("ioprio_set", format!("{class:?} {level}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attributes_have_the_size_of_the_first_version() {
        assert_eq!(std::mem::size_of::<Attributes>(), 48);
    }
}
