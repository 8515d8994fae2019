//! A tar stream, unpacked on top of a layer with one of everything.
#![no_main]
#![allow(clippy::disallowed_methods, reason = "the target owns the directory that it works on")]
use corten::image::manifest::Compression;
use corten::image::unpack::{Limits, root, unpack};
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::OnceLock;

/// A directory of this process, on a tmpfs for speed, with the layer `below`.
fn dir() -> &'static Path {
    static DIR: OnceLock<std::path::PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new("/dev/shm").join(format!("corten-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("below/d/e")).expect("directory");
        std::fs::write(dir.join("below/f"), "below").expect("file");
        std::fs::write(dir.join("below/d/f"), "below").expect("file");
        std::os::unix::fs::symlink("/nowhere", dir.join("below/l")).expect("link");
        dir
    })
}

/// No name of a whiteout, and no whiteout of what is not below, is in the tree.
fn check(path: &Path, below: &Path) {
    for entry in std::fs::read_dir(path).expect("a directory of the tree") {
        let entry = entry.expect("an entry");
        let (meta, name) = (entry.path().symlink_metadata().expect("its metadata"), entry.file_name());
        assert!(!name.as_encoded_bytes().starts_with(b".wh."), "{name:?}");
        let under = below.join(&name);
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            assert!(under.symlink_metadata().is_ok(), "a whiteout of nothing: {:?}", entry.path());
        }
        if meta.is_dir() {
            check(&entry.path(), &under);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits { entries: 1000, names: 1 << 20, ..Limits::default() };
    let (dir, parent) = (dir(), File::open(dir()).expect("directory"));
    let top = root(&parent, "top").expect("the root of a layer");
    if let Ok(unpacked) = unpack(bytes, Compression::None, top, &limits) {
        let lower = File::open(dir.join("below")).expect("the layer below");
        if unpacked.settle(&[lower]).is_ok() {
            check(&dir.join("top"), &dir.join("below"));
        }
    }
    corten::sys::tree::remove(std::os::fd::AsFd::as_fd(&parent), Path::new("top"))
        .expect("it can be removed");
    // Nothing beside it.
    assert_eq!(std::fs::read_dir(dir).expect("directory").count(), 1);
});
