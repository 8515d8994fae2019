//! An address of the host for a metadata server: tasks reach it over their bridge, other machines do not.
use super::bridge::check_link_name;
use super::state::State;
use super::{NetworkError, firewall};
use crate::sys::SysError;
use crate::sys::netlink::Links;
use std::net::IpAddr;
use std::path::Path;

/// Nobody is behind the link, so that nobody sees either.
const MAC: [u8; 6] = [0x02, 0xc0, 0xa9, 0xfe, 0xaa, 0x02];
const MTU: u32 = 1500;

/// Makes `address` (169.254.170.2, as ECS has it) an address of this host, on a link of the name `link`, and lets
/// only the host itself and what comes over `bridges` speak to it. What is there already stays.
///
/// # Errors
/// [`NetworkError::OtherKind`] if a link of that name is none of ours.
pub fn metadata(state: &Path, link: &str, address: IpAddr, bridges: &[String]) -> Result<(), NetworkError> {
    check_link_name(link)?;
    bridges.iter().try_for_each(|bridge| check_link_name(bridge))?;
    let state = State::new(state)?;
    let lock = state.lock()?;
    // The rule first, so that there is no moment at which others reach it.
    firewall::apply(link, &firewall::metadata(link, address, bridges), &lock)?;
    let mut links = Links::open()?;
    if links.find(link)?.is_none() {
        // A bridge without ports: not every kernel that has bridges has the driver of dummy links.
        links.add_bridge(link, MAC, MTU)?;
    }
    let missing = || SysError::on("RTM_GETLINK", link)(nix::errno::Errno::ENODEV);
    let found = links.find(link)?.ok_or_else(missing)?;
    if found.kind != "bridge" {
        return Err(NetworkError::OtherKind { link: link.to_owned(), kind: "bridge" });
    }
    let prefix = if address.is_ipv4() { 32 } else { 128 };
    if !links.addresses(found.index)?.contains(&(address, prefix)) {
        links.add_address(found.index, address, prefix)?;
    }
    Ok(())
}

/// Removes what [`metadata`] made; that there is nothing is no error.
pub fn remove_metadata(state: &Path, link: &str) -> Result<(), NetworkError> {
    check_link_name(link)?;
    let state = State::new(state)?;
    let lock = state.lock()?;
    let mut links = Links::open()?;
    match links.find(link)? {
        Some(found) if found.kind != "bridge" => {
            return Err(NetworkError::OtherKind { link: link.to_owned(), kind: "bridge" });
        }
        Some(_) => drop(links.delete(link)?),
        None => {}
    }
    firewall::apply(link, &firewall::remove(link), &lock)
}
