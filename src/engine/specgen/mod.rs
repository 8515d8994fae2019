//! From an image, the options of a container and facts of the host to the runtime's specification; pure.
use super::error::EngineError;
use super::names::Id;
use super::options::{Network, Options, Tmpfs, Ulimit};
use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxDevice, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxSeccomp, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

pub mod capabilities;
pub mod mounts;
pub mod process;
pub mod resources;
#[cfg(test)]
mod tests;
pub mod user;

pub use mounts::Bind;
pub use process::Command;
pub use user::Identity;

/// Facts of the host that the specification depends on.
#[derive(Debug, Clone, Default)]
pub struct HostFacts {
    /// The capabilities that we hold and can pass on.
    pub held: HashSet<Capability>,
    /// Whether the kernel counts swap for each cgroup.
    pub counts_swap: bool,
    /// For `--privileged`: the device nodes under /dev.
    pub devices: Vec<LinuxDevice>,
    /// moby masks these: they tell a container what its neighbours do.
    pub thermal_throttle: Vec<String>,
    /// The devices that were asked for.
    pub asked_devices: Vec<Asked>,
    /// The least `oom_score_adj` that we may give; absent if any.
    pub least_oom_score: Option<i32>,
}

/// A device node that was asked for, with its path in the container.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The node.
    pub device: LinuxDevice,
    /// Some of `rwm`.
    pub access: String,
}

/// What a container takes from its task.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Namespaces that it joins, by their files.
    pub namespaces: Vec<(LinuxNamespaceType, PathBuf)>,
    /// Whether it has a PID namespace of its own.
    pub own_pid: bool,
    /// The task's host name.
    pub hostname: String,
    /// The task's cgroup, absolute from the hierarchy's root.
    pub cgroup: String,
}

/// Everything that [`generate`] needs.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// Id of the container.
    pub id: &'a Id,
    /// What was asked for.
    pub options: &'a Options,
    /// What runs.
    pub command: &'a Command,
    /// As whom.
    pub identity: &'a Identity,
    /// Files that the engine binds over the image's: destination and source.
    pub files: &'a [(&'static str, PathBuf)],
    /// Volumes and host directories.
    pub binds: &'a [Bind],
    /// The seccomp filter.
    pub seccomp: Option<LinuxSeccomp>,
    /// The host.
    pub host: &'a HostFacts,
    /// The network namespace that was made for it, if one was.
    pub netns: Option<&'a Path>,
    /// Its task, if it has one.
    pub joined: Option<&'a Joined>,
}

/// Builds the specification; the root is given to the runtime as a mount, so its path is only a name.
pub fn generate(inputs: &Inputs<'_>) -> Result<Spec, EngineError> {
    let options = inputs.options;
    let bounding =
        capabilities::bounding(&options.cap_add, &options.cap_drop, options.privileged, &inputs.host.held)?;
    let root = RootBuilder::default()
        .path("rootfs")
        .readonly(options.read_only)
        .build()
        .map_err(|source| EngineError::Spec { part: "root", source })?;
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(root)
        .process(container_process(inputs, &bounding)?)
        .mounts(all_mounts(inputs)?)
        .linux(linux(inputs)?)
        .build()
        .map_err(|source| EngineError::Spec { part: "the whole", source })?;
    // On the host's network a container keeps the host's name, which is what others know it by.
    // A task gave its own to the namespace that the container joins.
    let named = inputs.joined.is_none()
        && (inputs.options.network != Network::Host || inputs.options.hostname.is_some());
    // Set outside the builder, whose default is a name.
    spec.set_hostname(named.then(|| hostname(inputs.id, inputs.options)));
    Ok(spec)
}

/// The host name inside: what was asked for, or the beginning of the id.
pub fn hostname(id: &Id, options: &Options) -> String {
    options.hostname.clone().unwrap_or_else(|| id.short().to_owned())
}

