//! Text of a container's /etc/hosts and /etc/resolv.conf.
//!
//! What comes from outside is checked, because a line break in a name would add lines that nobody asked for.
use super::{Attachment, Dns, NetworkError};
use crate::sys::SysError;
use crate::sys::root;
use nix::fcntl::OFlag;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved asks itself, where /etc/resolv.conf names only its stub on loopback.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
/// A host's file that is larger is none.
const MAX_FILE: usize = 1 << 20;
/// glibc reads no more name servers (MAXNS of resolv.h).
const MAX_SERVERS: usize = 3;
/// Used where the host names no server that a container could reach.
const FALLBACK: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The text of /etc/hosts: loopback, the container's own name at `addresses`, and `extra` lines of an address and
/// names. With no address its name is at 127.0.0.1.
///
/// # Errors
/// [`NetworkError::Unwritable`] for a name or address that is none.
pub fn hosts(
    hostname: &str,
    addresses: &[IpAddr],
    extra: &[(String, Vec<String>)],
) -> Result<String, NetworkError> {
    check_name(hostname)?;
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if addresses.is_empty() {
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "127.0.0.1\t{hostname}");
    }
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    for (address, names) in extra {
        if address.parse::<IpAddr>().is_err() {
            return Err(unwritable("address", address, HOSTS));
        }
        names.iter().try_for_each(|name| check_name(name))?;
        if !names.is_empty() {
            let _ = writeln!(text, "{address}\t{}", names.join(" "));
        }
    }
    Ok(text)
}

/// The text of /etc/resolv.conf.
///
/// # Errors
/// [`NetworkError::Unwritable`] for a server that is no address, and for domains and options with blanks.
pub fn resolv_conf(dns: &Dns) -> Result<String, NetworkError> {
    let mut text = String::new();
    for server in &dns.servers {
        // Link-local servers have a zone: `fe80::1%eth0`.
        let (address, zone) = server.split_once('%').unwrap_or((server, "x"));
        if address.parse::<IpAddr>().is_err() || !is_word(zone) {
            return Err(unwritable("name server", server, RESOLV_CONF));
        }
        let _ = writeln!(text, "nameserver {server}");
    }
    for (what, line, words) in
        [("search domain", "search", &dns.searches), ("option", "options", &dns.options)]
    {
        if let Some(wrong) = words.iter().find(|word| !is_word(word)) {
            return Err(unwritable(what, wrong, RESOLV_CONF));
        }
        if !words.is_empty() {
            let _ = writeln!(text, "{line} {}", words.join(" "));
        }
    }
    Ok(text)
}

/// What a resolv.conf says; what is malformed is left out, as a resolver does (resolv.conf(5)).
pub fn parse_resolv_conf(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let keyword = words.next();
        let values = words.take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
        match keyword {
            Some("nameserver") => dns.servers.extend(values.take(1).filter(|server| {
                server.split('%').next().is_some_and(|address| address.parse::<IpAddr>().is_ok())
            })),
            // The last of them counts.
            Some("search" | "domain") => dns.searches = values.collect(),
            Some("options") => dns.options.extend(values),
            _ => {}
        }
    }
    dns.servers.truncate(MAX_SERVERS);
    dns
}

/// What a container's resolver is told, field by field: what was asked for, then what the network told, then the
/// host's.
pub fn choose(asked: &Dns, told: &Dns, host: Dns) -> Dns {
    let first = |asked: &[String], told: &[String], host: Vec<String>| {
        [asked, told].into_iter().find(|list| !list.is_empty()).map_or(host, <[String]>::to_vec)
    };
    Dns {
        servers: first(&asked.servers, &told.servers, host.servers),
        searches: first(&asked.searches, &told.searches, host.searches),
        options: first(&asked.options, &told.options, host.options),
    }
}

/// The host's resolver settings for a container; with `own_namespace` without servers on the host's loopback, which
/// the container cannot reach.
pub fn host_dns(own_namespace: bool) -> Dns {
    let dns = read(RESOLV_CONF);
    if !own_namespace {
        return dns;
    }
    let mut reachable = without_loopback(dns);
    if reachable.servers.is_empty() {
        let resolved = without_loopback(read(RESOLVED));
        reachable.servers = resolved.servers;
        if reachable.searches.is_empty() {
            reachable.searches = resolved.searches;
        }
    }
    if reachable.servers.is_empty() {
        reachable.servers = FALLBACK.map(str::to_owned).to_vec();
    }
    reachable
}

