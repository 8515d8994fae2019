//! `corten load`, `images` and `rmi`, and the store that they leave: other tools read it, hostile archives
//! leave nothing in it.

use runtime_tests::image::{Image, Kind, Tar, digest, gzip};
use runtime_tests::{Outcome, command, needs, run};
use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        // Not on a tmpfs: what a disk keeps is tested.
        Self { dir: tempfile::tempdir_in("/var/tmp").expect("temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("root")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command.arg("--root").arg(self.root()).args(args);
        command
    }

    fn corten(&self, args: &[&str]) -> Outcome {
        run(&mut self.command(args))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).expect("archive");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn load(&self, archive: &[u8]) -> Outcome {
        let path = self.file("archive.tar", archive);
        self.corten(&["load", "--input", &path])
    }

    fn images(&self) -> Vec<Value> {
        self.corten(&["images", "--format", "json"]).ok().json().as_array().expect("array").clone()
    }

    fn names(&self, dir: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.root().join(dir)) else { return Vec::new() };
        entries.map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8")).collect()
    }

    /// Nothing of any image is in the store.
    #[track_caller]
    fn assert_empty(&self) {
        for dir in ["content/blobs/sha256", "layers", "staging", "leases"] {
            assert_eq!(self.names(dir), Vec::<String>::new(), "{dir}");
        }
        assert_eq!(self.images(), Vec::<Value>::new());
    }

    /// The directory of the layer with these chained diffIDs.
    fn layer(&self, layers: &[Vec<u8>]) -> PathBuf {
        let chain = layers
            .iter()
            .map(|layer| digest(layer))
            .reduce(|below, diff_id| digest(format!("{below} {diff_id}").as_bytes()));
        let chain = chain.expect("a layer");
        self.root().join("layers").join(chain.trim_start_matches("sha256:")).join("fs")
    }
}

fn image(layers: Vec<Tar>) -> Image {
    Image { layers: layers.into_iter().map(Tar::finish).collect(), config: json!({"Cmd": ["/bin/true"]}) }
}

fn base() -> Tar {
    Tar::new()
        .dir("etc/")
        .file("etc/word", 0o640, b"base")
        .file("etc/gone", 0o644, b"")
        .symlink("link", "/etc/word")
}

#[test]
fn every_kind_of_archive_gives_the_same_image() {
    let world = World::new();
    let made = image(vec![base(), Tar::new().file("etc/.wh.gone", 0o644, b"").file("top", 0o4755, b"top")]);
    let docker = made.docker_archive("test/app:1");
    let oci = made.oci_archive("localhost/app:2");
    world.load(&docker).ok();
    world.load(&oci).ok();
    world.load(&gzip(&made.docker_archive("test/app:3"))).ok();
    // A layout directory.
    let layout = world.path("layout");
    std::fs::create_dir(&layout).expect("directory");
    let archive = world.file("oci.tar", &made.oci_archive("test/app:4"));
    run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&layout)).ok();
    let layout = layout.to_str().expect("UTF-8").to_owned();
    world.corten(&["load", "-i", &layout]).ok();
    // A pipe.
    let piped = world.file("piped.tar", &gzip(&made.oci_archive("test/app:5")));
    let mut cat = Command::new("cat").arg(piped).stdout(Stdio::piped()).spawn().expect("cat");
    let output = world.command(&["load"]).stdin(cat.stdout.take().expect("pipe")).output().expect("corten");
    cat.wait().expect("cat");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Loaded image: test/app:5\n");

    let images = world.images();
    let mut names: Vec<String> = images
        .iter()
        .flat_map(|image| image["names"].as_array().expect("names").clone())
        .map(|name| name.as_str().expect("text").to_owned())
        .collect();
    names.sort();
    let expected = [
        "docker.io/test/app:1",
        "docker.io/test/app:3",
        "docker.io/test/app:4",
        "docker.io/test/app:5",
        "localhost/app:2",
    ];
    assert_eq!(names, expected);
    assert!(images.iter().all(|image| image["id"] == images[0]["id"]));
    assert_eq!(world.names("layers").len(), 2);

    let low = world.layer(&made.layers[..1]);
    assert_eq!(std::fs::read(low.join("etc/word")).expect("file"), b"base");
    assert_eq!(low.join("etc/word").metadata().expect("file").mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read_link(low.join("link")).expect("link"), Path::new("/etc/word"));
    let top = world.layer(&made.layers);
    assert_eq!(top.join("top").metadata().expect("file").mode() & 0o7777, 0o4755);
    let whiteout = top.join("etc/gone").symlink_metadata().expect("whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(world.root().metadata().expect("root").mode() & 0o777, 0o700);
}

