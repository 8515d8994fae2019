//! Network devices of the host that a container gets: `linux.netDevices` of runtime-spec 1.3.
//!
//! A device is moved into the container's network namespace, keeps its permanent addresses of global scope, and is up
//! there. The runtime does not take it back: when the namespace ends, the kernel returns what is hardware to
//! the host, under the name that it has then, and removes what is not.
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::namespaces::flag;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::netlink::Links;
use crate::sys::process::setns;

/// Why a device could not be given to a container.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetDeviceError {
    /// A name that no link can have.
    #[error("linux.netDevices: {name:?} is no valid name of a network device")]
    Name {
        /// As given.
        name: String,
    },
    /// Two devices would have one name.
    #[error("linux.netDevices: two devices would be named {name:?}")]
    Twice {
        /// The name in the container.
        name: String,
    },
    /// It would stay where it is.
    #[error(
        "unable to move network devices without a private network namespace (linux.netDevices: {device:?})"
    )]
    NoNamespace {
        /// The first device.
        device: String,
    },
    /// Only root of the host may take its devices.
    #[error("linux.netDevices needs root ({device:?})")]
    Rootless {
        /// The first device.
        device: String,
    },
    /// There is none.
    #[error("network device {device:?} is not on the host (linux.netDevices)")]
    Missing {
        /// Its name on the host.
        device: String,
    },
    /// The container's namespace has one of that name already.
    #[error(
        "network device {device:?}: the container's network namespace has a device named {name:?} already"
    )]
    Taken {
        /// Its name on the host.
        device: String,
        /// Its name in the container.
        name: String,
    },
    /// A call failed.
    #[error("network device {device:?}: cannot {action}")]
    Call {
        /// Its name on the host.
        device: String,
        /// What was tried.
        action: &'static str,
        /// The call.
        #[source]
        source: SysError,
    },
}

impl Kind for NetDeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            NetDeviceError::Call { source, .. } => source.kind(),
            NetDeviceError::Missing { .. } => ErrorKind::NotFound,
            NetDeviceError::Rootless { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidInput,
        }
    }
}

/// A device and its name in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Move {
    device: String,
    name: String,
}

/// The devices of a container, in the order of their names on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    moves: Vec<Move>,
}

impl Plan {
    /// Reads `linux.netDevices`. `privileged` says whether the runtime may take devices of the host.
    pub fn new(spec: &Spec, privileged: bool) -> Result<Plan, NetDeviceError> {
        let linux = spec.linux().as_ref();
        let Some(devices) = linux.and_then(|linux| linux.net_devices().as_ref()) else {
            return Ok(Plan::default());
        };
        let mut names = BTreeMap::new();
        let mut moves = Vec::new();
        for (device, given) in devices.iter().collect::<BTreeMap<_, _>>() {
            let name = given.name().as_ref().filter(|name| !name.is_empty()).unwrap_or(device);
            for name in [device, name] {
                if !is_name(name) {
                    return Err(NetDeviceError::Name { name: name.clone() });
                }
            }
            if names.insert(name.clone(), device).is_some() {
                return Err(NetDeviceError::Twice { name: name.clone() });
            }
            moves.push(Move { device: device.clone(), name: name.clone() });
        }
        if let Some(Move { device, .. }) = moves.first() {
            let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
            if !namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Network) {
                return Err(NetDeviceError::NoNamespace { device: device.clone() });
            }
            if !privileged {
                return Err(NetDeviceError::Rootless { device: device.clone() });
            }
        }
        Ok(Plan { moves })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Moves them into the network namespace of `init`. Needs a process with one thread, whose network namespace has the devices.
    pub fn carry_out(&self, init: Pid) -> Result<(), NetDeviceError> {
        let Some(first) = self.moves.first() else { return Ok(()) };
        let mut host = Links::open().map_err(first.failed("reach the host's network"))?;
        let reach = || {
            let namespace = open(&format!("/proc/{init}/ns/net"))?;
            let links = open_within(&namespace, &open("/proc/self/ns/net")?)?;
            Ok((namespace, links))
        };
        let (namespace, mut inside) =
            reach().map_err(first.failed("reach the container's network namespace"))?;
        self.moves.iter().try_for_each(|one| one.carry_out(&mut host, &mut inside, &namespace))
    }
}

