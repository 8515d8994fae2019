//! `corten pull` from Debian's docker-registry, filled by skopeo: each kind of manifest and of layer.
#![expect(clippy::disallowed_methods, reason = "the tests own the directories that they work on")]

use runtime_tests::image::{Image, Tar, digest, gzip};
use runtime_tests::registry::{DockerRegistry, INDEX, MANIFEST};
use runtime_tests::{Outcome, needs, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

mod access;
mod resume;
mod tokens;

struct World {
    dir: tempfile::TempDir,
    registry: DockerRegistry,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let registry = DockerRegistry::start(&dir.path().join("registry"));
        Self { dir, registry }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address())
    }

    /// Copies `source` to the registry.
    fn push(&self, args: &[&str], source: &str, name: &str) {
        let mut skopeo = Command::new(needs::program("skopeo", "skopeo"));
        skopeo.args(["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]).args(args);
        run(skopeo.arg(source).arg(format!("docker://{}", self.reference(name)))).ok();
    }

    fn corten(&self, root: &str, args: &[&str]) -> Outcome {
        run(&mut self.command(root, args))
    }

    /// `corten` with a home of its own and no configuration of the host's.
    fn command(&self, root: &str, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        for name in ["REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HTTPS_PROXY", "NO_PROXY"] {
            command.env_remove(name);
        }
        let conf = self.path("registries.conf");
        if !conf.exists() {
            std::fs::write(&conf, "").expect("registries.conf");
        }
        command.env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("CONTAINERS_REGISTRIES_CONF", conf).arg("--root").arg(self.path(root)).args(args);
        command
    }

    /// Puts an image of these layers into the registry.
    fn fill(&self, image: &Image, name: &str) {
        let archive = self.path("image.tar");
        std::fs::write(&archive, image.oci_archive("v")).expect("archive");
        self.push(&[], &format!("oci-archive:{}:v", archive.display()), name);
    }

    /// Pulls into a new store and returns what `--format json` prints.
    fn pull(&self, root: &str, args: &[&str], name: &str) -> Value {
        let reference = self.reference(name);
        self.corten(root, &[&["pull", "--format", "json"], args, &[reference.as_str()]].concat()).ok().json()
    }
}

fn image(word: &str) -> Image {
    Image {
        layers: vec![
            Tar::new().dir("etc/").file("etc/word", 0o644, word.repeat(2000).as_bytes()).finish(),
            Tar::new().file("top", 0o755, word.as_bytes()).finish(),
        ],
        config: json!({"Cmd": ["/bin/true"]}),
    }
}

/// Writes an image layout with these blobs.
fn layout(dir: &Path, blobs: &[Vec<u8>], index: &Value) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).expect("layout");
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
    std::fs::write(dir.join("index.json"), index.to_string()).expect("index.json");
    for blob in blobs {
        let name = digest(blob).replace("sha256:", "blobs/sha256/");
        std::fs::write(dir.join(name), blob).expect("blob");
    }
}

/// The layers' contents as they are in a store.
fn unpacked(root: &Path) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(root.join("layers"))
        .expect("layers")
        .map(|entry| entry.expect("entry").path().join("fs"))
        .map(|fs| {
            let read = |name: &str| std::fs::read_to_string(fs.join(name)).ok();
            read("top").or(read("etc/word").map(|text| format!("word {}", text.len()))).unwrap_or_default()
        })
        .collect();
    found.sort();
    found
}

#[test]
fn every_packing_of_one_image() {
    let world = World::new();
    let archive = world.path("image.tar");
    std::fs::write(&archive, image("corten").oci_archive("v")).expect("archive");
    let source = format!("oci-archive:{}:v", archive.display());
    let plain = plain_layers(&world);
    // First, because skopeo takes a layer that the registry has in another packing.
    world.push(&["--dest-compress-format", "zstd"], &plain, "t/app:zstd");
    // It packs layers when it pushes, unless no digest may change.
    world.push(&["--preserve-digests"], &plain, "t/app:plain");
    world.push(&[], &source, "t/app:oci");
    world.push(&["--format", "v2s2"], &source, "t/app:docker");

    let mut kinds = Vec::new();
    for name in ["oci", "docker", "zstd", "plain"] {
        let pulled = world.pull(name, &[], &format!("t/app:{name}"));
        assert_eq!((&pulled["layers"], &pulled["unpacked"]), (&json!(2), &json!(2)), "{name}");
        assert_eq!(unpacked(&world.path(name)), ["corten", "word 12000"], "{name}");
        kinds.push(manifest(&world.path(name)));
    }
    let kind = |at: usize| (kinds[at]["mediaType"].as_str(), kinds[at]["layers"][0]["mediaType"].as_str());
    let layer = |suffix: &str| format!("application/vnd.oci.image.layer.v1.tar{suffix}");
    assert_eq!(kind(0), (Some(MANIFEST), Some(layer("+gzip").as_str())));
    assert_eq!(
        kind(1),
        (
            Some("application/vnd.docker.distribution.manifest.v2+json"),
            Some("application/vnd.docker.image.rootfs.diff.tar.gzip")
        )
    );
    assert_eq!(kind(2), (Some(MANIFEST), Some(layer("+zstd").as_str())));
    assert_eq!(kind(3), (Some(MANIFEST), Some(layer("").as_str())));

    // One store: the same layers in another packing are fetched, because content is complete, but not
    // unpacked again.
    let again = world.pull("oci", &[], "t/app:zstd");
    assert_eq!(again["unpacked"], json!(0));
    assert_eq!(std::fs::read_dir(world.path("oci/layers")).expect("layers").count(), 2);
}