fn container_process(inputs: &Inputs<'_>, bounding: &HashSet<Capability>) -> Result<Process, EngineError> {
    let host_name =
        inputs.joined.map_or_else(|| hostname(inputs.id, inputs.options), |joined| joined.hostname.clone());
    let env =
        process::complete_env(&inputs.command.env, inputs.options.tty, &host_name, &inputs.identity.home);
    let mut process = process(&ProcessInputs {
        options: inputs.options,
        args: &inputs.command.args,
        env,
        cwd: &inputs.command.cwd,
        tty: inputs.options.tty,
        identity: inputs.identity,
        bounding,
    })?;
    let least = inputs.host.least_oom_score;
    process.set_oom_score_adj(inputs.options.task.oom_score_adj.map(|asked| oom_score(asked, least)));
    Ok(process)
}

/// Every pod asks for a score that only a process with CAP_SYS_RESOURCE may give: without it, the least possible.
pub fn oom_score(asked: i32, least: Option<i32>) -> i32 {
    match least {
        Some(least) if asked < least => {
            tracing::warn!(asked, given = least, "oom_score_adj cannot be lowered without CAP_SYS_RESOURCE");
            least
        }
        _ => asked,
    }
}

/// What a process of a container is made of; the container's own and those of `exec` alike.
#[derive(Debug)]
pub struct ProcessInputs<'a> {
    /// The container's options: security, limits.
    pub options: &'a Options,
    /// Program and arguments.
    pub args: &'a [String],
    /// The whole environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: &'a str,
    /// Whether it has a terminal.
    pub tty: bool,
    /// As whom.
    pub identity: &'a Identity,
    /// Its bounding set.
    pub bounding: &'a HashSet<Capability>,
}

/// Builds a process.
pub fn process(inputs: &ProcessInputs<'_>) -> Result<Process, EngineError> {
    let wrong = |part| move |source| EngineError::Spec { part, source };
    let identity = inputs.identity;
    let ambient = capabilities::named(&inputs.options.task.cap_ambient)?;
    let user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .build()
        .map_err(wrong("process.user"))?;
    let mut builder = ProcessBuilder::default()
        .terminal(inputs.tty)
        .user(user)
        .args(inputs.args.to_vec())
        .env(inputs.env.clone())
        .cwd(inputs.cwd)
        .capabilities(capabilities::sets(inputs.bounding, identity.uid, &ambient)?)
        .rlimits(inputs.options.ulimits.iter().map(rlimit).collect::<Result<Vec<_>, _>>()?)
        .no_new_privileges(inputs.options.security.no_new_privileges);
    if let Some(profile) = inputs.options.security.apparmor.as_ref().filter(|name| *name != "unconfined") {
        builder = builder.apparmor_profile(profile.clone());
    }
    builder.build().map_err(wrong("process"))
}

fn rlimit(limit: &Ulimit) -> Result<PosixRlimit, EngineError> {
    let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::String(limit.name.clone()))
        .map_err(|_| EngineError::Flag {
            flag: "--ulimit",
            value: limit.name.clone(),
            reason: "there is no limit of that name",
        })?;
    PosixRlimitBuilder::default()
        .typ(kind)
        .soft(limit.soft)
        .hard(limit.hard)
        .build()
        .map_err(|source| EngineError::Spec { part: "process.rlimits", source })
}

