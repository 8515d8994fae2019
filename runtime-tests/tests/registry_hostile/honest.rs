//! What is no lie, and how a pull goes on after a failure.

use crate::{Host, expect_error, image, names};
use runtime_tests::image::digest;
use runtime_tests::registry::{Answer, Body, Registry, blob_path, site};
use serde_json::json;
use std::time::Instant;

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

#[test]
fn a_broken_layer_is_asked_for_from_where_it_broke() {
    let image = image();
    let (path, bytes) = (blob_path("t/app", &image, 0), image.blobs[0].1.clone());
    let mut site = site("t/app", "v", &image);
    site.insert(
        path.clone(),
        Answer { body: Body::Cut(bytes[..40].to_vec(), bytes.len()), ..Answer::status(200) },
    );
    let registry = Registry::serving(site);
    let host = Host::new();
    let outcome = host.pull(&format!("{}/t/app:v", registry.address())).exits(125);
    expect_error(&outcome, &["is truncated", &format!("40 of {} bytes", bytes.len())]);
    let asked = registry.asked().into_iter().filter(|asked| asked.path == path);
    let ranges: Vec<_> = asked.map(|asked| asked.headers.get("range").cloned()).collect();
    assert_eq!(ranges[..2], [None, Some("bytes=40-".to_owned())]);
    assert_eq!(ranges.len(), 4, "and three times again");
}