impl Move {
    fn failed(&self, action: &'static str) -> impl FnOnce(SysError) -> NetDeviceError {
        let device = self.device.clone();
        move |source| NetDeviceError::Call { device, action, source }
    }

    fn carry_out(
        &self,
        host: &mut Links,
        inside: &mut Links,
        namespace: &OwnedFd,
    ) -> Result<(), NetDeviceError> {
        let found = host.find(&self.device).map_err(self.failed("look it up"))?;
        let link = found.ok_or_else(|| NetDeviceError::Missing { device: self.device.clone() })?;
        let taken = || NetDeviceError::Taken { device: self.device.clone(), name: self.name.clone() };
        // Asked first: some kernels move the device and only then find that it cannot have the name.
        if inside.find(&self.name).map_err(self.failed("look at the container's devices"))?.is_some() {
            return Err(taken());
        }
        let addresses = host.permanent_addresses(link.index).map_err(self.failed("read its addresses"))?;
        match host.move_link(link.index, namespace, &self.name) {
            Err(error) if error.errno == Errno::EEXIST => return Err(taken()),
            result => result.map_err(self.failed("move it into the container's network namespace"))?,
        }
        let found = inside.find(&self.name).map_err(self.failed("find it in the container"))?;
        let link = found.ok_or_else(|| NetDeviceError::Missing { device: self.name.clone() })?;
        for address in &addresses {
            inside.restore_address(link.index, address).map_err(self.failed("give it its address again"))?;
        }
        inside.set_up(link.index).map_err(self.failed("bring it up in the container"))
    }
}

fn open(path: &str) -> Result<OwnedFd, SysError> {
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(SysError::on("open", path))
}

/// A socket to the routing tables of `namespace`; a socket stays in the namespace in which it was opened.
fn open_within(namespace: &OwnedFd, own: &OwnedFd) -> Result<Links, SysError> {
    setns(namespace, flag::NETWORK)?;
    let links = Links::open();
    setns(own, flag::NETWORK)?;
    links
}

/// The kernel's rule (`dev_valid_name` of net/core/dev.c); `%` would make it count names up.
fn is_name(name: &str) -> bool {
    let legal = |byte: u8| !byte.is_ascii_whitespace() && byte != 0x0b && !b"/:%\0".contains(&byte);
    !name.is_empty() && name.len() < 16 && name != "." && name != ".." && name.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(devices: &str, namespaces: &str, privileged: bool) -> Result<Plan, NetDeviceError> {
        let text = format!(
            r#"{{"ociVersion": "1.3.0", "linux": {{"namespaces": [{namespaces}], "netDevices": {{{devices}}}}}}}"#
        );
        Plan::new(&serde_json::from_str(&text).unwrap(), privileged)
    }

    #[test]
    fn names() {
        let network = r#"{"type": "network"}"#;
        let planned = plan(r#""eth1": {}, "eth0": {"name": "net"}"#, network, true).unwrap();
        let pairs: Vec<_> =
            planned.moves.iter().map(|one| (one.device.as_str(), one.name.as_str())).collect();
        assert_eq!(pairs, [("eth0", "net"), ("eth1", "eth1")]);
        for devices in [
            r#""": {}"#,
            r#""a/b": {}"#,
            r#""eth%d": {}"#,
            r#""eth0": {"name": "a b"}"#,
            r#""eth0": {"name": ".."}"#,
            r#""sixteen_letters_": {}"#,
        ] {
            assert!(matches!(plan(devices, network, true), Err(NetDeviceError::Name { .. })), "{devices}");
        }
        let twice = plan(r#""eth0": {"name": "net"}, "eth1": {"name": "net"}"#, network, true);
        assert!(matches!(twice, Err(NetDeviceError::Twice { .. })));
    }

    #[test]
    fn what_it_needs() {
        let none = plan(r#""eth0": {}"#, r#"{"type": "mount"}"#, true);
        assert!(matches!(none, Err(NetDeviceError::NoNamespace { .. })));
        let rootless = plan(r#""eth0": {}"#, r#"{"type": "network"}"#, false);
        assert!(matches!(rootless, Err(NetDeviceError::Rootless { .. })));
        assert!(plan("", "", false).unwrap().is_empty());
    }
}
