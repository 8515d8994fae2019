//! The processes of a container, wherever it has them.
use std::path::Path;

use super::cgroup::{self, Cgroup};
use super::state::State;

/// Pids of all processes of the container as this process sees them: those in its cgroups, or where it has none
/// (rootless), those in its own PID namespace.
///
/// # Errors
/// Those of the cgroups; [`cgroup::Error::None`] where nothing tells its processes from others.
pub fn pids(state: &State) -> Result<Vec<i32>, cgroup::Error> {
    let cgroup = Cgroup::open(&state.cgroup)?;
    if cgroup.exists() {
        return cgroup.pids();
    }
    let Some(init) = state.init else { return Ok(Vec::new()) };
    if !init.is_alive()? {
        return Ok(Vec::new());
    }
    let procfs = Path::new("/proc");
    let status = std::fs::read_to_string(procfs.join(format!("{}/status", init.pid)));
    if !status.is_ok_and(|status| is_first(&status)) {
        // It shares the namespace, with the host or with other containers.
        return Err(cgroup::Error::None { what: "process" });
    }
    Ok(in_pid_namespace_of(procfs, init.pid))
}

/// Whether a process with this `/proc/PID/status` is number 1 of a PID namespace (`NSpid:` ends with the number in
/// its own, proc_pid_status(5)).
fn is_first(status: &str) -> bool {
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| numbers.split_ascii_whitespace().next_back() == Some("1"))
}

/// Those below it in namespaces that the container makes itself are not among them: its own see them all.
fn in_pid_namespace_of(procfs: &Path, init: i32) -> Vec<i32> {
    let namespace = |pid: &str| std::fs::read_link(procfs.join(pid).join("ns/pid")).ok();
    let Some(wanted) = namespace(&init.to_string()) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(procfs) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // Whoever owns the container's user namespace may read the links of its processes (namespaces(7)).
    let mut pids: Vec<i32> = names
        .filter_map(|name| Some((name.parse().ok()?, namespace(&name)?)))
        .filter_map(|(pid, found)| (found == wanted).then_some(pid))
        .collect();
    pids.sort_unstable();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_one_has_a_namespace_to_itself() {
        assert!(is_first("Name:\tsh\nNSpid:\t4242\t7\t1\nNSpgid:\t9\n"));
        assert!(!is_first("NSpid:\t4242\t12\n"));
        assert!(!is_first("Name:\tsh\n"));
    }

    #[test]
    fn this_process_is_in_its_own_namespace() {
        let own = nix::unistd::getpid().as_raw();
        assert!(in_pid_namespace_of(Path::new("/proc"), own).contains(&own));
        assert!(in_pid_namespace_of(Path::new("/nowhere"), own).is_empty());
    }
}
