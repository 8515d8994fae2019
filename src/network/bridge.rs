//! The embedded bridge: its link and rules, made on first use, and a pair of links for each container.
use super::firewall::{self, Published};
use super::netns;
use super::state::{self, State};
use super::subnet::Subnet;
use super::{Address, Attachment, Bridge, Dns, NetworkError, ipam, ports, record};
use crate::sys::SysError;
use crate::sys::netlink::{self, Links, Veth};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

/// Name of a container's link inside.
const INSIDE: &str = "eth0";
/// `IFNAMSIZ` without its terminating zero.
const MAX_NAME: usize = 15;
/// Where no route leads out.
const DEFAULT_MTU: u32 = 1500;

/// A bridge whose settings were checked.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    pub(super) link: &'a str,
    subnet: Subnet,
    subnet6: Option<Subnet>,
}

/// What a container has of a bridge: enough to undo it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holding {
    /// Link of the host.
    pub(super) link: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) published: Vec<Published>,
}

impl<'a> Checked<'a> {
    pub(super) fn new(bridge: &'a Bridge) -> Result<Self, NetworkError> {
        check_link_name(&bridge.link)?;
        Ok(Self {
            link: &bridge.link,
            subnet: Subnet::parse(&bridge.subnet, false)?,
            subnet6: bridge.subnet6.as_deref().map(|text| Subnet::parse(text, true)).transpose()?,
        })
    }

    fn subnets(&self) -> impl Iterator<Item = Subnet> {
        std::iter::once(self.subnet).chain(self.subnet6)
    }

    fn rules(&self) -> String {
        firewall::rules(self.link, self.subnet, self.subnet6)
    }
}

/// A link's name as the kernel, nftables and a path of /proc/sys take it.
pub(super) fn check_link_name(name: &str) -> Result<(), NetworkError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(allowed) || name.starts_with('-') {
        let reason = "it must be 1 to 15 letters, digits, '-' and '_'";
        return Err(NetworkError::Invalid { what: "link name", value: name.to_owned(), reason });
    }
    Ok(())
}

/// What a container is to have of the bridge, reserved for it but not made.
pub(super) fn reserve(
    state: &State,
    bridge: &Checked<'_>,
    id: &str,
    asked: &[super::Port],
) -> Result<(Holding, Attachment), NetworkError> {
    state::make_directory(&state.bridge(bridge.link).join("addresses"))?;
    let mut attachment = Attachment { interface: Some(INSIDE.to_owned()), ..Attachment::default() };
    for subnet in bridge.subnets() {
        let ip = ipam::allocate(state, bridge.link, subnet, id)?;
        let (prefix, gateway) = (subnet.prefix(), Some(subnet.gateway()));
        attachment.addresses.push(Address { ip, prefix, gateway });
    }
    let addresses: Vec<IpAddr> = attachment.addresses.iter().map(|address| address.ip).collect();
    attachment.mac = Some(mac_text(mac(addresses[0])));
    attachment.dns = Dns::default();
    let mut published = Vec::new();
    if !asked.is_empty() {
        let _lock = state.lock()?;
        let reserved = ports::reserve(state, id, asked, addresses[0], addresses.get(1).copied())?;
        attachment.ports = reserved.ports;
        published = reserved.published;
    }
    Ok((Holding { link: bridge.link.to_owned(), addresses, published }, attachment))
}

/// Makes what was reserved.
pub(super) fn make(
    state: &State,
    bridge: &Checked<'_>,
    id: &str,
    netns: &Path,
    holding: &Holding,
    attachment: &Attachment,
) -> Result<(), NetworkError> {
    let netns = netns::open(netns)?;
    let mut links = Links::open()?;
    let (index, mtu) = ensure(state, bridge, &mut links)?;
    let mac = mac(holding.addresses[0]);
    let name = host_end(id);
    let veth =
        Veth { name: &name, bridge: index, mtu, netns: std::os::fd::AsFd::as_fd(&netns), peer: INSIDE, mac };
    links.add_veth(&veth)?;
    let mut inside = netns::within(&netns, Links::open)?;
    let missing = || SysError::on("RTM_GETLINK", INSIDE)(nix::errno::Errno::ENODEV);
    let link = inside.find(INSIDE)?.ok_or_else(missing)?.index;
    inside.set_up(link)?;
    for address in &attachment.addresses {
        inside.add_address(link, address.ip, address.prefix)?;
        if let Some(gateway) = address.gateway {
            inside.add_default_route(link, gateway)?;
        }
    }
    if !holding.published.is_empty() {
        let lock = state.lock()?;
        firewall::apply(bridge.link, &firewall::add(bridge.link, &holding.published), &lock)?;
    }
    Ok(())
}

