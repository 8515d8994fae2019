//! What `corten run` puts into a container beside its image, and takes away with it.

use crate::races::{Canary, SECRET};
use crate::world::World;
use runtime_tests::image::{Image, Kind, Tar};

/// The files that an engine writes, or is tempted to.
const FILES: [&str; 7] = ["hosts", "resolv.conf", "hostname", "passwd", "group", "mtab", "machine-id"];

/// An image with something else at a path.
fn planted(kind: Kind, path: &str, link: &str) -> Image {
    let mut image = Image::busybox();
    let top = Tar::new().dir("etc/").file("etc/other", 0o644, b"of the image\n");
    // Over a directory that is there, and an earlier layer's file, it takes its place.
    let name = if kind == Kind::Dir { format!("{path}/") } else { path.to_owned() };
    image.layers.push(top.entry(kind, &name, link, 0o777, (0, 0), b"").finish());
    image
}

/// runc's and crun's kin: CRI-O 2024-5154, podman 2024-9341 and 2025-9566, crun 2019-18837 and 2025-24965.
#[test]
fn cve_2024_5154_cve_2025_9566_cve_2019_18837_files_of_ours_through_links_of_the_image() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let absolute = canary.secret().to_str().unwrap().to_owned();
    let climbing = format!("../../..{absolute}");
    let new = format!("{}/new", canary.dir.display());
    for file in FILES {
        let path = format!("etc/{file}");
        for (kind, link) in [
            (Kind::Symlink, absolute.as_str()),
            (Kind::Symlink, &climbing),
            (Kind::Symlink, &new),
            (Kind::Hardlink, "etc/other"),
            (Kind::Fifo, ""),
            (Kind::Dir, ""),
        ] {
            world.load(&planted(kind, &path, link), "localhost/planted");
            let script = format!(
                "for file in /etc/*; do [ -f $file ] && grep -s '{SECRET}' $file; done; cat /etc/other"
            );
            let outcome =
                world.run(&["run", "--rm", "--user", "0:0", "localhost/planted", "sh", "-c", &script]);
            // An error is as good as a container that sees its own.
            if outcome.code == Some(0) {
                assert_eq!(outcome.stdout, "of the image\n", "{path} {kind:?} {link}");
            }
            canary.assert_untouched();
        }
    }
}

/// Docker's of 2015: what the first run of a container left behind, when it is started again.
#[test]
fn cve_2015_3629_links_that_a_container_left_for_its_next_start() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let directory = canary.dir.display();
    let script = format!(
        "if [ -e /again ]; then [ -e {directory}/secret ] && echo escaped; echo again; exit; fi; touch /again; \
         mkdir /moved; for name in etc dev proc sys; do mkdir -p /new/$name; done; \
         for name in hosts resolv.conf hostname; do ln -s {directory}/$name /new/etc/$name; done; \
         rm -rf /root /tmp; ln -s {directory} /root; ln -s {directory} /tmp; ln -s {directory} /run; \
         ln -s {directory} /data; echo first"
    );
    let id = world.background(&["--name", "respawn", "-v", "named:/data/below"], &["sh", "-c", &script]);
    world.run(&["wait", &id]).ok();
    for _ in 0..2 {
        world.run(&["start", "-a", "respawn"]);
    }
    let out = world.run(&["logs", "respawn"]).ok().stdout;
    assert!(!out.contains("escaped"), "{out}");
    canary.assert_untouched();
}

#[test]
fn cve_2015_3631_volumes_over_proc_and_sys() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    for destination in ["/proc", "/proc/self/attr", "/proc/sys", "/x/../proc", "//proc/"] {
        for source in ["named", canary.dir.to_str().unwrap()] {
            let volume = format!("{source}:{destination}");
            world.once(&["-v", &volume], &["true"]).fails();
        }
    }
    canary.assert_untouched();
}

/// kubelet's and buildkit's: what is removed is the container's, whatever its links and mounts lead to.
#[test]
fn cve_2021_25741_cve_2024_23652_removal_of_a_tree_full_of_links() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let directory = canary.dir.display();
    let script = format!(
        "mkdir -p /a/b/c; for n in $(seq 500); do ln -s {directory} /a/l$n; ln -s {directory}/secret /a/b/f$n; \
         ln -s ../../../../../../..{directory} /a/b/c/d$n; done; ln -s /host /a/host; mkdir /mnt; \
         rm -rf /etc/hosts 2>/dev/null; mkdir -p /deep; cd /deep; \
         for n in $(seq 200); do mkdir d; cd d; done; ln -s {directory} link; echo made"
    );
    let volume = format!("{directory}:/host:ro");
    for flags in [&["--rm"][..], &[]] {
        let name = "storm";
        let flags =
            [&["run", "--name", name, "-v", &volume], flags, &["localhost/test", "sh", "-c", &script]]
                .concat();
        assert_eq!(world.run(&flags).ok().stdout, "made\n");
        if world.run(&["inspect", name]).code == Some(0) {
            world.run(&["delete", "--force", "--volumes", name]).ok();
        }
        canary.assert_untouched();
    }
}

/// crun's helper that ran a container's payload: corten starts no program of the container's on the host's side, and
/// its own by absolute paths. Programs of the image with the names of helpers are not run.
#[test]
fn cve_2026_84042_helpers_of_the_host_are_not_looked_up() {
    let world = World::new();
    let canary = Canary::new(&world.fixture);
    let trap = format!("#!/bin/sh\necho trapped > {}/trapped\n", canary.dir.display());
    let dir = world.fixture.path().join("trap");
    for name in [
        "nft",
        "newuidmap",
        "newgidmap",
        "fusermount",
        "krun",
        "passt",
        "slirp4netns",
        "mount",
        "tar",
        "xz",
        "unpigz",
    ] {
        let file = world.fixture.file(&format!("trap/{name}"), &trap);
        let file = std::fs::File::open(file).unwrap();
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    // Neither where the caller is, nor what the image says of PATH, decides what the runtime executes.
    let mut image = Image::busybox();
    image.config = serde_json::json!({"Env": [format!("PATH={}:/bin", dir.display()), "LD_PRELOAD=/evil.so"], "Cmd": ["true"]});
    world.load(&image, "localhost/path");
    let mut command = world.corten(&["run", "--rm", "localhost/path"]);
    runtime_tests::run(command.current_dir(&dir)).ok();
    canary.assert_untouched();
}