fn all_mounts(inputs: &Inputs<'_>) -> Result<Vec<Mount>, EngineError> {
    let defaults = mounts::defaults(inputs.options.privileged, inputs.options.task.shm_size)?;
    let files = inputs
        .files
        .iter()
        .map(|(destination, source)| {
            let options = if *destination == mounts::SHM {
                mounts::SHM_OPTIONS.map(str::to_owned).to_vec()
            } else if inputs.options.read_only {
                vec!["ro".to_owned()]
            } else {
                Vec::new()
            };
            mounts::bind(&Bind { source: source.clone(), destination: (*destination).to_owned(), options })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut asked = Vec::new();
    for Tmpfs { destination, options } in &inputs.options.tmpfs {
        asked.push(mounts::mount(destination, "tmpfs", std::path::Path::new("tmpfs"), options.clone())?);
    }
    for bind in inputs.binds {
        asked.push(mounts::bind(bind)?);
    }
    for host in &inputs.options.task.mounts {
        asked.push(mounts::host(host)?);
    }
    Ok(mounts::merge([defaults, files, asked]))
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux, EngineError> {
    let (options, host) = (inputs.options, inputs.host);
    let cgroup = inputs.joined.map_or("/corten", |joined| &joined.cgroup);
    let swap = if inputs.joined.is_some() { resources::Swap::None } else { resources::Swap::AsMemory };
    let limits = resources::limits(&options.limits, swap, host.counts_swap)?;
    let mut builder = LinuxBuilder::default()
        .namespaces(match inputs.joined {
            Some(joined) => joined_namespaces(joined)?,
            None => namespaces(options.network, inputs.netns)?,
        })
        .cgroups_path(format!("{cgroup}/{}", inputs.id))
        .resources(resources::with_devices(limits, options.privileged, &host.asked_devices)?);
    if let Some(propagation) = mounts::root_propagation(&options.task.mounts) {
        builder = builder.rootfs_propagation(propagation);
    }
    let mut devices = if options.privileged { host.devices.clone() } else { Vec::new() };
    for Asked { device, .. } in &host.asked_devices {
        devices.retain(|known| known.path() != device.path());
        devices.push(device.clone());
    }
    if !devices.is_empty() {
        builder = builder.devices(devices);
    }
    let (masked, read_only) = hidden_paths(options, host);
    builder = builder.masked_paths(masked).readonly_paths(read_only);
    if let (false, Some(filter)) = (options.privileged, &inputs.seccomp) {
        builder = builder.seccomp(filter.clone());
    }
    builder.build().map_err(|source| EngineError::Spec { part: "linux", source })
}

/// Paths that cannot be read, and those that cannot be written.
fn hidden_paths(options: &Options, host: &HostFacts) -> (Vec<String>, Vec<String>) {
    if options.privileged {
        return (Vec::new(), Vec::new());
    }
    let own = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    let masked = options.task.masked_paths.clone().unwrap_or_else(|| {
        let mut masked = own(&mounts::MASKED);
        masked.extend(host.thermal_throttle.iter().cloned());
        masked
    });
    let read_only = options.task.readonly_paths.clone().unwrap_or_else(|| own(&mounts::READ_ONLY));
    (masked, read_only)
}

fn namespace(kind: LinuxNamespaceType, path: Option<&PathBuf>) -> Result<LinuxNamespace, EngineError> {
    let mut builder = LinuxNamespaceBuilder::default().typ(kind);
    if let Some(path) = path {
        builder = builder.path(path.clone());
    }
    builder.build().map_err(|source| EngineError::Spec { part: "linux.namespaces", source })
}

/// Its own root and cgroup, and what its task shares; the rest is the host's.
fn joined_namespaces(joined: &Joined) -> Result<Vec<LinuxNamespace>, EngineError> {
    let mut all =
        vec![namespace(LinuxNamespaceType::Mount, None)?, namespace(LinuxNamespaceType::Cgroup, None)?];
    if joined.own_pid {
        all.push(namespace(LinuxNamespaceType::Pid, None)?);
    }
    for (kind, path) in &joined.namespaces {
        all.push(namespace(*kind, Some(path))?);
    }
    Ok(all)
}

fn namespaces(network: Network, netns: Option<&Path>) -> Result<Vec<LinuxNamespace>, EngineError> {
    let mut kinds = vec![
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
        LinuxNamespaceType::Cgroup,
    ];
    if network == Network::None {
        kinds.push(LinuxNamespaceType::Network);
    }
    let joined = netns.map(|path| namespace(LinuxNamespaceType::Network, Some(&path.to_owned())));
    kinds.into_iter().map(|kind| namespace(kind, None)).chain(joined).collect()
}
