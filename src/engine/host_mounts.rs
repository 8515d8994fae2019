//! Whether the paths of the host that a task's container mounts can be mounted as it asks.
use super::error::EngineError;
use super::launch::read_bounded;
use super::options::{HostMount, Propagation};
use crate::sys::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// The kernel allows 100,000 mounts in a namespace (fs.mount-max).
const MAX_TABLE: u64 = 64 << 20;

/// # Errors
/// A source that is not there; one whose mount is not shared where mounts are to come out of the container.
pub(super) fn check(mounts: &[HostMount]) -> Result<(), EngineError> {
    for mount in mounts {
        let shown = mount.source.display().to_string();
        let wrong = |reason| EngineError::Flag { flag: "--mount", value: shown.clone(), reason };
        if !mount.source.is_absolute() || !Path::new(&mount.destination).is_absolute() {
            return Err(wrong("a mount's two paths are absolute"));
        }
        let source = match open(&mount.source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT) => return Err(wrong("there is no such path on the host")),
            other => other.map_err(SysError::on("open", shown.as_str()))?,
        };
        if mount.propagation == Propagation::Bidirectional && !is_shared(&source)? {
            return Err(wrong(
                "its mount is not shared, so that mounts of the container cannot come out of it; \
                 make it so with `mount --make-rshared`",
            ));
        }
    }
    Ok(())
}

fn is_shared(file: &OwnedFd) -> Result<bool, EngineError> {
    let info = read_bounded(Path::new(&format!("/proc/self/fdinfo/{}", file.as_raw_fd())), 4096)?;
    let table = read_bounded(Path::new("/proc/self/mountinfo"), MAX_TABLE)?;
    let id = String::from_utf8_lossy(&info)
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:").map(|id| id.trim().to_owned()));
    Ok(id.is_some_and(|id| shared(&String::from_utf8_lossy(&table), &id)))
}

/// Whether the mount of this id has a peer group (proc_pid_mountinfo(5): optional fields end with a hyphen).
fn shared(table: &str, id: &str) -> bool {
    table
        .lines()
        .map(|line| line.split(' '))
        .find_map(|mut fields| (fields.next() == Some(id)).then_some(fields))
        .is_some_and(|fields| {
            fields.skip(5).take_while(|field| *field != "-").any(|field| field.starts_with("shared:"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_groups_are_in_the_optional_fields() {
        let table = "29 1 8:1 / / rw,relatime - ext4 /dev/shared:1 rw\n\
                     30 29 0:26 / /run rw shared:7 master:2 - tmpfs tmpfs rw\n";
        assert!(!shared(table, "29"));
        assert!(shared(table, "30"));
        assert!(!shared(table, "31"));
    }

    #[test]
    fn sources_are_there() {
        let mount = |source: &str| HostMount {
            source: source.into(),
            destination: "/x".into(),
            access: crate::engine::options::MountAccess::ReadOnly,
            propagation: Propagation::HostToContainer,
        };
        check(&[mount("/etc")]).unwrap();
        assert!(check(&[mount("/does/not/exist")]).unwrap_err().to_string().contains("/does/not/exist"));
        check(&[mount("etc")]).unwrap_err();
    }
}
