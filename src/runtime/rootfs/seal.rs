//! The last steps, when the tree is "/": nothing of the host is reachable any more.
use super::mounts::Fresh;
use super::plan::RootfsPlan;
use super::prepare::Prepared;
use super::{Result, RootfsError, sysctl};
use crate::sys::SysError;
use crate::sys::mount::{self, Attr, Change, Propagation, Scope};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const READ_ONLY: Change = Change { set: Attr::RDONLY, clear: Attr::empty(), propagation: None };

/// Makes read-only what shall be, sets the sysctls, and hides the masked paths. After this the container's
/// own set-up cannot write to its root file system.
pub fn seal(plan: &RootfsPlan, prepared: &Prepared) -> Result<()> {
    for (path, mount) in &prepared.read_only_later {
        read_only(mount.as_fd(), path)?;
    }
    if plan.read_only {
        read_only(prepared.root().as_fd(), Path::new("/"))?;
    }
    // Before the read-only paths, /proc/sys among them.
    sysctl::write(&plan.sysctls, prepared)?;
    for path in &plan.read_only_paths {
        seal_read_only(prepared, path)?;
    }
    let mut masks = Masks { null: prepared.null.as_ref().map(AsFd::as_fd), attached: false, empty: None };
    for path in &plan.masked_paths {
        masks.cover(prepared, path)?;
    }
    if let Some((Propagation::Unbindable, scope)) = plan.propagation {
        mount::set_root_propagation(Propagation::Unbindable, scope)
            .map_err(RootfsError::root("set the propagation of", Path::new("/")))?;
    }
    Ok(())
}

/// The flag is added, the others stay: in a user namespace they are locked.
fn read_only(mount: BorrowedFd<'_>, path: &Path) -> Result<()> {
    mount::set_attr(mount, &READ_ONLY, Scope::Mount, &path.display().to_string())
        .map_err(RootfsError::seal("make read-only", path))
}

/// What lies at `path`; `None` where there is nothing.
fn find(prepared: &Prepared, path: &Path) -> std::result::Result<Option<OwnedFd>, SysError> {
    match prepared.table.find(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// Covers `path` with a read-only copy of itself.
fn seal_read_only(prepared: &Prepared, path: &Path) -> Result<()> {
    let shown = Path::new("/").join(path);
    let failed = |error| RootfsError::seal("make read-only", &shown)(error);
    let Some(place) = find(prepared, path).map_err(failed)? else { return Ok(()) };
    let name = shown.display().to_string();
    let copy = mount::clone_fd(place.as_fd(), &name, Scope::Tree).map_err(failed)?;
    mount::set_attr(copy.as_fd(), &READ_ONLY, Scope::Mount, &name).map_err(failed)?;
    mount::move_mount(copy.as_fd(), place.as_fd(), &name).map_err(failed)
}

/// What masked paths are covered with: files by the null device, directories by an empty file system.
struct Masks<'p> {
    null: Option<BorrowedFd<'p>>,
    /// Whether `null` is attached already. A detached mount can be copied since Linux 6.15 only, an
    /// attached one always: the first file takes the mount itself, the others copies.
    attached: bool,
    empty: Option<OwnedFd>,
}

impl Masks<'_> {
    fn cover(&mut self, prepared: &Prepared, path: &Path) -> Result<()> {
        let shown = Path::new("/").join(path);
        let failed = |error| RootfsError::seal("mask", &shown)(error);
        let Some(place) = find(prepared, path).map_err(failed)? else { return Ok(()) };
        let name = shown.display().to_string();
        let stat = fstat(&place).map_err(SysError::on("fstat", name.as_str())).map_err(failed)?;
        if SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFDIR {
            self.cover_directory(place.as_fd(), &name).map_err(failed)
        } else {
            self.cover_file(place.as_fd(), &name).map_err(failed)
        }
    }

    fn cover_file(&mut self, place: BorrowedFd<'_>, name: &str) -> std::result::Result<(), SysError> {
        let Some(null) = self.null else {
            return Err(SysError::on("move_mount", name)(Errno::ENODEV));
        };
        if self.attached {
            let copy = mount::clone_fd(null, name, Scope::Mount)?;
            return mount::move_mount(copy.as_fd(), place, name);
        }
        mount::move_mount(null, place, name)?;
        self.attached = true;
        Ok(())
    }

    fn cover_directory(&mut self, place: BorrowedFd<'_>, name: &str) -> std::result::Result<(), SysError> {
        if let Some(empty) = &self.empty {
            let copy = mount::clone_fd(empty.as_fd(), name, Scope::Mount)?;
            return mount::move_mount(copy.as_fd(), place, name);
        }
        let data = vec!["nr_blocks=1", "nr_inodes=1", "mode=555"];
        let empty = Fresh { fstype: "tmpfs", source: None, data, attr: Attr::RDONLY }.make([].into_iter())?;
        mount::move_mount(empty.as_fd(), place, name)?;
        self.empty = Some(empty);
        Ok(())
    }
}
