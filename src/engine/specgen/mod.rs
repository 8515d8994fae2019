//! From an image, the options of a container and facts of the host to the runtime's specification; pure.
use super::error::EngineError;
use super::names::Id;
use super::options::{Limits, Network, Options, Tmpfs, Ulimit};
use oci_spec::runtime::{
    Capability, Linux, LinuxBuilder, LinuxCpuBuilder, LinuxDevice, LinuxDeviceCgroup,
    LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxSeccomp, Mount, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
    UserBuilder,
};
use std::collections::HashSet;
use std::path::PathBuf;

pub mod capabilities;
pub mod mounts;
pub mod process;
#[cfg(test)]
mod tests;
pub mod user;

pub use mounts::Bind;
pub use process::Command;
pub use user::Identity;

/// Period of the CPU quota in microseconds, the kernel's default.
const CPU_PERIOD: u64 = 100_000;

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
    let named = inputs.options.network == Network::None || inputs.options.hostname.is_some();
    // Set outside the builder, whose default is a name.
    spec.set_hostname(named.then(|| hostname(inputs.id, inputs.options)));
    Ok(spec)
}

/// The host name inside: what was asked for, or the beginning of the id.
pub fn hostname(id: &Id, options: &Options) -> String {
    options.hostname.clone().unwrap_or_else(|| id.short().to_owned())
}

fn container_process(inputs: &Inputs<'_>, bounding: &HashSet<Capability>) -> Result<Process, EngineError> {
    let host_name = hostname(inputs.id, inputs.options);
    let env =
        process::complete_env(&inputs.command.env, inputs.options.tty, &host_name, &inputs.identity.home);
    process(&ProcessInputs {
        options: inputs.options,
        args: &inputs.command.args,
        env,
        cwd: &inputs.command.cwd,
        tty: inputs.options.tty,
        identity: inputs.identity,
        bounding,
    })
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
        .capabilities(capabilities::sets(inputs.bounding, identity.uid)?)
        .rlimits(inputs.options.ulimits.iter().map(rlimit).collect::<Result<Vec<_>, _>>()?)
        .no_new_privileges(inputs.options.security.no_new_privileges);
    if let Some(profile) = &inputs.options.security.apparmor {
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
    let defaults = mounts::defaults(inputs.options.privileged)?;
    let files = inputs
        .files
        .iter()
        .map(|(destination, source)| {
            let options = if inputs.options.read_only { vec!["ro".to_owned()] } else { Vec::new() };
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
    Ok(mounts::merge([defaults, files, asked]))
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux, EngineError> {
    let options = inputs.options;
    let mut builder = LinuxBuilder::default()
        .namespaces(namespaces(options.network)?)
        .cgroups_path(format!("/corten/{}", inputs.id))
        .resources(resources(options, inputs.host)?);
    if options.privileged {
        builder = builder
            .devices(inputs.host.devices.clone())
            .masked_paths(Vec::<String>::new())
            .readonly_paths(Vec::<String>::new());
    } else {
        let masked = mounts::MASKED.iter().map(|path| (*path).to_owned());
        builder = builder
            .masked_paths(masked.chain(inputs.host.thermal_throttle.iter().cloned()).collect::<Vec<_>>())
            .readonly_paths(mounts::READ_ONLY.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>());
        if let Some(filter) = &inputs.seccomp {
            builder = builder.seccomp(filter.clone());
        }
    }
    builder.build().map_err(|source| EngineError::Spec { part: "linux", source })
}

fn namespaces(network: Network) -> Result<Vec<LinuxNamespace>, EngineError> {
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
    kinds
        .into_iter()
        .map(|kind| {
            LinuxNamespaceBuilder::default()
                .typ(kind)
                .build()
                .map_err(|source| EngineError::Spec { part: "linux.namespaces", source })
        })
        .collect()
}

/// The cgroup's values. The rules for the default devices come from the runtime, which makes the devices.
fn resources(options: &Options, host: &HostFacts) -> Result<LinuxResources, EngineError> {
    let wrong = |part| move |source| EngineError::Spec { part, source };
    let limits = &options.limits;
    let mut builder = LinuxResourcesBuilder::default().devices(vec![all_devices(options.privileged)?]);
    if let Some(limit) = limits.memory {
        let mut memory = LinuxMemoryBuilder::default().limit(limit);
        if let Some(swap) = swap(limits, host) {
            memory = memory.swap(swap);
        }
        builder = builder.memory(memory.build().map_err(wrong("linux.resources.memory"))?);
    }
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(nano) = limits.nano_cpus {
        let quota = i64::try_from(nano / (1_000_000_000 / CPU_PERIOD)).unwrap_or(i64::MAX);
        cpu = cpu.period(CPU_PERIOD).quota(quota);
    }
    if let Some(shares) = limits.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(cpus) = &limits.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if limits.nano_cpus.is_some() || limits.cpu_shares.is_some() || limits.cpuset_cpus.is_some() {
        builder = builder.cpu(cpu.build().map_err(wrong("linux.resources.cpu"))?);
    }
    if let Some(pids) = limits.pids {
        builder = builder
            .pids(LinuxPidsBuilder::default().limit(pids).build().map_err(wrong("linux.resources.pids"))?);
    }
    builder.build().map_err(wrong("linux.resources"))
}

/// Memory and swap together: what was asked for, or twice the memory, as docker. Without swap accounting
/// the default cannot be had and is left out; a limit that was asked for is not.
fn swap(limits: &Limits, host: &HostFacts) -> Option<i64> {
    limits
        .memory_swap
        .or_else(|| limits.memory.filter(|_| host.counts_swap).map(|memory| memory.saturating_mul(2)))
}

fn all_devices(allow: bool) -> Result<LinuxDeviceCgroup, EngineError> {
    LinuxDeviceCgroupBuilder::default()
        .allow(allow)
        .access("rwm")
        .build()
        .map_err(|source| EngineError::Spec { part: "linux.resources.devices", source })
}
