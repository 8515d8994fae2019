//! `corten pull` against registries that lie, break off or never end. Each lie gives one clear error that
//! names its object, exit code 125, and leaves nothing in the store.

use runtime_tests::image::{Blobs, Image, Tar, digest};
use runtime_tests::registry::{
    Answer, Body, INDEX, MANIFEST, Registry, Site, blob_path, site, with_layer, with_manifest,
};
use runtime_tests::{Outcome, needs, run};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A store of its own, under a home directory of its own.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("temporary directory") }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(needs::corten());
        command.arg("--root").arg(self.root()).args(args);
        for name in ["REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"] {
            command.env_remove(name);
        }
        command.env("HOME", self.dir.path());
        command
    }

    fn pull(&self, reference: &str) -> Outcome {
        run(&mut self.command(&["pull", reference]))
    }

    fn pull_with(&self, args: &[&str], reference: &str) -> Outcome {
        run(&mut self.command(&[&["pull"], args, &[reference]].concat()))
    }

    /// Fails the test if a blob, a layer, a name or anything half made is in the store.
    #[track_caller]
    fn is_empty(&self) {
        for dir in ["content/blobs/sha256", "layers", "staging", "leases"] {
            let found = names(&self.root().join(dir));
            assert!(found.is_empty(), "left in {dir}: {found:?}");
        }
        let index = self.root().join("content/index.json");
        if let Ok(text) = std::fs::read(&index) {
            let index: Value = serde_json::from_slice(&text).expect("index.json");
            assert_eq!(index["manifests"], json!([]));
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned()).collect()
        }
        Err(_) => Vec::new(),
    }
}

fn image() -> Blobs {
    layers(&[
        Tar::new().dir("etc/").file("etc/a", 0o644, &[b'a'; 40_000]).finish(),
        Tar::new().file("b", 0o600, b"bb").finish(),
    ])
}

fn layers(layers: &[Vec<u8>]) -> Blobs {
    Image { layers: layers.to_vec(), config: json!({"Cmd": ["/bin/true"]}) }.blobs()
}

/// Pulls `t/app:v` from a registry that serves `site`, and expects all of `texts` in one error of one line.
#[track_caller]
fn refused(site: Site, texts: &[&str]) -> Registry {
    let registry = Registry::serving(site);
    let host = Host::new();
    let reference = format!("{}/t/app:v", registry.address());
    expect_error(&host.pull(&reference).exits(125), &[&[reference.as_str()], texts].concat());
    host.is_empty();
    registry
}

#[track_caller]
fn expect_error(outcome: &Outcome, texts: &[&str]) {
    assert_eq!(outcome.stdout, "", "nothing was pulled");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "one error: {}", outcome.stderr);
    for text in texts {
        assert!(lines[0].contains(text), "{text:?} is not in: {}", lines[0]);
    }
}

fn edited(edit: impl FnOnce(&mut Site, &Blobs)) -> Site {
    let image = image();
    let mut site = site("t/app", "v", &image);
    edit(&mut site, &image);
    site
}

fn body_of(site: &mut Site, path: &str, body: Body) {
    site.get_mut(path).expect("a path of the site").body = body;
}

/// The same image with another manifest under the tag.
fn manifest_edited(edit: impl FnOnce(&mut Value)) -> Site {
    site("t/app", "v", &with_manifest(image(), edit))
}

const TAG: &str = "/v2/t/app/manifests/v";

