//! Rules of nftables: one table for each bridge, one map element for each published port.
//!
//! The text is planned here without looking at the host; nft applies it in one transaction.
use super::subnet::Subnet;
use super::{NetworkError, Protocol};
use crate::sys::SysError;
use crate::sys::program::Program;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Seek, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A transaction takes milliseconds; only another user of nftables that holds its lock makes it longer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Where distributions have the program; the caller's PATH is not asked.
const NFT: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/usr/local/sbin/nft"];

/// A port of the host that leads to an address of a container: an element of a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Published {
    /// Only this address of the host; all of the target's family if absent.
    pub(super) host_ip: Option<IpAddr>,
    pub(super) host_port: u16,
    pub(super) protocol: Protocol,
    pub(super) target: SocketAddr,
}

impl Published {
    fn map(&self) -> &'static str {
        match (self.host_ip.is_some(), self.target.is_ipv4()) {
            (false, true) => "any4",
            (false, false) => "any6",
            (true, true) => "host4",
            (true, false) => "host6",
        }
    }

    fn key(&self) -> String {
        let port = format!("{} . {}", self.protocol.name(), self.host_port);
        self.host_ip.map_or(port.clone(), |ip| format!("{ip} . {port}"))
    }
}

/// Name of a bridge's table.
pub(super) fn table(link: &str) -> String {
    format!("corten_{link}")
}

/// The rules of a bridge, which replace those that are there; elements of the maps stay.
pub(super) fn rules(link: &str, subnet: Subnet, subnet6: Option<Subnet>) -> String {
    let table = table(link);
    let mut text = format!(
        "add table inet {table}
add map inet {table} any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map inet {table} host4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map inet {table} any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service ; }}
add map inet {table} host6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service ; }}
add chain inet {table} publish
add chain inet {table} guard {{ type filter hook prerouting priority -300 ; }}
add chain inet {table} prerouting {{ type nat hook prerouting priority -100 ; }}
add chain inet {table} output {{ type nat hook output priority -100 ; }}
add chain inet {table} postrouting {{ type nat hook postrouting priority 100 ; }}
add chain inet {table} forward {{ type filter hook forward priority 0 ; }}
"
    );
    for chain in ["publish", "guard", "prerouting", "output", "postrouting", "forward"] {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "flush chain inet {table} {chain}");
    }
    let mut add = |chain: &str, rule: &str| {
        let _ = writeln!(text, "add rule inet {table} {chain} {rule}");
    };
    // The bridge has route_localnet, so that the host reaches published ports by 127.0.0.1: nobody else may reach
    // what listens there (CVE-2020-8558).
    add("guard", "iifname != \"lo\" ip daddr 127.0.0.0/8 drop");
    // A container speaks for its own subnet, and is not a router (CVE-2020-10749).
    add("guard", &format!("iifname \"{link}\" meta nfproto ipv4 ip saddr != {subnet} drop"));
    add("guard", &format!("iifname \"{link}\" icmpv6 type nd-router-advert drop"));
    // Metadata servers have link-local addresses: these ports are not those of the host.
    add("publish", "ip daddr 169.254.0.0/16 return");
    add("publish", "dnat ip to ip daddr . meta l4proto . th dport map @host4");
    add("publish", "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4");
    add("publish", "dnat ip6 to ip6 daddr . meta l4proto . th dport map @host6");
    add("publish", "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @any6");
    add("prerouting", "fib daddr type local jump publish");
    add("output", "fib daddr type local jump publish");
    let mut families = vec![("ip", subnet)];
    families.extend(subnet6.map(|subnet| ("ip6", subnet)));
    for (family, subnet) in families {
        add("postrouting", &format!("{family} saddr {subnet} oifname != \"{link}\" masquerade"));
        // Hairpin: the answer of a neighbour must come back through us, not go to the asker directly.
        add("postrouting", &format!("{family} saddr {subnet} oifname \"{link}\" ct status dnat masquerade"));
    }
    add("postrouting", &format!("ip saddr 127.0.0.0/8 oifname \"{link}\" ct status dnat masquerade"));
    add("forward", &format!("oifname \"{link}\" ct state established,related accept"));
    add("forward", &format!("oifname \"{link}\" ct status dnat accept"));
    add("forward", &format!("iifname \"{link}\" accept"));
    // A port that is not published is not reached from other machines, nor from other bridges.
    add("forward", &format!("oifname \"{link}\" drop"));
    text
}

