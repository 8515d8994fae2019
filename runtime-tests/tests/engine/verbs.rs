//! Images and archives from containers, and back: commit, diff, export, import, save, tag and their sisters.
use crate::world::{IMAGE, World};
use runtime_tests::image::{Image, digest};
use runtime_tests::{Outcome, command};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl World {
    /// A stopped container that has run a shell script; its id.
    #[track_caller]
    fn ran(&self, flags: &[&str], script: &str) -> String {
        let id = self.run(&[&["create"], flags, &[IMAGE, "sh", "-ec", script]].concat()).ok().stdout;
        let id = id.trim().to_owned();
        self.run(&["start", "--attach", &id]).ok();
        id
    }

    fn path(&self, name: &str) -> String {
        self.fixture.path().join(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn image(&self, name: &str) -> Value {
        self.run(&["image", "inspect", name]).ok().json()[0].clone()
    }

    /// `commit` at a fixed time; the image's id.
    #[track_caller]
    fn commit(&self, args: &[&str]) -> Outcome {
        let mut command = self.corten(&[&["commit"], args].concat());
        command::run(command.env("SOURCE_DATE_EPOCH", "1700000000"))
    }

    /// Where a store has the files of an image's top layer.
    fn top(&self, image: &str) -> PathBuf {
        PathBuf::from(self.image(image)["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap())
    }
}

const CHANGES: &str = "
    echo new > /new; ln /new /etc/linked; mkdir -m 1777 /shared; mknod /fifo p; ln -s ../new /etc/soft
    chmod 4755 /bin/busybox; rm /etc/release; chown 1000:50 /etc/group; touch -d '2001-01-01 00:00:00' /new
    dd if=/dev/zero of=/sparse bs=1 count=1 seek=3000000 2>/dev/null
    rm -r /tmp; mkdir /tmp; echo again > /tmp/file";

#[test]
fn a_commit_has_what_the_container_changed() {
    let world = World::new();
    let id = world.ran(&["--name", "worker"], CHANGES);
    let lines = world.run(&["diff", "worker"]).ok().stdout;
    for line in [
        "A /new",
        "A /etc/linked",
        "C /etc",
        "D /etc/release",
        "C /etc/group",
        "A /fifo",
        "C /tmp",
        "A /tmp/file",
    ] {
        assert!(lines.lines().any(|found| found == line), "{line} is not in\n{lines}");
    }
    for made in ["/proc", "/etc/hosts", "/etc/resolv.conf"] {
        assert!(!lines.contains(made), "{made} is the runtime's:\n{lines}");
    }
    let report = world.run(&["diff", "--format", "json", "worker"]).ok().json();
    assert_eq!(report["deleted"], json!(["/etc/release"]));

    let flags = [
        "-a",
        "A <a@b>",
        "-m",
        "changed",
        "-c",
        "CMD [\"cat\", \"/new\"]",
        "-c",
        "ENV X=1 Y=2",
        "-c",
        "USER 1000",
    ];
    let first = world.commit(&[&flags[..], &["worker", "localhost/made"]].concat()).ok().stdout;
    // The same tree, the same bytes.
    let again = world.commit(&[&flags[..], &[&id[..12], "localhost/made:again"]].concat()).ok().stdout;
    assert_eq!(first, again);
    let image = world.image("localhost/made");
    assert_eq!(image["Id"], json!(first.trim()));
    assert_eq!(image["RepoTags"], json!(["localhost/made:latest", "localhost/made:again"]));
    assert_eq!((&image["Author"], &image["Comment"]), (&json!("A <a@b>"), &json!("changed")));
    assert_eq!(image["Created"], json!("2023-11-14T22:13:20.000000000Z"));
    assert_eq!(image["Config"]["Env"], json!(["PATH=/bin", "X=1", "Y=2"]));
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 3);

    assert_eq!(world.run(&["run", "--rm", "localhost/made"]).ok().stdout, "new\n");
    let script = "cat /tmp/file; stat -c '%a %h %u:%g %s %Y' /new /bin/busybox /etc/group /sparse; test -p /fifo; ls /etc; readlink /etc/soft";
    let seen = world.run(&["run", "--rm", "-u", "0", "localhost/made", "sh", "-ec", script]).ok().stdout;
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[..2], ["again", "644 2 0:0 4 978307200"]);
    assert!(lines[2].starts_with("4755 "), "{seen}");
    assert!(lines[3].starts_with("644 1 1000:50 "), "{seen}");
    assert!(lines[4].starts_with("644 1 0:0 3000001 "), "{seen}");
    assert!(lines.contains(&"soft") && lines.contains(&"../new") && !lines.contains(&"release"), "{seen}");
    // A directory that was made anew hides the old one.
    assert_eq!(
        world
            .run(&["diff", "localhost/made"])
            .ok()
            .stdout
            .lines()
            .filter(|line| line.contains("/tmp"))
            .count(),
        2
    );
    let history = world.run(&["history", "--format", "json", "localhost/made"]).ok().json();
    assert_eq!(history.as_array().unwrap().len(), 3);
    assert_eq!((&history[0]["comment"], &history[0]["id"]), (&json!("changed"), &json!(first.trim())));
    assert_eq!(history[1]["id"], Value::Null);
}

#[test]
fn a_running_container_stands_still_for_a_commit_and_goes_on() {
    let world = World::new();
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; echo $i; done";
    let id = world.background(&["--name", "busy"], &["sh", "-c", script]);
    world.await_log(&id, "5");
    for flags in [&["busy"][..], &["--pause=false", "busy"]] {
        world.commit(flags).ok();
        let count: u64 = last_line(&world.run(&["logs", "--tail", "1", "busy"]).ok().stdout);
        world.await_log(&id, &format!("{}", count + 1000));
    }
    // Nobody but the commit's own child could wake it after this.
    let mut commit = world.spawn(&["commit", "busy"]);
    commit.kill().unwrap();
    commit.wait().unwrap();
    let count: u64 = last_line(&world.run(&["logs", "--tail", "1", "busy"]).ok().stdout);
    world.await_log(&id, &format!("{}", count + 1000));
    world.run(&["kill", "busy"]).ok();
}

fn last_line(text: &str) -> u64 {
    text.lines()
        .last()
        .and_then(|line| line.trim().parse().ok())
        .unwrap_or_else(|| panic!("no number: {text:?}"))
}

#[test]
fn export_and_import_give_the_same_bytes() {
    let world = World::new();
    world.ran(&["--name", "one"], CHANGES);
    let first = world.path("first.tar");
    world.run(&["export", "-o", &first, "one"]).ok();
    let id = world
        .run(&["import", "-c", "CMD [\"cat\", \"/etc/soft\"]", "-m", "hello", &first, "localhost/flat"])
        .ok();
    let image = world.image("localhost/flat");
    assert_eq!(image["Id"], json!(id.stdout.trim()));
    assert_eq!(image["RootFS"]["Layers"], json!([digest(&std::fs::read(&first).unwrap())]));
    assert_eq!(world.run(&["run", "--rm", "localhost/flat"]).ok().stdout, "new\n");
    world.run(&["create", "--name", "two", "localhost/flat"]).ok();
    let second = world.path("second.tar");
    world.run(&["export", "--output", &second, "two"]).ok();
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "the archives differ");

    // Packed, and through a pipe.
    let packed =
        world.fixture.file("packed.tar.gz", runtime_tests::image::gzip(&std::fs::read(&first).unwrap()));
    let pipe = format!(
        "cat {} | {} import - localhost/piped",
        packed.display(),
        runtime_tests::needs::corten().display()
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &pipe]).env("CORTEN_ROOT", world.root()).env("CORTEN_STATE", world.state());
    command::run(&mut shell).ok();
    assert_eq!(world.image("localhost/piped")["RootFS"], image["RootFS"]);

    for (name, bytes, text) in
        [("none", &b""[..], "is empty"), ("xz", b"\xfd7zXZ\0\0\0", "xz"), ("bad", b"no tar archive", "tar")]
    {
        let path = world.fixture.file(name, bytes);
        world.run(&["import", path.to_str().unwrap()]).exits(125).says(text);
    }
    world.run(&["import", "http://localhost/x.tar"]).exits(125).says("fetch");
    world.run(&["import", "-c", "RUN true", &first]).exits(125);
}