#[test]
fn an_honest_one() {
    let image = image();
    let registry = Registry::serving(site("t/app", "v", &image));
    let host = Host::new();
    let reference = format!("{}/t/app:v", registry.address());
    let first = host.pull_with(&["--format", "json"], &reference).ok().json();
    let bytes: usize = image.blobs[..2].iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(
        first,
        json!({"reference": reference, "digest": digest(&image.manifest), "id": digest(&image.config),
               "layers": 2, "unpacked": 2, "bytes": bytes})
    );
    let again = host.pull_with(&["--format", "json"], &reference).ok().json();
    assert_eq!((&again["unpacked"], &again["bytes"]), (&json!(0), &json!(0)));
    let pinned = format!("{}/t/app@{}", registry.address(), digest(&image.manifest));
    assert_eq!(host.pull(&pinned).ok().stdout.trim(), digest(&image.config).trim_start_matches("sha256:"));
    assert!(names(&host.root().join("staging")).is_empty());
}

#[test]
fn a_layer_with_the_wrong_digest() {
    let site = edited(|site, image| {
        let path = blob_path("t/app", image, 0);
        let mut bytes = image.blobs[0].1.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        body_of(site, &path, Body::Whole(bytes));
    });
    let want = image().blobs[0].0.clone();
    refused(site, &[&want, "is wrong: its digest is sha256:"]);
}

#[test]
fn a_configuration_with_the_wrong_digest() {
    let site = edited(|site, image| {
        let mut bytes = image.config.clone();
        let last = bytes.len() - 1;
        bytes[last] = b' ';
        body_of(site, &blob_path("t/app", image, 2), Body::Whole(bytes));
    });
    refused(site, &[&digest(&image().config), "is wrong: its digest is"]);
}

#[test]
fn a_layer_of_the_wrong_size() {
    let site = edited(|site, image| {
        let mut bytes = image.blobs[1].1.clone();
        bytes.push(0);
        body_of(site, &blob_path("t/app", image, 1), Body::Whole(bytes));
    });
    refused(site, &["has the wrong size", &image().blobs[1].0]);
}

#[test]
fn a_truncated_layer() {
    let site = edited(|site, image| {
        let bytes = &image.blobs[0].1;
        body_of(site, &blob_path("t/app", image, 0), Body::Cut(bytes[..40].to_vec(), bytes.len()));
    });
    let size = image().blobs[0].1.len();
    let registry = refused(site, &["is truncated", &format!("40 of {size} bytes"), &image().blobs[0].0]);
    let path = blob_path("t/app", &image(), 0);
    let ranges: Vec<_> = registry
        .asked()
        .into_iter()
        .filter(|asked| asked.path == path)
        .map(|a| a.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=40-"), "a broken layer is asked for from where it broke");
}

#[test]
fn a_layer_that_breaks_off_once_is_resumed() {
    let image = image();
    let (path, bytes) = (blob_path("t/app", &image, 0), image.blobs[0].1.clone());
    let honest = site("t/app", "v", &image);
    let registry = Registry::answering(move |asked| match asked.headers.get("range") {
        _ if asked.path != path => honest.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)),
        None => Answer { body: Body::Cut(bytes[..50].to_vec(), bytes.len()), ..Answer::status(200) },
        Some(_) => Answer { status: 206, ..Answer::new("x", bytes[50..].to_vec()) }.header(format!(
            "Content-Range: bytes 50-{}/{}",
            bytes.len() - 1,
            bytes.len()
        )),
    });
    Host::new().pull(&format!("{}/t/app:v", registry.address())).ok();
}

