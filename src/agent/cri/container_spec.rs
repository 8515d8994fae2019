//! From what a container is asked to be to the engine's options; pure.
use super::api::{Capability, ContainerConfig, KeyValue, LinuxContainerSecurityContext, NamespaceMode};
use super::error::{CriError, Result, invalid};
use super::sandbox_spec::texts;
use super::{kept, mounts, resources, security, signal};
use crate::engine::options::{GroupsPolicy, Network, Options, PidNamespace, Security, Signal, TaskOptions};
use crate::engine::specgen::capabilities;
use crate::engine::specgen::process::Overrides;
use std::path::{Component, Path, PathBuf};

/// More supplementary groups than the kernel takes (NGROUPS_MAX).
const MAX_GROUPS: usize = 65_536;
/// More words, variables, mounts or devices are a mistake.
const MAX_LIST: usize = 65_536;

/// Facts of the pod and of the host that a container depends on.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The pod.
    pub sandbox: &'a kept::Sandbox,
    /// Whether the kernel counts swap for each cgroup.
    pub counts_swap: bool,
    /// Whether the host has SELinux, whose labels are not built.
    pub selinux: bool,
}

/// What the engine is asked for.
#[derive(Debug)]
pub struct Asked {
    /// What runs.
    pub overrides: Overrides,
    /// Everything else.
    pub options: Options,
    /// The image's if absent.
    pub stop_signal: Option<Signal>,
}

/// Translates the whole.
pub fn container(config: &ContainerConfig, facts: &Facts<'_>) -> Result<Asked> {
    bounds(config)?;
    let linux = config.linux.clone().unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    security::check(&context, facts)?;
    let given = linux.resources.unwrap_or_default();
    let caps = context.capabilities.clone().unwrap_or_default();
    check_capabilities(&caps)?;
    let list = |paths: &Vec<String>| Some(paths.clone()).filter(|paths| !paths.is_empty());
    let options = Options {
        tty: config.tty,
        interactive: config.stdin,
        read_only: context.readonly_rootfs,
        privileged: context.privileged,
        network: Network::Task,
        cap_add: caps.add_capabilities,
        cap_drop: caps.drop_capabilities,
        security: Security {
            no_new_privileges: context.no_new_privs,
            seccomp: security::seccomp(&context)?,
            apparmor: None,
        },
        limits: resources::limits(&given, facts.counts_swap)?,
        labels: config.labels.clone(),
        task: TaskOptions {
            pid: pid(&context, facts.sandbox)?,
            mounts: config.mounts.iter().map(mounts::mount).collect::<Result<_>>()?,
            devices: config.devices.iter().map(mounts::device).collect::<Result<_>>()?,
            groups: groups(&context.supplemental_groups)?,
            groups_policy: match context.supplemental_groups_policy {
                0 => GroupsPolicy::Merge,
                1 => GroupsPolicy::Strict,
                other => {
                    return invalid(
                        "supplemental_groups_policy",
                        other.to_string(),
                        "there is no such policy",
                    );
                }
            },
            cap_ambient: caps.add_ambient_capabilities,
            masked_paths: list(&context.masked_paths),
            readonly_paths: list(&context.readonly_paths),
            oom_score_adj: Some(resources::oom_score_adj(given.oom_score_adj)?),
            log_path: log_path(&facts.sandbox.log_directory, &config.log_path)?,
            stdin_once: config.stdin_once,
            ..TaskOptions::default()
        },
        ..Options::default()
    };
    let overrides = Overrides {
        entrypoint: Some(config.command.clone()).filter(|command| !command.is_empty()),
        args: config.args.clone(),
        env: config.envs.iter().map(variable).collect::<Result<_>>()?,
        cwd: Some(config.working_dir.clone()).filter(|path| !path.is_empty()),
        user: user(&context)?,
    };
    Ok(Asked { overrides, options, stop_signal: signal::from_api(config.stop_signal)? })
}