/// Elements of published ports, to be added.
pub(super) fn add(link: &str, ports: &[Published]) -> String {
    let table = table(link);
    ports.iter().fold(String::new(), |mut text, port| {
        let (map, key, target) = (port.map(), port.key(), port.target);
        let _ = writeln!(
            text,
            "add element inet {table} {map} {{ {key} : {} . {} }}",
            target.ip(),
            target.port()
        );
        text
    })
}

/// Removal of elements, whether they are there or not.
pub(super) fn delete(link: &str, ports: &[Published]) -> String {
    let table = table(link);
    // To delete an element that is not there fails, and to add one that is there does not.
    ports.iter().fold(add(link, ports), |mut text, port| {
        let _ = writeln!(text, "delete element inet {table} {} {{ {} }}", port.map(), port.key());
        text
    })
}

/// The table of a metadata address: only the host and what comes over these bridges may speak to it.
pub(super) fn metadata(link: &str, address: IpAddr, bridges: &[String]) -> String {
    let table = table(link);
    let family = if address.is_ipv4() { "ip" } else { "ip6" };
    let mut names = String::from("\"lo\"");
    for bridge in bridges {
        let _ = write!(names, ", \"{bridge}\"");
    }
    format!(
        "add table inet {table}
add chain inet {table} guard {{ type filter hook prerouting priority -290 ; }}
flush chain inet {table} guard
add rule inet {table} guard {family} daddr {address} iifname != {{ {names} }} drop
"
    )
}

/// Removes a table, whether it is there or not.
pub(super) fn remove(link: &str) -> String {
    let table = table(link);
    format!("add table inet {table}\ndelete table inet {table}\n")
}

/// Applies a text in one transaction. nft keeps the `lock` until it ends, also if this process is killed, so that
/// whoever takes the lock next sees either nothing or all of it.
pub(super) fn apply(link: &str, text: &str, lock: &File) -> Result<(), NetworkError> {
    let missing = NetworkError::NoProgram { program: "nft", package: "nftables" };
    let path = NFT.iter().map(Path::new).find(|path| path.exists()).ok_or(missing)?;
    let mut stdin: File =
        memfd_create("nft", MFdFlags::MFD_CLOEXEC).map_err(SysError::on("memfd_create", "nft"))?.into();
    stdin.write_all(text.as_bytes()).and_then(|()| stdin.rewind()).map_err(SysError::io("write", "memfd"))?;
    let ended = Program {
        path,
        arguments: &["-f", "-"],
        environment: &[],
        stdin,
        stdout: Some(lock.try_clone().map_err(SysError::io("dup", "lock"))?),
        deadline: DEADLINE,
        limit: 0,
    }
    .run()?;
    if ended.status.success() {
        return Ok(());
    }
    Err(NetworkError::Nft { table: table(link), status: ended.status.to_string(), message: ended.stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(host_ip: Option<&str>, target: &str) -> Published {
        Published {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port: 8080,
            protocol: Protocol::Udp,
            target: target.parse().unwrap(),
        }
    }

    #[test]
    fn an_element_is_keyed_by_protocol_and_port_and_the_address_if_there_is_one() {
        assert_eq!(
            add("b0", &[published(None, "10.0.0.2:80"), published(Some("127.0.0.1"), "10.0.0.2:80")]),
            "add element inet corten_b0 any4 { udp . 8080 : 10.0.0.2 . 80 }\n\
             add element inet corten_b0 host4 { 127.0.0.1 . udp . 8080 : 10.0.0.2 . 80 }\n"
        );
        assert_eq!(
            delete("b0", &[published(Some("fd00::1"), "[fd00::2]:80")]),
            "add element inet corten_b0 host6 { fd00::1 . udp . 8080 : fd00::2 . 80 }\n\
             delete element inet corten_b0 host6 { fd00::1 . udp . 8080 }\n"
        );
    }

    #[test]
    fn what_is_not_published_is_dropped_last() {
        let text = rules("b0", Subnet::parse("10.0.0.0/24", false).unwrap(), None);
        assert!(text.ends_with("forward oifname \"b0\" drop\n"));
        assert!(!text.contains("ip6 saddr"));
    }
}
