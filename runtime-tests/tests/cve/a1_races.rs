//! Names that are exchanged between a look at them and their use. Whoever shares a volume or the root file system with
//! a container that is being created can do that; what is mounted, made or written must stay inside.

use crate::races::{Canary, Racer, SECRET, rounds};
use runtime_tests::{Bundle, Fixture};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A volume with a directory `target` and a file `file`, each to be exchanged with a link out of it.
fn volume(fixture: &Fixture, canary: &Canary) -> PathBuf {
    let volume = fixture.path().join("volume");
    std::fs::create_dir_all(volume.join("target")).unwrap();
    std::fs::write(volume.join("file"), "").unwrap();
    symlink(&canary.dir, volume.join("link")).unwrap();
    symlink(canary.secret(), volume.join("file-link")).unwrap();
    volume
}

/// Runs it as often as races are run, and gives the outputs of the runs that came to their program. An error is a
/// good end too, if it is one of the set-up.
fn outputs(
    fixture: &Fixture,
    bundle: &Bundle<'_>,
    canary: &Canary,
    mut before: impl FnMut(usize),
) -> Vec<String> {
    let mut outputs = Vec::new();
    for round in 0..rounds() {
        before(round);
        let outcome = bundle.run();
        if outcome.code == Some(0) {
            outputs.push(outcome.stdout);
        } else {
            assert!(outcome.stderr.contains("run failed"), "{}", outcome.stderr);
            fixture.clean_up();
        }
    }
    canary.assert_untouched();
    outputs
}

/// What a container says in which something of the host is to be seen.
const LOOK: &str =
    "for path in /vol/*; do grep -qs 'of the host' $path/secret && echo escaped $path; done; true;";

#[test]
fn cve_2021_30465_a_mount_target_exchanged_for_a_link() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    let volume = volume(&fixture, &canary);
    // A mount that has left the container is not in its table; one that is in it, is where the container sees it.
    let script = format!(
        "grep -c size=76k /proc/self/mountinfo; {LOOK} cat /vol/file /vol/file-link 2>/dev/null; true"
    );
    let bundle = fixture
        .bundle()
        .mount("/vol", "bind", &volume, &["rbind"])
        .mount("/vol/target", "tmpfs", "tmpfs", &["size=76k"])
        .mount("/vol/target/below", "tmpfs", "tmpfs", &["size=72k"])
        .mount("/vol/file", "bind", fixture.file("source", "bound"), &["bind"])
        .script(&script);
    let racers = [Racer::new(&volume, "target", "link"), Racer::new(&volume, "file", "file-link")];
    for out in outputs(&fixture, &bundle, &canary, |_| {}) {
        assert!(out.starts_with("1\n") && !out.contains("escaped") && !out.contains(SECRET), "{out}");
    }
    drop(racers);
}

#[test]
fn cve_2024_45310_directories_and_files_that_are_made_on_the_way() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    let volume = volume(&fixture, &canary);
    let _ = std::fs::remove_file(volume.join("link"));
    symlink(canary.climbing(), volume.join("link")).unwrap();
    let racer = Racer::new(&volume, "target", "link");
    let source = fixture.file("source", "bound");
    let mut bundle = fixture.bundle();
    let config = bundle.config.clone();
    for round in 0..rounds() {
        // Paths of its own each time: what is there is not made again.
        let base = format!("/vol/target/{round}");
        bundle.config = config.clone();
        bundle = bundle
            .mount("/vol", "bind", &volume, &["rbind"])
            .mount(&format!("{base}/a/b/c"), "tmpfs", "tmpfs", &[])
            .mount(&format!("{base}/x/y/file"), "bind", &source, &["bind"])
            .set("/process/cwd", json!(format!("{base}/cwd/deep")))
            .script(LOOK);
        let outcome = bundle.run();
        assert!(!outcome.stdout.contains("escaped"), "{}", outcome.stdout);
        fixture.clean_up();
    }
    drop(racer);
    canary.assert_untouched();
}

