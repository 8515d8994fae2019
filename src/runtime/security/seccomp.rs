//! The seccomp profile: compiled by libseccomp on the host's side, loaded by the container's process.
mod bpf;
mod cache;
mod enosys;
mod ranges;

use super::SecurityError;
use crate::sys::SysError;
use crate::sys::seccomp::{self as kernel, Flags, Instruction};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A compiled profile, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: Flags,
    /// Who gets the notification descriptor, if a rule notifies.
    pub listener: Option<Listener>,
    /// The filter notifies of sendmsg(2), by which the listener would be handed over.
    pub notifies_of_sending: bool,
}

/// `linux.seccomp.listenerPath` and `listenerMetadata`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// A Unix socket of the host.
    pub path: PathBuf,
    /// Handed over as it is.
    pub metadata: Option<String>,
}

impl Listener {
    /// The agent that a profile names.
    pub fn of(profile: &LinuxSeccomp) -> Option<Listener> {
        let path = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty())?;
        Some(Listener { path, metadata: profile.listener_metadata().clone() })
    }
}

impl Program {
    /// Loads the filter for the calling process; the descriptor is there if a rule notifies.
    pub fn load(&self) -> Result<Option<OwnedFd>, SecurityError> {
        kernel::load(&self.instructions, self.flags).map_err(|source| SecurityError::Load { source })
    }
}

/// EPERM, which a profile means by an `SCMP_ACT_ERRNO` without `errnoRet`.
const EPERM: u32 = nix::errno::Errno::EPERM as u32;

fn invalid(field: impl Into<String>, reason: &'static str) -> SecurityError {
    SecurityError::Invalid { field: field.into(), reason }
}

fn failed(step: impl Into<String>) -> impl FnOnce(SeccompError) -> SecurityError {
    move |source| SecurityError::Compile { step: step.into(), source }
}

/// Compiles a profile; `None` if it does nothing (allow everything, no rule), which needs no filter.
///
/// libseccomp takes longer for moby's profile than all the rest of a container's creation, so that compiled
/// programs are kept in the directory `kept`, if there is one.
pub fn compile(profile: &LinuxSeccomp, kept: Option<&Path>) -> Result<Option<Program>, SecurityError> {
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    if rules.is_empty() && profile.default_action() == LinuxSeccompAction::ScmpActAllow {
        return Ok(None);
    }
    let by_default = profile.default_action() == LinuxSeccompAction::ScmpActNotify;
    let mut notifying = rules.iter().filter(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let notifies_of_sending =
        by_default || notifying.clone().any(|rule| rule.names().iter().any(|name| name == "sendmsg"));
    let notifies = by_default || notifying.next().is_some();
    let cache = kept.and_then(|directory| cache::Slot::of(directory, profile));
    let instructions = match cache.as_ref().and_then(cache::Slot::read) {
        Some(instructions) => instructions,
        None => {
            let instructions = build(profile, rules)?;
            if let Some(slot) = &cache {
                slot.write(&instructions);
            }
            instructions
        }
    };
    Ok(Some(Program {
        instructions,
        flags: flags(profile, notifies)?,
        listener: listener(profile, notifies)?,
        notifies_of_sending,
    }))
}

/// The program, made by libseccomp and then by us.
fn build(profile: &LinuxSeccomp, rules: &[LinuxSyscall]) -> Result<Vec<Instruction>, SecurityError> {
    let long = long(profile, rules)?;
    let instructions = ranges::shorten(&long).unwrap_or(long);
    if instructions.len() > kernel::MAX_INSTRUCTIONS {
        return Err(SecurityError::TooLong { instructions: instructions.len() });
    }
    Ok(instructions)
}

/// The program as libseccomp makes it, and what answers calls that are newer than the profile.
fn long(profile: &LinuxSeccomp, rules: &[LinuxSyscall]) -> Result<Vec<Instruction>, SecurityError> {
    let default = default_action(profile)?;
    let mut filter = ScmpFilterContext::new(default).map_err(failed("the default action"))?;
    // no_new_privs is process.noNewPrivileges' business; the attribute matters for seccomp_load(3) only,
    // which is not called, but an exported program is the same with the attribute left alone.
    for arch in profile.architectures().iter().flatten() {
        filter.add_arch(self::arch(*arch)).map_err(failed(format!("architecture {arch}")))?;
    }
    for (index, rule) in rules.iter().enumerate() {
        add_rule(&mut filter, default, index, rule)?;
    }
    let mut instructions = export(&filter)?;
    enosys::prepend(profile, &mut instructions);
    Ok(instructions)
}

fn default_action(profile: &LinuxSeccomp) -> Result<ScmpAction, SecurityError> {
    action(profile.default_action(), profile.default_errno_ret(), "linux.seccomp.defaultErrnoRet")
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, field: &str) -> Result<ScmpAction, SecurityError> {
    let errno = errno.unwrap_or(EPERM);
    // The kernel has 16 bits for the value (SECCOMP_RET_DATA), and cuts an errno at MAX_ERRNO.
    let short = || u16::try_from(errno).map_err(|_| invalid(field, "is above 65535"));
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(i32::from(short()?)),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(short()?),
        LinuxSeccompAction::ScmpActNotify => ScmpAction::Notify,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
    })
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    default: ScmpAction,
    index: usize,
    rule: &LinuxSyscall,
) -> Result<(), SecurityError> {
    let field = format!("linux.seccomp.syscalls[{index}]");
    let action = action(rule.action(), rule.errno_ret(), &format!("{field}.errnoRet"))?;
    if rule.names().is_empty() {
        return Err(invalid(format!("{field}.names"), "is empty"));
    }
    // libseccomp refuses a rule that says what the default says already.
    if action == default {
        return Ok(());
    }
    let arguments = rule.args().as_deref().unwrap_or_default();
    let conditions = conditions(&field, arguments)?;
    for name in rule.names() {
        // A profile is written for many kernels: a call that this libseccomp does not know is skipped.
        let Ok(call) = ScmpSyscall::from_name(name) else {
            tracing::debug!(syscall = %name, "the seccomp profile names an unknown system call");
            continue;
        };
        for alternative in &conditions {
            filter
                .add_rule_conditional(action, call, alternative)
                .map_err(failed(format!("{field}: {name}")))?;
        }
    }
    Ok(())
}

