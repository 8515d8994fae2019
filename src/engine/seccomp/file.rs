//! Profiles in files, in the format of moby (profiles/seccomp/seccomp.go): the OCI format with
//! conditions on capabilities, architectures and the kernel's version.
use super::super::error::EngineError;
use oci_spec::runtime::{Arch, Capability, LinuxSeccomp, LinuxSeccompFilterFlag, LinuxSyscall};
use serde::Deserialize;
use std::collections::HashSet;

/// Profiles are some 20 KiB; this bounds what a wrong path can make us read.
pub const MAX_PROFILE: u64 = 1024 * 1024;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: oci_spec::runtime::LinuxSeccompAction,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Debug, Deserialize)]
struct Rule {
    /// moby's old format names one call.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: oci_spec::runtime::LinuxSeccompAction,
    #[serde(rename = "errnoRet", default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<serde_json::Value>>,
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What the conditions of a profile are held against.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The container's bounding set.
    pub capabilities: &'a HashSet<Capability>,
    /// Major and minor version of the running kernel.
    pub kernel: (u32, u32),
}

/// Turns the text of a profile into the filter of one container. `path` is for errors only.
pub fn parse(path: &str, text: &[u8], facts: &Facts<'_>) -> Result<LinuxSeccomp, EngineError> {
    let wrong = |source| EngineError::SeccompProfile { path: path.to_owned(), source };
    let profile: Profile = serde_json::from_slice(text).map_err(wrong)?;
    let mut value = serde_json::json!({ "defaultAction": profile.default_action });
    let mut put = |key: &str, content: serde_json::Value| value[key] = content;
    if let Some(errno) = profile.default_errno_ret {
        put("defaultErrnoRet", errno.into());
    }
    let native = super::architectures();
    let mapped = profile.arch_map.and_then(|map| {
        map.into_iter().find(|entry| native.first() == Some(&entry.architecture)).map(|entry| {
            let mut arches = vec![entry.architecture];
            arches.extend(entry.sub_architectures.unwrap_or_default());
            arches
        })
    });
    let arches = profile.architectures.filter(|list| !list.is_empty()).or(mapped);
    if let Some(arches) = arches {
        put("architectures", serde_json::to_value(arches).map_err(wrong)?);
    }
    if let Some(flags) = profile.flags {
        put("flags", serde_json::to_value(flags).map_err(wrong)?);
    }
    let mut rules: Vec<LinuxSyscall> = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        if applies(&rule, facts) {
            rules.push(serde_json::from_value(plain(rule)).map_err(wrong)?);
        }
    }
    put("syscalls", serde_json::to_value(rules).map_err(wrong)?);
    serde_json::from_value(value).map_err(wrong)
}

/// The rule in OCI's form, without its conditions.
fn plain(rule: Rule) -> serde_json::Value {
    let mut names = rule.names.unwrap_or_default();
    names.extend(rule.name);
    let mut value = serde_json::json!({ "names": names, "action": rule.action });
    if let Some(errno) = rule.errno_ret {
        value["errnoRet"] = errno.into();
    }
    if let Some(args) = rule.args.filter(|args| !args.is_empty()) {
        value["args"] = args.into();
    }
    value
}

fn applies(rule: &Rule, facts: &Facts<'_>) -> bool {
    let has = |name: &String| {
        super::super::specgen::capabilities::parse(name)
            .is_ok_and(|capability| facts.capabilities.contains(&capability))
    };
    let here = |name: &String| name == go_arch();
    let new_enough = |version: &String| parse_kernel(version).is_some_and(|wanted| facts.kernel >= wanted);
    let included = rule.includes.caps.iter().flatten().all(has)
        && rule.includes.arches.as_ref().is_none_or(|arches| arches.is_empty() || arches.iter().any(here))
        && rule.includes.min_kernel.iter().all(new_enough);
    let excluded = rule.excludes.caps.iter().flatten().any(has)
        || rule.excludes.arches.iter().flatten().any(here)
        || rule.excludes.min_kernel.iter().any(new_enough);
    included && !excluded
}

/// This architecture in Go's words, which the format uses.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `6.18.5-cloud` is (6, 18).
pub fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