/// Undoes all of it, however far it came; `holding` is what the record says, if it came so far.
pub(super) fn undo(
    state: &State,
    link: &str,
    id: &str,
    holding: Option<&Holding>,
) -> Result<(), NetworkError> {
    if let Some(holding) = holding.filter(|holding| !holding.published.is_empty()) {
        // An nft of a process that was killed may still run: it has the lock.
        let lock = state.lock()?;
        if netlink::has_nft_table(&firewall::table(link))? {
            firewall::apply(link, &firewall::delete(link, &holding.published), &lock)?;
        }
    }
    Links::open()?.delete(&host_end(id))?;
    match holding {
        Some(holding) => {
            ports::release(state, id, Some(&holding.published))?;
            holding.addresses.iter().try_for_each(|address| ipam::release(state, link, *address, id))
        }
        None => {
            ports::release(state, id, None)?;
            ipam::release_all(state, link, id)
        }
    }
}

/// Name of the host's end of a container's pair.
fn host_end(id: &str) -> String {
    format!("vc{}", id.get(..MAX_NAME - 2).unwrap_or(id))
}

/// The bridge's number and MTU; makes what is missing of it.
fn ensure(state: &State, bridge: &Checked<'_>, links: &mut Links) -> Result<(u32, u32), NetworkError> {
    if let Some(found) = ready(state, bridge, links)? {
        return Ok(found);
    }
    let lock = state.lock()?;
    // Another process may have made it while this one waited.
    if let Some(found) = ready(state, bridge, links)? {
        return Ok(found);
    }
    settle(state, bridge)?;
    let found = ensure_link(bridge, links)?;
    sysctls(bridge)?;
    let rules = bridge.rules();
    let restored = firewall::add(bridge.link, &record::published(state, bridge.link)?);
    firewall::apply(bridge.link, &format!("{rules}{restored}"), &lock)?;
    state::write(&state.bridge(bridge.link).join("firewall.nft"), rules.as_bytes())?;
    Ok(found)
}

/// Whether all is there: three questions to the kernel and one file.
fn ready(state: &State, bridge: &Checked<'_>, links: &mut Links) -> Result<Option<(u32, u32)>, NetworkError> {
    let Some(link) = links.find(bridge.link)? else { return Ok(None) };
    if link.kind != "bridge" {
        return Err(NetworkError::OtherKind { link: bridge.link.to_owned(), kind: "bridge" });
    }
    let rules = state::read(&state.bridge(bridge.link).join("firewall.nft"))?;
    let same = rules.is_some_and(|rules| rules == bridge.rules().as_bytes());
    let there = same && netlink::has_nft_table(&firewall::table(bridge.link))?;
    Ok(there.then_some((link.index, link.mtu)))
}

/// The bridge's settings may change only while nobody has an address of it.
fn settle(state: &State, bridge: &Checked<'_>) -> Result<(), NetworkError> {
    let path = state.bridge(bridge.link).join("settings.json");
    let settings: Vec<String> = bridge.subnets().map(|subnet| subnet.to_string()).collect();
    let before: Option<Vec<String>> = state::read_json(&path)?;
    match before {
        Some(before) if before == settings => Ok(()),
        Some(before) => {
            // The claims of whoever asks now are among the addresses already.
            let strangers = state::claims(&state.bridge(bridge.link).join("addresses"))?
                .iter()
                .filter_map(|(address, _)| address.parse().ok())
                .any(|address: IpAddr| bridge.subnets().all(|subnet| subnet.offset(address).is_none()));
            if strangers {
                return Err(NetworkError::BridgeDiffers {
                    link: bridge.link.to_owned(),
                    there: before.join(" and "),
                    given: settings.join(" and "),
                });
            }
            Links::open()?.delete(bridge.link)?;
            state::write_json(&path, &settings)
        }
        None => state::write_json(&path, &settings),
    }
}

