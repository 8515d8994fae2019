//! A registry's answers: manifest, index and image configuration, and a reference.
#![no_main]
use corten::image::manifest::{self, Config};
use corten::image::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = manifest::parse(bytes, None);
    if let Ok(config) = Config::parse(bytes) {
        let _ = config.chain();
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(reference) = text.parse::<Reference>()
    {
        let shown = reference.to_string();
        assert_eq!(shown.parse::<Reference>().expect("what is shown can be read").to_string(), shown);
    }
});
