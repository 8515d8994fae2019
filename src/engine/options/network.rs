//! Parsing of the flags that connect a container: `--network`, `-p`, `--dns`, `--add-host`; pure.
use super::{Connection, Network};
use crate::engine::error::EngineError;
use crate::network::{Bridge, Port, Protocol};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// One `-p` may name a range of so many ports.
const MAX_RANGE: usize = 1000;
const NETWORK: &str = "--network";
const PUBLISH: &str = "--publish";

/// `--network`: `none`, `host`, `bridge`, or `bridge:link=NAME,subnet=NET[,subnet6=NET]`.
pub fn network(text: &str) -> Result<(Network, Bridge), EngineError> {
    let (kind, settings) = text.split_once(':').unwrap_or((text, ""));
    let mut bridge = Bridge::default();
    match (kind, settings) {
        ("none", "") => return Ok((Network::None, bridge)),
        ("host", "") => return Ok((Network::Host, bridge)),
        ("bridge", "") => return Ok((Network::Bridge, bridge)),
        ("bridge", _) => {}
        _ => {
            let reason = "networks are none, host and bridge[:link=NAME,subnet=NET,subnet6=NET]";
            return Err(invalid(NETWORK, text, reason));
        }
    }
    for setting in settings.split(',') {
        match setting.split_once('=') {
            Some(("link", name)) => name.clone_into(&mut bridge.link),
            Some(("subnet", subnet)) => subnet.clone_into(&mut bridge.subnet),
            Some(("subnet6", subnet)) => bridge.subnet6 = Some(subnet.to_owned()),
            _ => return Err(invalid(NETWORK, text, "a bridge has link, subnet and subnet6")),
        }
    }
    Ok((Network::Bridge, bridge))
}

/// One `-p`: `[[ADDRESS:][HOSTPORT]:]PORT[/PROTOCOL]`, where both ports may be ranges of the same length. An IPv6
/// address is in brackets. Without a port of the host a free one is taken.
pub fn publish(text: &str) -> Result<Vec<Port>, EngineError> {
    let wrong = |reason| invalid(PUBLISH, text, reason);
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(wrong("the protocol is tcp or udp")),
    };
    let (rest, inside) = match rest.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, rest),
    };
    let inside = range(inside).ok_or_else(|| wrong("the container's port is a number from 1 to 65535"))?;
    let (address, outside) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, port)) => (Some(address), port),
            None => (None, rest),
        },
    };
    let host_ip = address
        .filter(|address| !address.is_empty())
        .map(|address| {
            let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
            bare.unwrap_or(address).parse::<IpAddr>()
        })
        .transpose()
        .map_err(|_| wrong("the host's address is malformed; IPv6 needs brackets"))?;
    let outside = match outside {
        "" | "0" => None,
        ports => Some(range(ports).ok_or_else(|| wrong("the host's port is a number from 1 to 65535"))?),
    };
    if outside.as_ref().is_some_and(|outside| outside.len() != inside.len()) {
        return Err(wrong("both ranges of ports must be equally long"));
    }
    if inside.len() > MAX_RANGE {
        return Err(wrong("a range has at most 1000 ports"));
    }
    let first = outside.map(|outside| *outside.start());
    Ok(inside
        .clone()
        .map(|container_port| Port {
            host_ip,
            // No overflow: the ranges are equally long.
            host_port: first.map_or(0, |first| first + (container_port - inside.start())),
            container_port,
            protocol,
        })
        .collect())
}

/// A port that an image exposes: `80`, `80/tcp` or `53/udp`; `None` for one that cannot be published.
pub fn exposed(text: &str) -> Option<Port> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let container_port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Port { host_ip: None, host_port: 0, container_port, protocol })
}

/// The address of `--add-host` that stands for the host, as docker has it.
pub const HOST_GATEWAY: &str = "host-gateway";

