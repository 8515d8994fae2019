//! Trees that corten has unpacked, compared with those of umoci and GNU tar: content, type, mode, owner, times, links,
//! attributes and file capabilities.

use crate::stacks;
use crate::store::Store;
use runtime_tests::command::run_within;
use runtime_tests::header::{Header, record};
use runtime_tests::image::{Image, Tar, digest};
use runtime_tests::tree::{self, Tree};
use runtime_tests::{needs, run};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mount that goes with this value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What a container sees of the layers, bottom to top, that are in the store: overlayfs over their directories.
fn by_corten(store: &Store, layers: &[Vec<u8>]) -> Tree {
    let mut chain = String::new();
    let links = store.path("lower");
    std::fs::create_dir_all(&links).unwrap();
    let mut lowers = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        chain = match chain.as_str() {
            "" => digest(layer),
            below => digest(format!("{below} {}", digest(layer)).as_bytes()),
        };
        let dir = store.root().join("layers").join(chain.trim_start_matches("sha256:")).join("fs");
        // A page of options holds few names of layers.
        let name = format!("{at}");
        let _ = std::fs::remove_file(links.join(&name));
        std::os::unix::fs::symlink(dir, links.join(&name)).unwrap();
        lowers.insert(0, name);
    }
    let bottom = store.path("bottom");
    std::fs::create_dir_all(&bottom).unwrap();
    lowers.push("../bottom".to_owned());
    let target = store.path("merged");
    std::fs::create_dir_all(&target).unwrap();
    let options = format!("ro,lowerdir={}", lowers.join(":"));
    run(Command::new("mount")
        .args(["-t", "overlay", "overlay", "-o", &options, "../merged"])
        .current_dir(&links))
    .ok();
    let mounted = Mounted(target);
    tree::read(&mounted.0)
}

/// The same by umoci, from the same archive.
fn by_umoci(store: &Store, archive: &str) -> Tree {
    let (layout, bundle) = (store.path("layout"), store.path("bundle"));
    for dir in [&layout, &bundle] {
        let _ = std::fs::remove_dir_all(dir);
    }
    std::fs::create_dir(&layout).unwrap();
    run(Command::new("tar").args(["-xf", archive, "-C"]).arg(&layout)).ok();
    let image = format!("{}:case", layout.display());
    let mut umoci = Command::new(needs::program("umoci", "umoci"));
    umoci.args(["unpack", "--image", &image]).arg(&bundle);
    run_within(&mut umoci, needs::stretched(Duration::from_secs(120))).ok();
    tree::read(&bundle.join("rootfs"))
}

/// The same by GNU tar, which knows no whiteouts: what a layer removes is removed before it is extracted.
fn by_tar(store: &Store, layers: &[Vec<u8>]) -> Tree {
    let root = store.path("by-tar");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir(&root).unwrap();
    for layer in layers {
        let archive = store.file("layer.tar", layer);
        for (path, is_dir) in members(layer) {
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            let dir = root.join(parent);
            // tar does not replace a directory that is not empty.
            if !is_dir && !name.starts_with(".wh.") {
                remove(&dir.join(name));
            }
            match name.strip_prefix(".wh.") {
                Some(".wh..opq") => {
                    for entry in std::fs::read_dir(&dir).into_iter().flatten() {
                        remove(&entry.unwrap().path());
                    }
                }
                Some(hidden) => remove(&dir.join(hidden)),
                None => {}
            }
        }
        let mut tar = Command::new("tar");
        tar.args([
            "-xpf",
            &archive,
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "--same-owner",
            "--delay-directory-restore",
        ]);
        tar.args(["--exclude=.wh.*", "-C"]).arg(&root);
        run_within(&mut tar, needs::stretched(Duration::from_secs(120))).ok();
    }
    tree::read(&root)
}

