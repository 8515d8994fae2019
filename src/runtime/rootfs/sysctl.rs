//! Sysctls: which a container may set, and how they are written.
use super::prepare::Prepared;
use super::{Result, RootfsError};
use crate::sys::SysError;
use crate::sys::mount::{Attr, FsContext};
use crate::sys::root::open_same_mount;
use nix::fcntl::OFlag;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

/// A sysctl that may be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sysctl {
    /// As written in config.json.
    key: String,
    /// Relative to the root of procfs.
    path: PathBuf,
    value: String,
}

/// Which namespaces are the container's own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Namespaces {
    pub(super) ipc: bool,
    pub(super) network: bool,
    pub(super) uts: bool,
    pub(super) user: bool,
}

const IPC: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// The longest value, a page: what one write to procfs takes.
const MAX_VALUE: usize = 4096;

/// The sysctls of config.json in the order of their keys.
///
/// # Errors
/// A key outside the container's own namespaces would change the host.
pub(super) fn plan(wanted: Option<&HashMap<String, String>>, own: &Namespaces) -> Result<Vec<Sysctl>> {
    let mut sysctls = Vec::new();
    for (key, value) in wanted.into_iter().flatten() {
        let refuse = |reason| RootfsError::Sysctl { key: key.clone(), reason };
        let components = split(key).ok_or_else(|| refuse("malformed key"))?;
        check(&components.join("."), own).map_err(refuse)?;
        if value.len() > MAX_VALUE || value.chars().any(|char| char.is_control() && char != '\t') {
            return Err(refuse("the value is too long or has control characters"));
        }
        let path = ["sys"].into_iter().chain(components.iter().map(String::as_str)).collect();
        sysctls.push(Sysctl { key: key.clone(), path, value: value.clone() });
    }
    sysctls.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(sysctls)
}

/// The components of a key. As in sysctl(8) the first of `.` and `/` separates, and the other one stands for
/// it within a component: `net.ipv4.conf.eth0/1.forwarding` is of the interface `eth0.1`.
pub fn split(key: &str) -> Option<Vec<String>> {
    let separator = key.chars().find(|char| matches!(char, '.' | '/'))?;
    let allowed =
        |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/' | ':' | '@');
    if !key.chars().all(allowed) {
        return None;
    }
    let components: Vec<String> = key
        .split(separator)
        .map(|component| if separator == '.' { component.replace('/', ".") } else { component.to_owned() })
        .collect();
    let valid = |component: &String| !matches!(component.as_str(), "" | "." | "..");
    components.iter().all(valid).then_some(components)
}

/// The rules of runc's validator: only what the kernel keeps for each namespace.
fn check(key: &str, own: &Namespaces) -> std::result::Result<(), &'static str> {
    if IPC.contains(&key) || key.starts_with("fs.mqueue.") {
        return if own.ipc { Ok(()) } else { Err("not allowed in the host's ipc namespace") };
    }
    if key.starts_with("net.") {
        return if own.network { Ok(()) } else { Err("not allowed in the host's network namespace") };
    }
    if key.starts_with("user.") {
        return if own.user { Ok(()) } else { Err("not allowed in the host's user namespace") };
    }
    match key {
        "kernel.domainname" if own.uts => Ok(()),
        "kernel.hostname" if own.uts => Err("use the field hostname of config.json"),
        _ => Err("not in a namespace of its own"),
    }
}

/// Writes all of them.
pub(super) fn write(sysctls: &[Sysctl], prepared: &Prepared) -> Result<()> {
    let Some(first) = sysctls.first() else { return Ok(()) };
    let private;
    let proc = match prepared.proc() {
        Some(proc) => proc,
        None => {
            // A procfs of our own, which nobody can have mounted anything over.
            private = FsContext::open("proc")
                .and_then(|context| context.mount(Attr::empty()))
                .map_err(|source| RootfsError::WriteSysctl { key: first.key.clone(), source })?;
            private.as_fd()
        }
    };
    for sysctl in sysctls {
        write_one(proc, sysctl)
            .map_err(|source| RootfsError::WriteSysctl { key: sysctl.key.clone(), source })?;
    }
    Ok(())
}

/// `proc` is the root of a procfs mount. Neither a link nor another mount is entered on the way: the image
/// may have had something put over /proc/sys (CVE-2025-52881).
fn write_one(proc: BorrowedFd<'_>, sysctl: &Sysctl) -> std::result::Result<(), SysError> {
    let file = open_same_mount(proc, &sysctl.path, OFlag::O_WRONLY)?;
    nix::unistd::write(&file, sysctl.value.as_bytes())
        .map(drop)
        .map_err(SysError::on("write", sysctl.path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Namespaces = Namespaces { ipc: true, network: true, uts: true, user: true };
    const NONE: Namespaces = Namespaces { ipc: false, network: false, uts: false, user: false };

    fn plan_one(key: &str, own: &Namespaces) -> Result<Vec<Sysctl>> {
        plan(Some(&HashMap::from([(key.to_owned(), "1".to_owned())])), own)
    }

    #[test]
    fn namespaced_keys() {
        let table = [
            ("kernel.shmmax", "sys/kernel/shmmax"),
            ("kernel.sem", "sys/kernel/sem"),
            ("fs.mqueue.msg_max", "sys/fs/mqueue/msg_max"),
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
            ("net.ipv4.conf.eth0/1.forwarding", "sys/net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.domainname", "sys/kernel/domainname"),
            ("user.max_user_namespaces", "sys/user/max_user_namespaces"),
        ];
        for (key, path) in table {
            assert_eq!(plan_one(key, &ALL).unwrap()[0].path, PathBuf::from(path), "{key}");
            assert!(plan_one(key, &NONE).is_err(), "{key}");
        }
    }

    #[test]
    fn what_would_change_the_host_is_refused() {
        for key in [
            "kernel.hostname",
            "kernel.core_pattern",
            "kernel/core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "net",
            "kernel",
            "",
            ".net.x",
            "net..x",
            "net.ipv4/..",
            "net/../kernel/core_pattern",
            "net.ipv4.x\n",
            "net.ipv4.x=1",
            "net.+x",
        ] {
            assert!(plan_one(key, &ALL).is_err(), "{key:?}");
        }
    }

    #[test]
    fn values_are_one_line() {
        for value in ["1\n2", "a\0b", &"x".repeat(5000)] {
            let wanted = HashMap::from([("kernel.sem".to_owned(), value.to_owned())]);
            assert!(plan(Some(&wanted), &ALL).is_err(), "{value:?}");
        }
        let wanted = HashMap::from([("kernel.sem".to_owned(), "250\t32000 32 128".to_owned())]);
        assert!(plan(Some(&wanted), &ALL).is_ok());
    }
}
