//! Images go to skopeo, podman, umoci and buildah and come back with the same digests. Only on the host: the virtual
//! machine has none of them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::image::Image;
use runtime_tests::registry::DockerRegistry;
use runtime_tests::{Fixture, Outcome, command, needs};
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const IMAGE: &str = "localhost/trip/app:1";

/// Stores of corten and of the others, side by side.
struct World {
    fixture: Fixture,
}

impl World {
    /// The store `root` has an image of three layers, the top one made by `commit`.
    fn new() -> Self {
        let fixture = Fixture::new();
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fixture.file("policy.json", policy);
        let (graph, run) = (fixture.path().join("graph"), fixture.path().join("graph-run"));
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n");
        fixture.file("storage.conf", storage);
        let world = Self { fixture };
        let archive = world.fixture.file("base.tar", Image::busybox().oci_archive("localhost/base:1"));
        world.corten("root", &["load", "-i", archive.to_str().unwrap()]).ok();
        let script = "cd /etc; rm release; mkdir -m 3770 d; echo text > d/f; ln d/f d/g; ln -s f d/s; mknod d/p p; chown 1:2 d/f; \
            touch -d '2011-11-11 11:11:11' d/f; rm -r /tmp; mkdir /tmp; touch /tmp/new";
        world
            .corten(
                "root",
                &["create", "--name", "c", "--network", "none", "localhost/base:1", "sh", "-ec", script],
            )
            .ok();
        world.corten("root", &["start", "-a", "c"]).ok();
        world.corten("root", &["commit", "-c", "CMD [\"cat\", \"/etc/d/g\"]", "c", IMAGE]).ok();
        world.corten("root", &["rm", "c"]).ok();
        world
    }