/// One `--add-host`: `NAME:ADDRESS`, or `NAME:host-gateway`.
pub fn add_host(text: &str) -> Result<(String, Vec<String>), EngineError> {
    let flag = "--add-host";
    let wrong = |reason| invalid(flag, text, reason);
    let (name, address) = text.split_once([':', '=']).ok_or_else(|| wrong("it is written NAME:ADDRESS"))?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(letter) {
        return Err(wrong("a host name is 1 to 253 letters, digits, '.', '-' and '_'"));
    }
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    if bare != HOST_GATEWAY && bare.parse::<IpAddr>().is_err() {
        return Err(wrong("the address is malformed"));
    }
    Ok((bare.to_owned(), vec![name.to_owned()]))
}

/// One `--dns`.
pub fn dns_server(text: &str) -> Result<String, EngineError> {
    text.parse::<IpAddr>()
        .map(|address| address.to_string())
        .map_err(|_| invalid("--dns", text, "a name server is an IP address"))
}

/// Whether the flags fit together.
pub fn check(network: Network, connection: &Connection) -> Result<(), EngineError> {
    let first = connection.ports.first().map(|port| port.container_port.to_string());
    let publishes = first.or_else(|| connection.publish_all.then(|| "all".to_owned()));
    match (network, publishes) {
        (Network::Bridge, _) | (_, None) => Ok(()),
        (_, Some(port)) => Err(invalid(PUBLISH, &port, "ports are published with --network bridge alone")),
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
    (low != 0 && low <= high).then_some(low..=high)
}

fn invalid(flag: &'static str, value: &str, reason: &'static str) -> EngineError {
    EngineError::Flag { flag, value: value.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<(Option<String>, u16, u16, &'static str)> {
        let all = publish(text).unwrap();
        all.iter()
            .map(|port| {
                let ip = port.host_ip.map(|ip| ip.to_string());
                (ip, port.host_port, port.container_port, port.protocol.name())
            })
            .collect()
    }

    #[test]
    fn publish_as_docker_writes_it() {
        assert_eq!(ports("80"), [(None, 0, 80, "tcp")]);
        assert_eq!(ports("8080:80"), [(None, 8080, 80, "tcp")]);
        assert_eq!(ports("127.0.0.1:53:5353/udp"), [(Some("127.0.0.1".to_owned()), 53, 5353, "udp")]);
        assert_eq!(ports("127.0.0.1::80"), [(Some("127.0.0.1".to_owned()), 0, 80, "tcp")]);
        assert_eq!(ports("[::1]:8080:80"), [(Some("::1".to_owned()), 8080, 80, "tcp")]);
        assert_eq!(ports("9000-9001:80-81"), [(None, 9000, 80, "tcp"), (None, 9001, 81, "tcp")]);
        assert_eq!(ports("80-81").len(), 2);
        for wrong in
            ["", ":", "0", "a:80", "80:0", "1-2:80", "70000:80", "80/sctp", "x:1:2", "1:2:3:4", "2-1"]
        {
            assert!(publish(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks() {
        assert_eq!(network("none").unwrap().0, Network::None);
        assert_eq!(network("host").unwrap().0, Network::Host);
        let (kind, bridge) = network("bridge:link=b0,subnet=10.1.0.0/24,subnet6=fd00::/64").unwrap();
        assert_eq!(
            (kind, bridge.link.as_str(), bridge.subnet.as_str()),
            (Network::Bridge, "b0", "10.1.0.0/24")
        );
        assert_eq!(network("bridge").unwrap().1, Bridge::default());
        for wrong in ["", "none:x", "nat", "bridge:mtu=3", "bridge:link"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
        let published = Connection { publish_all: true, ..Connection::default() };
        assert!(check(Network::None, &published).is_err());
        assert!(check(Network::Bridge, &published).is_ok());
    }

    #[test]
    fn hosts_and_servers() {
        assert_eq!(add_host("db:10.0.0.1").unwrap(), ("10.0.0.1".to_owned(), vec!["db".to_owned()]));
        assert_eq!(add_host("db:[fd00::1]").unwrap().0, "fd00::1");
        assert!(add_host("db").is_err() && add_host("d b:1.1.1.1").is_err() && add_host("db:x").is_err());
        assert!(dns_server("1.1.1.1").is_ok() && dns_server("one").is_err());
    }
}
