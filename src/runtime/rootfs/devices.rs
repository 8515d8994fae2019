//! Device nodes and the links in /dev.
use super::destination::MountTable;
use super::plan::{RootfsPlan, clean};
use super::{Result, RootfsError};
use crate::sys::SysError;
use crate::sys::mount::{self, Scope};
use crate::sys::root;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, makedev, minor, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A node to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceNode {
    /// Relative to the root, clean.
    path: PathBuf,
    kind: SFlag,
    mode: Mode,
    major: u64,
    minor: u64,
    owner: Uid,
    group: Gid,
}

/// runtime-spec, config-linux.md "Default Devices".
const DEFAULTS: [(&str, u64, u64); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

/// runtime-spec, runtime-linux.md "Dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The kernel's limits of a device number (include/linux/kdev_t.h).
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// The default nodes that config.json does not describe itself, and its own.
pub(super) fn plan(wanted: &[LinuxDevice]) -> Result<Vec<DeviceNode>> {
    let own = wanted
        .iter()
        // Always the link to the container's own devpts.
        .filter(|device| clean(device.path()) != Path::new("dev/ptmx"))
        .map(plan_one)
        .collect::<Result<Vec<_>>>()?;
    let mut nodes: Vec<DeviceNode> = DEFAULTS
        .iter()
        .filter(|(path, ..)| !own.iter().any(|node| node.path == Path::new(path)))
        .map(|&(path, major, minor)| DeviceNode {
            path: path.into(),
            kind: SFlag::S_IFCHR,
            mode: Mode::from_bits_truncate(0o666),
            major,
            minor,
            owner: Uid::from_raw(0),
            group: Gid::from_raw(0),
        })
        .collect();
    nodes.extend(own);
    Ok(nodes)
}

fn plan_one(device: &LinuxDevice) -> Result<DeviceNode> {
    let invalid = |reason| RootfsError::InvalidDevice { path: device.path().clone(), reason };
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => return Err(invalid("its type must be one of b, c, u and p")),
    };
    let path = clean(device.path());
    if path.as_os_str().is_empty() {
        return Err(invalid("the path is empty"));
    }
    let number = |value: i64, max: i64| {
        u64::try_from(value).ok().filter(|_| value <= max).ok_or_else(|| invalid("no such device number"))
    };
    let (major, minor) = match kind {
        SFlag::S_IFIFO => (0, 0),
        _ => (number(device.major(), MAX_MAJOR)?, number(device.minor(), MAX_MINOR)?),
    };
    Ok(DeviceNode {
        path,
        kind,
        mode: Mode::from_bits_truncate(device.file_mode().unwrap_or(0o666) & 0o7777),
        major,
        minor,
        owner: Uid::from_raw(device.uid().unwrap_or(0)),
        group: Gid::from_raw(device.gid().unwrap_or(0)),
    })
}

/// Makes the nodes and the links, unless the bundle binds a directory on /dev. The umask is 0.
pub(super) fn create(plan: &RootfsPlan, table: &MountTable) -> Result<()> {
    if !plan.fill_dev {
        return Ok(());
    }
    let opened;
    let dev = match table.at(Path::new("dev")) {
        Some((dev, _)) => dev,
        None => {
            opened = table.directory(Path::new("dev"))?;
            opened.fd.as_fd()
        }
    };
    for node in &plan.devices {
        node.create_in(dev, plan.user_namespace, table)?;
    }
    for (name, target) in LINKS {
        link(dev, name, target)?;
    }
    if nix::unistd::access("/proc/kcore", nix::unistd::AccessFlags::F_OK).is_ok() {
        link(dev, "core", "/proc/kcore")?;
    }
    link_ptmx(dev)
}

fn link(dev: BorrowedFd<'_>, name: &str, target: &str) -> Result<()> {
    match symlinkat(target, dev, name) {
        // The image's own; a program in the container could have made it just as well.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(RootfsError::device(&in_dev(name))(SysError::on("symlinkat", name)(errno))),
    }
}

