//! User and group ids, supplementary groups and umask.
use super::SecurityError;
use crate::sys::{SysError, caps};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Its number (linux/capability.h).
const CAP_SETGID: u32 = 6;

/// `process.user`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// Exactly these become the supplementary groups; the caller's are dropped.
    pub additional_gids: Vec<u32>,
    /// The caller's supplementary groups stay instead, with all that they may reach.
    pub keep_groups: bool,
    /// Absent leaves what the caller has.
    pub umask: Option<u32>,
}

impl Plan {
    /// The ids of config.json.
    pub fn new(user: &oci_spec::runtime::User) -> Plan {
        Plan {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            keep_groups: false,
            umask: user.umask(),
        }
    }

    fn set_groups(&self) -> Result<(), SecurityError> {
        let groups: Vec<Gid> = self.additional_gids.iter().copied().map(Gid::from_raw).collect();
        match setgroups(&groups) {
            Err(Errno::EPERM) if setgroups_denied() => match groups.is_empty() {
                // The caller's groups stay; in this namespace they are nobody's.
                true => Ok(()),
                false => Err(SecurityError::NoFurtherGroups { gids: self.additional_gids.clone() }),
            },
            other => other
                .map_err(SysError::on("setgroups", format!("{:?}", self.additional_gids)))
                .map_err(|source| SecurityError::User { uid: self.uid, gid: self.gid, source }),
        }
    }

    /// Groups before the user, because a user other than root may not change groups.
    pub fn apply(&self) -> Result<(), SecurityError> {
        let refused = |source| SecurityError::User { uid: self.uid, gid: self.gid, source };
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if !self.keep_groups {
            self.set_groups()?;
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let unmapped = |what, id| SecurityError::Unmapped { what, id };
        match setresgid(gid, gid, gid) {
            Err(Errno::EINVAL) => return Err(unmapped("gid", self.gid)),
            other => other.map_err(SysError::on("setresgid", gid.to_string())).map_err(refused)?,
        }
        match setresuid(uid, uid, uid) {
            // The only reason that setresuid(2) has for it.
            Err(Errno::EINVAL) => Err(unmapped("uid", self.uid)),
            other => other.map_err(SysError::on("setresuid", uid.to_string())).map_err(refused),
        }
    }
}

/// Whether the user namespace denies setgroups(2) for good (user_namespaces(7)): nothing else refuses it to a
/// process that has the capability for it. The file that says it is in a procfs, which not every container has.
fn setgroups_denied() -> bool {
    caps::get().is_ok_and(|sets| sets.effective & (1 << CAP_SETGID) != 0)
}
