//! Moving a link into another network namespace, with the addresses that the kernel drops on the way.
use super::{Links, TYPE_MASK, attributes, number, parse_ip};
use crate::sys::SysError;
use netlink_packet_core::{DefaultNla, NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::os::fd::{AsFd, AsRawFd};

/// Attributes of `linux/if_addr.h` that make an address; its label has the link's name in it, and its times are
/// those of a permanent one.
const KEPT: [u16; 5] = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY, IFA_PROTO];
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const PERMANENT: u32 = 0x80;
/// Flags that the one who made the address gave it: nodad, homeaddress, managetempaddr, noprefixroute, mcautojoin.
const GIVEN_FLAGS: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
/// `RT_SCOPE_UNIVERSE`
const UNIVERSE: u8 = 0;

/// An address as it was on a link, to be given to that link elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermanentAddress {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Links {
    /// The addresses of a link that do not expire and have global scope: those that runtime-spec wants to outlive a
    /// move.
    pub fn permanent_addresses(&mut self, link: u32) -> Result<Vec<PermanentAddress>, SysError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.ask("RTM_GETADDR", "all", message, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|body| parse(body, link)).collect())
    }

    /// Gives such an address to a link of this namespace.
    pub fn restore_address(&mut self, link: u32, address: &PermanentAddress) -> Result<(), SysError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::from(address.family);
        message.header.prefix_len = address.prefix;
        message.header.scope = AddressScope::Universe;
        message.header.index = link;
        let flags = (IFA_FLAGS, address.flags.to_ne_bytes().to_vec());
        message.attributes = address
            .attributes
            .iter()
            .chain([&flags])
            .map(|(kind, value)| AddressAttribute::Other(DefaultNla::new(*kind, value.clone())))
            .collect();
        self.create("RTM_NEWADDR", &address.to_string(), RouteNetlinkMessage::NewAddress(message))
    }

    /// Takes a link down and moves it into `netns`, where it is named `name`. Its number may change.
    ///
    /// # Errors
    /// EEXIST if the name is taken there, EINVAL for a link that cannot be moved (the loopback link for one).
    pub fn move_link(&mut self, link: u32, netns: impl AsFd, name: &str) -> Result<(), SysError> {
        let mut message = LinkMessage::default();
        message.header.index = link;
        message.header.flags = LinkFlags::empty();
        message.header.change_mask = LinkFlags::Up;
        message.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.ask("RTM_SETLINK", name, RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }
}

impl std::fmt::Display for PermanentAddress {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |wanted| self.attributes.iter().find(|(kind, _)| *kind == wanted);
        match of(IFA_LOCAL).or_else(|| of(IFA_ADDRESS)).and_then(|(_, value)| parse_ip(value)) {
            Some(ip) => write!(out, "{ip}/{}", self.prefix),
            None => write!(out, "an address of family {}", self.family),
        }
    }
}

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index; it ends at 8.
fn parse(body: &[u8], link: u32) -> Option<PermanentAddress> {
    let &[family, prefix, short_flags, scope, ..] = body else { return None };
    if number(body.get(4..)?)? != link || scope != UNIVERSE {
        return None;
    }
    let mut flags = u32::from(short_flags);
    let mut kept = Vec::new();
    for (kind, value) in attributes(body, 8) {
        match kind & TYPE_MASK {
            IFA_FLAGS => flags = number(value)?,
            kind if KEPT.contains(&kind) => kept.push((kind, value.to_vec())),
            _ => {}
        }
    }
    if flags & PERMANENT == 0 {
        return None;
    }
    Some(PermanentAddress { family, prefix, flags: flags & GIVEN_FLAGS, attributes: kept })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(scope: u8, flags: u32, link: u32) -> Vec<u8> {
        let mut body = vec![2, 24, 0, scope];
        body.extend(link.to_ne_bytes());
        for (kind, value) in [
            (IFA_ADDRESS, vec![10, 0, 0, 1]),
            (IFA_LOCAL, vec![10, 0, 0, 1]),
            (3, b"eth0\0\0\0\0".to_vec()),
            (IFA_FLAGS, flags.to_ne_bytes().to_vec()),
        ] {
            body.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
        }
        body
    }

    #[test]
    fn permanent_addresses_of_global_scope() {
        let found = parse(&body(0, PERMANENT | 0x200, 7), 7).unwrap();
        assert_eq!((found.family, found.prefix, found.flags, found.attributes.len()), (2, 24, 0x200, 2));
        assert_eq!(found.to_string(), "10.0.0.1/24");
        assert_eq!(parse(&body(0, PERMANENT, 7), 8), None, "of another link");
        assert_eq!(parse(&body(253, PERMANENT, 7), 7), None, "of the link alone");
        assert_eq!(parse(&body(0, 0, 7), 7), None, "one that expires");
        assert_eq!(parse(&[2, 24], 7), None);
    }
}
