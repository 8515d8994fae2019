//! Networks of containers: the embedded bridge, and CNI plugins.
//!
//! A network namespace is held by a bind mount of its file, so that it needs no process. What is attached to it
//! is recorded before it is made, and [`detach`] removes all of it by that record, however far the attaching came.
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

mod bridge;
pub mod cni;
pub mod error;
pub mod files;
mod firewall;
mod ipam;
mod metadata;
pub mod netns;
mod ports;
mod record;
mod state;
mod subnet;

pub use error::NetworkError;
pub use metadata::{metadata, remove_metadata};
pub use record::{attach, attachment, detach, sweep};

/// What a container, or all containers of a task, are to be attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Id of the task or container; what is made is recorded under it.
    pub id: String,
    /// The bind-mounted file of the network namespace, which exists.
    pub netns: PathBuf,
    /// Which network.
    pub network: Which,
    /// Ports of the host that lead to it.
    pub ports: Vec<Port>,
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The embedded bridge.
    Bridge(Bridge),
    /// CNI plugins.
    Cni(Cni),
}

/// The embedded bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// Name of the bridge's link.
    pub link: String,
    /// IPv4 subnet as `10.88.0.0/16`; the first address is the bridge's.
    pub subnet: String,
    /// IPv6 subnet, if containers get such addresses.
    pub subnet6: Option<String>,
}

impl Default for Bridge {
    fn default() -> Self {
        Self { link: "corten0".to_owned(), subnet: "10.99.0.0/16".to_owned(), subnet6: None }
    }
}

/// CNI plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cni {
    /// Where configuration lists are; the first by name is used.
    pub configuration: PathBuf,
    /// Where plugins are, searched in order.
    pub plugins: Vec<PathBuf>,
    /// `CNI_ARGS`: `K8S_POD_NAME` and the like.
    pub arguments: BTreeMap<String, String>,
}

/// A port of the host that leads to one of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Only this address of the host; all if absent.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; 0 takes a free one.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
    /// Of which protocol.
    pub protocol: Protocol,
}

/// Protocol of a [`Port`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP; only CNI plugins take it.
    Sctp,
}

impl Protocol {
    /// As nftables, CNI and docker write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// What came of a [`Request`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Addresses of the container, the primary one first.
    pub addresses: Vec<Address>,
    /// Hardware address of its link.
    pub mac: Option<String>,
    /// Name of its link.
    pub interface: Option<String>,
    /// Name servers and search domains that the network tells.
    pub dns: Dns,
    /// Ports of the host, with the numbers that were taken for 0.
    pub ports: Vec<Port>,
}

/// An address with its subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the subnet's prefix in bits.
    pub prefix: u8,
    /// The way out.
    pub gateway: Option<IpAddr>,
}

/// What goes to a container's /etc/resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    pub servers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<String>,
}
