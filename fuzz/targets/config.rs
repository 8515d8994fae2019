//! config.json: parsed, checked and planned, up to what would touch the kernel.
#![no_main]
use std::path::Path;

use corten::runtime::namespaces::Namespaces;
use corten::runtime::{rootfs, spec, validate};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::Spec;

fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = spec::parse::<Spec>(bytes, Path::new("config.json")) else { return };
    if validate::check(&spec).is_err() {
        return;
    }
    // Which of them refuses it is no matter here.
    let _ = Namespaces::plan(&spec);
    let _ = rootfs::plan(&spec, Path::new("/bundle"), rootfs::PlanFacts { no_pivot: false });
});