/// Paths of a layer that was made here, whose names are UTF-8, and whether they are directories.
fn members(layer: &[u8]) -> Vec<(String, bool)> {
    use corten::image::unpack::tar::{Event, Kind, Parser};
    let (mut parser, mut input, mut paths) = (Parser::new(), layer, Vec::new());
    while let Some(event) = parser.next(&mut input).expect("a layer of the test's") {
        if let Event::Entry(entry) = event {
            let path = String::from_utf8(entry.path).unwrap().trim_end_matches('/').to_owned();
            paths.push((path, entry.kind == Kind::Directory));
        }
    }
    paths
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// The stack by all three; their trees are the same.
fn compare(what: &str, layers: Vec<Vec<u8>>) -> Tree {
    let store = Store::new();
    let image = Image { layers, config: json!({"Cmd": ["/bin/true"]}) };
    let archive = store.file("archive.tar", &image.oci_archive("case"));
    run_within(&mut store.command(&["load", "--input", &archive]), needs::stretched(Duration::from_secs(60)))
        .ok();
    let ours = by_corten(&store, &image.layers);
    tree::assert_same(&format!("{what}: corten and umoci"), &ours, &by_umoci(&store, &archive));
    tree::assert_same(&format!("{what}: corten and tar"), &ours, &by_tar(&store, &image.layers));
    ours
}

/// `cap_net_bind_service=ep` as a value of the attribute.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn debian_with_python_is_what_umoci_and_tar_make_of_it() {
    let layer = std::fs::read(needs::debian_layer()).unwrap();
    let top = Tar::new()
        .raw(Header::new(b'5', "./", 0), b"")
        .raw(Header::new(b'5', "usr/", 0).octal(136, 12, 1_200_000_000), b"")
        .raw(Header::new(b'5', "usr/bin/", 0), b"")
        .extension(
            b'x',
            [record("SCHILY.xattr.security.capability", CAPABILITY), record("mtime", "1234567890.123456789")]
                .concat(),
        )
        .file("usr/bin/bind", 0o755, b"#!/bin/sh\n")
        .linked(b'1', "usr/bin/bind-too", "usr/bin/bind")
        .raw(Header::new(b'0', "usr/bin/su", 3).mode(0o6755).owner(1000, 70_000), b"su\n")
        .raw(Header::new(b'5', "usr/share/", 0), b"")
        .node(b'0', "usr/share/.wh.doc")
        .raw(Header::new(b'5', "usr/share/locale/", 0), b"")
        .node(b'0', "usr/share/locale/.wh..wh..opq")
        .raw(Header::new(b'5', "etc/", 0), b"")
        .node(b'0', "etc/.wh.debian_version")
        .finish();
    let tree = compare("Debian", vec![layer, top]);
    assert!(tree.len() > 3000, "{} paths", tree.len());
    assert!(
        tree.contains_key(&b"usr/bin/python3.11"[..])
            || tree.keys().any(|path| path.starts_with(b"usr/bin/python3."))
    );
    assert!(tree[&b"usr/bin/bind"[..]].xattrs.contains_key(&b"security.capability"[..]));
    assert!(!tree.contains_key(&b"etc/debian_version"[..]) && !tree.contains_key(&b"usr/share/doc"[..]));
}

#[test]
fn sixty_small_layers_with_whiteouts_and_opaque_directories() {
    let mut layers = Vec::new();
    for at in 0_u64..60 {
        let dir = |name: String| Header::new(b'5', name, 0).octal(136, 12, 1_000_000_000 + at);
        let mut tar = Tar::new().raw(dir("./".to_owned()), b"").raw(dir("d/".to_owned()).mode(0o1777), b"");
        tar = tar.file(&format!("d/f{at}"), 0o644, format!("{at}").as_bytes()).file(
            "d/last",
            0o600,
            format!("{at}").as_bytes(),
        );
        // Every third removes a file of the one before, every seventh a directory, every tenth empties one.
        if at % 3 == 2 {
            tar = tar.node(b'0', format!("d/.wh.f{}", at - 1));
        }
        if at % 7 == 6 {
            tar = tar.node(b'0', format!(".wh.sub{}", at - 6));
        }
        if at % 7 == 0 {
            tar = tar.raw(dir(format!("sub{at}/")), b"").file(&format!("sub{at}/x"), 0o644, b"x");
        }
        let name = "deep/er";
        tar = tar.raw(dir("deep/".to_owned()), b"").raw(dir(format!("{name}/")), b"");
        if at % 10 == 9 {
            tar = tar.node(b'0', format!("{name}/.wh..wh..opq"));
        }
        tar = tar.symlink(&format!("{name}/l{at}"), &format!("../../d/f{at}"));
        tar = tar.file(&format!("{name}/a{at}"), 0o755, b"a").linked(
            b'1',
            format!("{name}/b{at}"),
            format!("{name}/a{at}"),
        );
        layers.push(tar.finish());
    }
    let tree = compare("sixty layers", layers);
    assert!(
        tree.contains_key(&b"d/f0"[..])
            && !tree.contains_key(&b"d/f1"[..])
            && !tree.contains_key(&b"sub0"[..])
    );
    let left = tree.keys().filter(|path| path.starts_with(b"deep/er/l")).count();
    assert_eq!(left, 1, "the last layer empties the directory, and has a link itself");
}

#[test]
fn random_stacks_of_layers() {
    for seed in 1..=8 {
        let layers = stacks::stack(seed);
        let tree = compare(&format!("stack of seed {seed}"), layers);
        assert!(
            tree.keys().all(|path| !std::ffi::OsStr::from_bytes(path).to_string_lossy().contains(".wh."))
        );
    }
}
