//! Whether a task can be what it is asked to be; pure but for the machine's size.
use super::{TaskNetwork, TaskSpec};
use crate::engine::error::EngineError;
use crate::engine::options::{Limits, parse};
use crate::runtime::rootfs::sysctl::split;
use crate::runtime::validate::IPC_SYSCTLS;
use std::path::{Component, Path};

/// Most extra lines of /etc/hosts, names of a line, and kernel parameters of a task.
const MAX_ENTRIES: usize = 1024;
/// A page: what one write to procfs takes.
const MAX_VALUE: usize = 4096;

fn wrong<T>(field: &'static str, value: &str, reason: &'static str) -> Result<T, EngineError> {
    Err(EngineError::Task { field, value: value.to_owned(), reason })
}

/// Checks all of a specification but its name.
pub(super) fn check(spec: &TaskSpec) -> Result<(), EngineError> {
    if let Some(name) = &spec.hostname
        && parse::hostname(name).is_err()
    {
        return wrong("hostname", name, "a host name is 1 to 64 letters, digits, '.', '-' and '_'");
    }
    if spec.hosts.len() > MAX_ENTRIES || spec.sysctls.len() > MAX_ENTRIES {
        return wrong("hosts or sysctls", "", "there are more than 1024");
    }
    for (key, value) in &spec.sysctls {
        sysctl_path(key, spec)?;
        if value.len() > MAX_VALUE || value.chars().any(|char| char.is_control() && char != '\t') {
            return wrong("sysctl", key, "its value is too long or has control characters");
        }
    }
    if let Some(path) = &spec.cgroup {
        check_cgroup(path)?;
    }
    if spec.shm_size == Some(0) {
        // For tmpfs that is no limit at all.
        return wrong("shm_size", "0", "a size in bytes");
    }
    check_limits(&spec.limits, machine_memory())
}

fn check_cgroup(path: &str) -> Result<(), EngineError> {
    let path_of = Path::new(path);
    let clean = path_of.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let named = path_of.file_name().is_some();
    if path_of.is_absolute() && clean && named && !path.contains(['\n', '\0']) {
        Ok(())
    } else {
        wrong("cgroup", path, "an absolute path without '..' that is not the root")
    }
}

/// Limits of a whole task, against the bytes of memory that the machine has.
pub(super) fn check_limits(limits: &Limits, machine: Option<u64>) -> Result<(), EngineError> {
    let above = |limit: Option<i64>| {
        limit.and_then(|limit| u64::try_from(limit).ok()).is_some_and(|limit| machine < Some(limit))
    };
    if machine.is_some() && (above(limits.memory) || above(limits.memory_reservation)) {
        let asked = limits.memory.or(limits.memory_reservation).unwrap_or_default();
        return wrong("memory", &asked.to_string(), "the machine has less memory");
    }
    Ok(())
}

/// The memory of this machine in bytes (proc_meminfo(5)).
pub(super) fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// The path below /proc/sys of a parameter that a namespace of the task has for itself.
///
/// # Errors
/// A parameter of the whole host; of a namespace that the task shares with the host.
pub(super) fn sysctl_path(key: &str, spec: &TaskSpec) -> Result<String, EngineError> {
    let Some(parts) = split(key) else { return wrong("sysctl", key, "its name is malformed") };
    let dotted = parts.join(".");
    let of_ipc = IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
    if of_ipc {
        if spec.host_ipc {
            return wrong("sysctl", key, "not allowed in the host's IPC namespace");
        }
    } else if dotted.starts_with("net.") {
        if spec.network == TaskNetwork::Host {
            return wrong("sysctl", key, "not allowed in the host's network namespace");
        }
    } else {
        return wrong("sysctl", key, "a task has it not for itself: it is of the whole host");
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::task::Door;

    fn spec() -> TaskSpec {
        TaskSpec {
            door: Door::Manifest,
            name: "t".into(),
            hostname: None,
            network: TaskNetwork::None,
            ports: Vec::new(),
            shares_pid: false,
            host_ipc: false,
            dns: crate::network::Dns::default(),
            hosts: Vec::new(),
            cgroup: None,
            limits: Limits::default(),
            sysctls: std::collections::BTreeMap::new(),
            labels: std::collections::BTreeMap::new(),
            shm_size: None,
            data: serde_json::Value::Null,
        }
    }

    #[test]
    fn parameters_of_the_tasks_namespaces_alone() {
        for (key, path) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.shmmax", "kernel/shmmax"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(sysctl_path(key, &spec()).unwrap(), path);
        }
        for key in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net",
            "net..x",
            "net/../kernel/x",
            "kernel.hostname",
            "",
        ] {
            sysctl_path(key, &spec()).expect_err(key);
        }
        let host = TaskSpec { network: TaskNetwork::Host, host_ipc: true, ..spec() };
        assert!(sysctl_path("net.ipv4.ip_forward", &host).is_err());
        assert!(sysctl_path("kernel.sem", &host).is_err());
    }

    #[test]
    fn what_a_task_cannot_be() {
        check(&spec()).unwrap();
        for cgroup in ["", "/", "relative", "/a/../b", "/a\nb"] {
            check(&TaskSpec { cgroup: Some(cgroup.into()), ..spec() }).expect_err(cgroup);
        }
        check(&TaskSpec { hostname: Some("a b".into()), ..spec() }).unwrap_err();
        check(&TaskSpec { shm_size: Some(0), ..spec() }).unwrap_err();
        let sysctls = [("kernel.sem".to_owned(), "1\n2".to_owned())].into();
        check(&TaskSpec { sysctls, ..spec() }).unwrap_err();
    }

    #[test]
    fn memory_over_the_machines_is_refused() {
        let limits = |memory| Limits { memory: Some(memory), ..Limits::default() };
        check_limits(&limits(100), Some(100)).unwrap();
        check_limits(&limits(-1), Some(100)).unwrap();
        let error = check_limits(&limits(101), Some(100)).unwrap_err();
        assert_eq!(error.to_string(), "task: memory \"101\": the machine has less memory");
        assert!(machine_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