#[test]
fn images_are_listed_and_removed() {
    let world = World::new();
    let table = world.corten(&["images"]).ok().stdout;
    assert_eq!(
        table.split_whitespace().collect::<Vec<_>>(),
        ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    );
    let one = image(vec![base(), Tar::new().file("one", 0o644, b"1")]);
    let two = image(vec![base(), Tar::new().file("two", 0o644, b"2")]);
    world.load(&one.docker_archive("one")).ok();
    world.load(&two.docker_archive("localhost:5000/two:tag")).ok();
    assert_eq!(world.names("layers").len(), 3, "the shared layer is stored once");
    let table = world.corten(&["images"]).ok().stdout;
    assert!(table.contains("localhost:5000/two   tag      "), "{table}");
    let ids = world.corten(&["images", "--quiet", "--no-trunc"]).ok().stdout;
    assert_eq!(ids.lines().count(), 2);

    let removed = world.corten(&["rmi", "one"]).ok().stdout;
    assert!(removed.starts_with("Untagged: one:latest\nDeleted: sha256:"), "{removed}");
    assert_eq!(world.names("layers").len(), 2);
    // All are tried; the failure is told.
    world.corten(&["rmi", "nothing", "localhost:5000/two:tag"]).fails().says("nothing");
    world.assert_empty();
    world.corten(&["rmi", "one"]).fails().says("no image is known as \"one\"");
}

#[test]
fn a_name_that_moves_leaves_its_image_without_one() {
    let world = World::new();
    world.load(&image(vec![base()]).docker_archive("app")).ok();
    let first = world.images()[0]["id"].as_str().expect("id").to_owned();
    let other = world.file("other.tar", &image(vec![Tar::new().dir("other/")]).docker_archive("app"));
    world.corten(&["load", "--replace", "--input", &other]).ok();
    assert_eq!(world.images().len(), 2);
    assert!(world.corten(&["images"]).ok().stdout.contains("<none>"));
    world.corten(&["rmi", &first]).ok();
    world.corten(&["rmi", "app"]).ok();
    world.assert_empty();
}

#[test]
fn other_tools_read_the_store() {
    let world = World::new();
    let made = image(vec![base(), Tar::new().file("top", 0o644, b"top")]);
    world.load(&made.oci_archive("test/app:1")).ok();
    let content = world.root().join("content");
    let content = content.to_str().expect("UTF-8");
    let skopeo = needs::program("skopeo", "skopeo");
    let inspected =
        run(Command::new(&skopeo).arg("inspect").arg(format!("oci:{content}:docker.io/test/app:1"))).ok();
    assert_eq!(inspected.json()["Layers"].as_array().expect("layers").len(), 2);
    let umoci = needs::program("umoci", "umoci");
    let unpacked = world.path("unpacked");
    run(Command::new(umoci)
        .args(["unpack", "--image"])
        .arg(format!("{content}:docker.io/test/app:1"))
        .arg(&unpacked))
    .ok();
    assert_eq!(std::fs::read(unpacked.join("rootfs/top")).expect("file"), b"top");

    // And corten reads what they write.
    let archive = world.path("docker.tar");
    let target = format!("docker-archive:{}:test/copy:2", archive.display());
    run(Command::new(&skopeo)
        .args(["copy", "--quiet", "--insecure-policy"])
        .arg(format!("oci:{content}:docker.io/test/app:1"))
        .arg(target))
    .ok();
    let loaded = world.corten(&["load", "-i", archive.to_str().expect("UTF-8")]).ok();
    assert_eq!(loaded.stdout, "Loaded image: test/copy:2\n");
}

