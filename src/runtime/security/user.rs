//! User and group ids, supplementary groups and umask.
use super::SecurityError;
use crate::sys::SysError;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// `process.user`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In the container's user namespace.
    pub uid: u32,
    /// In the container's user namespace.
    pub gid: u32,
    /// Exactly these become the supplementary groups; the caller's are dropped.
    pub additional_gids: Vec<u32>,
    /// Absent leaves what the caller has.
    pub umask: Option<u32>,
    /// Whether setgroups(2) may be called: a user namespace that an unprivileged user mapped denies it
    /// (user_namespaces(7)), and there the caller's groups stay.
    pub setgroups: bool,
}

impl Plan {
    /// The ids of config.json.
    pub fn new(user: &oci_spec::runtime::User) -> Plan {
        Plan {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
            setgroups: true,
        }
    }

    /// Groups before the user, because a user other than root may not change groups.
    pub fn apply(&self) -> Result<(), SecurityError> {
        let refused = |source| SecurityError::User { uid: self.uid, gid: self.gid, source };
        if let Some(mask) = self.umask {
            umask(Mode::from_bits_truncate(mask));
        }
        if self.setgroups {
            let groups: Vec<Gid> = self.additional_gids.iter().copied().map(Gid::from_raw).collect();
            setgroups(&groups)
                .map_err(SysError::on("setgroups", format!("{:?}", self.additional_gids)))
                .map_err(refused)?;
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresgid(gid, gid, gid).map_err(SysError::on("setresgid", gid.to_string())).map_err(refused)?;
        setresuid(uid, uid, uid).map_err(SysError::on("setresuid", uid.to_string())).map_err(refused)
    }
}