/// The rule's conditions, as alternatives of which each must hold as a whole. They are one alternative
/// (all hold), but libseccomp takes each argument once in a rule: with an argument named twice each
/// condition is an alternative of its own, as in runc (profiles are written for that).
fn conditions(field: &str, arguments: &[LinuxSeccompArg]) -> Result<Vec<Vec<ScmpArgCompare>>, SecurityError> {
    let mut all = Vec::with_capacity(arguments.len());
    let mut seen = [false; 6];
    let mut repeated = false;
    for (position, argument) in arguments.iter().enumerate() {
        let slot = seen.get_mut(argument.index()).ok_or_else(|| {
            invalid(format!("{field}.args[{position}].index"), "a system call has six arguments")
        })?;
        repeated |= std::mem::replace(slot, true);
        all.push(condition(argument));
    }
    Ok(if repeated { all.into_iter().map(|one| vec![one]).collect() } else { vec![all] })
}

fn condition(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        // `value` is the mask, `valueTwo` what the masked argument must equal.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    // The caller has checked that the index is below six.
    ScmpArgCompare::new(argument.index() as u32, operator, datum)
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> Result<Flags, SecurityError> {
    let mut flags = Flags::default();
    match profile.flags() {
        // No list at all, not even an empty one: runc's default, which spares every process of the
        // container the cost of the speculative-store-bypass mitigation.
        None => flags = flags.with(Flags::SPEC_ALLOW),
        Some(wanted) => {
            for flag in wanted {
                let bit = match flag {
                    LinuxSeccompFilterFlag::SeccompFilterFlagLog => Flags::LOG,
                    LinuxSeccompFilterFlag::SeccompFilterFlagTsync => Flags::TSYNC,
                    LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => Flags::SPEC_ALLOW,
                    LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => Flags::WAIT_KILLABLE_RECV,
                };
                if bit == Flags::WAIT_KILLABLE_RECV && !kernel::flags_supported(bit.with(Flags::NEW_LISTENER))
                {
                    return Err(invalid(
                        "linux.seccomp.flags",
                        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs kernel 5.19",
                    ));
                }
                flags = flags.with(bit);
            }
        }
    }
    if notifies {
        flags = flags.with(Flags::NEW_LISTENER);
        if flags.contains(Flags::TSYNC) {
            flags = flags.with(Flags::TSYNC_ESRCH);
        }
    } else {
        // The kernel refuses it without a listener (seccomp(2)); libseccomp drops it then, too.
        flags = Flags(flags.0 & !Flags::WAIT_KILLABLE_RECV.0);
    }
    Ok(flags)
}

fn listener(profile: &LinuxSeccomp, notifies: bool) -> Result<Option<Listener>, SecurityError> {
    match (Listener::of(profile), notifies) {
        (Some(listener), true) => Ok(Some(listener)),
        (None, true) => {
            Err(invalid("linux.seccomp.listenerPath", "must be set if a rule has SCMP_ACT_NOTIFY"))
        }
        (Some(_), false) => Ok(None),
        (None, false) if profile.listener_metadata().as_ref().is_some_and(|data| !data.is_empty()) => {
            Err(invalid("linux.seccomp.listenerMetadata", "is set without linux.seccomp.listenerPath"))
        }
        (None, false) => Ok(None),
    }
}

/// libseccomp writes a program to a descriptor only (to memory since 2.6).
fn export(filter: &ScmpFilterContext) -> Result<Vec<Instruction>, SecurityError> {
    let unreadable = |source| SecurityError::Export { source };
    let memory = memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)
        .map_err(SysError::on("memfd_create", "seccomp"))
        .map_err(unreadable)?;
    filter.export_bpf(&memory).map_err(failed("the program"))?;
    let mut file = std::fs::File::from(memory);
    let mut bytes = Vec::new();
    file.rewind().map_err(SysError::io("lseek", "seccomp")).map_err(unreadable)?;
    file.read_to_end(&mut bytes).map_err(SysError::io("read", "seccomp")).map_err(unreadable)?;
    Instruction::decode(&bytes).ok_or(SecurityError::Export {
        source: SysError { call: "read", args: "seccomp".into(), errno: nix::errno::Errno::EPROTO },
    })
}

fn arch(arch: Arch) -> ScmpArch {
    match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchParisc => ScmpArch::Parisc,
        Arch::ScmpArchParisc64 => ScmpArch::Parisc64,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        Arch::ScmpArchLoongarch64 => ScmpArch::Loongarch64,
        Arch::ScmpArchM68k => ScmpArch::M68k,
        Arch::ScmpArchSh => ScmpArch::Sh,
        Arch::ScmpArchSheb => ScmpArch::Sheb,
    }
}

#[cfg(test)]
mod tests;
