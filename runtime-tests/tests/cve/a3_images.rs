//! Layers, archives of images, and the store that they are in. Hostile layers are cases of the corpus, whose every
//! file goes through every command in the program `hostile`; registries are in the program `registry_hostile`.

use crate::races::{Canary, SECRET};
use crate::world::World;
use runtime_tests::corpus::{self, Case, Verdict};
use runtime_tests::image::{Image, Tar, digest};
use runtime_tests::{command, needs, run, tree};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// The most that a call may have resident.
const MEMORY: u64 = 64 << 20;

/// Loads the cases that `wanted` chooses, of which there are at least `least`: each has its verdict, and nothing of the
/// host is touched.
#[track_caller]
fn load(least: usize, wanted: impl Fn(&Case) -> bool) {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let cases = corpus::entries(canary.dir.to_str().unwrap());
    let cases: Vec<_> = cases.iter().filter(|case| wanted(case)).collect();
    assert!(cases.len() >= least, "{} cases", cases.len());
    // The corpus as a whole is the host's; an emulated machine tries some.
    let step = usize::try_from(needs::stretched(Duration::from_secs(1)).as_secs().max(1)).unwrap();
    for case in cases.into_iter().step_by(step) {
        let archive = world.fixture.file("case.tar", case.oci_archive());
        let call = world.corten(&["load", "--replace", "--input", archive.to_str().unwrap()]);
        let outcome = command::measure(&call, needs::stretched(Duration::from_secs(10)));
        let (name, code) = (case.name(), outcome.status.and_then(|status| status.code()));
        match &case.verdict {
            Verdict::Refused(words) => {
                assert_eq!(code, Some(125), "{name}: {}", outcome.stderr);
                assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{name}: {}", outcome.stderr);
            }
            verdict => {
                assert_eq!(code, Some(0), "{name}: {}", outcome.stderr);
                let got = tree::lines(&world.root().join("layers").join(case.chain()).join("fs"));
                if let Verdict::Tree(want) = verdict {
                    assert_eq!(got, *want, "{name}");
                }
            }
        }
        assert!(outcome.resident <= MEMORY, "{name}: {} KiB resident", outcome.resident >> 10);
        canary.assert_untouched();
    }
}

/// umoci's: a layer's entry for its root is a link, and the next entries follow it.
#[test]
fn cve_2021_29136_the_root_of_a_layer_stays_a_directory() {
    load(10, |case| {
        case.family == "root_entry"
            && [" .", " /", "file", "path"].iter().any(|end| case.label.ends_with(end))
    });
}

/// containerd's, and tar-rs's after it: a mode through a hard link to a symbolic link, or through that link itself.
#[test]
fn cve_2021_32760_rustsec_2026_0067_no_mode_through_a_link() {
    load(8, |case| case.family == "hard_link_metadata");
}

/// containerd's: a parent that was looked up before is another one now.
#[test]
fn cve_2025_47290_a_parent_is_exchanged_after_its_use() {
    load(2, |case| case.label.contains("exchanged after use"));
}

/// Docker's of 2014, which podman has met again: links that lead out, and what is reached through them.
#[test]
fn cve_2025_11395_cve_2014_6407_cve_2014_9356_links_out_of_a_layer() {
    load(20, |case| case.family == "hard_link_out");
    load(10, |case| {
        case.family == "write_through_symlink"
            && ["file", "overwrite"].iter().any(|begin| case.label.starts_with(begin))
    });
}

/// Readers that take another size for an entry's see other entries after it.
#[test]
fn cve_2025_62518_rustsec_2026_0068_one_size_for_an_entry() {
    load(8, |case| {
        case.family == "pax_sizes" && ["pax", "equal", "2^"].iter().any(|begin| case.label.starts_with(begin))
    });
}

/// Go's: headers and sparse maps without end, in memory that has one.
#[test]
fn cve_2022_2879_cve_2025_58183_headers_and_sparse_maps_are_bounded() {
    load(10, |case| case.family == "sparse_files");
    load(3, |case| case.label.starts_with("1 MiB and 1") || case.label.starts_with("1 PiB claimed"));
}