#[test]
fn hostile_layers_leave_nothing() {
    let world = World::new();
    let outside = world.path("outside");
    std::fs::create_dir(&outside).expect("directory");
    let outside_name = outside.to_str().expect("UTF-8");
    let nobody = (0, 0);
    let layers = [
        Tar::new().file("../escaped", 0o644, b"x"),
        Tar::new().file("a/../../escaped", 0o644, b"x"),
        Tar::new().symlink("d", outside_name).file("d/escaped", 0o644, b"x"),
        Tar::new().entry(Kind::Hardlink, "a", "../../../etc/shadow", 0o644, nobody, b""),
        Tar::new().entry(Kind::Hardlink, "a", "/etc/shadow", 0o644, nobody, b""),
        Tar::new().symlink(".", "/etc"),
        Tar::new().file(".wh.", 0o644, b""),
        Tar::new().file(".wh...", 0o644, b""),
        Tar::new().file(".wh.x", 0o644, b"data"),
        Tar::new().file(".wh..wh.plnk", 0o644, b""),
        Tar::new().entry(Kind::Char, "zero", "", 0o644, nobody, b""),
        Tar::new().entry(Kind::Pax, "pax", "", 0o644, nobody, b"16 size=9999999\n").file("a", 0o644, b""),
        Tar::new().entry(Kind::Pax, "pax", "", 0o644, nobody, b"15 path=../../x\n").file("a", 0o644, b""),
        Tar::new().entry(Kind::Dir, "dir", "", 0o755, nobody, b"data"),
    ];
    for (at, layer) in layers.into_iter().enumerate() {
        // Below an honest layer, and above one.
        for stack in [vec![layer.clone(), base()], vec![base(), layer.clone()]] {
            let made = image(stack);
            for archive in [made.docker_archive("evil"), made.oci_archive("test/evil:1")] {
                let outcome = world.load(&archive).fails();
                assert!(outcome.stderr.contains("unpack"), "{at}: {}", outcome.stderr);
            }
        }
        assert_eq!(world.images(), Vec::<Value>::new(), "{at}");
        assert!(world.names("staging").is_empty(), "{at}");
    }
    assert_eq!(std::fs::read_dir(&outside).expect("directory").count(), 0);
    assert!(!world.path("escaped").exists());
    // What honest layers of refused images left goes with the next removal.
    world.load(&image(vec![Tar::new().dir("good/")]).docker_archive("good")).ok();
    world.corten(&["rmi", "good"]).ok();
    world.assert_empty();
}

