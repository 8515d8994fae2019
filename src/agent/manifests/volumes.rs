//! The volumes of a pod on the host: made before its containers, gone after its task.
//!
//! ```text
//! <root>/agent/pods/<task's name>/
//!   volumes/<name>                 an emptyDir, or a tmpfs on it
//!   sub-paths/<container>/<index>  a path in a volume, mounted here by a descriptor
//! ```
//! A container can change what lies in a volume at any time, so that a path in it is resolved once, inside of the
//! volume, and what was found is mounted at a place that no container can change (CVE-2021-25741).
use super::error::ManifestError;
use super::plan::PodDirectory;
use super::pod::{EmptyDir, HostPath, HostPathType, Medium, Pod, Volume};
use super::quantity::Unit;
use crate::engine::record::private_directory;
use crate::sys::mount::{self, Attr, FsContext, Scope};
use crate::sys::root::{Root, create_file};
use crate::sys::{SysError, tree};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// The root of an emptyDir can be written by every user, as a kubelet has it.
const OPEN: Mode = Mode::from_bits_truncate(0o777);

impl PodDirectory {
    /// Makes what the pod's containers will mount; what is there already stays.
    ///
    /// # Errors
    /// A path of the host is not what the pod says, or something cannot be made.
    pub fn prepare(&self, pod: &Pod) -> Result<(), ManifestError> {
        for volume in &pod.spec.volumes {
            let failed = |source| ManifestError::Volume { volume: volume.name.clone(), source };
            match (&volume.host_path, &volume.empty_dir) {
                (Some(host), _) => host_path(volume, host)?,
                (None, Some(empty)) => self.empty_dir(volume, empty).map_err(failed)?,
                // The parser wants one of the two.
                (None, None) => {}
            }
        }
        let all = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        for container in all {
            for (index, mount) in container.volume_mounts.iter().enumerate() {
                let volume = pod.spec.volumes.iter().find(|volume| volume.name == mount.name);
                let (Some(volume), Some(path)) = (volume, mount.sub_path.as_deref()) else { continue };
                if path.is_empty() {
                    continue;
                }
                let whole = match &volume.host_path {
                    Some(host) => Path::new(&host.path).to_owned(),
                    None => self.volume(&volume.name),
                };
                self.mount_part(&whole, path, &self.sub_path(&container.name, index))
                    .map_err(|source| ManifestError::Volume { volume: volume.name.clone(), source })?;
            }
        }
        Ok(())
    }

    fn empty_dir(&self, volume: &Volume, empty: &EmptyDir) -> Result<(), SysError> {
        let path = self.volume(&volume.name);
        let made = directory(&path, OPEN)?;
        if empty.medium == Medium::Memory && !is_mount_point(&path)? {
            let tmpfs = FsContext::open("tmpfs")?;
            tmpfs.set_string("mode", "0777")?;
            if let Some(limit) = empty.size_limit.as_ref().and_then(|limit| limit.amount(Unit::One)) {
                tmpfs.set_string("size", &limit.to_string())?;
            }
            let mounted = tmpfs.mount(Attr::NOSUID | Attr::NODEV)?;
            mount::move_mount(mounted.as_fd(), made.as_fd(), &path.display().to_string())?;
        }
        Ok(())
    }

    /// Mounts `path` of the volume `whole` at `target`; a directory is made if there is nothing.
    fn mount_part(&self, whole: &Path, path: &str, target: &Path) -> Result<(), SysError> {
        if target.symlink_metadata().is_ok() && is_mount_point(target)? {
            return Ok(());
        }
        let volume = Root::open_host(whole)?;
        let inside = Path::new(path);
        let part = match volume.open(inside, OFlag::O_PATH) {
            Err(SysError { errno: Errno::ENOENT, .. }) => {
                volume.mkdir_all(inside, Mode::from_bits_truncate(0o755))?
            }
            other => other?,
        };
        let is_directory = kind(&part)? == SFlag::S_IFDIR;
        let place = match (target.parent(), target.file_name()) {
            (Some(parent), Some(name)) if !is_directory => {
                let parent = directory(parent, Mode::from_bits_truncate(0o700))?;
                match create_file(
                    parent.as_fd(),
                    Path::new(name),
                    OFlag::O_WRONLY,
                    Mode::from_bits_truncate(0o600),
                ) {
                    Err(SysError { errno: Errno::EEXIST, .. }) => {}
                    other => drop(other?),
                }
                Root::new(parent).open_no_follow(Path::new(name), OFlag::O_PATH)?
            }
            _ => directory(target, Mode::from_bits_truncate(0o700))?,
        };
        let copy = mount::clone_fd(part.as_fd(), path, Scope::Tree)?;
        mount::move_mount(copy.as_fd(), place.as_fd(), &target.display().to_string())
    }

