//! Bind mounts on which the owners of files are mapped: runtime-spec's `uidMappings`, `gidMappings`, `idmap` and
//! `ridmap` of a mount.
//!
//! The kernel takes the mapping from a user namespace. Nobody need be in it: a child makes one, the mappings are
//! written, and its file is opened before the child ends.
use super::options::MountOptions;
use super::{Result, RootfsError};
use crate::runtime::namespaces::flag;
use crate::runtime::rootless::mapping;
use crate::sys::SysError;
use crate::sys::mount::{self, Scope};
use crate::sys::process::{Clone3, Forked, clone3, exit_now, wait};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, pipe2};
use oci_spec::runtime::{Linux, LinuxNamespaceType, Mount};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The mapping of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdMap {
    pub(super) mappings: Mappings,
    /// `ridmap` reaches the mounts below too.
    pub(super) scope: Scope,
}

/// Where a mapping comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mappings {
    /// As `uid_map` and `gid_map` take them: user_namespaces(7).
    Lines { uid: String, gid: String },
    /// A user namespace that exists: the one that the container joins.
    Namespace(PathBuf),
}

impl Mappings {
    /// The container's own, which a mount has that asks for `idmap` and gives none; `None` without a user
    /// namespace.
    pub(super) fn of_container(linux: Option<&Linux>) -> Option<Mappings> {
        let linux = linux?;
        let mut namespaces = linux.namespaces().iter().flatten();
        let user = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
        Some(match user.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Mappings::Namespace(path.clone()),
            None => Mappings::Lines {
                uid: mapping::lines(linux.uid_mappings().as_deref().unwrap_or_default()),
                gid: mapping::lines(linux.gid_mappings().as_deref().unwrap_or_default()),
            },
        })
    }

    fn user_namespace(&self) -> std::result::Result<OwnedFd, SysError> {
        match self {
            Mappings::Lines { uid, gid } => make_user_namespace(uid, gid),
            Mappings::Namespace(path) => open(path),
        }
    }
}

/// The mapping that `mount` asks for, with runc's rules: `own` are the container's mappings.
pub(super) fn plan(mount: &Mount, options: &MountOptions, own: Option<&Mappings>) -> Result<Option<IdMap>> {
    let invalid =
        |reason| Err(RootfsError::InvalidMount { destination: mount.destination().clone(), reason });
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    let given = !uids.is_empty() || !gids.is_empty();
    if options.idmap.is_none() && !given {
        return Ok(None);
    }
    let scope = options.idmap.unwrap_or(Scope::Mount);
    let written = options.id_mappings.as_deref();
    let mappings = match (given, written) {
        (true, Some(_)) => return invalid("both idmap=… and uidMappings or gidMappings are given"),
        (true, None) if uids.is_empty() || gids.is_empty() => {
            return invalid("uidMappings and gidMappings must be given together");
        }
        (true, None) if uids.len().max(gids.len()) > mapping::LINES_MAX => {
            return invalid("uidMappings or gidMappings has more than 340 entries");
        }
        (true, None) => {
            for map in uids.iter().chain(gids) {
                let ends = [map.host_id(), map.container_id()].map(|id| id.checked_add(map.size()));
                if map.size() == 0 || ends.contains(&None) {
                    return invalid("a mapping is empty or reaches beyond the largest id");
                }
            }
            Mappings::Lines { uid: mapping::lines(uids), gid: mapping::lines(gids) }
        }
        (false, Some(text)) => match parse(text) {
            Some(mappings) => mappings,
            None => return invalid("idmap=… must be like uids=0-1000-1#1-2000-10;gids=0-1000-1"),
        },
        (false, None) => match own {
            Some(own) => own.clone(),
            None => return invalid("idmap needs mappings, the mount's own or the container's"),
        },
    };
    Ok(Some(IdMap { mappings, scope }))
}

/// crun's form: `uids=0-1000-1#1-2000-10;gids=0-1000-1`, each triplet the id in the file system, the id that it
/// becomes, and how many. Its `@` before a triplet (relative to the container's user namespace) is not taken.
fn parse(text: &str) -> Option<Mappings> {
    let (mut uid, mut gid) = (String::new(), String::new());
    for part in text.split(';') {
        let (lines, triplets) = match part.split_once('=')? {
            ("uids", triplets) => (&mut uid, triplets),
            ("gids", triplets) => (&mut gid, triplets),
            _ => return None,
        };
        for triplet in triplets.split('#') {
            let numbers: Vec<u32> =
                triplet.split('-').map(|number| number.parse().ok()).collect::<Option<_>>()?;
            let [inside, outside, size] = numbers[..] else { return None };
            let fits = inside.checked_add(size).is_some() && outside.checked_add(size).is_some();
            if size == 0 || !fits {
                return None;
            }
            lines.push_str(&format!("{inside} {outside} {size}\n"));
        }
    }
    (!uid.is_empty() && !gid.is_empty()).then_some(Mappings::Lines { uid, gid })
}

