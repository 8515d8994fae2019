//! Containers on a bridge: `run --network bridge`, published ports, and what is left of them.
#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bridge;
mod cni;
mod crash;
mod ports;
#[path = "../engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

use runtime_tests::{Outcome, command, needs};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use world::World;

/// A bridge and a subnet of one test, which are gone afterwards with all that was attached to them.
struct Net {
    world: World,
    link: String,
    /// The first three bytes of the subnet.
    base: String,
    network: String,
    probe: String,
}

impl Net {
    fn new() -> Self {
        Self::with_prefix(24)
    }

    fn with_prefix(prefix: u8) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let link = format!("ctn{pid:x}x{count}");
        let base = format!("10.{}.{}", 200 + pid % 8, (pid / 8 + count) % 256);
        let v6 = format!("fd99:{:x}:{count:x}", pid % 0xffff);
        let network = format!("bridge:link={link},subnet={base}.0/{prefix},subnet6={v6}::/64");
        let probe = format!("{}:/probe:ro", needs::probe().display());
        Self { world: World::new(), link, base, network, probe }
    }

    /// Flags of `run`, with the network and the probe before them.
    fn flags<'a>(&'a self, flags: &[&'a str]) -> Vec<&'a str> {
        [&["--network", &self.network, "-v", &self.probe], flags].concat()
    }

    #[track_caller]
    fn background(&self, flags: &[&str], words: &[&str]) -> String {
        self.world.background(&self.flags(flags), words)
    }

    /// An echo server in the background, which listens when this returns.
    #[track_caller]
    fn server(&self, name: &str, protocol: &str, port: &str, flags: &[&str]) -> String {
        let id = self.background(&[&["--name", name], flags].concat(), &["/probe", "echo", protocol, port]);
        self.world.await_log(name, "ready");
        id
    }

    /// Asks from a new container on the bridge.
    #[track_caller]
    fn ask(&self, protocol: &str, to: &str) -> Outcome {
        self.world.once(&self.flags(&[]), &["/probe", "ask", protocol, to, "hello"])
    }

    #[track_caller]
    fn address(&self, name: &str) -> String {
        self.world.inspect(name)["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned()
    }

    fn gateway(&self) -> String {
        format!("{}.1", self.base)
    }

    fn table(&self) -> String {
        format!("corten_{}", self.link)
    }

    /// What is there of containers: links on the bridge, elements of maps, claims, records.
    fn attached(&self) -> Vec<String> {
        let mut left = Vec::new();
        let links = command::run(Command::new("ip").args(["-o", "link"])).ok().stdout;
        let of = format!("master {} ", self.link);
        left.extend(links.lines().filter(|line| line.contains(&of)).map(str::to_owned));
        let rules = command::run(Command::new("nft").args(["list", "table", "inet", &self.table()])).stdout;
        left.extend(rules.lines().filter(|line| line.contains("elements")).map(str::to_owned));
        let net = self.world.state().join("net");
        for directory in ["attached", "ports", &format!("bridges/{}/addresses", self.link)] {
            left.extend(names(&net.join(directory)).into_iter().map(|name| format!("{directory}/{name}")));
        }
        left
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let panics = std::thread::panicking();
        if !panics {
            self.world.clean_up();
        }
        let left = if panics { Vec::new() } else { self.attached() };
        // The bridge itself stays for the next container; a test has none.
        command::run(Command::new("nft").args(["delete", "table", "inet", &self.table()]));
        command::run(Command::new("ip").args(["link", "delete", &self.link]));
        assert!(left.is_empty(), "left of the network: {left:#?}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Asks from the host.
#[track_caller]
fn ask_from_host(protocol: &str, to: &str) -> Outcome {
    command::run(Command::new(needs::probe()).args(["ask", protocol, to, "hello"]))
}

/// The answer that an asker in a container or on the host printed.
#[track_caller]
fn answered(outcome: Outcome, text: &str) -> Outcome {
    let outcome = outcome.ok();
    assert!(outcome.stdout.contains(text), "{text} is not in {}", outcome.stdout);
    outcome
}

#[track_caller]
fn unanswered(outcome: Outcome) {
    let outcome = outcome.exits(7);
    assert!(outcome.stdout.contains("no answer"), "{}", outcome.stdout);
}

/// A port that is free at this moment.
fn free_port() -> u16 {
    std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}