/// Name, id and manifest digest of every image.
fn images(world: &World, root: &str) -> Vec<(Value, Value, Value)> {
    let mut command = world.corten(&["images", "--format", "json"]);
    let found = command::run(command.env("CORTEN_ROOT", world.path(root))).ok().json();
    let mut all: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["names"].clone(), image["id"].clone(), image["digest"].clone()))
        .collect();
    all.sort_by_key(|image| image.1.to_string());
    all
}

#[test]
fn archives_give_the_images_back() {
    let world = World::new();
    world.ran(&["--name", "one"], "echo one > /one");
    world.commit(&["one", "localhost/one"]).ok();
    let here = images(&world, "root");
    assert_eq!(here.len(), 2);
    let load = |root: &str, path: &str| {
        let mut command = world.corten(&["load", "-i", path]);
        command::run(command.env("CORTEN_ROOT", world.path(root)))
    };
    let archive = world.path("both.tar");
    world.run(&["save", "-o", &archive, IMAGE, "localhost/one"]).ok();
    load("second", &archive).ok();
    assert_eq!(images(&world, "second"), here, "every digest is what it was");
    let bytes = std::fs::read(&archive).unwrap();
    assert_eq!(
        world.run(&["save", IMAGE, "localhost/one"]).ok().stdout.len(),
        String::from_utf8_lossy(&bytes).len()
    );

    let dir = world.path("layout");
    world.run(&["save", "--format", "oci-dir", "-o", &dir, IMAGE, "localhost/one"]).ok();
    world.run(&["save", "--format", "oci-dir", "-o", &dir, IMAGE]).exits(125).says("is not empty");
    load("third", &dir).ok();
    assert_eq!(images(&world, "third"), here);

    let docker = world.path("docker.tar");
    world.run(&["save", "--format", "docker-archive", "-o", &docker, IMAGE, "localhost/one"]).ok();
    load("fourth", &docker).ok();
    let names = |images: Vec<(Value, Value, Value)>| {
        images.into_iter().map(|image| (image.0, image.1)).collect::<Vec<_>>()
    };
    assert_eq!(names(images(&world, "fourth")), names(here.clone()), "names and IDs");

    // By ID an image is saved without a name.
    let id = here[0].1.as_str().unwrap();
    world.run(&["save", "-o", &archive, id]).ok();
    assert!(load("fifth", &archive).ok().stdout.starts_with("Loaded image ID: sha256:"));
    // What could not be written is not there.
    world.run(&["save", "-o", &world.path("absent/x.tar"), IMAGE]).exits(125);
    world.run(&["save", "-o", &world.path("none.tar"), "localhost/absent"]).exits(125);
    assert!(!Path::new(&world.path("none.tar")).exists());
    for root in ["second", "third", "fourth", "fifth"] {
        let images = world.fixture.path().join(root).join("staging");
        assert_eq!(std::fs::read_dir(images).unwrap().count(), 0);
    }
}

