//! The prepared tree becomes "/".
use super::plan::{RootChange, RootfsPlan};
use super::prepare::Prepared;
use super::{Result, RootfsError};
use crate::sys::SysError;
use crate::sys::mount::{Propagation, change_root, detach_path, move_root, pivot_root, set_root_propagation};
use crate::sys::root::read_bounded;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Changes the root, and the working directory to it. The host's tree is gone afterwards; what was opened
/// in it before stays open.
pub fn pivot(plan: &RootfsPlan, prepared: &Prepared) -> Result<()> {
    let root = prepared.root().as_fd();
    let failed = |action| RootfsError::root(action, plan.rootfs());
    match plan.change {
        RootChange::Pivot => pivot_root(root).map_err(failed("change the root to"))?,
        RootChange::Move => {
            hide_kernel_file_systems(prepared)?;
            move_root(root).map_err(failed("move the root to"))?;
        }
        RootChange::Chroot => change_root(root).map_err(failed("change the root to"))?,
    }
    // Only now, because before it would have been the host's root that becomes shared. Private is what the
    // mounts above the root were made for the pivot, and unbindable it becomes when nothing is to be bound any more.
    if let Some((propagation, scope)) = plan.propagation
        && !matches!(propagation, Propagation::Private | Propagation::Unbindable)
        && !plan.shares_mounts()
    {
        set_root_propagation(propagation, scope)
            .map_err(RootfsError::root("set the propagation of", Path::new("/")))?;
    }
    Ok(())
}

/// Unmounts procfs and sysfs of the host: after a move the old root is still there below the new one, and a
/// process that finds a way to it would find them unmasked (as runc does for --no-pivot).
fn hide_kernel_file_systems(prepared: &Prepared) -> Result<()> {
    let table = read_to_limit(MOUNTS).map_err(RootfsError::root("read", Path::new(MOUNTS)))?;
    let ours = prepared.root_path();
    // The last one mounted comes off first.
    for (mount_point, fstype) in table.lines().rev().filter_map(parse_mount) {
        if matches!(fstype, "proc" | "sysfs") && !mount_point.starts_with(ours) {
            detach_path(&mount_point).map_err(RootfsError::root("unmount", &mount_point))?;
        }
    }
    Ok(())
}

/// The mount table of this namespace: proc_pid_mountinfo(5).
const MOUNTS: &str = "/proc/self/mountinfo";
/// The kernel allows 100,000 mounts in a namespace (fs.mount-max).
const MAX_MOUNTS: usize = 64 << 20;

fn read_to_limit(path: &str) -> std::result::Result<String, SysError> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let file = nix::fcntl::open(path, flags, Mode::empty()).map_err(SysError::on("open", path))?;
    let table = read_bounded(&file, MAX_MOUNTS).map_err(SysError::on("read", path))?;
    Ok(String::from_utf8_lossy(&table).into_owned())
}

/// `36 35 98:0 / MOUNT_POINT rw,noatime shared:1 - FSTYPE SOURCE OPTIONS`
fn parse_mount(line: &str) -> Option<(PathBuf, &str)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mount_point = mount.split(' ').nth(4)?;
    Some((unescape(mount_point), file_system.split(' ').next()?))
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescape(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(code, 8) {
            Ok(byte) => path.push(char::from(byte)),
            Err(_) => path.push_str(code),
        }
        path.push_str(rest);
    }
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_table() {
        let line = r"22 27 0:21 / /mnt/a\040b\134c rw,relatime shared:5 master:1 - proc proc rw";
        assert_eq!(parse_mount(line), Some((PathBuf::from(r"/mnt/a b\c"), "proc")));
        assert_eq!(parse_mount("22 27 0:21 / /sys rw - sysfs sysfs rw"), Some(("/sys".into(), "sysfs")));
        assert_eq!(parse_mount("nonsense"), None);
    }
}
