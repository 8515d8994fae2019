//! /proc/self/cgroup and /proc/self/mountinfo, one after the other with an empty line between, and a cgroupsPath.
#![no_main]
use corten::runtime::cgroup::{self, Driver, Host};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, "\n\n");
    let (own, mounts) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(host) = Host::from_texts(own, mounts) else { return };
    let path = parts.next().map(std::path::Path::new);
    let _ = cgroup::plan(&host, path, "container", Driver::default());
});
