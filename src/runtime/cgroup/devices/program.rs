//! The device policy as a BPF program for a v2 cgroup (`BPF_PROG_TYPE_CGROUP_DEVICE`).
use super::super::dir::Dir;
use super::{Access, Node, Policy};
use crate::sys::SysError;
use crate::sys::bpf::{self, Instruction};

// Registers: the context comes in R1, the verdict goes out in R0 (1 allows).
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }`, access_type being
// `access << 16 | type` (include/uapi/linux/bpf.h).
const DEV_BLOCK: i32 = 1;
const DEV_CHAR: i32 = 2;
const ACC_MKNOD: i32 = 1;
const ACC_READ: i32 = 2;
const ACC_WRITE: i32 = 4;

/// Compiles `policy`: a block for each exception, which falls through to the next where it does not match.
pub(super) fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        Instruction::load32(TYPE, CONTEXT, 0),
        Instruction::mov(ACCESS, TYPE),
        Instruction::and(TYPE, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load32(MAJOR, CONTEXT, 4),
        Instruction::load32(MINOR, CONTEXT, 8),
    ];
    for (devices, access) in &policy.exceptions {
        // Jumps are relative to the next instruction, and lead behind the block: patched when its length is known.
        let start = program.len();
        let node = match devices.node {
            Node::Block => DEV_BLOCK,
            Node::Char => DEV_CHAR,
        };
        program.push(Instruction::jump_unless_equal(TYPE, node));
        if let Some(major) = devices.major {
            program.push(Instruction::jump_unless_equal(MAJOR, major.cast_signed()));
        }
        if let Some(minor) = devices.minor {
            program.push(Instruction::jump_unless_equal(MINOR, minor.cast_signed()));
        }
        if *access != Access::ALL {
            let bits = bits(*access);
            program.push(Instruction::mov(CONTEXT, ACCESS));
            if policy.default_allow {
                // Denied, if the exception covers any of the access: leave the block if none.
                program.push(Instruction::and(CONTEXT, bits));
                program.push(Instruction::jump_if_equal(CONTEXT, 0));
            } else {
                // Allowed, if the exception covers all of the access: leave the block if any is beyond it.
                program.push(Instruction::and(CONTEXT, !bits));
                program.push(Instruction::jump_unless_equal(CONTEXT, 0));
            }
        }
        program.push(Instruction::mov_value(VERDICT, i32::from(!policy.default_allow)));
        program.push(Instruction::exit());
        let end = program.len();
        for (at, instruction) in program.iter_mut().enumerate().skip(start) {
            instruction.land(end - at - 1);
        }
    }
    program.push(Instruction::mov_value(VERDICT, i32::from(policy.default_allow)));
    program.push(Instruction::exit());
    program
}

fn bits(access: Access) -> i32 {
    let pairs = [(Access::READ, ACC_READ), (Access::WRITE, ACC_WRITE), (Access::MKNOD, ACC_MKNOD)];
    pairs.iter().filter(|(bit, _)| access.0 & bit != 0).fold(0, |all, (_, kernel)| all | kernel)
}

/// Loads the program and attaches it to `dir`. Programs of the cgroups above stay in force beside it: each of
/// them must allow an access. `replace`: then detaches those that were on `dir` before, in this order, so that
/// there is no moment without one.
pub(super) fn attach(dir: &Dir, policy: &Policy, replace: bool) -> Result<(), SysError> {
    let old = if replace { bpf::attached_device_programs(dir.fd())? } else { Vec::new() };
    if policy.default_allow && policy.exceptions.is_empty() && old.is_empty() {
        return Ok(());
    }
    let program = bpf::load_device_program(&compile(policy))?;
    bpf::attach_device_program(dir.fd(), &program)?;
    old.iter().try_for_each(|id| bpf::detach_device_program(dir.fd(), *id))
}