/// The text of /etc/resolv.conf of a container in a network namespace of its own that came to `attachment`.
pub fn attached_resolv_conf(asked: &Dns, attachment: &Attachment) -> Result<String, NetworkError> {
    resolv_conf(&choose(asked, &attachment.dns, host_dns(true)))
}

fn without_loopback(mut dns: Dns) -> Dns {
    dns.servers.retain(|server| !server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()));
    dns
}

/// A file that is missing, too large or no text says nothing.
fn read(path: &str) -> Dns {
    root::open_own(Path::new(path), OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        .and_then(|file| root::read_bounded(&file, MAX_FILE).map_err(SysError::on("read", path)))
        .map(|bytes| parse_resolv_conf(&String::from_utf8_lossy(&bytes)))
        .unwrap_or_default()
}

fn check_name(name: &str) -> Result<(), NetworkError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
        return Err(unwritable("host name", name, HOSTS));
    }
    Ok(())
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !text.starts_with(['#', ';'])
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn unwritable(what: &'static str, value: &str, file: &'static str) -> NetworkError {
    NetworkError::Unwritable { what, value: value.chars().take(100).collect(), file }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn hosts_has_loopback_the_own_name_and_the_extra_lines() {
        let extra = [("10.0.0.9".to_owned(), strings(&["db", "db.local"]))];
        let text = hosts("web", &["10.99.0.2".parse().unwrap()], &extra).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost\n::1\tlocalhost "));
        assert!(text.ends_with("10.99.0.2\tweb\n10.0.0.9\tdb db.local\n"));
        assert!(hosts("web", &[], &[]).unwrap().ends_with("127.0.0.1\tweb\n"));
    }

    #[test]
    fn a_line_break_in_a_name_is_refused() {
        for name in ["a\n1.2.3.4 bank", "", "a b", "a\tb", "a#"] {
            assert!(hosts(name, &[], &[]).is_err(), "{name:?}");
            assert!(hosts("web", &[], &[("1.2.3.4".to_owned(), vec![name.to_owned()])]).is_err(), "{name:?}");
        }
        assert!(hosts("web", &[], &[("1.2.3.4\n5.6.7.8".to_owned(), strings(&["a"]))]).is_err());
        let dns = Dns { servers: strings(&["1.1.1.1\nnameserver 2.2.2.2"]), ..Dns::default() };
        assert!(resolv_conf(&dns).is_err());
        assert!(resolv_conf(&Dns { searches: strings(&["a\nb"]), ..Dns::default() }).is_err());
        assert!(resolv_conf(&Dns { options: strings(&["ndots:1 x"]), ..Dns::default() }).is_err());
    }

    #[test]
    fn resolv_conf_is_read_and_written() {
        let text = "# c\nnameserver 127.0.0.53\nnameserver 10.0.0.1 # office\nnameserver x\n\
                    domain old\nsearch a.example b.example\noptions ndots:2\noptions edns0\n";
        let dns = parse_resolv_conf(text);
        assert_eq!(dns.servers, ["127.0.0.53", "10.0.0.1"]);
        assert_eq!(
            resolv_conf(&without_loopback(dns)).unwrap(),
            "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:2 edns0\n"
        );
        assert!(resolv_conf(&Dns { servers: strings(&["fe80::1%eth0"]), ..Dns::default() }).is_ok());
    }

    #[test]
    fn what_was_asked_for_goes_before_the_network_and_the_host() {
        let asked = Dns { servers: strings(&["1.1.1.1"]), ..Dns::default() };
        let told = Dns { servers: strings(&["2.2.2.2"]), searches: strings(&["net"]), ..Dns::default() };
        let host = Dns { searches: strings(&["host"]), options: strings(&["rotate"]), ..Dns::default() };
        let chosen = choose(&asked, &told, host);
        assert_eq!(
            (chosen.servers, chosen.searches, chosen.options),
            (strings(&["1.1.1.1"]), strings(&["net"]), strings(&["rotate"]))
        );
    }
}
