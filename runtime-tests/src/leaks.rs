//! What is left of a test on the host: mounts, cgroups, processes, namespaces and files that carry its token.

use crate::{cgroup, command, events, needs};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Everything that is left of the test with this token, in words; empty when nothing is.
pub fn of(token: &str, state_roots: &[&Path], namespaces: &Namespaces) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(mounts(token).into_iter().map(|line| format!("mount: {line}")));
    left.extend(cgroup::named(token).into_iter().map(|path| format!("cgroup: {}", path.display())));
    left.extend(processes(token).into_iter().map(|(pid, why)| format!("process {pid}: {why}")));
    left.extend(namespaces.users());
    left.extend(sockets(token).into_iter().map(|line| format!("socket: {line}")));
    for root in state_roots {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        left.extend(entries.map(|entry| format!("file: {}", entry.path().display())));
    }
    for dir in ["/run/corten", "/run/corten/oci", "/dev/shm", "/run"] {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        left.extend(
            entries
                .filter(|entry| entry.file_name().to_string_lossy().contains(token))
                .map(|entry| format!("file: {}", entry.path().display())),
        );
    }
    left
}

/// Names in a directory; none if it is not there.
pub fn entries(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Pids of the processes that belong to a token, at this moment.
pub fn pids(token: &str) -> Vec<i32> {
    scan(token).into_iter().map(|(pid, _)| pid).collect()
}

/// Detaches every mount below a directory.
pub fn unmount(dir: &Path) {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let below = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    for point in below.filter(|point| Path::new(point).starts_with(dir)).collect::<Vec<_>>().into_iter().rev()
    {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What is left of a network: links that are attached to a bridge, and rules and elements of the firewall that name
/// the bridge or an address of its subnet `a.b.c.d/22`. The bridge itself stays for the next task.
pub fn network(bridge: &str, subnet: &str) -> Vec<String> {
    let mut left = Vec::new();
    let links = command::run(Command::new("ip").args(["-o", "link"])).ok().stdout;
    let attached = format!("master {bridge} ");
    left.extend(links.lines().filter(|line| line.contains(&attached)).map(|line| format!("link: {line}")));
    let rules = command::run(Command::new("nft").args(["list", "ruleset"])).ok().stdout;
    let parts: Vec<u8> = subnet.split(['.', '/']).map(|part| part.parse().expect("a number")).collect();
    let inside = |word: &str| {
        word.parse::<std::net::Ipv4Addr>().is_ok_and(|address| {
            let octets = address.octets();
            octets[..2] == parts[..2]
                && octets[2] & 0xfc == parts[2]
                && (octets[2], octets[3]) != (parts[2], 0)
        })
    };
    left.extend(
        rules
            .lines()
            .filter(|line| line.split(|c: char| !c.is_ascii_digit() && c != '.').any(inside))
            .map(|line| format!("firewall: {}", line.trim())),
    );
    left
}

/// Mounts of this mount namespace that name the token.
fn mounts(token: &str) -> Vec<String> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    mountinfo.lines().filter(|line| line.contains(token)).map(str::to_owned).collect()
}

/// Unix sockets whose name has the token; those that the test itself still holds are its own affair.
fn sockets(token: &str) -> Vec<String> {
    let fds = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let links = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let own: BTreeSet<_> = links.map(|link| link.display().to_string()).collect();
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    // `Num RefCount Protocol Flags Type St Inode Path`
    let held = |line: &str| {
        line.split_whitespace().nth(6).is_some_and(|inode| own.contains(&format!("socket:[{inode}]")))
    };
    table.lines().filter(|line| line.contains(token) && !held(line)).map(str::to_owned).collect()
}

/// Processes that belong to the token, by cgroup, environment, command line or a root in its directory. One
/// that was killed and is on its way out is waited for: what counts is that it goes without anybody's help.
pub fn processes(token: &str) -> Vec<(i32, String)> {
    let found = scan(token);
    let end = needs::stretched(Duration::from_secs(2));
    found.into_iter().filter(|(pid, _)| !events::process_end(*pid, end)).collect()
}

fn scan(token: &str) -> Vec<(i32, String)> {
    let own_mounts = std::fs::read_link("/proc/self/ns/mnt").ok();
    let mut found = Vec::new();
    for pid in all_pids() {
        let proc = std::path::PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        if pid == std::process::id().cast_signed() || is_zombie(pid) {
            continue;
        }
        let other_mounts = std::fs::read_link(proc.join("ns/mnt")).ok() != own_mounts;
        let files = ["cgroup", "environ", "cmdline", "mountinfo"];
        let file = files.iter().filter(|file| **file != "mountinfo" || other_mounts).find(|file| {
            std::fs::read(proc.join(file))
                .is_ok_and(|bytes| bytes.windows(token.len()).any(|window| window == token.as_bytes()))
        });
        if let Some(file) = file {
            let name = status.lines().next().unwrap_or_default().replace('\t', " ");
            found.push((pid, format!("{name}, found by its {file}")));
        }
    }
    found
}

fn is_zombie(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.is_empty() || status.contains("\nState:\tZ")
}

fn all_pids() -> Vec<i32> {
    std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Namespaces that a test has seen, kept open so that the kernel does not give their numbers to new ones.
#[derive(Debug, Default)]
pub struct Namespaces(BTreeMap<String, File>);

impl Namespaces {
    /// Adds the namespaces of a process that are not our own.
    pub fn add(&mut self, pid: i32) {
        let own = namespaces_of("self");
        for entry in std::fs::read_dir(format!("/proc/{pid}/ns")).into_iter().flatten().flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            let name =
                std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("own descriptor");
            let name = name.display().to_string();
            if !own.contains(&name) {
                self.0.insert(name, file);
            }
        }
    }

    /// Their names, as `net:[4026531840]`.
    pub fn names(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// Who else still holds one of them: by being in it, through a descriptor or through a mount.
    fn users(&self) -> Vec<String> {
        let mut users = Vec::new();
        if self.0.is_empty() {
            return users;
        }
        let own_exe = std::fs::read_link("/proc/self/exe").ok();
        for pid in all_pids() {
            // A child of another test's thread has our descriptors until it calls exec, and an orphan that
            // ended has a pid namespace until the host's init reaps it.
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
            if exe == own_exe || is_zombie(pid) {
                continue;
            }
            let held = namespaces_of(&pid.to_string());
            let inside = held.iter().filter(|name| self.0.contains_key(*name));
            users.extend(inside.map(|name| format!("namespace {name} of process {pid}")));
            for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                let target = std::fs::read_link(fd.path()).unwrap_or_default().display().to_string();
                if self.0.contains_key(&target) {
                    users.push(format!("namespace {target} in {}", fd.path().display()));
                }
            }
        }
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let mounted = mountinfo.lines().filter(|line| {
            line.contains(" - nsfs ") && self.0.keys().any(|name| line.contains(name.as_str()))
        });
        users.extend(mounted.map(|line| format!("namespace mount: {line}")));
        users
    }
}

/// The namespaces of a process, as `net:[4026531840]`.
fn namespaces_of(pid: &str) -> BTreeSet<String> {
    std::fs::read_dir(format!("/proc/{pid}/ns"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
        .collect()
}