/// The user namespaces of the mappings met so far: mounts that share a mapping share one.
#[derive(Debug, Default)]
pub(super) struct UserNamespaces<'p> {
    made: Vec<(&'p Mappings, OwnedFd)>,
}

impl<'p> UserNamespaces<'p> {
    /// Maps the owners on the detached mount `mount` of the host's `source`, before anything can see it.
    pub(super) fn apply(
        &mut self,
        idmap: &'p IdMap,
        mount: BorrowedFd<'_>,
        source: &Path,
        destination: &Path,
    ) -> Result<()> {
        let failed = |error: SysError| RootfsError::IdMap {
            source_path: source.to_owned(),
            destination: destination.to_owned(),
            hint: hint(error.call, error.errno),
            source: error,
        };
        let known = self.made.iter().position(|(mappings, _)| **mappings == idmap.mappings);
        let index = match known {
            Some(index) => index,
            None => {
                let namespace = idmap.mappings.user_namespace().map_err(failed)?;
                self.made.push((&idmap.mappings, namespace));
                self.made.len() - 1
            }
        };
        let name = source.display().to_string();
        mount::set_idmap(mount, self.made[index].1.as_fd(), idmap.scope, &name).map_err(failed)
    }
}

/// What the errno says, after mount_setattr(2).
fn hint(call: &str, errno: Errno) -> &'static str {
    match (call, errno) {
        ("mount_setattr", Errno::EINVAL) => {
            ": its file system, or that of a mount below it, has no support for mapped mounts in this kernel"
        }
        ("mount_setattr", Errno::EPERM) => {
            ": the runtime must be root where the file system was mounted, and the source not be mapped already"
        }
        ("write", Errno::EPERM | Errno::EINVAL) => {
            ": the kernel refuses the mappings; do they overlap, or need an id that this user may not map?"
        }
        ("clone3", Errno::ENOSPC) => ": the limit user.max_user_namespaces is reached",
        _ => "",
    }
}

fn open(path: &Path) -> std::result::Result<OwnedFd, SysError> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::on("open", path.display().to_string()))
}

fn make_user_namespace(uid: &str, gid: &str) -> std::result::Result<OwnedFd, SysError> {
    // The end of this pipe ends the child, however this process ends.
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).map_err(SysError::on("pipe2", ""))?;
    match clone3(Clone3 { flags: flag::USER, cgroup: None })? {
        Forked::Child => {
            drop(writer);
            let _ = nix::unistd::read(&reader, &mut [0]);
            exit_now(0)
        }
        Forked::Parent { pid, .. } => {
            drop(reader);
            let namespace = map(pid, uid, gid);
            drop(writer);
            wait(pid)?;
            namespace
        }
    }
}

fn map(pid: Pid, uid: &str, gid: &str) -> std::result::Result<OwnedFd, SysError> {
    for (file, lines) in [("uid_map", uid), ("gid_map", gid)] {
        let path = format!("/proc/{pid}/{file}");
        let shown = format!("{path}: {}", lines.trim_end().replace('\n', ", "));
        std::fs::write(&path, lines).map_err(SysError::io("write", shown))?;
    }
    open(Path::new(&format!("/proc/{pid}/ns/user")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_in_the_option() {
        let lines = |uid: &str, gid: &str| Some(Mappings::Lines { uid: uid.into(), gid: gid.into() });
        let table = [
            ("uids=0-1000-1;gids=0-2000-5", lines("0 1000 1\n", "0 2000 5\n")),
            ("gids=1-2-3;uids=0-10-1#5-20-2", lines("0 10 1\n5 20 2\n", "1 2 3\n")),
            ("uids=0-1000-1", None),
            ("uids=0-1000-1;gids=", None),
            ("uids=0-1000-0;gids=0-1-1", None),
            ("uids=@0-1000-1;gids=0-1-1", None),
            ("uids=0-4294967295-2;gids=0-1-1", None),
            ("uids=0-1000;gids=0-1-1", None),
            ("pids=0-1000-1", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