fn bounds(config: &ContainerConfig) -> Result<()> {
    texts("labels", &config.labels)?;
    texts("annotations", &config.annotations)?;
    for (field, count) in [
        ("command", config.command.len()),
        ("args", config.args.len()),
        ("envs", config.envs.len()),
        ("mounts", config.mounts.len()),
        ("devices", config.devices.len()),
    ] {
        if count > MAX_LIST {
            return invalid(field, count.to_string(), "there are too many");
        }
    }
    for word in config.command.iter().chain(&config.args) {
        if word.contains('\0') {
            return invalid("command", word, "it has a NUL");
        }
    }
    if config.windows.is_some() {
        return Err(CriError::NotBuilt { what: "windows", reason: "this is Linux" });
    }
    if !config.cdi_devices.is_empty() {
        return Err(CriError::NotBuilt {
            what: "CDI_devices",
            reason: "CDI is not built; name the device nodes in `devices`",
        });
    }
    Ok(())
}

fn variable(pair: &KeyValue) -> Result<String> {
    let Ok(value) = std::str::from_utf8(&pair.value) else {
        return invalid("envs", &pair.key, "its value is not UTF-8");
    };
    if pair.key.is_empty() || pair.key.contains(['=', '\0']) || value.contains('\0') {
        return invalid("envs", &pair.key, "a name is not empty and has no `=`, and there is no NUL");
    }
    Ok(format!("{}={value}", pair.key))
}

fn check_capabilities(given: &Capability) -> Result<()> {
    for name in given.add_capabilities.iter().chain(&given.drop_capabilities) {
        if !name.eq_ignore_ascii_case("ALL") {
            capabilities::parse(name)?;
        }
    }
    for name in &given.add_ambient_capabilities {
        capabilities::parse(name)?;
    }
    Ok(())
}

/// POD means what the pod has: its shared namespace, the host's, or none to share.
fn pid(context: &LinuxContainerSecurityContext, sandbox: &kept::Sandbox) -> Result<PidNamespace> {
    let namespaces = context.namespace_options.clone().unwrap_or_default();
    Ok(match namespaces.pid() {
        NamespaceMode::Node => PidNamespace::Host,
        NamespaceMode::Container => PidNamespace::Container,
        NamespaceMode::Target if namespaces.target_id.is_empty() => {
            return Err(CriError::Missing { field: "namespace_options.target_id" });
        }
        NamespaceMode::Target => PidNamespace::Of(namespaces.target_id),
        NamespaceMode::Pod => match sandbox.namespaces.pid() {
            NamespaceMode::Node => PidNamespace::Host,
            NamespaceMode::Pod => PidNamespace::Task,
            NamespaceMode::Container | NamespaceMode::Target => PidNamespace::Container,
        },
    })
}

/// `USER[:GROUP]`; the image's if absent.
fn user(context: &LinuxContainerSecurityContext) -> Result<Option<String>> {
    let number = |field, id: i64| match u32::try_from(id) {
        // 2^32 - 1 means "no change" to the kernel.
        Ok(id) if id != u32::MAX => Ok(id.to_string()),
        _ => invalid(field, id.to_string(), "an id is a number from 0 to 4294967294"),
    };
    let user = match (&context.run_as_user, context.run_as_username.as_str()) {
        (Some(id), "") => Some(number("run_as_user", id.value)?),
        (_, "") => None,
        (_, name) if name.contains(':') => {
            return invalid("run_as_username", name, "a name has no colon");
        }
        (_, name) => Some(name.to_owned()),
    };
    match (user, &context.run_as_group) {
        (None, Some(group)) => {
            invalid("run_as_group", group.value.to_string(), "it needs run_as_user or run_as_username")
        }
        (Some(user), Some(group)) => Ok(Some(format!("{user}:{}", number("run_as_group", group.value)?))),
        (user, None) => Ok(user),
    }
}

fn groups(given: &[i64]) -> Result<Vec<u32>> {
    if given.len() > MAX_GROUPS {
        return invalid("supplemental_groups", given.len().to_string(), "the kernel takes 65536");
    }
    given
        .iter()
        .map(|id| match u32::try_from(*id) {
            Ok(id) if id != u32::MAX => Ok(id),
            _ => invalid("supplemental_groups", id.to_string(), "an id is a number from 0 to 4294967294"),
        })
        .collect()
}

/// Where the log goes: a path under the pod's log directory.
fn log_path(directory: &str, path: &str) -> Result<Option<PathBuf>> {
    if directory.is_empty() || path.is_empty() {
        return Ok(None);
    }
    let relative = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if !relative || path.contains('\0') || path.len() > 4095 {
        return invalid("log_path", path, "it is a path under the pod's log directory, without `..`");
    }
    Ok(Some(Path::new(directory).join(path)))
}

#[cfg(test)]
mod tests;