    /// Removes all of it; no container has it mounted any more.
    ///
    /// # Errors
    /// Something cannot be unmounted or removed.
    pub fn remove(&self) -> Result<(), SysError> {
        for mounted in mounts_below(&self.0)? {
            match mount::detach_path(Path::new(&mounted)) {
                // Somebody was faster.
                Err(SysError { errno: Errno::EINVAL | Errno::ENOENT, .. }) => {}
                other => other?,
            }
        }
        let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name()) else { return Ok(()) };
        let parent = match File::open(parent) {
            Ok(parent) => parent,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(SysError::io("open", parent.display().to_string())(error)),
        };
        match tree::remove(parent.as_fd(), Path::new(name)) {
            Err(SysError { errno: Errno::ENOENT, .. }) => Ok(()),
            other => other,
        }
    }
}

/// Opens a directory of ours, whose parents only root enters; made if absent, then with this mode.
fn directory(path: &Path, mode: Mode) -> Result<OwnedFd, SysError> {
    if let Some(parent) = path.parent() {
        private_directory(parent).map_err(|error| match error {
            crate::engine::EngineError::Sys(error) => error,
            _ => SysError::on("mkdir", parent.display().to_string())(Errno::EIO),
        })?;
    }
    let shown = path.display().to_string();
    let made = match nix::unistd::mkdir(path, mode) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(SysError::on("mkdir", shown)(errno)),
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened =
        nix::fcntl::open(path, flags, Mode::empty()).map_err(SysError::on("open", shown.as_str()))?;
    if made {
        // Whatever the umask is.
        nix::sys::stat::fchmod(&opened, mode).map_err(SysError::on("fchmod", shown))?;
    }
    Ok(opened)
}

fn kind(fd: &OwnedFd) -> Result<SFlag, SysError> {
    let status = fstat(fd).map_err(SysError::on("fstat", ""))?;
    Ok(SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT)
}

fn is_mount_point(path: &Path) -> Result<bool, SysError> {
    Ok(mounts_below(path)?.iter().any(|mounted| Path::new(mounted) == path))
}

/// Mount points at `directory` and below it, the innermost first.
fn mounts_below(directory: &Path) -> Result<Vec<String>, SysError> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(SysError::io("read", "/proc/self/mountinfo"))?;
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(unescape))
        .filter(|point| Path::new(point).starts_with(directory))
        .collect();
    found.reverse();
    Ok(found)
}

/// Blanks and backslashes are written as three octal digits (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(code.map_or('\\', char::from));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    out.push_str(rest);
    out
}

/// Looks at a path of the host, and makes it where the pod says so; the host's paths are the administrator's.
fn host_path(volume: &Volume, host: &HostPath) -> Result<(), ManifestError> {
    let path = Path::new(&host.path);
    let wrong =
        |reason| ManifestError::HostPath { volume: volume.name.clone(), path: host.path.clone(), reason };
    let failed = |source| ManifestError::Volume { volume: volume.name.clone(), source };
    match host.kind {
        HostPathType::DirectoryOrCreate if std::fs::metadata(path).is_err() => {
            use std::os::unix::fs::DirBuilderExt;
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
            made.map_err(|error| failed(SysError::io("mkdir", host.path.clone())(error)))?;
        }
        HostPathType::FileOrCreate if std::fs::metadata(path).is_err() => {
            use std::os::unix::fs::OpenOptionsExt;
            let made =
                std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
            made.map_err(|error| failed(SysError::io("open", host.path.clone())(error)))?;
        }
        _ => {}
    }
    let found = std::fs::metadata(path).map_err(|_| wrong("is not there"))?.file_type();
    let (holds, reason) = match host.kind {
        HostPathType::Any => (true, ""),
        HostPathType::Directory | HostPathType::DirectoryOrCreate => (found.is_dir(), "is no directory"),
        HostPathType::File | HostPathType::FileOrCreate => (found.is_file(), "is no file"),
        HostPathType::Socket => (found.is_socket(), "is no socket"),
        HostPathType::CharDevice => (found.is_char_device(), "is no character device"),
        HostPathType::BlockDevice => (found.is_block_device(), "is no block device"),
    };
    if holds { Ok(()) } else { Err(wrong(reason)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), r"/a b\c");
        assert_eq!(unescape(r"/a\x"), r"/a\x");
    }
}
