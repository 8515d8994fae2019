//! Published ports of the host: who has which.
use super::firewall::Published;
use super::state::{self, State};
use super::{NetworkError, Port, Protocol};
use crate::sys::SysError;
use nix::errno::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

/// How often the kernel is asked for a free port that none of ours has.
const MAX_TRIES: usize = 100;

/// Ports that were reserved, as they were asked for with their numbers, and as elements of the maps.
#[derive(Debug, Default)]
pub(super) struct Reserved {
    pub(super) ports: Vec<Port>,
    pub(super) published: Vec<Published>,
}

/// Reserves ports for `owner`, whose addresses are `v4` and `v6`; under the lock. What was reserved before an error
/// is given back by [`release`].
pub(super) fn reserve(
    state: &State,
    owner: &str,
    asked: &[Port],
    v4: IpAddr,
    v6: Option<IpAddr>,
) -> Result<Reserved, NetworkError> {
    let mut reserved = Reserved::default();
    for port in asked {
        let published = targets(port, v4, v6)?;
        let number = if port.host_port == 0 {
            free_port(state, &published)?
        } else {
            for one in &published {
                check(state, one)?;
            }
            port.host_port
        };
        for one in published {
            let one = Published { host_port: number, ..one };
            if !state::claim(&state.ports(), &name(&one), owner)? {
                return Err(taken(&one, owner_name(owner)));
            }
            reserved.published.push(one);
        }
        reserved.ports.push(Port { host_port: number, ..port.clone() });
    }
    Ok(reserved)
}

/// Gives up what an owner has of these, or all that it has if it is not known what that is.
pub(super) fn release(state: &State, owner: &str, known: Option<&[Published]>) -> Result<(), NetworkError> {
    let directory = state.ports();
    match known {
        Some(known) => known.iter().try_for_each(|one| state::release(&directory, &name(one), owner)),
        None => state::claims(&directory)?
            .iter()
            .filter(|(_, of)| of == owner)
            .try_for_each(|(name, _)| state::release(&directory, name, owner)),
    }
}

/// Which elements a port becomes: all addresses of the host are two where there is IPv6.
fn targets(port: &Port, v4: IpAddr, v6: Option<IpAddr>) -> Result<Vec<Published>, NetworkError> {
    let unsupported = |reason| {
        let (port, protocol) = (port.container_port, port.protocol);
        NetworkError::PortUnsupported { port, protocol, reason }
    };
    if port.protocol == Protocol::Sctp {
        return Err(unsupported("bridges publish TCP and UDP only"));
    }
    if port.container_port == 0 {
        return Err(unsupported("a container has no port 0"));
    }
    let to = |host_ip: Option<IpAddr>, address: IpAddr| Published {
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
        host_port: port.host_port,
        protocol: port.protocol,
        target: SocketAddr::new(address, port.container_port),
    };
    Ok(match (port.host_ip, v6) {
        (Some(ip @ IpAddr::V6(_)), Some(v6)) => vec![to(Some(ip), v6)],
        (Some(IpAddr::V6(_)), None) => return Err(unsupported("the bridge has no IPv6 subnet")),
        (Some(ip @ IpAddr::V4(_)), _) => vec![to(Some(ip), v4)],
        (None, v6) => std::iter::once(v4).chain(v6).map(|address| to(None, address)).collect(),
    })
}

/// Fails if another container or a process of the host has the port.
fn check(state: &State, one: &Published) -> Result<(), NetworkError> {
    if let Some(owner) = holder(state, one)? {
        return Err(taken(one, owner_name(&owner)));
    }
    match bind(one) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(taken(one, "a process of the host".to_owned()))
        }
        Err(error) if error.raw_os_error() == Some(Errno::EADDRNOTAVAIL as i32) => {
            Err(NetworkError::Invalid {
                what: "host address",
                value: one.host_ip.map_or_else(String::new, |ip| ip.to_string()),
                reason: "no link of this host has it",
            })
        }
        // A host without IPv6, or a privileged port where we may not bind: no process can be in our way there.
        Err(error)
            if [Errno::EAFNOSUPPORT, Errno::EACCES]
                .iter()
                .any(|errno| error.raw_os_error() == Some(*errno as i32)) =>
        {
            Ok(())
        }
        Err(error) => Err(SysError::io("bind", name(one))(error).into()),
    }
}