#[test]
fn cve_2025_31133_and_cve_2025_62161_the_images_dev_null_exchanged() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    let bundle = fixture
        .bundle()
        .own_dev()
        .file("/etc/target", "evil")
        .file("/masked", "hidden")
        .set("/linux/maskedPaths", json!(["/masked", "/proc/timer_list"]))
        .script("cat /masked; echo wrote > /masked; cat /etc/target >&2");
    let dev = bundle.rootfs().join("dev");
    symlink("/etc/target", dev.join("link")).unwrap();
    std::fs::write(dev.join("null"), "").unwrap();
    let racer = Racer::new(&dev, "null", "link");
    for out in outputs(&fixture, &bundle, &canary, |_| {}) {
        assert_eq!(out, "", "masked by something else than the null device");
    }
    drop(racer);
    let left = std::fs::read_to_string(bundle.rootfs().join("etc/target")).unwrap();
    assert_eq!(left, "evil", "what was written to a masked path came through");
    assert_eq!(std::fs::read_to_string(bundle.rootfs().join("masked")).unwrap(), "hidden");
}

#[test]
fn cve_2026_41579_and_cve_2026_47766_the_images_dev_exchanged() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    let bundle = fixture
        .bundle()
        .own_dev()
        .push("/linux/devices", json!({"path": "/dev/sub/fuse", "type": "c", "major": 10, "minor": 229}));
    let rootfs = bundle.rootfs();
    symlink(canary.climbing(), rootfs.join("link")).unwrap();
    let racer = Racer::new(&rootfs, "dev", "link");
    outputs(&fixture, &bundle, &canary, |_| {});
    drop(racer);
}

#[test]
fn cve_2023_27561_and_cve_2019_19921_proc_exchanged() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    // What is masked in procfs is masked wherever the directory under it was moved to.
    let bundle = fixture
        .bundle()
        .file("/decoy/timer_list", "")
        .file("/decoy/sys/net/ipv4/ip_forward", "decoy")
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/linux/maskedPaths", json!(["/proc/timer_list", "/proc/keys"]))
        .script(
            // Entered first: the names go on changing.
            "while :; do for dir in /proc /decoy /link; do cd $dir 2>/dev/null || continue; \
             if [ -e self/status ]; then cat timer_list keys sys/net/ipv4/ip_forward; exit; fi; done; done",
        );
    let rootfs = bundle.rootfs();
    symlink("/decoy", rootfs.join("link")).unwrap();
    for other in ["link", "decoy"] {
        let racer = Racer::new(&rootfs, "proc", other);
        for out in outputs(&fixture, &bundle, &canary, |_| {}) {
            assert_eq!(out, "1\n", "proc against {other}");
        }
        drop(racer);
        let decoys = ["proc", "decoy", "link"].map(|name| rootfs.join(name).join("sys/net/ipv4/ip_forward"));
        assert!(
            decoys.iter().filter_map(|path| std::fs::read_to_string(path).ok()).all(|text| text == "decoy"),
            "a decoy was written"
        );
        restore(&rootfs);
    }
}

/// After an odd number of exchanges the names are each other's.
fn restore(rootfs: &Path) {
    if !rootfs.join("decoy/timer_list").exists() {
        std::fs::rename(rootfs.join("decoy"), rootfs.join("other")).unwrap();
        std::fs::rename(rootfs.join("proc"), rootfs.join("decoy")).unwrap();
        std::fs::rename(rootfs.join("other"), rootfs.join("proc")).unwrap();
    }
    for name in ["proc", "link"] {
        let path = rootfs.join(name);
        if path.symlink_metadata().unwrap().is_symlink() == (name == "proc") {
            std::fs::rename(&path, rootfs.join("moved")).unwrap();
            std::fs::rename(rootfs.join("link"), &path).unwrap();
            std::fs::rename(rootfs.join("moved"), rootfs.join("link")).unwrap();
            break;
        }
    }
}
