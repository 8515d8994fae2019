//! seccomp(2): loading a filter, and asking what the kernel offers.
use super::SysError;
use nix::errno::Errno;
use std::os::fd::{FromRawFd, OwnedFd};

/// Debian's `libseccomp.a` is made for glibc, whose checked `fprintf` is all that musl lacks of what it calls: in
/// `seccomp_export_pfc`, which we do not call.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn __fprintf_chk() -> libc::c_int {
    std::process::abort()
}

/// One instruction of a classic BPF program (`struct sock_filter`, linux/filter.h).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Opcode.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// `BPF_MAXINSNS`, the most that the kernel loads.
pub const MAX_INSTRUCTIONS: usize = 4096;

impl Instruction {
    /// The same bytes that [`Instruction::decode`] reads.
    pub fn encode(program: &[Instruction]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(program.len() * 8);
        for instruction in program {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        bytes
    }

    /// Decodes what libseccomp exports: `struct sock_filter`s in host byte order, `None` if the bytes
    /// are not a whole number of them.
    pub fn decode(bytes: &[u8]) -> Option<Vec<Instruction>> {
        let (chunks, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return None;
        }
        let decode = |b: &[u8; 8]| Instruction {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Some(chunks.iter().map(decode).collect())
    }
}

/// Flags of `SECCOMP_SET_MODE_FILTER` (linux/seccomp.h); combine with `|` on the inner value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// All threads of the process get the filter.
    pub const TSYNC: Flags = Flags(1 << 0);
    /// Every action but "allow" is logged (4.14).
    pub const LOG: Flags = Flags(1 << 1);
    /// Speculative store bypass stays as it is (4.17).
    pub const SPEC_ALLOW: Flags = Flags(1 << 2);
    /// The call returns a notification descriptor (5.0).
    pub const NEW_LISTENER: Flags = Flags(1 << 3);
    /// With TSYNC: an error is ESRCH, not a thread id, so that it goes with NEW_LISTENER (5.7).
    pub const TSYNC_ESRCH: Flags = Flags(1 << 4);
    /// A notified call can only be interrupted by fatal signals once received (5.19).
    pub const WAIT_KILLABLE_RECV: Flags = Flags(1 << 5);

    /// The union.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are in `self`.
    #[must_use]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

const SET_MODE_FILTER: libc::c_uint = 1;
const GET_ACTION_AVAIL: libc::c_uint = 2;

fn program(filter: &[Instruction]) -> Result<libc::sock_fprog, Errno> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?;
    Ok(libc::sock_fprog { len, filter: filter.as_ptr().cast_mut().cast() })
}

/// Loads `filter` for the calling thread (or process, with TSYNC). The descriptor is there if the flags
/// have NEW_LISTENER; it is close-on-exec (kernel/seccomp.c opens it so).
pub fn load(filter: &[Instruction], flags: Flags) -> Result<Option<OwnedFd>, SysError> {
    let describe = || format!("{} instructions, flags {:#x}", filter.len(), flags.0);
    let fprog = program(filter).map_err(SysError::on("seccomp", describe()))?;
    // SAFETY: `fprog` points at `filter.len()` instructions laid out as `struct sock_filter`
    // (`Instruction` is repr(C) with the same fields); the kernel copies them before it returns.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags.0, &raw const fprog) };
    let rc = Errno::result(rc).map_err(SysError::on("seccomp", describe()))?;
    if !flags.contains(Flags::NEW_LISTENER) {
        return Ok(None);
    }
    let fd = i32::try_from(rc).map_err(|_| SysError::on("seccomp", describe())(Errno::EOVERFLOW))?;
    // SAFETY: with NEW_LISTENER a successful call returns a descriptor that nobody else owns.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows `flags`: a load with a null program fails with EFAULT if it does, with
/// EINVAL if it does not (seccomp(2)).
pub fn flags_supported(flags: Flags) -> bool {
    // SAFETY: the null program pointer makes the call fail before anything is changed.
    let rc = unsafe {
        libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags.0, std::ptr::null::<libc::sock_fprog>())
    };
    rc == -1 && Errno::last() == Errno::EFAULT
}

/// Whether the kernel knows a filter's return value (`SECCOMP_RET_*`).
pub fn action_supported(action: u32) -> bool {
    // SAFETY: the kernel reads one u32 through the pointer, which lives on this stack.
    let rc = unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) };
    rc == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_flags_are_supported_and_nonsense_is_not() {
        assert!(flags_supported(Flags::LOG));
        assert!(flags_supported(Flags::SPEC_ALLOW));
        assert!(!flags_supported(Flags(1 << 30)));
        assert!(action_supported(0x7fff_0000));
        assert!(!action_supported(0x1234_0000));
    }

    #[test]
    fn odd_bytes_are_no_program() {
        assert!(Instruction::decode(&[0; 9]).is_none());
        let one = Instruction::decode(&[0x06, 0, 1, 2, 0, 0, 0xff, 0x7f]).expect("8 bytes");
        assert_eq!(one, [Instruction { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 }]);
    }
}