/// Who of ours has the port, on one of the same addresses.
fn holder(state: &State, one: &Published) -> Result<Option<String>, NetworkError> {
    let directory = state.ports();
    // With an address of its own, only that and "all" are in the way; without, any address.
    if one.host_ip.is_some() {
        let all = Published { host_ip: None, ..one.clone() };
        let owner =
            [one, &all].into_iter().find_map(|one| std::fs::read_link(directory.join(name(one))).ok());
        return Ok(owner.map(|owner| owner.to_string_lossy().into_owned()));
    }
    let prefix = format!("{}-{}-", one.protocol.name(), one.host_port);
    let same_family = |rest: &str| match rest {
        "any4" => one.target.is_ipv4(),
        "any6" => one.target.is_ipv6(),
        address => address.contains(':') == one.target.is_ipv6(),
    };
    Ok(state::claims(&directory)?
        .into_iter()
        .find(|(name, _)| name.strip_prefix(&prefix).is_some_and(same_family))
        .map(|(_, owner)| owner))
}

/// A port that is free for all of `published`. The kernel may give the number to a socket of the host before the
/// rules are there, as it may for any published port later: it is only never ours twice.
fn free_port(state: &State, published: &[Published]) -> Result<u16, NetworkError> {
    let Some(first) = published.first() else { return Ok(0) };
    let mut result = Err(taken(first, "everybody".to_owned()));
    for _ in 0..MAX_TRIES {
        // The socket is closed at the end of the statement: what is checked below binds it again.
        let number = bind(first).and_then(|bound| bound.port()).map_err(SysError::io("bind", name(first)))?;
        result = published
            .iter()
            .try_for_each(|one| check(state, &Published { host_port: number, ..one.clone() }))
            .map(|()| number);
        if result.is_ok() {
            break;
        }
    }
    result
}

enum Bound {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Bound {
    fn port(&self) -> io::Result<u16> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
        .map(|address| address.port())
    }
}

fn bind(one: &Published) -> io::Result<Bound> {
    let any = if one.target.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let address = SocketAddr::new(one.host_ip.unwrap_or(any), one.host_port);
    match one.protocol {
        Protocol::Udp => UdpSocket::bind(address).map(Bound::Udp),
        Protocol::Tcp | Protocol::Sctp => TcpListener::bind(address).map(Bound::Tcp),
    }
}

fn name(one: &Published) -> String {
    let address = one.host_ip.map_or_else(
        || if one.target.is_ipv4() { "any4".to_owned() } else { "any6".to_owned() },
        |ip| ip.to_string(),
    );
    format!("{}-{}-{address}", one.protocol.name(), one.host_port)
}

fn taken(one: &Published, by: String) -> NetworkError {
    NetworkError::PortTaken { host_ip: one.host_ip, port: one.host_port, protocol: one.protocol, by }
}

fn owner_name(id: &str) -> String {
    format!("container {}", id.get(..12).unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: Option<&str>, host_port: u16) -> Port {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        Port { host_ip, host_port, container_port: 80, protocol: Protocol::Tcp }
    }

    fn v4() -> IpAddr {
        "10.9.8.2".parse().unwrap()
    }

    #[test]
    fn a_port_is_ours_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).unwrap();
        let first = reserve(&state, "a", &[port(None, 0)], v4(), None).unwrap();
        let number = first.ports[0].host_port;
        assert_ne!(number, 0);
        for host_ip in [None, Some("127.0.0.1"), Some("0.0.0.0")] {
            let error = reserve(&state, "b", &[port(host_ip, number)], v4(), None).unwrap_err();
            assert!(error.to_string().ends_with("is taken by container a"), "{error}");
        }
        release(&state, "b", None).unwrap();
        release(&state, "a", Some(&first.published)).unwrap();
        let one = reserve(&state, "b", &[port(Some("127.0.0.1"), number)], v4(), None).unwrap();
        assert!(reserve(&state, "c", &[port(None, number)], v4(), None).is_err());
        reserve(&state, "c", &[port(Some("127.0.0.2"), number)], v4(), None).unwrap();
        assert_eq!(one.published.len(), 1);
    }

    #[test]
    fn a_process_of_the_host_has_a_port() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = socket.local_addr().unwrap().port();
        let error = reserve(&state, "a", &[port(None, number)], v4(), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("port {number}/tcp of the host is taken by a process of the host")
        );
        let udp = Port { protocol: Protocol::Sctp, ..port(None, 1) };
        assert!(matches!(
            reserve(&state, "a", &[udp], v4(), None),
            Err(NetworkError::PortUnsupported { .. })
        ));
        let error = reserve(&state, "a", &[port(Some("203.0.113.77"), 8080)], v4(), None).unwrap_err();
        assert!(matches!(error, NetworkError::Invalid { .. }), "{error}");
    }
}