/// `ptmx` leads to the multiplexer of the container's own devpts, whatever the image has there.
fn link_ptmx(dev: BorrowedFd<'_>) -> Result<()> {
    let failed = |call| move |errno| RootfsError::device(&in_dev("ptmx"))(SysError::on(call, "ptmx")(errno));
    match symlinkat("pts/ptmx", dev, "ptmx") {
        Err(Errno::EEXIST) => {
            unlinkat(dev, "ptmx", UnlinkatFlags::NoRemoveDir).map_err(failed("unlinkat"))?;
            symlinkat("pts/ptmx", dev, "ptmx").map_err(failed("symlinkat"))
        }
        result => result.map_err(failed("symlinkat")),
    }
}

impl DeviceNode {
    /// Its path in the container.
    fn absolute(&self) -> PathBuf {
        Path::new("/").join(&self.path)
    }

    fn create_in(&self, dev: BorrowedFd<'_>, user_namespace: bool, table: &MountTable) -> Result<()> {
        let failed = |error| RootfsError::device(&self.absolute())(error);
        let mut components = self.path.components();
        let in_dev = components.next().is_some_and(|first| first.as_os_str() == "dev")
            && components.clone().count() == 1;
        if in_dev {
            return self.create(dev, components.as_path(), user_namespace);
        }
        let parent = table.directory(self.path.parent().unwrap_or(Path::new("")))?;
        let name = self
            .path
            .file_name()
            .ok_or(Errno::EINVAL)
            .map_err(SysError::on("mknodat", ""))
            .map_err(failed)?;
        self.create(parent.fd.as_fd(), Path::new(name), user_namespace)
    }

    fn create(&self, dir: BorrowedFd<'_>, name: &Path, user_namespace: bool) -> Result<()> {
        let failed = |call| {
            move |errno| {
                RootfsError::device(&self.absolute())(SysError::on(call, self.path.display().to_string())(
                    errno,
                ))
            }
        };
        // mknod(2) of a device needs CAP_MKNOD in the initial user namespace.
        if user_namespace && self.kind != SFlag::S_IFIFO {
            return self.bind_from_host(dir, name);
        }
        match mknodat(dir, name, self.kind, self.mode, makedev(self.major, self.minor)) {
            Ok(()) => {}
            Err(Errno::EPERM) => return self.bind_from_host(dir, name),
            Err(Errno::EEXIST) => return self.check_existing(dir, name),
            Err(errno) => return Err(failed("mknodat")(errno)),
        }
        if self.owner.is_root() && self.group.as_raw() == 0 {
            return Ok(());
        }
        fchownat(dir, name, Some(self.owner), Some(self.group), AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(failed("fchownat"))
    }

    /// Something of that name is in the image's own /dev: it must be this very device, and is left as it is.
    fn check_existing(&self, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
        let failed = |error| RootfsError::device(&self.absolute())(error);
        let found = root::open_beneath(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW);
        let found = match found {
            Err(error) if error.errno == Errno::ELOOP => return Err(self.wrong()),
            result => result.map_err(failed)?,
        };
        let stat =
            fstat(&found).map_err(SysError::on("fstat", self.path.display().to_string())).map_err(failed)?;
        if self.is(&stat) { Ok(()) } else { Err(self.wrong()) }
    }

    fn is(&self, stat: &FileStat) -> bool {
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let number = self.kind == SFlag::S_IFIFO || stat.st_rdev == makedev(self.major, self.minor);
        kind == self.kind && number
    }

    fn wrong(&self) -> RootfsError {
        let kind = match self.kind {
            SFlag::S_IFBLK => 'b',
            SFlag::S_IFIFO => 'p',
            _ => 'c',
        };
        RootfsError::WrongDevice { path: self.absolute(), kind, major: self.major, minor: self.minor }
    }

    /// Binds the host's node of the same path, if it is the same device.
    fn bind_from_host(&self, dir: BorrowedFd<'_>, name: &Path) -> Result<()> {
        let failed = |error| RootfsError::device(&self.absolute())(error);
        let text = self.path.display().to_string();
        let mount = mount::clone_tree(AT_FDCWD, &self.absolute(), Scope::Mount).map_err(failed)?;
        let stat = fstat(&mount).map_err(SysError::on("fstat", text.as_str())).map_err(failed)?;
        if !self.is(&stat) {
            return Err(self.wrong());
        }
        let place = file_in(dir, name).map_err(failed)?;
        mount::move_mount(mount.as_fd(), place.as_fd(), &text).map_err(failed)
    }
}

/// The file `name` of `dir` to mount on, made where it is missing; a symbolic link there is an error.
pub(super) fn file_in(dir: BorrowedFd<'_>, name: &Path) -> std::result::Result<OwnedFd, SysError> {
    match root::create_file(dir, name, OFlag::O_WRONLY, Mode::from_bits_truncate(0o666)) {
        Err(error) if error.errno == Errno::EEXIST => root::open_beneath(dir, name, OFlag::O_PATH),
        result => result,
    }
}

/// A detached bind mount of the host's /dev/null, verified: an image may have anything else at that path,
/// and what is bound over a masked file would be its choice then (CVE-2025-31133).
pub(super) fn host_null() -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let failed = |error| RootfsError::root("open", path)(error);
    let null = mount::clone_tree(AT_FDCWD, path, Scope::Mount).map_err(failed)?;
    let stat = fstat(&null).map_err(SysError::on("fstat", "/dev/null")).map_err(failed)?;
    let is_character = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR;
    if is_character && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) {
        Ok(null)
    } else {
        Err(RootfsError::WrongDevice { path: path.to_owned(), kind: 'c', major: 1, minor: 3 })
    }
}

