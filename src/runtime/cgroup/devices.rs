//! Device rules: one model with the semantics of the v1 controller, written to `devices.allow` and
//! `devices.deny` on v1 and compiled to a program on v2, so that both mean the same.
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::dir::Dir;
use super::host::{Controller, Mode};
use super::{Cgroup, Error, Result};
use crate::sys::SysError;
use nix::errno::Errno;
use nix::fcntl::OFlag;

mod program;

/// More rules than any configuration has; each is an instruction block of a program.
const MAX_RULES: usize = 4096;

/// A set of read, write and mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access(u8);

impl Access {
    const READ: u8 = 4;
    const WRITE: u8 = 2;
    const MKNOD: u8 = 1;
    const ALL: Access = Access(7);

    fn parse(text: &str) -> Option<Access> {
        let mut bits = 0;
        for one in text.bytes() {
            bits |= match one {
                b'r' => Self::READ,
                b'w' => Self::WRITE,
                b'm' => Self::MKNOD,
                _ => return None,
            };
        }
        (bits != 0).then_some(Access(bits))
    }

    fn text(self) -> String {
        let letters = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        letters.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, letter)| letter).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Block,
    Char,
}

/// Which devices a rule is about; `None` is all numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Devices {
    pub node: Node,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Devices {
    fn text(self) -> String {
        let node = match self.node {
            Node::Block => 'b',
            Node::Char => 'c',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        format!("{node} {}:{}", number(self.major), number(self.minor))
    }
}

/// What a container may do with devices: a default, and exceptions from it.
///
/// An access is allowed, where the default is to deny, if one exception covers all of it; it is denied, where
/// the default is to allow, if an exception covers any of it (`devcgroup_check_permission`,
/// security/device_cgroup.c).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    pub default_allow: bool,
    /// One for each kind of devices, in the order of the configuration, as the v1 controller lists them.
    pub exceptions: Vec<(Devices, Access)>,
}

/// What every container may do besides its own rules, as in runc: make any node (not open it), and use
/// null, random, full, tty, zero, urandom, terminals, ptmx, and tun (which users of `--device`-less VPNs rely on).
const DEFAULTS: [(Node, Option<u32>, Option<u32>, Access); 11] = [
    (Node::Char, None, None, Access(Access::MKNOD)),
    (Node::Block, None, None, Access(Access::MKNOD)),
    (Node::Char, Some(1), Some(3), Access::ALL),
    (Node::Char, Some(1), Some(8), Access::ALL),
    (Node::Char, Some(1), Some(7), Access::ALL),
    (Node::Char, Some(5), Some(0), Access::ALL),
    (Node::Char, Some(1), Some(5), Access::ALL),
    (Node::Char, Some(1), Some(9), Access::ALL),
    (Node::Char, Some(136), None, Access::ALL),
    (Node::Char, Some(5), Some(2), Access::ALL),
    (Node::Char, Some(10), Some(200), Access::ALL),
];

impl Policy {
    /// The policy of a whole configuration; the defaults apply also without one.
    ///
    /// # Errors
    /// Those of [`Policy::of`].
    pub(super) fn of_resources(resources: Option<&LinuxResources>) -> Result<Policy> {
        Policy::of(resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default())
    }

    /// What is allowed in systemd's words (`DeviceAllow=`, systemd.resource-control(5)), a specifier and letters of
    /// access, and whether that is all of it: it has no word for one minor number of all majors. `None` where the
    /// default is to allow: it knows no exceptions from that.
    pub(super) fn allowed(&self) -> Option<(Vec<(String, String)>, bool)> {
        if self.default_allow {
            return None;
        }
        let specifier = |devices: &Devices| {
            let node = match devices.node {
                Node::Block => "block",
                Node::Char => "char",
            };
            match (devices.major, devices.minor) {
                (None, None) => Some(format!("{node}-*")),
                (None, Some(_)) => None,
                (Some(major), None) => Some(format!("{node}-{major}")),
                (Some(major), Some(minor)) => Some(format!("/dev/{node}/{major}:{minor}")),
            }
        };
        let entry = |(devices, access): &(Devices, Access)| Some((specifier(devices)?, access.text()));
        let words: Vec<_> = self.exceptions.iter().filter_map(entry).collect();
        let complete = words.len() == self.exceptions.len();
        Some((words, complete))
    }

    /// The rules of a configuration in their order, then the defaults.
    ///
    /// # Errors
    /// For a malformed rule, and for one that would take a device out of an exception for a range: v1 ignores
    /// that without a word, and what looks denied would be allowed.
    pub(super) fn of(rules: &[LinuxDeviceCgroup]) -> Result<Policy> {
        if rules.len() > MAX_RULES {
            return Err(invalid(MAX_RULES, "there are too many rules"));
        }
        let mut policy = Policy::default();
        for (index, rule) in rules.iter().enumerate() {
            policy.apply(index, rule)?;
        }
        for (node, major, minor, access) in DEFAULTS {
            let devices = Devices { node, major, minor };
            if !policy.default_allow {
                policy.add(devices, access);
            } else {
                policy.take(devices, access);
            }
        }
        Ok(policy)
    }

