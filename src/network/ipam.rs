//! Which addresses of a bridge's subnets are in use: a claim for each.
use super::NetworkError;
use super::state::{self, State};
use super::subnet::Subnet;
use std::net::IpAddr;

/// An IPv6 subnet has more addresses than anybody can look through.
const MAX_TRIES: u128 = 1 << 20;

/// Claims the next address after the one that was given out last, so that an address rests before somebody else has
/// it.
pub(super) fn allocate(
    state: &State,
    link: &str,
    subnet: Subnet,
    owner: &str,
) -> Result<IpAddr, NetworkError> {
    let directory = state.bridge(link);
    let addresses = directory.join("addresses");
    let last = directory.join(if subnet.gateway().is_ipv4() { "last4" } else { "last6" });
    let offsets = subnet.offsets();
    let (low, high) = (*offsets.start(), *offsets.end());
    let before = state::read(&last)?
        .and_then(|text| String::from_utf8(text).ok()?.parse::<IpAddr>().ok())
        .and_then(|address| subnet.offset(address))
        .filter(|offset| offsets.contains(offset))
        .unwrap_or(high);
    let count = high - low + 1;
    for step in 1..=count.min(MAX_TRIES) {
        let address = subnet.address(low + (before - low + step) % count);
        if state::claim(&addresses, &address.to_string(), owner)? {
            // Two at a time may overwrite each other's: that only lets an address rest a shorter time.
            state::write(&last, address.to_string().as_bytes())?;
            return Ok(address);
        }
    }
    Err(NetworkError::Exhausted { link: link.to_owned(), subnet: subnet.to_string() })
}

/// Gives all addresses of an owner back.
pub(super) fn release_all(state: &State, link: &str, owner: &str) -> Result<(), NetworkError> {
    let addresses = state.bridge(link).join("addresses");
    for (address, of) in state::claims(&addresses)? {
        if of == owner {
            state::release(&addresses, &address, owner)?;
        }
    }
    Ok(())
}

/// Gives one address of an owner back.
pub(super) fn release(state: &State, link: &str, address: IpAddr, owner: &str) -> Result<(), NetworkError> {
    state::release(&state.bridge(link).join("addresses"), &address.to_string(), owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::new(dir.path()).unwrap();
        state::make_directory(&state.bridge("b").join("addresses")).unwrap();
        let subnet = Subnet::parse("10.9.8.0/29", false).unwrap();
        let next = |owner: &str| allocate(&state, "b", subnet, owner).map(|ip| ip.to_string());
        assert_eq!(next("a").unwrap(), "10.9.8.2");
        release_all(&state, "b", "a").unwrap();
        for (owner, address) in [("b", "3"), ("c", "4"), ("d", "5"), ("e", "6"), ("f", "2")] {
            assert_eq!(next(owner).unwrap(), format!("10.9.8.{address}"));
        }
        let full = next("g").unwrap_err();
        assert!(matches!(full, NetworkError::Exhausted { .. }));
        assert_eq!(full.to_string(), "subnet 10.9.8.0/29 of bridge b has no free address");
        // Only the owner gives an address back.
        release(&state, "b", "10.9.8.4".parse().unwrap(), "d").unwrap();
        assert!(next("g").is_err());
        release(&state, "b", "10.9.8.4".parse().unwrap(), "c").unwrap();
        assert_eq!(next("g").unwrap(), "10.9.8.4");
    }
}