fn in_dev(name: &str) -> PathBuf {
    Path::new("/dev").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceBuilder;

    fn device(path: &str, typ: LinuxDeviceType, major: i64, minor: i64) -> LinuxDevice {
        LinuxDeviceBuilder::default().path(path).typ(typ).major(major).minor(minor).build().unwrap()
    }

    #[test]
    fn defaults_and_own() {
        let nodes = plan(&[]).unwrap();
        assert_eq!(nodes.len(), 6);
        let own = [
            device("/dev/null", LinuxDeviceType::C, 1, 3),
            device("/dev/ptmx", LinuxDeviceType::C, 5, 2),
            device("/dev/../dev//sda", LinuxDeviceType::B, 8, 0),
            device("/run/pipe", LinuxDeviceType::P, -1, -1),
        ];
        let nodes = plan(&own).unwrap();
        let paths: Vec<_> = nodes.iter().map(|node| node.path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "dev/zero",
                "dev/full",
                "dev/random",
                "dev/urandom",
                "dev/tty",
                "dev/null",
                "dev/sda",
                "run/pipe"
            ]
        );
        assert_eq!(nodes[6].kind, SFlag::S_IFBLK);
    }

    #[test]
    fn malformed_devices() {
        for device in [
            device("/", LinuxDeviceType::C, 1, 3),
            device("/dev/x", LinuxDeviceType::A, 1, 3),
            device("/dev/x", LinuxDeviceType::C, -1, 3),
            device("/dev/x", LinuxDeviceType::C, 4096, 3),
            device("/dev/x", LinuxDeviceType::B, 1, 1 << 20),
        ] {
            assert!(plan(std::slice::from_ref(&device)).is_err(), "{device:?}");
        }
    }

    /// CVE-2025-31133, CVE-2026-88265: the image's /dev/null is something else.
    #[test]
    fn what_is_there_must_be_the_device() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", dir.path().join("link")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        let handle = root::Root::open_host(dir.path()).unwrap();
        let node = &plan(&[]).unwrap()[0];
        for name in ["link", "file", "fifo"] {
            let error = node.check_existing(handle.as_fd(), Path::new(name)).unwrap_err();
            assert!(matches!(error, RootfsError::WrongDevice { .. }), "{name}: {error}");
        }
        assert!(file_in(handle.as_fd(), Path::new("link")).is_err());
        let host = root::Root::open_host(Path::new("/dev")).unwrap();
        node.check_existing(host.as_fd(), Path::new("null")).unwrap();
        assert!(node.check_existing(host.as_fd(), Path::new("zero")).is_err());
    }
}
