//! Links, addresses and routes of a network namespace: rtnetlink(7), one request and its answer at a time.
use super::SysError;
use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

mod moving;

pub use moving::PermanentAddress;

/// Attributes of `linux/if_link.h` and `linux/rtnetlink.h` that are read from answers.
const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// The two low bits of an attribute's type that are flags (`NLA_TYPE_MASK` of `linux/netlink.h`).
const TYPE_MASK: u16 = 0x3fff;
/// Message types that end or fail an answer.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A socket to the kernel's routing tables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
    sequence: u32,
}

/// What there is to know of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// `bridge`, `veth` ...; empty for hardware.
    pub kind: String,
    /// The largest packet in bytes.
    pub mtu: u32,
    /// Hardware address.
    pub mac: Vec<u8>,
}

/// A route of the main table, or of another but `local`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads; unspecified with prefix 0 for the default route.
    pub destination: IpAddr,
    /// Length of the destination's prefix.
    pub prefix: u8,
    /// The link, if it has just one.
    pub link: Option<u32>,
}

/// A pair of links that is to be made.
#[derive(Debug)]
pub struct Veth<'a> {
    /// Name of the end in this namespace; it is up.
    pub name: &'a str,
    /// The bridge of that end.
    pub bridge: u32,
    /// Both ends'.
    pub mtu: u32,
    /// Namespace of the other end.
    pub netns: BorrowedFd<'a>,
    /// Name of the other end, which is down yet.
    pub peer: &'a str,
    /// Hardware address of the other end.
    pub mac: [u8; 6],
}

impl Links {
    /// Opens one for the calling thread's network namespace.
    pub fn open() -> Result<Self, SysError> {
        Ok(Self { socket: connect(NETLINK_ROUTE)?, sequence: 0 })
    }

