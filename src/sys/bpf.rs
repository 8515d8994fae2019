//! bpf(2): programs that decide over the devices of a v2 cgroup. libc has neither the call nor its types.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::SysError;

/// `struct bpf_insn` (include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half (little endian bit fields).
    registers: u8,
    offset: i16,
    value: i32,
}

// Class | operation | source of the operand. 32-bit classes: everything compared here is a u32, and a 64-bit
// comparison would extend the sign of the value.
const LOAD32: u8 = 0x61;
const MOV_VALUE: u8 = 0xb4;
const MOV: u8 = 0xbc;
const AND_VALUE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_UNEQUAL: u8 = 0x56;
const EXIT: u8 = 0x95;

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Self { code, registers, offset, value }
    }

    /// `to = *(u32 *)(from + offset)`
    pub const fn load32(to: u8, from: u8, offset: i16) -> Self {
        Self::new(LOAD32, to, from, offset, 0)
    }

    /// `to = from`
    pub const fn mov(to: u8, from: u8) -> Self {
        Self::new(MOV, to, from, 0, 0)
    }

    /// `to = value`
    pub const fn mov_value(to: u8, value: i32) -> Self {
        Self::new(MOV_VALUE, to, 0, 0, value)
    }

    /// `to &= value`
    pub const fn and(to: u8, value: i32) -> Self {
        Self::new(AND_VALUE, to, 0, 0, value)
    }

    /// `to >>= value`
    pub const fn shift_right(to: u8, value: i32) -> Self {
        Self::new(SHIFT_RIGHT, to, 0, 0, value)
    }

    /// `if (register != value) goto ...`; [`Instruction::land`] says where.
    pub const fn jump_unless_equal(register: u8, value: i32) -> Self {
        Self::new(JUMP_UNEQUAL, register, 0, 0, value)
    }

    /// `if (register == value) goto ...`; [`Instruction::land`] says where.
    pub const fn jump_if_equal(register: u8, value: i32) -> Self {
        Self::new(JUMP_EQUAL, register, 0, 0, value)
    }

    /// `return R0`
    pub const fn exit() -> Self {
        Self::new(EXIT, 0, 0, 0, 0)
    }

    /// Aims a jump at the instruction `distance` behind the next one; any other instruction stays as it is.
    pub fn land(&mut self, distance: usize) {
        if matches!(self.code, JUMP_EQUAL | JUMP_UNEQUAL) {
            // A block is ten instructions at most.
            self.offset = i16::try_from(distance).unwrap_or(i16::MAX);
        }
    }

    /// Runs `program` on a context of three words, as the kernel would: for tests of what was compiled.
    #[cfg(test)]
    pub(crate) fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let one = program[at];
            let to = usize::from(one.registers & 15);
            let from = usize::from(one.registers >> 4);
            let value = one.value.cast_unsigned();
            let offset = usize::try_from(one.offset).unwrap();
            at += 1;
            match one.code {
                LOAD32 => registers[to] = context[offset / 4],
                MOV => registers[to] = registers[from],
                MOV_VALUE => registers[to] = value,
                AND_VALUE => registers[to] &= value,
                SHIFT_RIGHT => registers[to] >>= value,
                JUMP_EQUAL if registers[to] == value => at += offset,
                JUMP_UNEQUAL if registers[to] != value => at += offset,
                JUMP_EQUAL | JUMP_UNEQUAL => {}
                EXIT => return registers[0],
                code => panic!("{code:#x}"),
            }
        }
    }
}

// enum bpf_cmd
const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
/// BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15.
const TYPE_CGROUP_DEVICE: u32 = 15;
/// BPF_CGROUP_DEVICE
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of cgroups above and below stay in force beside this one.
const ALLOW_MULTI: u32 = 2;
/// BPF_CGROUP_MAX_PROGS, include/linux/bpf-cgroup.h
const MAX_PROGRAMS: usize = 64;

// The heads of `union bpf_attr` for each command; the kernel takes a shorter size for zeros.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    _pad: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

/// Calls bpf(2) with the head of its attributes.
fn bpf<T>(command: libc::c_int, attributes: &mut T) -> Result<libc::c_int, Errno> {
    // SAFETY: T is one of the `repr(C)` heads above, exclusively borrowed and of the size passed; pointers in it
    // are to buffers that the callers keep alive and of the lengths that they state.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), std::mem::size_of::<T>())
    };
    // Every command returns a descriptor or 0.
    Errno::result(result).map(|value| value.try_into().unwrap_or(0))
}

fn fd_from(result: libc::c_int) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for us (with O_CLOEXEC, as for every BPF object).
    unsafe { OwnedFd::from_raw_fd(result) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Loads a program of the type `BPF_PROG_TYPE_CGROUP_DEVICE`. Needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN.
///
/// # Errors
/// That of bpf(2); EPERM without the capabilities or where `kernel.unprivileged_bpf_disabled` forbids it.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd, SysError> {
    let mut name = [0; 16];
    name[..14].copy_from_slice(b"corten_devices");
    let mut load = Load {
        kind: TYPE_CGROUP_DEVICE,
        instructions: u32::try_from(program.len()).unwrap_or(u32::MAX),
        program: program.as_ptr().expose_provenance() as u64,
        // Not GPL: the program calls no helper that would ask for it.
        license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
    };
    loop {
        match bpf(PROG_LOAD, &mut load) {
            // The verifier gives up when a signal is pending (bpf_check, EAGAIN).
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other.map(fd_from).map_err(SysError::on("bpf", "BPF_PROG_LOAD, device program")),
        }
    }
}

/// Attaches a program to a v2 cgroup, beside those that are there.
///
/// # Errors
/// That of bpf(2).
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> Result<(), SysError> {
    let mut attach = Attach {
        target: number(cgroup),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(PROG_ATTACH, &mut attach).map(drop).map_err(SysError::on("bpf", "BPF_PROG_ATTACH, device program"))
}

/// Ids of the device programs attached to this cgroup itself.
///
/// # Errors
/// That of bpf(2).
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, SysError> {
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = Query {
        target: number(cgroup),
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(ids.len()).unwrap_or(0),
        _pad: 0,
    };
    bpf(PROG_QUERY, &mut query).map_err(SysError::on("bpf", "BPF_PROG_QUERY, device programs"))?;
    Ok(ids.into_iter().take(query.count as usize).collect())
}

/// Detaches a program that [`attached_device_programs`] has listed; one that is gone already is fine.
///
/// # Errors
/// That of bpf(2).
pub fn detach_device_program(cgroup: BorrowedFd<'_>, id: u32) -> Result<(), SysError> {
    let mut by_id = ById { id, next: 0, flags: 0 };
    let program = match bpf(PROG_GET_FD_BY_ID, &mut by_id) {
        Err(Errno::ENOENT) => return Ok(()),
        other => other.map(fd_from).map_err(SysError::on("bpf", "BPF_PROG_GET_FD_BY_ID"))?,
    };
    let mut attach = Attach {
        target: number(cgroup),
        program: number(program.as_fd()),
        kind: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    match bpf(PROG_DETACH, &mut attach) {
        Err(Errno::ENOENT) => Ok(()),
        other => other.map(drop).map_err(SysError::on("bpf", "BPF_PROG_DETACH, device program")),
    }
}
