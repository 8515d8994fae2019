//! Subnets: `10.99.0.0/16`, `fd00:99::/64`.
use super::NetworkError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet from whose addresses containers get theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    base: IpAddr,
    prefix: u8,
}

impl Subnet {
    /// The family is checked by the caller's `v6`.
    pub(super) fn parse(text: &str, v6: bool) -> Result<Self, NetworkError> {
        let invalid = |reason| NetworkError::Invalid { what: "subnet", value: text.to_owned(), reason };
        let (ip, prefix) = text.split_once('/').ok_or_else(|| invalid("it needs the form ADDRESS/PREFIX"))?;
        let base: IpAddr = ip.parse().map_err(|_| invalid("its address is malformed"))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid("its prefix is no number"))?;
        if base.is_ipv6() != v6 {
            return Err(invalid(if v6 { "an IPv6 subnet is needed" } else { "an IPv4 subnet is needed" }));
        }
        // Less has no room for a gateway and a container; more than these is no subnet of one link.
        let (least, most) = if v6 { (48, 126) } else { (8, 30) };
        if !(least..=most).contains(&prefix) {
            return Err(invalid(if v6 {
                "its prefix must be 48 to 126"
            } else {
                "its prefix must be 8 to 30"
            }));
        }
        let subnet = Self { base, prefix };
        if base.is_loopback() || base.is_multicast() || base.is_unspecified() {
            return Err(invalid("containers cannot have such addresses"));
        }
        if subnet.number(base) & subnet.host_mask() != 0 {
            return Err(invalid("its address has bits below the prefix"));
        }
        Ok(subnet)
    }

    pub(super) fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The first address: the bridge's.
    pub(super) fn gateway(&self) -> IpAddr {
        self.address(1)
    }

    /// Offsets of addresses for containers: all but the network's, the gateway's, and IPv4's broadcast address.
    pub(super) fn offsets(&self) -> std::ops::RangeInclusive<u128> {
        2..=self.host_mask() - u128::from(self.base.is_ipv4())
    }

    /// The address at an offset from the beginning.
    pub(super) fn address(&self, offset: u128) -> IpAddr {
        let number = self.number(self.base) | (offset & self.host_mask());
        match self.base {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }

    /// The offset of an address, if it is inside.
    pub(super) fn offset(&self, address: IpAddr) -> Option<u128> {
        (address.is_ipv4() == self.base.is_ipv4()
            && self.number(address) & !self.host_mask() == self.number(self.base))
        .then(|| self.number(address) & self.host_mask())
    }

    /// Whether the two have an address in common.
    pub(super) fn overlaps(&self, other: IpAddr, prefix: u8) -> bool {
        let bits: u8 = if other.is_ipv4() { 32 } else { 128 };
        if other.is_ipv4() != self.base.is_ipv4() || prefix > bits {
            return false;
        }
        let common = self.prefix.min(prefix);
        let mask = low_bits(bits - common);
        self.number(self.base) & !mask == self.number(other) & !mask
    }

    fn host_mask(&self) -> u128 {
        low_bits(if self.base.is_ipv4() { 32 } else { 128 } - self.prefix)
    }

    fn number(&self, address: IpAddr) -> u128 {
        match address {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => ip.to_bits(),
        }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.base, self.prefix)
    }
}

fn low_bits(count: u8) -> u128 {
    1_u128.checked_shl(count.into()).map_or(u128::MAX, |bit| bit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(text: &str) -> Subnet {
        Subnet::parse(text, false).unwrap()
    }

    #[test]
    fn addresses_of_a_subnet() {
        let subnet = v4("10.99.0.0/29");
        assert_eq!(subnet.gateway().to_string(), "10.99.0.1");
        let all: Vec<String> = subnet.offsets().map(|offset| subnet.address(offset).to_string()).collect();
        assert_eq!(all, ["10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.5", "10.99.0.6"]);
        assert_eq!(subnet.offset("10.99.0.5".parse().unwrap()), Some(5));
        assert_eq!(subnet.offset("10.99.0.9".parse().unwrap()), None);
        let six = Subnet::parse("fd00:99::/64", true).unwrap();
        assert_eq!(six.address(0x10).to_string(), "fd00:99::10");
        assert_eq!(six.to_string(), "fd00:99::/64");
    }

    #[test]
    fn subnets_that_are_none_are_refused() {
        for text in [
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/31",
            "10.0.0.0/7",
            "127.0.0.0/8",
            "fd00::/64",
            "x/8",
            "0.0.0.0/8",
        ] {
            assert!(Subnet::parse(text, false).is_err(), "{text}");
        }
        for text in ["fd00::/127", "fd00::1/64", "10.0.0.0/8", "ff02::/64"] {
            assert!(Subnet::parse(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn overlap_is_of_either_inside_the_other() {
        let subnet = v4("10.88.0.0/16");
        for (other, prefix, overlaps) in [
            ("10.0.0.0", 8, true),
            ("10.88.3.0", 24, true),
            ("10.88.0.0", 16, true),
            ("10.89.0.0", 16, false),
            ("0.0.0.0", 0, true),
            ("fd00::", 8, false),
        ] {
            assert_eq!(subnet.overlaps(other.parse().unwrap(), prefix), overlaps, "{other}/{prefix}");
        }
    }
}
