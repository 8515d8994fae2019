//! Capability sets of the calling thread, as bit masks (bit number = capability number).
//!
//! The crate `caps` writes one set at a time and reads the others back first; a container's init sets
//! all three at once, in one call, so that there is no moment with a half-dropped state.
use super::SysError;
use nix::errno::Errno;

/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h): two 32-bit words a set.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets that capset(2) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sets {
    /// What the kernel checks.
    pub effective: u64,
    /// The limit of `effective`.
    pub permitted: u64,
    /// What a file's inheritable set may keep over execve.
    pub inheritable: u64,
}

fn low(mask: u64) -> u32 {
    // Truncation is what is meant: the low word of the mask.
    (mask & 0xffff_ffff) as u32
}

fn high(mask: u64) -> u32 {
    (mask >> 32) as u32
}

/// The sets of the calling thread.
pub fn get() -> Result<Sets, SysError> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: the header says version 3, for which the kernel writes exactly two words; both live on
    // this stack and outlive the call.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    Errno::result(rc).map_err(SysError::on("capget", "self"))?;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(Sets {
        effective: join(words[0].effective, words[1].effective),
        permitted: join(words[0].permitted, words[1].permitted),
        inheritable: join(words[0].inheritable, words[1].inheritable),
    })
}

/// Writes all three sets of the calling thread.
pub fn set(sets: &Sets) -> Result<(), SysError> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let words = [
        Word {
            effective: low(sets.effective),
            permitted: low(sets.permitted),
            inheritable: low(sets.inheritable),
        },
        Word {
            effective: high(sets.effective),
            permitted: high(sets.permitted),
            inheritable: high(sets.inheritable),
        },
    ];
    // SAFETY: as in `get`; the kernel only reads the two words (and may write the header's version).
    let rc = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    Errno::result(rc).map(drop).map_err(SysError::on(
        "capset",
        format!(
            "effective={:#x} permitted={:#x} inheritable={:#x}",
            sets.effective, sets.permitted, sets.inheritable
        ),
    ))
}

/// Whether the bounding set holds capability number `bit`; `None` if this kernel does not know that
/// capability (prctl(2): EINVAL).
pub fn in_bounding(bit: u8) -> Option<bool> {
    // SAFETY: PR_CAPBSET_READ takes one integer and touches no memory of ours.
    let rc = unsafe { libc::prctl(libc::PR_CAPBSET_READ, libc::c_ulong::from(bit), 0, 0, 0) };
    match rc {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Drops capability number `bit` from the bounding set.
pub fn drop_bounding(bit: u8) -> Result<(), SysError> {
    // SAFETY: PR_CAPBSET_DROP takes one integer and touches no memory of ours.
    let rc = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(bit), 0, 0, 0) };
    Errno::result(rc).map(drop).map_err(SysError::on("prctl", format!("PR_CAPBSET_DROP {bit}")))
}

fn ambient(operation: libc::c_int, bit: u8) -> Result<(), Errno> {
    // SAFETY: PR_CAP_AMBIENT takes integers and touches no memory of ours.
    let rc = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::c_ulong::from(operation.unsigned_abs()),
            libc::c_ulong::from(bit),
            0,
            0,
        )
    };
    Errno::result(rc).map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient() -> Result<(), SysError> {
    ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0).map_err(SysError::on("prctl", "PR_CAP_AMBIENT_CLEAR_ALL"))
}

/// Adds capability number `bit` to the ambient set; it must be permitted and inheritable
/// (capabilities(7)), or the kernel says EPERM.
pub fn raise_ambient(bit: u8) -> Result<(), SysError> {
    ambient(libc::PR_CAP_AMBIENT_RAISE, bit)
        .map_err(SysError::on("prctl", format!("PR_CAP_AMBIENT_RAISE {bit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sets_survive_a_round_trip() {
        let sets = get().expect("capget");
        set(&sets).expect("capset of what is there already");
        assert_eq!(get().expect("capget"), sets);
        assert_eq!(sets.effective & !sets.permitted, 0);
    }

    #[test]
    fn an_unknown_capability_is_told_apart_from_an_absent_one() {
        assert!(in_bounding(0).is_some());
        assert_eq!(in_bounding(63), None);
    }
}