#[test]
fn hostile_archives_leave_nothing() {
    let world = World::new();
    let layer = base().finish();
    let config = |diff_id: &str| {
        serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        }))
        .expect("JSON")
    };
    let good = config(&digest(&layer));
    let docker = |manifest: Value, config: &[u8]| {
        Tar::new()
            .file("config.json", 0o644, config)
            .file("layer.tar", 0o644, &layer)
            .symlink("out.tar", "../../../../etc/passwd")
            .symlink("absolute.tar", "/etc/passwd")
            .symlink("loop.tar", "loop.tar")
            .file("manifest.json", 0o644, &serde_json::to_vec(&manifest).expect("JSON"))
            .finish()
    };
    let item = |config: &str, layers: &[&str], tag: &str| json!([{"Config": config, "RepoTags": [tag], "Layers": layers}]);
    for (what, archive, says) in [
        ("id traversal", docker(item("../../etc/passwd", &["layer.tar"], "x"), &good), "leads out"),
        ("layer traversal", docker(item("config.json", &["../../etc/passwd"], "x"), &good), "leads out"),
        ("link out", docker(item("config.json", &["out.tar"], "x"), &good), "leads out"),
        ("absolute link", docker(item("config.json", &["absolute.tar"], "x"), &good), "has no file"),
        ("loop", docker(item("config.json", &["loop.tar"], "x"), &good), "link to itself"),
        ("missing layer", docker(item("config.json", &["none.tar"], "x"), &good), "has no file"),
        ("layer count", docker(item("config.json", &["layer.tar", "layer.tar"], "x"), &good), "2 layers"),
        ("bad name", docker(item("config.json", &["layer.tar"], "../Evil"), &good), "no valid name"),
        ("wrong diffID", docker(item("config.json", &["layer.tar"], "x"), &config(&digest(b"x"))), "sha256:"),
        (
            "bad diffID",
            docker(item("config.json", &["layer.tar"], "x"), &config("sha256:../../x")),
            "diff_id",
        ),
        ("no images", docker(json!([]), &good), "no image"),
        ("no manifest", Tar::new().file("a", 0o644, b"").finish(), "neither an OCI layout"),
        ("empty", Vec::new(), "tar"),
        ("text", b"hello".to_vec(), "tar"),
        ("name out of the archive", Tar::new().file("../x", 0o644, b"").finish(), "bad member name"),
    ] {
        let outcome = world.load(&archive).fails();
        assert!(outcome.stderr.contains(says), "{what}: {}", outcome.stderr);
        assert!(world.names("staging").is_empty() && world.images().is_empty(), "{what}");
    }
    // Every truncation, compressed or not, is an error.
    let whole = image(vec![base()]).oci_archive("test/cut:1");
    for length in (0..whole.len()).step_by(509) {
        world.load(&whole[..length]).fails();
    }
    let packed = gzip(&whole);
    for length in (0..packed.len()).step_by(97) {
        world.load(&packed[..length]).fails();
    }
    assert!(world.images().is_empty());
    // A blob that is not what its name says.
    let mut tampered = whole.clone();
    let at = tampered.windows(5).position(|window| window == b"amd64").expect("the configuration");
    tampered[at] = b'A';
    world.load(&tampered).fails();
    world.load(&whole).ok();
    world.corten(&["rmi", "test/cut:1"]).ok();
    world.assert_empty();
}

#[test]
fn killed_loads_are_swept_by_the_next_call() {
    let world = World::new();
    let large = vec![b'x'; 8 << 20];
    let layers = (0..3).map(|at| Tar::new().file(&format!("{at}"), 0o644, &large).finish()).collect();
    let made = Image { layers, config: json!({}) };
    let archive = world.file("large.tar", &made.docker_archive("large"));
    for _ in 0..5 {
        let mut child =
            world.command(&["load", "-i", &archive]).stdout(Stdio::null()).spawn().expect("corten");
        // As soon as it has begun to write.
        while world.names("staging").is_empty() {
            if child.try_wait().expect("wait").is_some() {
                break;
            }
            std::thread::yield_now();
        }
        child.kill().expect("kill");
        command::wait(&mut child, Duration::from_secs(20)).expect("it dies");
        world.images();
        assert!(world.names("staging").is_empty());
        let images = world.images();
        if !images.is_empty() {
            world.corten(&["rmi", "large"]).ok();
        }
    }
    world.load(&made.docker_archive("large")).ok();
    world.corten(&["rmi", "large"]).ok();
    world.assert_empty();
}

#[test]
fn two_loads_at_once() {
    let world = World::new();
    let made = image(vec![base(), Tar::new().file("top", 0o644, &vec![b't'; 1 << 20])]);
    let paths: Vec<String> = (0..4)
        .map(|at| world.file(&format!("{at}.tar"), &made.docker_archive(&format!("app:{at}"))))
        .collect();
    let mut children: Vec<_> = paths
        .iter()
        .map(|path| world.command(&["load", "-i", path]).stdout(Stdio::null()).spawn().expect("corten"))
        .collect();
    for child in &mut children {
        let status = command::wait(child, Duration::from_secs(60)).expect("it ends");
        assert!(status.success());
    }
    let images = world.images();
    assert_eq!((images.len(), images[0]["names"].as_array().expect("names").len()), (1, 4));
    assert_eq!(world.names("layers").len(), 2);
    assert!(world.names("staging").is_empty());
}

