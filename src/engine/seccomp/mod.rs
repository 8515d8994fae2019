//! Seccomp profiles: the default one, and files in moby's format.
use super::error::EngineError;
use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use std::collections::HashSet;

pub mod file;
pub mod table;
#[cfg(test)]
mod tests;

/// ENOSYS: glibc falls back from clone3 to clone, whose flags a filter can read.
const ENOSYS: u32 = 38;
/// EPERM, what a denied call returns.
const EPERM: u32 = 1;

/// The architectures whose system calls a process of this machine can make.
pub fn architectures() -> Vec<Arch> {
    match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => vec![Arch::ScmpArchNative],
    }
}

/// The default profile for a container with these capabilities (its bounding set).
pub fn default_profile(capabilities: &HashSet<Capability>) -> Result<LinuxSeccomp, EngineError> {
    let mut names: Vec<String> = Vec::with_capacity(420);
    let mut allow = |list: &str| names.extend(list.split_whitespace().map(str::to_owned));
    allow(table::ALLOWED);
    allow(table::ALLOWED_ON_THIS_ARCH);
    allow(table::ALLOWED_SINCE_4_8);
    for (capability, calls) in table::ALLOWED_WITH_CAPABILITY {
        if has(capabilities, capability) {
            allow(calls);
        }
    }
    names.sort_unstable();
    names.dedup();
    let mut rules = vec![rule(names, LinuxSeccompAction::ScmpActAllow, None, None)?];
    rules.extend(conditional_rules()?);
    if !has(capabilities, "CAP_SYS_ADMIN") {
        let flags =
            argument(0, table::CLONE_NAMESPACE_FLAGS, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq)?;
        rules.push(rule(one("clone"), LinuxSeccompAction::ScmpActAllow, None, Some(flags))?);
        rules.push(rule(one("clone3"), LinuxSeccompAction::ScmpActErrno, Some(ENOSYS), None)?);
    }
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures())
        .syscalls(rules)
        .build()
        .map_err(|source| EngineError::Spec { part: "linux.seccomp", source })
}

/// `socket` by address family and `personality` by value.
fn conditional_rules() -> Result<Vec<LinuxSyscall>, EngineError> {
    let allow = |name: &str, value: u64, op: LinuxSeccompOperator| {
        rule(one(name), LinuxSeccompAction::ScmpActAllow, None, Some(argument(0, value, None, op)?))
    };
    let mut rules = vec![allow("socket", table::SOCKET_FAMILIES_BELOW, LinuxSeccompOperator::ScmpCmpLt)?];
    for family in table::SOCKET_FAMILIES {
        rules.push(allow("socket", *family, LinuxSeccompOperator::ScmpCmpEq)?);
    }
    for value in table::PERSONALITIES {
        rules.push(allow("personality", *value, LinuxSeccompOperator::ScmpCmpEq)?);
    }
    Ok(rules)
}

fn has(capabilities: &HashSet<Capability>, name: &str) -> bool {
    super::specgen::capabilities::parse(name).is_ok_and(|capability| capabilities.contains(&capability))
}

fn one(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

fn argument(
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
) -> Result<LinuxSeccompArg, EngineError> {
    let mut builder = LinuxSeccompArgBuilder::default().index(index).value(value).op(op);
    if let Some(two) = value_two {
        builder = builder.value_two(two);
    }
    builder.build().map_err(|source| EngineError::Spec { part: "linux.seccomp.syscalls.args", source })
}

fn rule(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    argument: Option<LinuxSeccompArg>,
) -> Result<LinuxSyscall, EngineError> {
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(errno) = errno {
        builder = builder.errno_ret(errno);
    }
    if let Some(argument) = argument {
        builder = builder.args(vec![argument]);
    }
    builder.build().map_err(|source| EngineError::Spec { part: "linux.seccomp.syscalls", source })
}
