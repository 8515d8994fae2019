//! WWW-Authenticate of a registry's answer.
#![no_main]
use corten::image::registry::challenge::{Challenge, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    for challenge in parse(header) {
        if let Challenge::Bearer { realm, .. } = challenge {
            // Nothing is made up.
            assert!(realm.len() <= header.len());
        }
    }
});
