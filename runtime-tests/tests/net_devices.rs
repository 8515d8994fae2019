//! Network devices of the host that a container gets: `linux.netDevices`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::{Bundle, Fixture, Outcome, command, run};
use serde_json::json;
use std::process::Command;

/// A link of the test's own, which is gone with it.
struct Link {
    name: String,
}

impl Link {
    fn new(fixture: &Fixture, letter: char) -> Self {
        // At most 15 letters: the token's are the process's number and the test's. One end of a pair.
        let token: String = fixture.token().chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("{token}{letter}");
        ip(&["link", "add", &name, "type", "veth", "peer", "name", &format!("{name}p")]).ok();
        Self { name }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // One that was given away has ended with the namespace that it was in.
        ip(&["link", "delete", &self.name]);
    }
}

fn ip(words: &[&str]) -> Outcome {
    command::run(Command::new(runtime_tests::needs::program("ip", "iproute2")).args(words))
}

fn with<'f>(bundle: Bundle<'f>, devices: serde_json::Value) -> Bundle<'f> {
    bundle.set("/linux/netDevices", devices)
}

#[test]
fn a_device_is_moved_renamed_and_keeps_its_addresses() {
    let fixture = Fixture::new();
    let link = Link::new(&fixture, 'a');
    let mac = "02:00:00:00:12:34";
    ip(&["link", "set", &link.name, "address", mac, "mtu", "1400", "up"]).ok();
    ip(&["addr", "add", "10.254.7.9/24", "dev", &link.name]).ok();
    ip(&["addr", "add", "fd98::7/64", "dev", &link.name, "nodad"]).ok();
    // One that ends, and one of the link's own scope, are not to come along.
    ip(&["addr", "add", "10.254.8.9/24", "dev", &link.name, "valid_lft", "1000", "preferred_lft", "1000"])
        .ok();
    ip(&["addr", "add", "169.254.9.9/24", "dev", &link.name, "scope", "link"]).ok();
    let bundle = with(fixture.bundle(), json!({link.name.as_str(): {"name": "inside0"}}))
        .script("ip -o addr show dev inside0; cat /sys/class/net/inside0/mtu /sys/class/net/inside0/address /sys/class/net/inside0/flags; ls /sys/class/net");
    let out = bundle.run().ok().stdout;
    for word in ["10.254.7.9/24", "fd98::7/64", "1400\n", mac] {
        assert!(out.contains(word), "{word} is not in {out}");
    }
    for word in ["10.254.8.9", "169.254.9.9", link.name.as_str()] {
        assert!(!out.contains(word), "{word} is in {out}");
    }
    let flags = out.lines().find_map(|line| line.strip_prefix("0x")).unwrap();
    assert_eq!(u32::from_str_radix(flags, 16).unwrap() & 1, 1, "it is up: {out}");
    assert_eq!(out.lines().rev().take(2).collect::<Vec<_>>(), ["lo", "inside0"]);
    ip(&["link", "show", &link.name]).fails();
}

#[test]
fn a_device_keeps_its_name_and_a_sysctl_can_speak_of_it() {
    let fixture = Fixture::new();
    let link = Link::new(&fixture, 'b');
    // The device is there before the sysctls are set and before hooks of the runtime run.
    let key = format!("net/ipv4/conf/{}/forwarding", link.name);
    let bundle = with(fixture.bundle(), json!({link.name.as_str(): {}}))
        .set("/linux/sysctl", json!({key: "1"}))
        .script(&format!("cat /proc/sys/net/ipv4/conf/{}/forwarding", link.name));
    assert_eq!(bundle.run().ok().stdout, "1\n");
}

#[test]
fn a_network_namespace_that_is_joined_keeps_the_device() {
    let fixture = Fixture::new();
    let link = Link::new(&fixture, 'c');
    let first = fixture.bundle().args(["/probe", "wait"]);
    let mut lines = first.started();
    lines.next_line();
    let path = format!("/proc/{}/ns/net", first.pid());
    let second = with(
        fixture.bundle().namespace("network", Some(&path)),
        json!({link.name.as_str(): {"name": "given"}}),
    );
    assert_eq!(second.script("ls /sys/class/net").run().ok().stdout, "given\nlo\n");
    assert_eq!(first.exec(&["/bin/ls", "/sys/class/net"]).ok().stdout, "given\nlo\n");
    // A second one of that name is refused, and stays on the host.
    let other = Link::new(&fixture, 'd');
    let bundle = with(
        fixture.bundle().namespace("network", Some(&path)),
        json!({other.name.as_str(): {"name": "given"}}),
    );
    bundle.create().exits(1).says(&other.name).says("has a device named").says("given");
    ip(&["link", "show", &other.name]).ok();
}

#[test]
fn what_cannot_be_moved_is_named() {
    let fixture = Fixture::new();
    let link = Link::new(&fixture, 'e');
    let name = link.name.as_str();
    with(fixture.bundle(), json!({"nosuchdevice": {}}))
        .create()
        .exits(1)
        .says("nosuchdevice")
        .says("not on the host");
    with(fixture.bundle(), json!({name: {"name": "lo"}}))
        .create()
        .exits(1)
        .says(name)
        .says("has a device named");
    with(fixture.bundle(), json!({name: {"name": "a/b"}})).create().exits(1).says("a/b");
    with(fixture.bundle(), json!({name: {"name": "sixteen_letters_"}}))
        .create()
        .exits(1)
        .says("sixteen_letters_");
    // The loopback link stays where it is.
    with(fixture.bundle(), json!({"lo": {"name": "other"}})).create().exits(1).says("lo");
    let host = with(fixture.bundle().without_namespace("network"), json!({name: {}}));
    run(&mut host.create_command(&[])).exits(1).says("network namespace").says(name);
    fixture.clean_up();
    ip(&["link", "show", name]).ok();
    fixture.assert_clean();
}

#[test]
fn a_user_namespace_gets_a_device_too() {
    let fixture = Fixture::new();
    let link = Link::new(&fixture, 'f');
    let bundle = with(fixture.bundle(), json!({link.name.as_str(): {"name": "eth7"}})).user_namespace();
    assert_eq!(bundle.script("ls /sys/class/net").run().ok().stdout, "eth7\nlo\n");
}