#[test]
fn cve_2024_24557_an_archive_takes_no_name_from_another_image() {
    let world = World::new();
    let before = world.image(IMAGE)["Id"].clone();
    let mut other = Image::busybox();
    other.config["Env"] = json!(["EVIL=1"]);
    for archive in [other.docker_archive("localhost/test:latest"), other.oci_archive("localhost/test:latest")]
    {
        let path = world.fixture.file("evil.tar", archive);
        let path = path.to_str().unwrap();
        let refused = world
            .run(&["load", "-i", path])
            .exits(125)
            .says("other images have the name localhost/test:latest");
        assert!(refused.stdout.starts_with("Loaded image ID: "), "{}", refused.stdout);
        assert_eq!(world.image(IMAGE)["Id"], before);
    }
    let path = world.path("evil.tar");
    world.run(&["load", "--replace", "-i", &path]).ok();
    assert_ne!(world.image(IMAGE)["Id"], before);
}

#[test]
fn names_are_given_taken_and_found() {
    let world = World::new();
    world.run(&["tag", IMAGE, "localhost/a:1", "docker.io/library/b"]).ok();
    let image = world.image("b");
    assert_eq!(image["RepoTags"].as_array().unwrap().len(), 3);
    let digest = image["Digest"].as_str().unwrap();
    world.run(&["tag", IMAGE, &format!("localhost/a@{digest}")]).exits(125).says("digest");
    world.run(&["tag", "localhost/absent", "localhost/x"]).exits(125).says("no image is known");
    let found = world.run(&["search", "LOCALHOST/A", "--format", "json"]).ok().json();
    assert_eq!(found[0]["names"], json!(["localhost/a:1"]));
    assert_eq!(world.run(&["search", "nothing-like-it"]).ok().stdout.lines().count(), 1);
    let named = |filter: &str| world.run(&["images", "-q", "--filter", filter]).ok().stdout.lines().count();
    assert_eq!((named("reference=localhost/*"), named("reference=c*"), named("dangling=true")), (1, 0, 0));
    assert!(world.run(&["images", "--digests"]).ok().stdout.contains(digest));
    world.run(&["images", "--filter", "size=1"]).exits(125);
    world.run(&["untag", IMAGE, "b"]).ok();
    world.run(&["untag", IMAGE, "b"]).exits(125);
    world.run(&["untag", IMAGE]).ok();
    assert_eq!((named("dangling=true"), named("dangling=false")), (1, 0));
    let id = image["Id"].as_str().unwrap();
    let table = world.run(&["history", id]).ok().stdout;
    assert!(table.starts_with("IMAGE "), "{table}");
    assert_eq!(world.run(&["inspect", id, "--type", "image"]).ok().json()[0]["RepoTags"], json!([]));
    world.run(&["inspect", "--type", "container", id]).exits(125);
    world.run(&["tag", id, IMAGE]).ok();
}

#[test]
fn what_a_container_hides_stays_hidden() {
    let world = World::new();
    let id = world.ran(&[], "rm -r /root /tmp; mkdir /root; echo x > /root/own");
    world.commit(&[&id, "localhost/hidden"]).ok();
    // In a store that has not seen the container.
    let archive = world.path("hidden.tar");
    world.run(&["save", "-o", &archive, "localhost/hidden"]).ok();
    let run =
        |args: &[&str]| command::run(world.corten(args).env("CORTEN_ROOT", world.path("second"))).ok().stdout;
    run(&["load", "-i", &archive]);
    let seen = run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "localhost/hidden",
        "/bin/sh",
        "-c",
        "cat /root/own; ls -d /tmp 2>&1 || true",
    ]);
    assert!(seen.starts_with("x\n") && seen.contains("No such file"), "{seen}");
    let top = world.top("localhost/hidden");
    assert_eq!(std::fs::symlink_metadata(top.join("tmp")).unwrap().rdev(), 0);
}
