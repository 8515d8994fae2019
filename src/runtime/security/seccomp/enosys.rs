//! ENOSYS for system calls that are newer than a profile.
//!
//! A profile that answers unknown calls with EPERM breaks programs that try a new call and fall back to an
//! old one on ENOSYS (glibc with clone3, faccessat2). So calls with a number above every one that the
//! profile names get ENOSYS, by a stub before libseccomp's program; runc has the same stub.
use super::bpf::{
    JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, OFFSET_ARCH, OFFSET_NR, RETURN, op,
};
use crate::sys::seccomp::Instruction;
use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction};

const ENOSYS: u32 = nix::errno::Errno::ENOSYS as u32;

/// SECCOMP_RET_ERRNO with ENOSYS.
const RETURN_ENOSYS: u32 = 0x0005_0000 | ENOSYS;

/// x32 calls have this bit in their number, and the same AUDIT_ARCH as x86-64 (asm/unistd.h).
const X32_BIT: u32 = 0x4000_0000;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// The highest number that the profile names, of one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    audit_arch: u32,
    x32: bool,
    number: u32,
}

/// Puts the stub before `program`, if the profile is of the kind that needs it.
pub(super) fn prepend(profile: &LinuxSeccomp, program: &mut Vec<Instruction>) {
    let permissive = matches!(
        profile.default_action(),
        // A tracer and an agent can say ENOSYS by themselves.
        LinuxSeccompAction::ScmpActAllow
            | LinuxSeccompAction::ScmpActLog
            | LinuxSeccompAction::ScmpActTrace
            | LinuxSeccompAction::ScmpActNotify
    );
    if permissive || profile.default_errno_ret() == Some(ENOSYS) {
        return;
    }
    let mut stub = stub(&last_calls(profile));
    stub.append(program);
    *program = stub;
}

fn last_calls(profile: &LinuxSeccomp) -> Vec<Last> {
    let mut wanted: Vec<ScmpArch> =
        profile.architectures().iter().flatten().map(|arch| super::arch(*arch)).collect();
    // A filter always holds the native architecture, named or not.
    wanted.push(ScmpArch::native());
    let mut last: Vec<Last> = Vec::new();
    for arch in wanted {
        let arch = if arch == ScmpArch::Native { ScmpArch::native() } else { arch };
        let x32 = arch == ScmpArch::X32;
        let Some(audit_arch) = audit_arch(arch) else { continue };
        if last.iter().any(|known| known.audit_arch == audit_arch && known.x32 == x32) {
            continue;
        }
        let names = profile.syscalls().iter().flatten().flat_map(|rule| rule.names());
        let numbers = names.filter_map(|name| {
            let call = ScmpSyscall::from_name_by_arch(name, arch).ok()?;
            // Negative numbers are libseccomp's pseudo calls, which this architecture does not have; those
            // of x32 come with its bit, which the stub sets by itself.
            u32::try_from(call.as_raw_syscall()).ok().map(|number| number & !X32_BIT)
        });
        // No name at all: nothing says how new the profile is.
        if let Some(number) = numbers.max() {
            last.push(Last { audit_arch, x32, number });
        }
    }
    last
}

/// AUDIT_ARCH_* of linux/audit.h, for the architectures that we are built for and their 32-bit companions.
fn audit_arch(arch: ScmpArch) -> Option<u32> {
    Some(match arch {
        ScmpArch::X8664 | ScmpArch::X32 => AUDIT_ARCH_X86_64,
        ScmpArch::X86 => 0x4000_0003,
        ScmpArch::Aarch64 => 0xc000_00b7,
        ScmpArch::Arm => 0x4000_0028,
        ScmpArch::Ppc64Le => 0xc000_0015,
        ScmpArch::S390X => 0x8000_0016,
        ScmpArch::Riscv64 => 0xc000_00f3,
        ScmpArch::Loongarch64 => 0xc000_0102,
        _ => return None,
    })
}

/// ```text
/// load arch
/// for each arch:  if arch == ARCH: load nr; if nr > LAST: return ENOSYS; goto profile
/// profile:
/// ```
/// On x86-64 the section first splits on the x32 bit; x32 calls under a profile without x32 go to the
/// profile, which answers a foreign architecture by itself.
fn stub(last: &[Last]) -> Vec<Instruction> {
    let mut archs: Vec<u32> = last.iter().map(|one| one.audit_arch).collect();
    archs.sort_unstable();
    archs.dedup();
    let sections: Vec<(u32, Vec<Instruction>)> =
        archs.iter().map(|arch| (*arch, section(last, *arch))).collect();
    if sections.is_empty() {
        return Vec::new();
    }
    // Each section has a jump before it and one behind it; the load is the first instruction of all.
    let total: usize = 1 + sections.iter().map(|(_, body)| body.len() + 2).sum::<usize>();
    let mut program = vec![op(LOAD, OFFSET_ARCH, 0, 0)];
    for (arch, body) in sections {
        // A section has at most seven instructions: the offset fits its byte.
        let skip = body.len() as u8 + 1;
        program.push(op(JUMP_EQUAL, arch, 0, skip));
        program.extend(body);
        // A jump counts from the instruction behind it.
        let rest = total - (program.len() + 1);
        program.push(op(JUMP, rest as u32, 0, 0));
    }
    program
}

fn section(last: &[Last], arch: u32) -> Vec<Instruction> {
    let of = |x32| last.iter().find(|one| one.audit_arch == arch && one.x32 == x32).map(|one| one.number);
    let above = |number| [op(JUMP_GREATER, number, 0, 1), op(RETURN, RETURN_ENOSYS, 0, 0)];
    let mut body = vec![op(LOAD, OFFSET_NR, 0, 0)];
    let native: Vec<Instruction> = of(false).into_iter().flat_map(above).collect();
    if arch != AUDIT_ARCH_X86_64 {
        body.extend(native);
        return body;
    }
    let x32: Vec<Instruction> = of(true).into_iter().flat_map(|number| above(number | X32_BIT)).collect();
    // An x32 call goes over the native part and the jump behind it.
    body.push(op(JUMP_GREATER_OR_EQUAL, X32_BIT, native.len() as u8 + 1, 0));
    body.extend(native);
    body.push(op(JUMP, x32.len() as u32, 0, 0));
    body.extend(x32);
    body
}