    fn path(&self, name: &str) -> String {
        self.fixture.path().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn corten(&self, root: &str, args: &[&str]) -> Outcome {
        let mut corten = Command::new(needs::corten());
        corten.args(args).env("CORTEN_ROOT", self.path(root)).env("CORTEN_STATE", self.path("run"));
        corten.env("CORTEN_TEST", self.fixture.token()).env("HOME", self.path(""));
        command::run(&mut corten)
    }

    /// podman or buildah with storage of its own.
    #[track_caller]
    fn tool(&self, name: &str, args: &[&str]) -> Outcome {
        let mut tool = Command::new(needs::program(name, name));
        tool.args([
            "--root",
            &self.path("graph"),
            "--runroot",
            &self.path("graph-run"),
            "--storage-driver",
            "vfs",
        ]);
        tool.args(args).env("CORTEN_TEST", self.fixture.token()).env("HOME", self.path(""));
        tool.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf")).env("TMPDIR", self.path(""));
        command::run_within(&mut tool, Duration::from_secs(100))
    }

    #[track_caller]
    fn skopeo(&self, args: &[&str]) -> Outcome {
        let mut skopeo = Command::new(needs::program("skopeo", "skopeo"));
        command::run(skopeo.arg("--insecure-policy").args(args).env("HOME", self.path("")))
    }

    /// Manifest digest, ID and names of an image.
    #[track_caller]
    fn image(&self, root: &str, name: &str) -> (Value, Value, Value) {
        let image = self.corten(root, &["image", "inspect", name]).ok().json();
        (image[0]["Digest"].clone(), image[0]["Id"].clone(), image[0]["RepoTags"].clone())
    }
}

#[test]
fn skopeo_reads_and_writes() {
    let world = World::new();
    let here = world.image("root", IMAGE);
    let archive = world.path("app.tar");
    world.corten("root", &["save", "-o", &archive, IMAGE]).ok();
    let source = format!("oci-archive:{archive}");
    let seen = world.skopeo(&["inspect", &source]).ok().json();
    assert_eq!(seen["Digest"], here.0);
    assert_eq!(seen["Layers"].as_array().unwrap().len(), 3);
    // Through skopeo's own writing of both kinds, and back.
    for (kind, name) in [("oci-archive", "copy.tar"), ("oci", "copy")] {
        let to = format!("{kind}:{}:{IMAGE}", world.path(name));
        world.skopeo(&["copy", "--quiet", &source, &to]).ok();
        world.corten(kind, &["load", "-i", &world.path(name)]).ok();
        assert_eq!(world.image(kind, IMAGE), here, "{kind}");
    }
    // A docker archive keeps the ID.
    let docker = world.path("docker.tar");
    world.corten("root", &["save", "--format", "docker-archive", "-o", &docker, IMAGE]).ok();
    let copy = format!("docker-archive:{}:{IMAGE}", world.path("copy-docker.tar"));
    world.skopeo(&["copy", "--quiet", &format!("docker-archive:{docker}"), &copy]).ok();
    world.corten("docker", &["load", "-i", &world.path("copy-docker.tar")]).ok();
    assert_eq!(world.image("docker", IMAGE).1, here.1);
    assert_eq!(world.corten("docker", &["run", "--rm", "--network", "none", IMAGE]).ok().stdout, "text\n");
}

#[test]
fn podman_loads_and_saves() {
    let world = World::new();
    let here = world.image("root", IMAGE);
    let policy = world.path("policy.json");
    for format in ["oci-archive", "docker-archive"] {
        let archive = world.path(&format!("{format}.tar"));
        world.corten("root", &["save", "--format", format, "-o", &archive, IMAGE]).ok();
        world.tool("podman", &["load", "--signature-policy", &policy, "-i", &archive]).ok();
        let seen = world.tool("podman", &["image", "inspect", IMAGE]).ok().json();
        assert_eq!(format!("sha256:{}", seen[0]["Id"].as_str().unwrap()), here.1.as_str().unwrap());
        if format == "oci-archive" {
            assert_eq!(seen[0]["Digest"], here.0);
        }
        let back = world.path(&format!("back-{format}.tar"));
        world
            .tool("podman", &["save", "--signature-policy", &policy, "--format", format, "-o", &back, IMAGE])
            .ok();
        world.corten(format, &["load", "-i", &back]).ok();
        assert_eq!(world.image(format, IMAGE).1, here.1, "{format}");
        // The layers of an OCI archive are packed by podman again: the same tree has other blobs.
        let layers =
            |root: &str| world.corten(root, &["image", "inspect", IMAGE]).ok().json()[0]["RootFS"].clone();
        assert_eq!(layers(format), layers("root"));
        world.tool("podman", &["rmi", "--all", "--force"]).ok();
    }
}

#[test]
fn buildah_builds_on_it() {
    let world = World::new();
    let archive = world.path("app.tar");
    world.corten("root", &["save", "-o", &archive, IMAGE]).ok();
    let policy = world.path("policy.json");
    let name = world
        .tool("buildah", &["from", "--signature-policy", &policy, &format!("oci-archive:{archive}")])
        .ok();
    let name = name.stdout.trim().to_owned();
    let file = world.fixture.file("added", "by buildah\n");
    world.tool("buildah", &["copy", &name, file.to_str().unwrap(), "/added"]).ok();
    world.tool("buildah", &["config", "--cmd", "cat /added", &name]).ok();
    let out = format!("oci-archive:{}:localhost/built:1", world.path("built.tar"));
    world.tool("buildah", &["commit", "--signature-policy", &policy, "--rm", &name, &out]).ok();
    world.corten("root", &["load", "-i", &world.path("built.tar")]).ok();
    let seen = world.corten("root", &["run", "--rm", "--network", "none", "localhost/built:1"]).ok();
    assert_eq!(seen.stdout, "by buildah\n");
    let layers = |name: &str| {
        world.corten("root", &["image", "inspect", name]).ok().json()[0]["RootFS"]["Layers"].clone()
    };
    let (below, built) = (layers(IMAGE), layers("localhost/built:1"));
    assert_eq!(built.as_array().unwrap()[..3], below.as_array().unwrap()[..], "the layers below are shared");
    let lines = world.corten("root", &["diff", IMAGE, "localhost/built:1"]).ok().stdout;
    assert!(lines.lines().any(|line| line == "A /added"), "{lines}");
}

/// All of a tree that an image keeps, one line for each path; names of one file share a number.
fn listing(root: &Path) -> Vec<String> {
    fn visit(dir: &Path, prefix: &str, inodes: &mut Vec<u64>, lines: &mut Vec<String>) {
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = dir.join(&name);
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let shown = format!("{prefix}/{}", name.as_bytes().escape_ascii());
            let time = format!("{}.{:09}", meta.mtime(), meta.mtime_nsec());
            let mut line = format!("{shown} {:o} {}:{} {time}", meta.mode(), meta.uid(), meta.gid());
            if meta.is_symlink() {
                line += &format!(" -> {:?}", std::fs::read_link(&path).unwrap());
            } else if meta.is_file() {
                line += &format!(" {}", runtime_tests::image::digest(&std::fs::read(&path).unwrap()));
            } else if !meta.is_dir() {
                line += &format!(" {:x}", meta.rdev());
            }
            if !meta.is_dir() && meta.nlink() > 1 {
                inodes.push(meta.ino());
                line += &format!(" link {:?}", inodes.iter().position(|known| *known == meta.ino()));
            }
            lines.push(line);
            if meta.is_dir() {
                visit(&path, &shown, inodes, lines);
            }
        }
    }
    let (mut inodes, mut lines) = (Vec::new(), Vec::new());
    visit(root, "", &mut inodes, &mut lines);
    lines
}