#[test]
fn an_endless_manifest() {
    let site = edited(|site, _| body_of(site, TAG, Body::Endless));
    let start = Instant::now();
    refused(site, &["larger than 4194304 bytes"]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn an_endless_layer() {
    let site = edited(|site, image| body_of(site, &blob_path("t/app", image, 1), Body::Endless));
    refused(site, &["is too long", &image().blobs[1].0]);
}

#[test]
fn an_endless_error() {
    let site = edited(|site, _| {
        site.insert(TAG.to_owned(), Answer { body: Body::Endless, ..Answer::status(403) });
    });
    refused(site, &["access denied"]);
}

#[test]
fn cve_2021_41190_ambiguous_documents() {
    for (media_type, text) in
        [("text/html", "was announced as \"text/html\""), (INDEX, "was announced as"), (MANIFEST, "")]
    {
        let image = with_manifest(image(), |manifest| {
            if text.is_empty() {
                manifest["manifests"] = json!([]);
            }
        });
        let mut site = site("t/app", "v", &image);
        site.insert(TAG.to_owned(), Answer::new(media_type, image.manifest.clone()));
        refused(site, &["is ambiguous", text]);
    }
}

#[test]
fn documents_that_are_no_image() {
    let with = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        edited(move |site, _| body_of(site, TAG, Body::Whole(bytes)))
    };
    refused(with(b""), &["not valid JSON"]);
    refused(with(b"{}"), &["not valid JSON"]);
    refused(with(br#"{"schemaVersion":1,"fsLayers":[]}"#), &["schema version 1"]);
    let layer = |key: &'static str, value: &'static str| {
        manifest_edited(move |manifest| manifest["layers"][0][key] = json!(value))
    };
    refused(layer("mediaType", "application/vnd.oci.image.layer.nondistributable.v1.tar"), &["is foreign"]);
    refused(layer("mediaType", "application/x-evil"), &["media type \"application/x-evil\""]);
    refused(layer("digest", "sha256:../../../../etc/passwd"), &["not valid JSON"]);
    refused(manifest_edited(|manifest| manifest["config"]["size"] = json!(1u64 << 40)), &["is too large"]);
    refused(
        manifest_edited(|manifest| {
            manifest["layers"].as_array_mut().expect("layers").pop();
        }),
        &["has 1 layers", "2 diff_ids"],
    );
}

#[test]
fn another_platform() {
    let image = image();
    let mut site = site("t/app", "v", &image);
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": MANIFEST, "digest": digest(&image.manifest), "size": image.manifest.len(),
        "platform": {"os": "plan9", "architecture": "mips"},
    }]});
    site.insert(TAG.to_owned(), Answer::new(INDEX, index.to_string()));
    refused(site, &["no variant for the platform linux/", "it has plan9/mips"]);
}

#[test]
fn the_wrong_diff_id() {
    // The layers in the other order: each blob is what the manifest says, and not what the configuration says.
    let site = manifest_edited(|manifest| manifest["layers"].as_array_mut().expect("layers").reverse());
    refused(site, &["cannot unpack layer", "diffID"]);
}

#[test]
fn hostile_layers() {
    let pull = |tar: Vec<u8>, texts: &[&str]| {
        let image = layers(&[tar, Tar::new().file("b", 0o600, b"bb").finish()]);
        let texts = [&["cannot unpack layer", image.blobs[0].0.as_str()], texts].concat();
        refused(site("t/app", "v", &image), &texts);
    };
    pull(Tar::new().file("../evil", 0o644, b"x").finish(), &["../evil"]);
    pull(Tar::new().dir("a/").file("a/../../evil", 0o644, b"x").finish(), &["a/../../evil"]);
    pull(b"this is no tar archive".repeat(100).to_vec(), &[]);
    pull(Tar::new().file("a", 0o644, b"x").finish()[..700].to_vec(), &[]);
}

#[test]
fn a_layer_that_is_not_gzip() {
    let image = with_layer(image(), 0, b"not gzip at all".to_vec());
    refused(site("t/app", "v", &image), &["cannot unpack layer", &image.blobs[0].0, "media type says gzip"]);
}

#[test]
fn a_bomb() {
    // 256 MiB of zeros, packed as tight as gzip can.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&Tar::new().file("zeros", 0o644, &vec![0; 256 << 20]).finish()).expect("gzip");
    let bomb = encoder.finish().expect("gzip");
    assert!(bomb.len() < 512 << 10, "{} bytes", bomb.len());
    let image = with_layer(image(), 0, bomb);
    refused(site("t/app", "v", &image), &["cannot unpack layer", "times the size of its blob"]);
}

