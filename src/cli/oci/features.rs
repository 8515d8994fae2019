//! `features`: what this build can do, in the form of the runtime specification's features document.
//!
//! containerd reads from it whether recursive read-only mounts (`rro`) and user namespaces with id-mapped
//! mounts are there; CRI-O needs the versions.
use super::argv::Flags;
use super::{Count, Outcome, check_count, words_of};
use crate::cli::output;
use crate::runtime::rootfs::options;
use crate::runtime::security::memory;
use clap::Parser;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::process::ExitCode;

/// Shows the enabled features
#[derive(Debug, Parser)]
#[command(name = "features", override_usage = "corten-oci features")]
struct Words {
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    check_count::<Words>(&words.args, Count::Exactly(0))?;
    let mut text = output::json(&features(), b"    ")?;
    text.push(b'\n');
    output::stdout(text)?;
    Ok(ExitCode::SUCCESS)
}

const SECCOMP_ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const SECCOMP_OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// Those that libseccomp 2.5 compiles for.
const SECCOMP_ARCHS: [&str; 19] = [
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

const SECCOMP_FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];

fn features() -> Value {
    let mut capabilities: Vec<_> = caps::all().into_iter().collect();
    capabilities.sort_by_key(caps::Capability::index);
    let capabilities: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": super::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::KNOWN,
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": SECCOMP_ACTIONS,
                "operators": SECCOMP_OPERATORS,
                "archs": SECCOMP_ARCHS,
                "knownFlags": SECCOMP_FLAGS,
                "supportedFlags": supported_flags()
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": memory::MODES, "flags": memory::FLAGS},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true}
        },
        "annotations": annotations(),
        "potentiallyUnsafeConfigAnnotations": unsafe_annotations()
    })
}

/// Annotations of a configuration that change what this runtime does (one that ends with a dot is a prefix).
fn unsafe_annotations() -> &'static [&'static str] {
    // The systemd driver reads the first ones.
    &["org.systemd.property.", crate::runtime::plan::KEEP_GROUPS]
}

fn supported_flags() -> Vec<&'static str> {
    use crate::sys::seccomp::{Flags, flags_supported};
    let bits =
        [Flags::LOG, Flags::SPEC_ALLOW, Flags::TSYNC, Flags::WAIT_KILLABLE_RECV.with(Flags::NEW_LISTENER)];
    SECCOMP_FLAGS
        .into_iter()
        .zip(bits)
        .filter(|(_, bits)| flags_supported(*bits))
        .map(|(name, _)| name)
        .collect()
}

fn annotations() -> Value {
    let libseccomp = libseccomp::ScmpVersion::current().map_or_else(|_| String::new(), |one| one.to_string());
    json!({
        "io.github.seccomp.libseccomp.version": libseccomp,
        "org.opencontainers.runc.checkpoint.enabled": "false",
        "dev.corten.commit": super::version::commit(),
        "dev.corten.version": env!("CARGO_PKG_VERSION")
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_callers_look_for_is_there() {
        let features = super::features();
        let list = |pointer: &str| features.pointer(pointer).and_then(|list| list.as_array().cloned());
        assert!(list("/mountOptions").expect("a list").contains(&"rro".into()));
        assert!(list("/linux/namespaces").expect("a list").contains(&"user".into()));
        assert_eq!(list("/linux/capabilities").expect("a list").len(), 41);
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert!(list("/mountOptions").expect("a list").contains(&"ridmap".into()));
    }
}
