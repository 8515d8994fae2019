//! AppArmor profile and SELinux label of the process, written before execve and applied by it.
use super::SecurityError;
use crate::sys::SysError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use oci_spec::runtime::Process;
use std::os::fd::{AsFd, BorrowedFd};

/// `process.apparmorProfile` and `process.selinuxLabel`; an empty string is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Name of a loaded profile.
    pub apparmor: Option<String>,
    /// `user:role:type:level`.
    pub selinux: Option<String>,
}

const APPARMOR: &str = "process.apparmorProfile";
const SELINUX: &str = "process.selinuxLabel";

/// Which security modules this kernel runs; from the host's side, before anything is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host {
    /// `/sys/module/apparmor/parameters/enabled` says Y.
    pub apparmor: bool,
    /// The selinuxfs is mounted.
    pub selinux: bool,
}

impl Host {
    /// Asks the host's sysfs, which no container controls.
    pub fn detect() -> Host {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        Host {
            apparmor: enabled.is_ok_and(|text| text.starts_with('Y')),
            selinux: std::path::Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

impl Plan {
    /// What config.json asks for.
    pub fn new(process: &Process) -> Plan {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Plan { apparmor: given(process.apparmor_profile()), selinux: given(process.selinux_label()) }
    }

    /// Whether no label is asked for.
    pub fn is_empty(&self) -> bool {
        self.apparmor.is_none() && self.selinux.is_none()
    }

    /// Fails if the host lacks the module of a wanted label: a container that was to be confined must not
    /// run unconfined. `unconfined` needs no module.
    pub fn check(&self, host: Host) -> Result<(), SecurityError> {
        let wanted = [
            (
                APPARMOR,
                "AppArmor",
                host.apparmor,
                self.apparmor.as_ref().filter(|name| *name != "unconfined"),
            ),
            (SELINUX, "SELinux", host.selinux, self.selinux.as_ref()),
        ];
        for (field, lsm, enabled, value) in wanted {
            if let (Some(value), false) = (value, enabled) {
                return Err(SecurityError::LsmMissing { field, value: value.clone(), lsm });
            }
        }
        Ok(())
    }

    /// Writes the labels that the next execve takes on. The container's process sees no trustworthy sysfs:
    /// the host's side has run [`Self::check`] before, and without the module the write fails.
    pub fn apply(&self, procfs: BorrowedFd<'_>) -> Result<(), SecurityError> {
        if self.apparmor.is_none() && self.selinux.is_none() {
            return Ok(());
        }
        if let Some(label) = &self.selinux {
            write(procfs, &["thread-self/attr/exec"], label.as_bytes())
                .map_err(|source| SecurityError::Label { field: SELINUX, value: label.clone(), source })?;
        }
        if let Some(profile) = self.apparmor.as_ref().filter(|name| *name != "unconfined") {
            // The own directory exists since kernel 5.8 and is the right one if several modules are on.
            let paths = ["thread-self/attr/apparmor/exec", "thread-self/attr/exec"];
            write(procfs, &paths, format!("exec {profile}").as_bytes())
                .map_err(|source| SecurityError::Label { field: APPARMOR, value: profile.clone(), source })?;
        }
        Ok(())
    }
}

/// Writes to the first of `paths` that exists, after making sure that it is a file of a proc file system: a
/// volume mounted over /proc must not swallow the label (CVE-2019-16884).
fn write(procfs: BorrowedFd<'_>, paths: &[&str], value: &[u8]) -> Result<(), SysError> {
    let mut missing = SysError { call: "openat", args: paths.join(" or "), errno: Errno::ENOENT };
    for path in paths {
        let file = match openat(procfs, *path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => continue,
            Err(errno) => {
                missing.errno = errno;
                break;
            }
        };
        let kind = fstatfs(file.as_fd()).map_err(SysError::on("fstatfs", *path))?;
        if kind.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(SysError {
                call: "openat",
                args: format!("{path}: not on a proc file system"),
                errno: Errno::EXDEV,
            });
        }
        return nix::unistd::write(file, value).map(drop).map_err(SysError::on("write", *path));
    }
    Err(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_without_its_module_is_an_error() {
        let none = Host { apparmor: false, selinux: false };
        let plan = Plan { apparmor: Some("docker-default".into()), selinux: None };
        assert_eq!(
            plan.check(none).expect_err("no AppArmor").to_string(),
            "process.apparmorProfile is \"docker-default\", but AppArmor is not enabled on this host"
        );
        assert!(plan.check(Host { apparmor: true, selinux: false }).is_ok());
        let unconfined = Plan { apparmor: Some("unconfined".into()), selinux: None };
        assert!(unconfined.check(none).is_ok());
    }
}
