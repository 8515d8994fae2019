//! Names of images, one a line.
#![no_main]
use corten::image::reference::Reference;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for line in text.lines() {
        let Ok(reference) = line.parse::<Reference>() else { continue };
        let shown = reference.to_string();
        assert_eq!(shown.parse::<Reference>().expect("what is shown can be read").to_string(), shown);
        // It becomes part of an URL and of error messages; a tag may have dots beside each other (distribution's grammar).
        let mut parts = shown.split(['/', ':', '@']);
        assert!(
            parts.all(|part| part != "." && part != "..")
                && shown.bytes().all(|byte| byte.is_ascii_graphic()),
            "{shown}"
        );
        let short = reference.familiar().to_string();
        assert_eq!(short.parse::<Reference>().expect("its short form can be read").to_string(), shown);
    }
});