/// What of an archive names its other members is no path of the host.
#[test]
fn cve_2014_9358_cve_2025_11395_cve_2024_3727_names_in_an_archive_are_no_paths() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let image = Image::busybox();
    let secret = canary.secret().display().to_string();
    let layer = Tar::new().file("a", 0o644, b"x").finish();
    let config = json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}});
    let config = config.to_string();
    let docker = |config_name: &str, layer_name: &str, tar: Tar| {
        let list = json!([{"Config": config_name, "RepoTags": ["localhost/evil:v"], "Layers": [layer_name]}]);
        tar.file("manifest.json", 0o644, list.to_string().as_bytes()).finish()
    };
    let honest = || Tar::new().file("c.json", 0o644, config.as_bytes()).file("l.tar", 0o644, &layer);
    let climbing = canary.climbing() + "/secret";
    let mut archives = vec![
        docker(&secret, "l.tar", honest()),
        docker(&climbing, "l.tar", honest()),
        docker("c.json", &secret, honest()),
        docker("c.json", &climbing, honest()),
        docker("link", "l.tar", honest().symlink("link", &secret)),
        docker("c.json", "link", honest().symlink("link", &secret)),
        docker("c.json", "d/secret", honest().symlink("d", canary.dir.to_str().unwrap())),
        docker("c.json", "link", honest().hardlink("link", &climbing)),
    ];
    for name in ["sha256:../../secret", "../../x:00", "sha256:", "sha256:00", &digest(b"x").to_uppercase()] {
        let index = json!({"schemaVersion": 2, "manifests": [{"digest": name, "size": image.blobs().manifest.len(),
            "mediaType": "application/vnd.oci.image.manifest.v1+json"}]});
        let tar = Tar::new().file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archives.push(tar.file("index.json", 0o644, index.to_string().as_bytes()).finish());
    }
    for archive in archives {
        let archive = world.fixture.file("evil.tar", archive);
        let outcome = world.run(&["load", "--input", archive.to_str().unwrap()]).exits(125);
        assert!(!outcome.stderr.contains(SECRET), "{}", outcome.stderr);
        canary.assert_untouched();
    }
    world.run(&["image", "inspect", "localhost/evil:v"]).fails();
    // The same with names of its own is an image.
    let archive = world.fixture.file("good.tar", docker("c.json", "l.tar", honest()));
    world.run(&["load", "--input", archive.to_str().unwrap()]).ok();
}

/// containerd's: what an image's volume begins with is copied from the image, wherever its path leads on the host.
#[test]
fn cve_2022_23648_a_volume_begins_with_what_is_in_the_image() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let directory = canary.dir.to_str().unwrap().to_owned();
    let volume = |path: &str, top: Tar| {
        let mut image = Image::busybox();
        image.layers.push(top.finish());
        image.config = json!({"Env": ["PATH=/bin"], "Volumes": {path: {}}});
        world.load(&image, "localhost/volume");
        let script =
            format!("echo ran; cat {path}/* {path}/secret {directory}/secret; echo new > {path}/new");
        world.run(&["run", "--rm", "--user", "0:0", "localhost/volume", "sh", "-c", &script])
    };
    for path in [canary.climbing().as_str(), "/../../..", "../x", "/data/../../../etc"] {
        volume(path, Tar::new()).exits(125).says("VOLUME");
        canary.assert_untouched();
    }
    let absolute = directory.clone();
    let climbing = canary.climbing();
    for (path, top) in [
        (directory.as_str(), Tar::new()),
        ("/data", Tar::new().symlink("data", &absolute)),
        ("/data", Tar::new().symlink("data", &climbing)),
        ("/data/below", Tar::new().symlink("data", &absolute)),
        ("/data", Tar::new().symlink("data", "/proc/self/root/../../..")),
        ("/data", Tar::new().dir("data/").symlink("data/secret", &canary.secret().display().to_string())),
    ] {
        let outcome = volume(path, top);
        // An error is as good as a volume of its own.
        assert!(!outcome.stdout.contains(SECRET), "{path}: {}", outcome.stdout);
        assert!(outcome.code == Some(125) || outcome.stdout.starts_with("ran"), "{path}: {}", outcome.stderr);
        canary.assert_untouched();
    }
}

/// containerd's and moby's: an ordinary user walks through the store to an image's set-user-ID programs.
#[test]
fn cve_2021_41103_cve_2021_41091_the_store_is_closed_to_others() {
    let world = World::new();
    let mut image = Image::busybox();
    image.layers.push(Tar::new().file("suid", 0o4755, b"#!/bin/sh\n").finish());
    world.load(&image, "localhost/suid");
    world.background(&["--name", "running"], &["sleep", "1000"]);
    let open = std::fs::File::open(world.fixture.path()).unwrap();
    open.set_permissions(PermissionsExt::from_mode(0o755)).unwrap();
    let (root, state) = (world.root(), world.state());
    let walk = |uid: u32| {
        let mut find = Command::new("find");
        find.arg(&root).arg(&state).env("LC_ALL", "C");
        run(find.uid(uid).gid(uid).current_dir("/"))
    };
    let seen = walk(1000);
    assert_eq!(seen.stdout, format!("{}\n{}\n", root.display(), state.display()));
    assert_eq!(seen.stderr.matches("Permission denied").count(), 2, "{}", seen.stderr);
    let all = walk(0).ok().stdout;
    let suid = all.lines().find(|path| path.ends_with("/suid")).expect("it is in the store");
    let mut find = Command::new("find");
    let tried = run(find.arg(suid).uid(1000).gid(1000).current_dir("/"));
    assert_ne!(tried.code, Some(0), "{suid} is found by its name");
}