fn ensure_link(bridge: &Checked<'_>, links: &mut Links) -> Result<(u32, u32), NetworkError> {
    let missing = || SysError::on("RTM_GETLINK", bridge.link)(nix::errno::Errno::ENODEV);
    let routes = links.routes()?;
    let own = links.find(bridge.link)?.map(|link| link.index);
    for subnet in bridge.subnets() {
        for route in &routes {
            let default = route.prefix == 0;
            let ours = own.is_some() && route.link == own;
            if !default && !ours && subnet.overlaps(route.destination, route.prefix) {
                let by = route.link.and_then(|index| links.name(index));
                return Err(NetworkError::Overlap {
                    link: bridge.link.to_owned(),
                    subnet: subnet.to_string(),
                    route: format!("{}/{}", route.destination, route.prefix),
                    by: by.unwrap_or_else(|| "several links".to_owned()),
                });
            }
        }
    }
    if own.is_none() {
        let way_out = routes.iter().find(|route| route.prefix == 0).and_then(|route| route.link);
        let mtu = way_out
            .and_then(|index| links.name(index))
            .and_then(|name| links.find(&name).ok().flatten())
            .map_or(DEFAULT_MTU, |link| link.mtu);
        links.add_bridge(bridge.link, mac(bridge.subnet.gateway()), mtu)?;
    }
    let link = links.find(bridge.link)?.ok_or_else(missing)?;
    let there = links.addresses(link.index)?;
    for subnet in bridge.subnets() {
        if !there.contains(&(subnet.gateway(), subnet.prefix())) {
            links.add_address(link.index, subnet.gateway(), subnet.prefix())?;
        }
    }
    Ok((link.index, link.mtu))
}

/// Kernel parameters of the host that a bridge needs.
fn sysctls(bridge: &Checked<'_>) -> Result<(), NetworkError> {
    let link = bridge.link;
    set("net/ipv4/ip_forward", "1")?;
    // Published ports answer on 127.0.0.1 too; the firewall keeps others from it.
    set(&format!("net/ipv4/conf/{link}/route_localnet"), "1")?;
    // A container must not become the host's router (CVE-2020-10749).
    let advertisements = set(&format!("net/ipv6/conf/{link}/accept_ra"), "0");
    if bridge.subnet6.is_some() {
        advertisements?;
        forward_v6(link)?;
    }
    Ok(())
}

/// Forwarding turns router advertisements off on all links that have 1; with 2 they are still heard
/// (Documentation/networking/ip-sysctl.rst), so that the host keeps its own way out.
fn forward_v6(link: &str) -> Result<(), NetworkError> {
    let directory = "/proc/sys/net/ipv6/conf";
    if std::fs::read_to_string(format!("{directory}/all/forwarding")).is_ok_and(|text| text.trim() == "1") {
        return Ok(());
    }
    for entry in std::fs::read_dir(directory).map_err(SysError::io("readdir", directory))?.flatten() {
        let name = entry.file_name();
        let listens =
            std::fs::read_to_string(entry.path().join("accept_ra")).is_ok_and(|text| text.trim() == "1");
        if listens && name != "all" && name != "default" && name != link {
            set(&format!("net/ipv6/conf/{}/accept_ra", name.to_string_lossy()), "2")?;
        }
    }
    set("net/ipv6/conf/all/forwarding", "1")
}

/// Writes a parameter that has another value; one that has it already may be read-only.
fn set(parameter: &str, value: &str) -> Result<(), NetworkError> {
    let path = format!("/proc/sys/{parameter}");
    if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == value) {
        return Ok(());
    }
    let mut file = File::options().write(true).open(&path).map_err(SysError::io("open", path.clone()))?;
    std::io::Write::write_all(&mut file, value.as_bytes()).map_err(SysError::io("write", path))?;
    Ok(())
}

/// A locally administered address that follows from the IP address, so that whoever has one gets the same other.
fn mac(ip: IpAddr) -> [u8; 6] {
    let [a, b, c, d] = match ip {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => {
            let [.., a, b, c, d] = ip.octets();
            [a, b, c, d]
        }
    };
    [0x02, 0xc0, a, b, c, d]
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links() {
        assert_eq!(host_end("0123456789abcdef"), "vc0123456789abc");
        for name in ["", "-a", "a/b", "a b", "a\"", "0123456789abcdef", ".."] {
            assert!(check_link_name(name).is_err(), "{name}");
        }
        assert!(check_link_name("corten-md").is_ok());
        assert_eq!(mac_text(mac("10.99.0.2".parse().unwrap())), "02:c0:0a:63:00:02");
    }
}