    fn apply(&mut self, index: usize, rule: &LinuxDeviceCgroup) -> Result<()> {
        let text = rule.access().as_deref().unwrap_or_default();
        let access = Access::parse(text)
            .ok_or_else(|| invalid(index, format!("access {text:?} is not of the letters r, w and m")))?;
        let major = number(index, "major", rule.major())?;
        let minor = number(index, "minor", rule.minor())?;
        let nodes: &[Node] = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A if major.is_none() && minor.is_none() && access == Access::ALL => {
                *self = Policy { default_allow: rule.allow(), exceptions: Vec::new() };
                return Ok(());
            }
            // The v1 controller would take any rule of type `a` for one about everything; a rule about some
            // devices of both types must not open all.
            LinuxDeviceType::A => &[Node::Block, Node::Char],
            LinuxDeviceType::B => &[Node::Block],
            LinuxDeviceType::C | LinuxDeviceType::U => &[Node::Char],
            LinuxDeviceType::P => return Err(invalid(index, "a fifo is no device")),
        };
        for node in nodes {
            let devices = Devices { node: *node, major, minor };
            if rule.allow() == self.default_allow {
                self.remove(index, devices, access)?;
            } else {
                self.add(devices, access);
            }
        }
        Ok(())
    }

    fn add(&mut self, devices: Devices, access: Access) {
        match self.exceptions.iter_mut().find(|(one, _)| *one == devices) {
            Some((_, held)) => held.0 |= access.0,
            None => self.exceptions.push((devices, access)),
        }
    }

    /// Takes an access out of the exception for just these devices, if there is one.
    fn take(&mut self, devices: Devices, access: Access) {
        if let Some(index) = self.exceptions.iter().position(|(one, _)| *one == devices) {
            let left = &mut self.exceptions[index].1;
            left.0 &= !access.0;
            if left.0 == 0 {
                self.exceptions.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize, devices: Devices, access: Access) -> Result<()> {
        let Devices { node, major, minor } = devices;
        let ranges = [(None, minor), (major, None), (None, None)];
        for (major, minor) in ranges {
            let range = Devices { node, major, minor };
            let covered = self.exceptions.iter().any(|(one, held)| *one == range && held.0 & access.0 != 0);
            if range != devices && covered {
                let reason = format!(
                    "{} {} cannot be taken out of the earlier rule for {}",
                    devices.text(),
                    access.text(),
                    range.text()
                );
                return Err(invalid(index, reason));
            }
        }
        self.take(devices, access);
        Ok(())
    }

    /// What to write on v1, to `devices.deny` or `devices.allow`: first the default, then each exception.
    fn writes(&self) -> (&'static str, &'static str, Vec<String>) {
        let (reset, file) = if self.default_allow {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let rules = self.exceptions.iter();
        (
            reset,
            file,
            rules.map(|(devices, access)| format!("{} {}", devices.text(), access.text())).collect(),
        )
    }
}

/// A device number of a rule; -1 is all, as engines write it.
fn number(index: usize, which: &str, value: Option<i64>) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| invalid(index, format!("{which} {value} is no device number"))),
    }
}

fn invalid(index: usize, reason: impl Into<String>) -> Error {
    Error::Invalid { field: format!("devices[{index}]"), reason: reason.into() }
}

/// Restricts the devices of new cgroups. `reused`: they were there before and may carry an older restriction.
pub(super) fn restrict(cgroup: &Cgroup, resources: Option<&LinuxResources>, reused: bool) -> Result<()> {
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    let policy = Policy::of_resources(resources)?;
    if cgroup.mode == Mode::Unified {
        let Some(dir) = cgroup.v2() else { return Ok(()) };
        return program::attach(dir, &policy, reused)
            .map_err(|source| Error::Devices { path: dir.path().to_owned(), source })
            .or_else(
                |error| if rules.iter().all(grants) || in_user_namespace() { Ok(()) } else { Err(error) },
            );
    }
    let Some(dir) = cgroup.dir_of(Controller::Devices) else {
        // Security rests on this controller: its absence is no "left out".
        return Err(Error::NoController {
            controller: "devices".into(),
            file: "devices.deny".into(),
            value: "a".into(),
            version: super::Version::V1,
        });
    };
    write(dir, &policy).or_else(|source| {
        // A user namespace that is not the initial one may not write these files, and cannot open the devices
        // of others anyway (runc does the same).
        if matches!(source.errno, Errno::EPERM | Errno::EACCES) && in_user_namespace() {
            return Ok(());
        }
        Err(Error::Devices { path: dir.path().to_owned(), source })
    })
}

fn write(dir: &Dir, policy: &Policy) -> Result<(), SysError> {
    let (reset, file, rules) = policy.writes();
    dir.write(reset, "a")?;
    if rules.is_empty() {
        return Ok(());
    }
    let fd = dir.open_file(file, OFlag::O_WRONLY)?;
    rules.iter().try_for_each(|rule| dir.write_to(&fd, file, rule))
}

fn grants(rule: &LinuxDeviceCgroup) -> bool {
    rule.allow() && rule.access().as_deref().and_then(Access::parse) == Some(Access::ALL)
}

pub(super) use crate::sys::host::in_user_namespace;

#[cfg(test)]
mod tests;