#[test]
fn unknown_names() {
    let error = |code: &str| format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#);
    for (code, text) in [("NAME_UNKNOWN", "no such repository"), ("MANIFEST_UNKNOWN", "does not have it")] {
        let mut site = Site::new();
        site.insert(TAG.to_owned(), Answer { status: 404, ..Answer::new("application/json", error(code)) });
        refused(site, &[text]);
    }
    let site = edited(|site, image| {
        site.remove(&blob_path("t/app", image, 0));
    });
    refused(site, &["does not have it", &image().blobs[0].0]);
}

#[test]
fn server_errors_then_success() {
    let image = image();
    let honest = site("t/app", "v", &image);
    let registry = Registry::answering(move |asked| match asked.nth {
        0 | 1 | 3 => Answer::status(500),
        _ => honest[&asked.path].clone(),
    });
    Host::new().pull(&format!("{}/t/app:v", registry.address())).ok();
    assert_eq!(registry.asked().len(), 7, "one manifest, one configuration and two layers, three failures");
}

#[test]
fn server_errors_for_ever() {
    let registry = Registry::answering(|_| Answer::status(503));
    let host = Host::new();
    let outcome = host.pull(&format!("{}/t/app:v", registry.address())).exits(125);
    expect_error(&outcome, &["/t/app:v", "status 503"]);
    assert_eq!(registry.asked().len(), 4);
    host.is_empty();
}

#[test]
fn nobody_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let address = listener.local_addr().expect("own address");
    drop(listener);
    let host = Host::new();
    let outcome = host.pull(&format!("{address}/t/app:v")).exits(125);
    expect_error(&outcome, &["/t/app:v", &format!("cannot connect to http://{address}"), "refused"]);
    host.is_empty();
}

#[test]
fn an_unknown_host() {
    let host = Host::new();
    // RFC 6761: no such name ever exists.
    let outcome = host.pull("registry.invalid/t/app:v").exits(125);
    expect_error(&outcome, &["registry.invalid/t/app:v", "cannot look up the host \"registry.invalid\""]);
    host.is_empty();
}

#[test]
fn bad_references() {
    for reference in
        ["", "UPPER", "a b", "a:t:u", "localhost:99999/a", "a@sha256:12", "../x", &"a".repeat(300)]
    {
        let host = Host::new();
        let outcome = host.pull(reference).exits(125);
        assert_eq!(outcome.stdout, "");
        assert!(
            outcome.stderr.contains("reference") || outcome.stderr.contains("image name"),
            "{reference:?}: {}",
            outcome.stderr
        );
        host.is_empty();
    }
}

#[test]
fn a_token_is_fetched_with_credentials_for_the_registry_alone() {
    let image = image();
    let honest = site("t/app", "v", &image);
    let registry = Registry::answering(move |asked| {
        let authorization = asked.headers.get("authorization").map(String::as_str);
        match (asked.path.starts_with("/token?"), authorization) {
            // user:pass
            (true, Some("Basic dXNlcjpwYXNz")) => Answer::new("application/json", r#"{"token":"abc"}"#),
            (false, Some("Bearer abc")) => honest.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)),
            _ => Answer::status(401).header(format!(
                r#"Www-Authenticate: Bearer realm="http://{}/token",service="test",scope="repository:t/app:pull""#,
                asked.headers["host"]
            )),
        }
    });
    let reference = format!("{}/t/app:v", registry.address());
    let host = Host::new();
    expect_error(&host.pull(&reference).exits(125), &[&reference, "unauthorized"]);
    expect_error(
        &host.pull_with(&["--creds", "user:wrong"], &reference).exits(125),
        &[&reference, "unauthorized"],
    );
    host.is_empty();
    host.pull_with(&["--creds", "user:pass"], &reference).ok();

    let stored = Host::new();
    std::fs::create_dir(stored.dir.path().join(".docker")).expect("directory");
    let auths = json!({"auths": {registry.address().to_string(): {"auth": "dXNlcjpwYXNz"}}});
    std::fs::write(stored.dir.path().join(".docker/config.json"), auths.to_string()).expect("config.json");
    stored.pull(&reference).ok();
    let token = registry
        .asked()
        .into_iter()
        .find(|asked| asked.path.starts_with("/token?"))
        .expect("a token request");
    assert_eq!(token.path, "/token?scope=repository:t/app:pull&service=test");
}