    /// The link of this name.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>, SysError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask("RTM_GETLINK", name, RouteNetlinkMessage::GetLink(message), 0) {
            Ok(answers) => Ok(answers.first().and_then(|body| parse_link(body))),
            Err(SysError { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The name of the link of this number.
    pub fn name(&mut self, index: u32) -> Option<String> {
        nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok())
    }

    /// Makes a bridge that is up, does not take part in STP, and keeps this hardware address.
    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> Result<(), SysError> {
        let message = new_link(
            name,
            vec![
                LinkAttribute::Mtu(mtu),
                LinkAttribute::Address(mac.to_vec()),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Bridge),
                    // Off is the default; without snooping, multicast (and so neighbour discovery) needs no querier.
                    LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::MulticastSnooping(false)])),
                ]),
            ],
        );
        self.create("RTM_NEWLINK", name, RouteNetlinkMessage::NewLink(message))
    }

    /// Makes a pair of links whose other end is in another namespace from the beginning.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), SysError> {
        let mut peer = new_link(
            veth.peer,
            vec![
                LinkAttribute::Mtu(veth.mtu),
                LinkAttribute::Address(veth.mac.to_vec()),
                LinkAttribute::NetNsFd(veth.netns.as_raw_fd()),
            ],
        );
        // veth_open refuses (ENOTCONN) to bring up an end before both are there.
        peer.header.flags = LinkFlags::empty();
        peer.header.change_mask = LinkFlags::empty();
        let mut message = new_link(
            veth.name,
            vec![
                LinkAttribute::Mtu(veth.mtu),
                LinkAttribute::Controller(veth.bridge),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                ]),
            ],
        );
        message.header.flags = LinkFlags::empty();
        message.header.change_mask = LinkFlags::empty();
        self.create("RTM_NEWLINK", veth.name, RouteNetlinkMessage::NewLink(message))?;
        // A port of a bridge needs no address. Linux 6.18 refuses to be told so with the link itself (EAFNOSUPPORT:
        // there is no IPv6 on it yet), and with its coming up it would be too late: do_setlink sets flags first.
        let no_address = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let mut message = new_link(veth.name, vec![LinkAttribute::AfSpecUnspec(vec![no_address])]);
        message.header.flags = LinkFlags::empty();
        message.header.change_mask = LinkFlags::empty();
        match self.ask("RTM_SETLINK", veth.name, RouteNetlinkMessage::SetLink(message), NLM_F_ACK) {
            // A host without IPv6.
            Err(SysError { errno: Errno::EAFNOSUPPORT, .. }) => {}
            result => drop(result?),
        }
        // Hairpin: with br_netfilter a packet that was redirected to its sender goes out where it came in. Settings of a
        // port are taken by RTM_NEWLINK alone.
        let hairpin = LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]);
        let message = RouteNetlinkMessage::NewLink(new_link(veth.name, vec![hairpin]));
        self.ask("RTM_NEWLINK", veth.name, message, NLM_F_ACK).map(drop)
    }

    /// Brings a link up.
    pub fn set_up(&mut self, link: u32) -> Result<(), SysError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        let message = RouteNetlinkMessage::SetLink(message);
        self.ask("RTM_SETLINK", &link.to_string(), message, NLM_F_ACK).map(drop)
    }

    /// Removes a link, and with one end of a pair the other; false if there is none of that name.
    pub fn delete(&mut self, name: &str) -> Result<bool, SysError> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.ask("RTM_DELLINK", name, RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Ok(_) => Ok(true),
            Err(SysError { errno: Errno::ENODEV, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds an address at once, without probing for duplicates.
    ///
    /// # Errors
    /// EEXIST if the link has it.
    pub fn add_address(&mut self, link: u32, ip: IpAddr, prefix: u8) -> Result<(), SysError> {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = prefix;
        message.header.index = link;
        message.attributes.push(AddressAttribute::Local(ip));
        message.attributes.push(AddressAttribute::Address(ip));
        match ip {
            IpAddr::V4(ip) if prefix < 31 => {
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(Ipv4Addr::from_bits(ip.to_bits() | host)));
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => {
                message.header.flags = AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        self.create("RTM_NEWADDR", &format!("{ip}/{prefix}"), RouteNetlinkMessage::NewAddress(message))
    }

    /// Addresses of a link with the lengths of their prefixes.
    pub fn addresses(&mut self, link: u32) -> Result<Vec<(IpAddr, u8)>, SysError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask("RTM_GETADDR", "all", message, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|body| parse_address(body, link)).collect())
    }

    /// Adds the default route of the gateway's family.
    pub fn add_default_route(&mut self, link: u32, gateway: IpAddr) -> Result<(), SysError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(gateway);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::Universe;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        message.attributes.push(RouteAttribute::Oif(link));
        self.create("RTM_NEWROUTE", &format!("default via {gateway}"), RouteNetlinkMessage::NewRoute(message))
    }

    /// All unicast routes of both families.
    pub fn routes(&mut self) -> Result<Vec<Route>, SysError> {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let answers = self.ask("RTM_GETROUTE", "all", message, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|body| parse_route(body)).collect())
    }

    fn create(
        &mut self,
        call: &'static str,
        object: &str,
        message: RouteNetlinkMessage,
    ) -> Result<(), SysError> {
        self.ask(call, object, message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    fn ask(
        &mut self,
        call: &'static str,
        object: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<Vec<u8>>, SysError> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        exchange(&self.socket, &bytes, self.sequence, flags & NLM_F_DUMP == NLM_F_DUMP)
            .map_err(SysError::on(call, object))
    }
}

/// Whether the table of family `inet` exists in nftables. Also false where the kernel has no nftables.
pub fn has_nft_table(name: &str) -> Result<bool, SysError> {
    /// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE`, `NFPROTO_INET`, `NFTA_TABLE_NAME`.
    const GET_TABLE: u16 = 10 << 8 | 1;
    const INET: u8 = 1;
    const TABLE_NAME: u16 = 1;
    let socket = connect(NETLINK_NETFILTER)?;
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    let attribute = DefaultNla::new(TABLE_NAME, value);
    let mut body = vec![0; netlink_packet_core::Emitable::buffer_len(&attribute)];
    netlink_packet_core::Emitable::emit(&attribute, &mut body);
    let length = u32::try_from(16 + 4 + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::new();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(GET_TABLE.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([INET, 0, 0, 0]);
    bytes.extend(body);
    Ok(exchange(&socket, &bytes, 1, false).is_ok())
}

fn connect(protocol: isize) -> Result<Socket, SysError> {
    let socket = Socket::new(protocol).map_err(SysError::io("socket", "AF_NETLINK"))?;
    socket.connect(&SocketAddr::new(0, 0)).map_err(SysError::io("connect", "AF_NETLINK"))?;
    Ok(socket)
}

/// Sends a request and gives the bodies of the answers. The kernel has answered when send returns, or goes on with a
/// dump at each receive: nothing here waits for anybody.
fn exchange(socket: &Socket, request: &[u8], sequence: u32, dump: bool) -> Result<Vec<Vec<u8>>, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    socket.send(request, 0).map_err(errno)?;
    let mut bodies = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full().map_err(errno)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let message = NetlinkBuffer::new_checked(rest).map_err(|_| Errno::EBADMSG)?;
            let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
            if message.sequence_number() == sequence {
                match message.message_type() {
                    NLMSG_ERROR => return acknowledged(message.payload()).map(|()| bodies),
                    NLMSG_DONE => return Ok(bodies),
                    _ => bodies.push(message.payload().to_vec()),
                }
                if !dump {
                    return Ok(bodies);
                }
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn acknowledged(payload: &[u8]) -> Result<(), Errno> {
    match number(payload).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw(code.saturating_neg())),
        None => Err(Errno::EBADMSG),
    }
}

fn new_link(name: &str, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = attributes;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// The attributes after a header of `header` bytes (`struct nlattr`: length, type, value, each begins at a multiple of
/// 4); what the kernel may add is skipped unread.
fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let short = |at: usize| Some(u16::from_ne_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(short(0)?), short(2)? & TYPE_MASK);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// `struct ifinfomsg` has the index at 4 and ends at 16.
fn parse_link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: number(body.get(4..)?)?, kind: String::new(), mtu: 0, mac: Vec::new() };
    for (kind, value) in attributes(body, 16) {
        match kind {
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_LINKINFO => {
                if let Some((_, name)) = attributes(value, 0).find(|(kind, _)| *kind == IFLA_INFO_KIND) {
                    link.kind = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
fn parse_address(body: &[u8], link: u32) -> Option<(IpAddr, u8)> {
    let prefix = *body.get(1)?;
    if number(body.get(4..)?)? != link {
        return None;
    }
    let mut found = None;
    for (kind, value) in attributes(body, 8) {
        match kind {
            IFA_LOCAL => return Some((parse_ip(value)?, prefix)),
            IFA_ADDRESS => found = parse_ip(value),
            _ => {}
        }
    }
    Some((found?, prefix))
}

/// `struct rtmsg`: family, length of the destination's prefix, ..., type at 7; it ends at 12.
fn parse_route(body: &[u8]) -> Option<Route> {
    /// `RTN_UNICAST`
    const UNICAST: u8 = 1;
    let (family, prefix) = (*body.first()?, *body.get(1)?);
    if *body.get(7)? != UNICAST {
        return None;
    }
    let unspecified = match AddressFamily::from(family) {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = Route { destination: unspecified, prefix, link: None };
    for (kind, value) in attributes(body, 12) {
        match kind {
            RTA_DST => route.destination = parse_ip(value)?,
            RTA_OIF => route.link = number(value),
            _ => {}
        }
    }
    Some(route)
}

fn parse_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
