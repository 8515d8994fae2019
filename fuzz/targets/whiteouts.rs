//! Names of entries, one a line: what each means.
#![no_main]
use corten::image::unpack::{LayerPath, Meaning, meaning};
use libfuzzer_sys::fuzz_target;

fn inside(path: &LayerPath) -> bool {
    let bytes = path.clone().into_bytes();
    bytes.is_empty()
        || bytes.split(|&byte| byte == b'/').all(|part| {
            !part.is_empty() && part != b"." && part != b".." && part.len() <= 255 && !part.contains(&0)
        })
}

fuzz_target!(|bytes: &[u8]| {
    for name in bytes.split(|&byte| byte == b'\n') {
        match meaning(name) {
            Ok(Meaning::Entry(path)) => {
                assert!(inside(&path));
                let bytes = path.into_bytes();
                assert!(!bytes.split(|&byte| byte == b'/').any(|part| part.starts_with(b".wh.")));
            }
            Ok(Meaning::Whiteout(path)) => {
                assert!(inside(&path) && !path.clone().into_bytes().is_empty());
                // What is hidden is no mark itself.
                assert!(
                    matches!(meaning(&path.clone().into_bytes()), Ok(Meaning::Entry(entry)) if entry == path)
                );
            }
            Ok(Meaning::Opaque(path)) => assert!(inside(&path)),
            Err(_) => {}
        }
    }
});