#[test]
fn cve_2020_15157_no_credentials_for_another_origin() {
    let image = image();
    let layer = blob_path("t/app", &image, 0);
    let honest = site("t/app", "v", &image);
    // Serves anything to anybody, and writes down who came.
    let files = honest.clone();
    let other = Registry::answering(move |asked| match asked.path.starts_with("/token") {
        true => Answer::new("application/json", r#"{"token":"abc"}"#),
        false => files.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404)),
    });
    let address = other.address();
    let registry = Registry::answering(move |asked| {
        if asked.headers.get("authorization").is_none_or(|value| value != "Bearer abc") {
            return Answer::status(401)
                .header(format!(r#"Www-Authenticate: Bearer realm="http://{address}/token""#));
        }
        if asked.path == layer {
            return Answer::status(307).header(format!("Location: http://{address}{layer}"));
        }
        honest.get(&asked.path).cloned().unwrap_or_else(|| Answer::status(404))
    });
    let host = Host::new();
    host.pull_with(&["--creds", "user:pass"], &format!("{}/t/app:v", registry.address())).ok();
    let asked = other.asked();
    assert_eq!(asked.len(), 2, "the token and the layer: {asked:?}");
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")), "{asked:?}");
}

#[test]
fn redirects_and_realms_to_where_anybody_listens() {
    let leaky = [
        Answer::status(307).header("Location: http://192.0.2.1/x"),
        Answer::status(401).header(r#"Www-Authenticate: Bearer realm="http://192.0.2.1/token""#),
    ];
    for answer in leaky {
        let mut site = Site::new();
        site.insert(TAG.to_owned(), answer);
        let registry = Registry::serving(site);
        let host = Host::new();
        let reference = format!("{}/t/app:v", registry.address());
        let outcome = host.pull_with(&["--creds", "user:pass"], &reference).exits(125);
        expect_error(&outcome, &["http://192.0.2.1", "is not encrypted"]);
        host.is_empty();
    }
}

#[test]
fn a_killed_pull_is_swept() {
    let image = image();
    let stuck = site("t/app", "v", &image);
    let honest = Registry::serving(stuck.clone());
    // The second layer never comes, and the first is in the store when the pull is killed.
    let path = blob_path("t/app", &image, 1);
    let registry = Registry::answering(move |asked| {
        if asked.path == path {
            std::thread::park();
        }
        stuck[&asked.path].clone()
    });
    let host = Host::new();
    let mut child = host
        .command(&["pull", &format!("{}/t/app:v", registry.address())])
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("start corten");
    let layers = host.root().join("layers");
    let deadline = Instant::now() + runtime_tests::events::patience();
    while names(&layers).is_empty() {
        assert!(Instant::now() < deadline, "the first layer does not appear");
        std::thread::yield_now();
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert!(!names(&host.root().join("staging")).is_empty(), "it was in the middle of something");
    host.pull(&format!("{}/t/app:v", honest.address())).ok();
    assert!(names(&host.root().join("staging")).is_empty());
}

#[test]
fn two_pulls_at_once() {
    let image = image();
    let registry = Registry::serving(site("t/app", "v", &image));
    let host = Host::new();
    let reference = format!("{}/t/app:v", registry.address());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| host.pull(&reference).ok());
        }
    });
    assert_eq!(names(&host.root().join("layers")).len(), 2);
    assert!(names(&host.root().join("staging")).is_empty());
}
