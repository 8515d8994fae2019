//! Addresses, names, and who reaches whom.
use super::{Net, answered, ask_from_host, command, unanswered};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;

#[test]
fn containers_reach_each_other_the_host_and_themselves() {
    let net = Net::new();
    net.server("server", "tcp", "80", &[]);
    let address = net.address("server");
    assert!(address.starts_with(&net.base), "{address}");
    let settings = net.world.inspect("server")["NetworkSettings"].clone();
    assert_eq!(settings["Gateway"], net.gateway());
    let v6 = settings["GlobalIPv6Address"].as_str().unwrap();

    answered(net.ask("tcp", &format!("{address}:80")), &format!("{}.", net.base));
    answered(net.ask("tcp", &format!("[{v6}]:80")), "fd99:");
    answered(ask_from_host("tcp", &format!("{address}:80")), &net.gateway());
    for own in ["127.0.0.1", "[::1]"] {
        let words = ["exec", "server", "/probe", "ask", "tcp", &format!("{own}:80"), "x"];
        answered(net.world.run(&words), "x");
    }
    let ping = net.world.once(&net.flags(&[]), &["/bin/busybox", "ping", "-c1", "-W3", &address]);
    answered(ping, "1 packets received");

    // A server of the host on the bridge's address.
    let listener = TcpListener::bind((net.gateway().as_str(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = std::thread::spawn(move || listener.accept().unwrap().1.ip().to_string());
    net.world.once(
        &net.flags(&["--add-host", "host:host-gateway"]),
        &["/bin/busybox", "nc", "-w3", "host", &port.to_string()],
    );
    assert!(host.join().unwrap().starts_with(&net.base));
}

#[test]
fn the_hosts_loopback_is_not_reached_through_the_bridge() {
    let net = Net::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // CVE-2020-8558: a neighbour sends frames for 127.0.0.1 to the host's hardware address.
    let script = format!(
        "busybox ip addr del 127.0.0.1/8 dev lo; busybox ip route add 127.0.0.0/8 via {}; \
         busybox ip route; /probe ask tcp 127.0.0.1:{port} x",
        net.gateway()
    );
    let flags = net.flags(&["--cap-add", "NET_ADMIN"]);
    unanswered(net.world.once(&flags, &["sh", "-c", &script]));
}

#[test]
fn files_name_the_container_its_resolver_and_others() {
    let net = Net::new();
    let flags = net.flags(&[
        "--hostname",
        "web",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "a.example",
        "--dns-option",
        "ndots:2",
        "--add-host",
        "db:192.0.2.7",
    ]);
    let seen = net.world.once(&flags, &["cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]).ok();
    let lines: Vec<&str> = seen.stdout.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with(&net.base) && line.ends_with("\tweb")), "{lines:?}");
    for line in ["192.0.2.7\tdb", "nameserver 192.0.2.53", "search a.example", "options ndots:2", "web"] {
        assert!(lines.contains(&line), "{line}: {lines:?}");
    }
    let own = net.world.once(&net.flags(&[]), &["cat", "/etc/resolv.conf"]).ok().stdout;
    assert!(own.contains("nameserver ") && !own.contains("nameserver 127."), "{own}");
}

#[test]
fn a_container_keeps_nothing_of_the_network_when_it_is_stopped_and_gets_it_again() {
    let net = Net::new();
    net.server("server", "tcp", "80", &[]);
    let first = net.address("server");
    net.world.run(&["stop", "-t", "0", "server"]).ok();
    assert_eq!(net.attached(), [""; 0]);
    assert_eq!(net.world.inspect("server")["NetworkSettings"]["IPAddress"], "");
    net.world.run(&["start", "server"]).ok();
    assert_ne!(net.address("server"), first, "an address was used again at once");
    net.world.run(&["delete", "--force", "server"]).ok();
    assert_eq!(net.attached(), [""; 0]);
}

#[test]
fn twenty_containers_at_once_have_twenty_addresses() {
    let net = Net::new();
    let words = [vec!["run", "-d"], net.flags(&[]), vec!["localhost/test", "sleep", "1000"]].concat();
    let mut all: Vec<_> = (0..20).map(|_| net.world.spawn(&words)).collect();
    for child in &mut all {
        assert_eq!(super::world::ends(child), 0);
    }
    let ids = net.world.run(&["ps", "-q"]).ok().stdout;
    let addresses: BTreeSet<String> = ids.lines().map(|id| net.address(id)).collect();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
}

#[test]
fn a_full_subnet_is_told_and_leaves_nothing() {
    let net = Net::with_prefix(30);
    net.background(&["--name", "only"], &["sleep", "1000"]);
    let text = format!("subnet {}.0/30 of bridge {} has no free address", net.base, net.link);
    net.world.once(&net.flags(&[]), &["true"]).exits(125).says(&text);
    net.world.run(&["delete", "--force", "only"]).ok();
    assert_eq!(net.attached(), [""; 0]);
    net.world.once(&net.flags(&[]), &["true"]).ok();
}

#[test]
fn a_subnet_that_overlaps_a_route_is_refused_with_both_names() {
    let net = Net::new();
    net.world.once(&net.flags(&[]), &["true"]).ok();
    let other = format!("bridge:link={}b,subnet={}.128/25", net.link, net.base);
    let refused = net.world.once(&["--network", &other], &["true"]).exits(125);
    refused.says(&format!("{}.128/25", net.base)).says(&format!("{}.0/24 by {}", net.base, net.link));
    let links = command::run(Command::new("ip").args(["link", "show", &format!("{}b", net.link)]));
    links.fails();
}

#[test]
fn malformed_networks_are_refused() {
    let net = Net::new();
    for (network, text) in [
        ("bridge:link=a/b", "link name"),
        ("bridge:link=ctx,subnet=10.0.0.1/24", "has bits below the prefix"),
        ("bridge:link=ctx,subnet=127.0.0.0/8", "cannot have such addresses"),
        ("bridge:link=lo,subnet=10.219.250.0/24", "exists and is not a bridge"),
        ("nat", "networks are none, host and bridge"),
    ] {
        net.world.once(&["--network", network], &["true"]).exits(125).says(text);
    }
    net.world.once(&["-p", "80:80"], &["true"]).exits(125).says("--network bridge alone");
    net.world.once(&net.flags(&["-p", "80:0"]), &["true"]).exits(125).says("--publish");
    net.world.once(&net.flags(&["--add-host", "a b:1.1.1.1"]), &["true"]).exits(125).says("--add-host");
}