/// The same image with its layers as they are; returns skopeo's name of it.
fn plain_layers(world: &World) -> String {
    let image = image("corten");
    let config = image.blobs().config;
    let describe =
        |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let layers: Vec<_> =
        image.layers.iter().map(|layer| describe("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
        "config": describe("application/vnd.oci.image.config.v1+json", &config)});
    let manifest = manifest.to_string().into_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [describe(MANIFEST, &manifest)]});
    let mut blobs = image.layers;
    blobs.extend([config, manifest]);
    layout(&world.path("plain-layout"), &blobs, &index);
    format!("oci:{}", world.path("plain-layout").display())
}

/// The only manifest that a store's index points to.
fn manifest(root: &Path) -> Value {
    let read = |path: PathBuf| -> Value {
        serde_json::from_slice(&std::fs::read(&path).expect("a JSON file of the store")).expect("JSON")
    };
    let index = read(root.join("content/index.json"));
    let digest = index["manifests"][0]["digest"].as_str().expect("a digest");
    read(root.join("content").join(digest.replace("sha256:", "blobs/sha256/")))
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let world = World::new();
    let mut blobs = Vec::new();
    let mut entries = Vec::new();
    for (architecture, word) in [("amd64", "intel"), ("arm64", "arm"), ("s390x", "ibm")] {
        let image = image(word);
        let mut config: Value = serde_json::from_slice(&image.blobs().config).expect("a configuration");
        config["architecture"] = json!(architecture);
        let config = config.to_string().into_bytes();
        let layers: Vec<_> = image.layers.iter().map(|layer| gzip(layer)).collect();
        let describe = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let described: Vec<_> = layers
            .iter()
            .map(|layer| describe("application/vnd.oci.image.layer.v1.tar+gzip", layer))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
            "config": describe("application/vnd.oci.image.config.v1+json", &config)});
        let manifest = manifest.to_string().into_bytes();
        let mut entry = describe(MANIFEST, &manifest);
        entry["platform"] = json!({"os": "linux", "architecture": architecture});
        entries.push(entry);
        blobs.extend(layers);
        blobs.extend([config, manifest]);
    }
    let index =
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string().into_bytes();
    let top = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": INDEX, "digest": digest(&index), "size": index.len()}]});
    blobs.push(index.clone());
    layout(&world.path("layout"), &blobs, &top);
    let source = format!("oci:{}", world.path("layout").display());
    world.push(&["--all", "--preserve-digests"], &source, "t/multi:v");

    let pulled = world.pull("amd64", &["--platform", "linux/amd64"], "t/multi:v");
    assert_eq!(pulled["digest"], json!(digest(&index)), "of what the tag names");
    assert_eq!(unpacked(&world.path("amd64"))[0], "intel");
    world.pull("arm64", &["--platform", "linux/aarch64"], &format!("t/multi@{}", digest(&index)));
    assert_eq!(unpacked(&world.path("arm64"))[0], "arm");
    // A manifest that is named itself, and that is for another machine.
    let ibm = format!("t/multi@{}", entries[2]["digest"].as_str().expect("a digest"));
    let reference = world.reference(&ibm);
    let error = world.corten("s390x", &["pull", "--platform", "linux/amd64", &reference]).exits(125);
    assert!(error.stderr.contains("is for the platform linux/s390x"), "{}", error.stderr);
    world.pull("s390x", &["--platform", "linux/s390x"], &ibm);
}