/// The child of `parent` that unpacks a layer, once it is confined.
fn unpacking_child(parent: u32) -> u32 {
    let deadline = std::time::Instant::now() + needs::stretched(Duration::from_secs(20));
    loop {
        for task in std::fs::read_dir(format!("/proc/{parent}/task")).expect("corten pull runs") {
            let children = task.expect("thread").path().join("children");
            for child in std::fs::read_to_string(children).unwrap_or_default().split_whitespace() {
                let read =
                    |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}")).unwrap_or_default();
                if read("cmdline").contains("unpack-layer") && read("status").contains("Seccomp:\t2") {
                    return child.parse().expect("a number");
                }
            }
        }
        assert!(std::time::Instant::now() < deadline, "no confined process");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_layer_is_unpacked_by_a_confined_process_that_ends_with_its_parent() {
    use runtime_tests::registry::{Answer, Registry, blob_path, site};
    use std::sync::{Arc, Condvar, Mutex};

    let blobs = image(vec![Tar::new().file("a", 0o644, b"a")]).blobs();
    let site = site("t/app", "v", &blobs);
    let layer = blob_path("t/app", &blobs, 0);
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let open = Arc::clone(&gate);
    // The layer's bytes do not come before the gate is open, so that the process waits for them.
    let registry = Registry::answering(move |asked| {
        if asked.path == layer {
            let is_open = open.0.lock().expect("gate");
            drop(open.1.wait_while(is_open, |is_open| !*is_open).expect("gate"));
        }
        site.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404))
    });
    let world = World::new();
    let reference = format!("{}/t/app:v", registry.address());
    let mut pull = world
        .command(&["pull", &reference])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("corten");
    let child = unpacking_child(pull.id());
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{child}/{file}")).expect("process");
    let status = read("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("field of status");
        line.trim().to_owned()
    };
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SYS_ADMIN, MKNOD, SETFCAP.
    let kept = 1_u64 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 21 | 1 << 27 | 1 << 31;
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(name), 16).expect("mask") & !kept, 0, "{name} {status}");
    }
    for kind in ["mnt", "net", "ipc", "uts"] {
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("namespace");
        assert_ne!(of(child), of(pull.id()), "{kind}");
    }
    let mounts = read("mountinfo");
    let fields: Vec<&str> = mounts.split_whitespace().collect();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(fields[3].ends_with("/fs") && fields[4] == "/", "{mounts}");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(fields[5].split(',').any(|one| one == option), "{mounts}");
    }
    assert_eq!(read("environ"), "");
    for fd in std::fs::read_dir(format!("/proc/{child}/fd")).expect("descriptors") {
        let target = std::fs::read_link(fd.expect("descriptor").path()).expect("descriptor");
        let target = target.to_str().expect("UTF-8");
        let known = target.starts_with("socket:") || target.starts_with("pipe:") || target.ends_with("/null");
        assert!(known || target == "/" || target.ends_with("/fs"), "{target}");
    }

    pull.kill().expect("kill");
    pull.wait().expect("wait");
    let deadline = std::time::Instant::now() + needs::stretched(Duration::from_secs(10));
    while Path::new(&format!("/proc/{child}/ns/mnt")).exists() {
        assert!(std::time::Instant::now() < deadline, "{}", read("status"));
        std::thread::sleep(Duration::from_millis(2));
    }
    *gate.0.lock().expect("gate") = true;
    gate.1.notify_all();
    world.corten(&["pull", &reference]).ok();
    assert_eq!(world.names("staging"), Vec::<String>::new());
}