#[test]
fn umoci_unpacks_the_same_tree() {
    let world = World::new();
    let layout = world.path("layout");
    world.corten("root", &["save", "--format", "oci-dir", "-o", &layout, IMAGE]).ok();
    let bundle = world.path("bundle");
    let mut umoci = Command::new(needs::program("umoci", "umoci"));
    umoci.args(["unpack", "--image", &format!("{layout}:{IMAGE}"), &bundle]);
    command::run(&mut umoci).ok();
    // What corten has, by way of GNU tar.
    world.corten("root", &["create", "--name", "seen", "--network", "none", IMAGE]).ok();
    let archive = world.path("seen.tar");
    world.corten("root", &["export", "-o", &archive, "seen"]).ok();
    world.corten("root", &["rm", "seen"]).ok();
    let tree = world.path("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut tar = Command::new(needs::program("tar", "tar"));
    command::run(tar.args([
        "--numeric-owner",
        "--same-permissions",
        "--xattrs",
        "-C",
        &tree,
        "-xf",
        &archive,
    ]))
    .ok();
    let (ours, theirs) = (listing(Path::new(&tree)), listing(&Path::new(&bundle).join("rootfs")));
    assert!(ours.iter().any(|line| line.starts_with("/etc/d/g ") && line.contains(" link ")));
    assert_eq!(ours, theirs);
}

#[test]
fn a_registry_takes_it_and_gives_it_to_all() {
    let world = World::new();
    let here = world.image("root", IMAGE);
    let registry = DockerRegistry::start(&world.fixture.path().join("registry"));
    let name = format!("{}/trip/app:1", registry.address());
    let digests = world.path("digest");
    let push = |to: &str| {
        let args = ["push", "--format", "json", "--digestfile", &digests, IMAGE, to];
        world.corten("root", &args).ok().json()
    };
    let pushed = push(&name);
    assert_eq!(pushed["digest"], here.0);
    assert_eq!((&pushed["sent"], &pushed["present"]), (&json!(4), &json!(0)));
    assert_eq!(std::fs::read_to_string(&digests).unwrap(), here.0.as_str().unwrap());
    assert_eq!(push(&name)["present"], json!(4), "nothing is sent twice");
    // Another repository of a registry that is known to have the layers.
    world.corten("root", &["tag", IMAGE, &name]).ok();
    let other = format!("docker://{}/other/app:2", registry.address());
    let mounted = push(&other);
    assert_eq!((&mounted["mounted"], &mounted["sent"]), (&json!(3), &json!(1)), "{mounted}");

    let seen = world.skopeo(&["inspect", "--tls-verify=false", &format!("docker://{name}")]).ok().json();
    assert_eq!(seen["Digest"], here.0);
    let policy = world.path("policy.json");
    world.tool("podman", &["pull", "--tls-verify=false", "--signature-policy", &policy, &name]).ok();
    let seen = world.tool("podman", &["image", "inspect", &name]).ok().json();
    assert_eq!(seen[0]["Digest"], here.0);
    world.corten("second", &["pull", &format!("{}/other/app:2", registry.address())]).ok();
    let back = world.image("second", &format!("{}/other/app:2", registry.address()));
    assert_eq!((&back.0, &back.1), (&here.0, &here.1));

    let wrong = format!("{}/trip/app@sha256:{}", registry.address(), "0".repeat(64));
    world.corten("root", &["push", IMAGE, &wrong]).exits(125).says("has the digest");
    world.corten("root", &["push", IMAGE, "oci:/tmp/x"]).exits(125).says("corten save");
    world.corten("root", &["push", "localhost/absent", &name]).exits(125);
    // What others push comes back: podman writes a manifest of its own, skopeo copies it.
    let by_podman = format!("{}/podman/app:1", registry.address());
    world
        .tool("podman", &["push", "--tls-verify=false", "--signature-policy", &policy, &name, &by_podman])
        .ok();
    world.corten("third", &["pull", &by_podman]).ok();
    assert_eq!(world.image("third", &by_podman).1, here.1);
    let by_skopeo = format!("{}/skopeo/app:1", registry.address());
    let (from, to) = (format!("docker://{name}"), format!("docker://{by_skopeo}"));
    world.skopeo(&["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", &from, &to]).ok();
    world.corten("third", &["pull", &by_skopeo]).ok();
    assert_eq!(world.image("third", &by_skopeo).0, here.0);
}