#[test]
fn skopeo_reads_what_was_pulled() {
    let world = World::new();
    let archive = world.path("image.tar");
    std::fs::write(&archive, image("corten").oci_archive("v")).expect("archive");
    world.push(&[], &format!("oci-archive:{}:v", archive.display()), "t/app:v");
    world.pull("root", &[], "t/app:v");
    let mut skopeo = Command::new(needs::program("skopeo", "skopeo"));
    let store = format!("oci:{}:{}", world.path("root/content").display(), world.reference("t/app:v"));
    let copy = format!("oci-archive:{}", world.path("copy.tar").display());
    run(skopeo.args(["copy", "--quiet", "--insecure-policy", &store, &copy])).ok();
}

/// Runs `corten` with other files in place of some of `/etc`, in a mount namespace of its own.
fn with_etc(
    world: &World,
    files: &[(&str, &str)],
    environment: &[(&str, &Path)],
    reference: &str,
) -> Outcome {
    let mut script = String::new();
    for (name, text) in files {
        let file = world.path(&name.replace('/', "-"));
        std::fs::write(&file, text).expect("a file for /etc");
        script.push_str(&format!("mount --bind {} {name} && ", file.display()));
    }
    script.push_str("exec \"$@\"");
    let mut unshare = Command::new(needs::program("unshare", "util-linux"));
    unshare
        .args(["--mount", "sh", "-ec", &script, "sh"])
        .arg(needs::corten())
        .arg("--root")
        .arg(world.path("root"));
    run(unshare.args(["pull", reference]).envs(environment.iter().copied()).env("HOME", world.dir.path()))
}

#[test]
fn tls_with_a_certificate_that_the_host_trusts_or_not() {
    let world = World::new();
    let archive = world.path("image.tar");
    std::fs::write(&archive, image("corten").oci_archive("v")).expect("archive");
    world.push(&[], &format!("oci-archive:{}:v", archive.display()), "t/app:v");
    let (certificate, key) = (world.path("cert.pem"), world.path("key.pem"));
    let mut openssl = Command::new(needs::program("openssl", "openssl"));
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test", "-days", "2"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]).arg(&key).arg("-out");
    run(openssl.arg(&certificate)).ok();
    let tls = DockerRegistry::start_tls(&world.path("registry"), &certificate, &key);
    let hosts = [("/etc/hosts", "127.0.0.1 localhost registry.test\n")];
    let reference = format!("registry.test:{}/t/app:v", tls.address().port());

    let error = with_etc(&world, &hosts, &[], &reference).exits(125).stderr;
    assert!(error.contains(&reference) && error.contains("there is no secure connection"), "{error}");
    // Plain HTTP is spoken to this machine's own names alone.
    let plain = format!("registry.test:{}/t/app:v", world.registry.address().port());
    let error = with_etc(&world, &hosts, &[], &plain).exits(125).stderr;
    assert!(error.contains("there is no secure connection to https://registry.test"), "{error}");
    with_etc(&world, &hosts, &[("SSL_CERT_FILE", &certificate)], &reference).ok();
}

#[test]
fn names_come_from_hosts_and_dns_alone() {
    let world = World::new();
    let archive = world.path("image.tar");
    std::fs::write(&archive, image("corten").oci_archive("v")).expect("archive");
    world.push(&[], &format!("oci-archive:{}:v", archive.display()), "t/app:v");
    // The services that a desktop has would be loaded as shared objects, which a static binary cannot.
    let switch = [
        ("/etc/nsswitch.conf", "hosts: mymachines mdns4_minimal [NOTFOUND=return] resolve myhostname\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n"),
    ];
    with_etc(&world, &switch, &[], &format!("localhost:{}/t/app:v", world.registry.address().port())).ok();
}

#[test]
fn what_the_registry_does_not_have() {
    let world = World::new();
    let archive = world.path("image.tar");
    std::fs::write(&archive, image("corten").oci_archive("v")).expect("archive");
    world.push(&[], &format!("oci-archive:{}:v", archive.display()), "t/app:v");
    for (name, text) in [("t/other:v", "no such"), ("t/app:w", "does not have it")] {
        let outcome = world.corten("root", &["pull", &world.reference(name)]).exits(125);
        assert!(outcome.stderr.contains(&world.reference(name)), "{}", outcome.stderr);
        assert!(
            outcome.stderr.contains(text) || outcome.stderr.contains("does not have it"),
            "{}",
            outcome.stderr
        );
    }
    let absent = digest(b"absent");
    let outcome = world.corten("root", &["pull", &world.reference(&format!("t/app@{absent}"))]).exits(125);
    assert!(outcome.stderr.contains(&absent), "{}", outcome.stderr);
}
