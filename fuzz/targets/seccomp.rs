//! A seccomp profile, compiled.
#![no_main]
use std::path::Path;

use corten::runtime::{security::seccomp, spec};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = spec::parse::<LinuxSeccomp>(bytes, Path::new("config.json")) else { return };
    let _ = seccomp::compile(&profile, None);
});
