//! Giving a container's v2 cgroup to the container's user, who may then make cgroups below it (cgroup-v2.rst,
//! "Delegation"): an init like systemd in a user namespace needs that.
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::host::Mode;
use super::{Cgroup, Result};
use crate::sys::SysError;

/// The files that a delegate owns, as the kernel lists them since Linux 4.15.
const LIST: &str = "/sys/kernel/cgroup/delegate";
/// Those of before (cgroups(7)).
const FEW: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// The host's user whose the cgroup is to be, by runc's rule: the container has a cgroup namespace of its own and a
/// cgroup mount that it may write to, and its process is of a user that the host knows. `None` also for root, whose
/// it is anyway.
pub fn delegate_of(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let own = |one: &oci_spec::runtime::LinuxNamespace| {
        one.typ() == LinuxNamespaceType::Cgroup && one.path().is_none()
    };
    if !linux.namespaces().iter().flatten().any(own) {
        return None;
    }
    let writable = |mount: &oci_spec::runtime::Mount| {
        mount.typ().as_deref() == Some("cgroup")
            && !mount.options().iter().flatten().any(|option| option == "ro")
    };
    if !spec.mounts().iter().flatten().any(writable) {
        return None;
    }
    let user = spec.process().as_ref().map_or(0, |process| process.user().uid());
    let mappings = linux.uid_mappings().as_deref().unwrap_or_default();
    let host = if mappings.is_empty() {
        Some(user)
    } else {
        mappings.iter().find_map(|mapping| {
            let offset = user.checked_sub(mapping.container_id())?;
            (offset < mapping.size()).then(|| mapping.host_id().checked_add(offset))?
        })
    };
    host.filter(|host| *host != 0)
}

impl Cgroup {
    /// Makes a user of the host the owner of the container's v2 cgroup, and of the files by which cgroups below it
    /// are made and filled. Limits stay root's. Nothing on v1 and hybrid hosts, as with runc.
    ///
    /// # Errors
    /// Those of fchownat(2).
    pub fn delegate(&self, owner: u32) -> Result<()> {
        let Some(dir) = self.v2().filter(|_| self.mode == Mode::Unified) else { return Ok(()) };
        let list = std::fs::read_to_string(LIST).unwrap_or_else(|_| FEW.to_owned());
        let owner = Some(Uid::from_raw(owner));
        for file in std::iter::once(".").chain(list.lines()) {
            match fchownat(dir.fd(), file, owner, None, AtFlags::AT_SYMLINK_NOFOLLOW) {
                // The list is the kernel's for all controllers.
                Err(Errno::ENOENT) => {}
                other => other.map_err(|errno| SysError::on("fchownat", dir.name(file))(errno))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(json: &str) -> Option<u32> {
        delegate_of(&serde_json::from_str(json).unwrap())
    }

    fn spec(namespaces: &str, options: &str, uid: u32, mappings: &str) -> String {
        format!(
            r#"{{"ociVersion": "1.2.0", "process": {{"cwd": "/", "user": {{"uid": {uid}, "gid": 0}}}},
                "mounts": [{{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": [{options}]}}],
                "linux": {{"namespaces": [{namespaces}], "uidMappings": [{mappings}]}}}}"#
        )
    }

    #[test]
    fn a_writable_cgroup_goes_to_the_user_of_the_process() {
        const OWN: &str = r#"{"type": "cgroup"}"#;
        const MAPPED: &str = r#"{"containerID": 0, "hostID": 100000, "size": 1000}"#;
        assert_eq!(owner(&spec(OWN, r#""rw""#, 0, MAPPED)), Some(100_000));
        assert_eq!(owner(&spec(OWN, "", 999, MAPPED)), Some(100_999));
        assert_eq!(owner(&spec(OWN, "", 1000, MAPPED)), None, "unmapped");
        assert_eq!(owner(&spec(OWN, "", 7, "")), Some(7));
        assert_eq!(owner(&spec(OWN, "", 0, "")), None, "root's already");
        assert_eq!(owner(&spec(OWN, r#""ro""#, 0, MAPPED)), None);
        assert_eq!(owner(&spec("", "", 0, MAPPED)), None);
        assert_eq!(owner(&spec(r#"{"type": "cgroup", "path": "/proc/1/ns/cgroup"}"#, "", 0, MAPPED)), None);
    }
}
