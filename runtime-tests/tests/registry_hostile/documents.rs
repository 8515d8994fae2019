//! Documents that are not what they should be.

use crate::table::{Lie, Row, row};
use runtime_tests::image::digest;
use runtime_tests::registry::{INDEX, MANIFEST};
use serde_json::json;

const JSON: &[&str] = &["not valid JSON"];

fn foreign(lie: &mut Lie, url: &str) {
    lie.manifest(|manifest| {
        manifest["layers"][0]["mediaType"] =
            json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        manifest["layers"][0]["urls"] = json!([url]);
    });
}

/// The manifest as text, with one text for another.
fn replaced(lie: &mut Lie, from: &str, to: &str) {
    let text = String::from_utf8(lie.image.manifest.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    lie.document(MANIFEST, text.replacen(from, to, 1));
}

pub fn rows() -> Vec<Row> {
    json_texts().into_iter().chain(kinds()).chain(digests()).chain(configurations()).collect()
}

fn json_texts() -> Vec<Row> {
    vec![
        row("an object without fields", JSON, |lie| lie.document(MANIFEST, "{}")),
        row("an array", JSON, |lie| lie.document(MANIFEST, "[]")),
        row("null", JSON, |lie| lie.document(MANIFEST, "null")),
        row("two documents", JSON, |lie| {
            let twice = lie.image.manifest.repeat(2);
            lie.document(MANIFEST, twice);
        }),
        row("a web page", &["was announced as \"text/html\""], |lie| {
            let manifest = lie.image.manifest.clone();
            lie.document("text/html", manifest);
        }),
        row("text that is not UTF-8", JSON, replaced_bytes),
        row("a byte order mark", JSON, |lie| {
            let text = [b"\xef\xbb\xbf", &lie.image.manifest[..]].concat();
            lie.document(MANIFEST, text);
        }),
        row("layers twice", JSON, |lie| {
            replaced(lie, r#""schemaVersion""#, r#""layers":[],"schemaVersion""#);
        }),
        row("a digest twice", JSON, |lie| {
            replaced(lie, r#""size""#, &format!(r#""digest":"{}","size""#, digest(b"x")));
        }),
        row("a media type twice", JSON, |lie| {
            replaced(lie, r#""schemaVersion""#, &format!(r#""mediaType":"{INDEX}","schemaVersion""#));
        }),
        row("a negative size", JSON, |lie| lie.manifest(|m| m["layers"][0]["size"] = json!(-1))),
        row("a size as text", JSON, |lie| lie.manifest(|m| m["layers"][0]["size"] = json!("5"))),
        row("a size with a fraction", JSON, |lie| lie.manifest(|m| m["layers"][0]["size"] = json!(1.5))),
        row("a size beyond 64 bits", JSON, |lie| {
            let size = format!("\"size\":{}", lie.image.blobs[0].1.len());
            replaced(lie, &size, "\"size\":18446744073709551616");
        }),
        row("a version beyond all numbers", JSON, |lie| {
            replaced(lie, "\"schemaVersion\":2", "\"schemaVersion\":2e400");
        }),
        row("layers that are no list", JSON, |lie| lie.manifest(|m| m["layers"] = json!({}))),
    ]
}

fn replaced_bytes(lie: &mut Lie) {
    let mut text = lie.image.manifest.clone();
    let at = text.windows(6).position(|six| six == b"sha256").unwrap();
    text[at] = 0xff;
    lie.document(MANIFEST, text);
}

fn kinds() -> Vec<Row> {
    let ambiguous = &["is ambiguous"];
    vec![
        row("a manifest that is an index too", ambiguous, |lie| lie.manifest(|m| m["manifests"] = json!([]))),
        row("an index that is a manifest too", ambiguous, |lie| {
            lie.index(|index| index["layers"] = json!([]));
        }),
        row("an index with a configuration", ambiguous, |lie| {
            let config =
                serde_json::from_slice::<serde_json::Value>(&lie.image.manifest).unwrap()["config"].clone();
            lie.index(|index| index["config"] = config);
        }),
        row("a manifest announced as an index", ambiguous, |lie| {
            let manifest = lie.image.manifest.clone();
            lie.document(INDEX, manifest);
        }),
        row("an index announced as a manifest", ambiguous, |lie| {
            lie.index(|_| {});
            let index = lie.site[crate::table::TAG].clone();
            lie.tag(runtime_tests::registry::Answer {
                headers: vec![format!("Content-Type: {MANIFEST}")],
                ..index
            });
        }),
        row("a manifest that its index calls an index", ambiguous, |lie| {
            lie.index(|index| index["manifests"][0]["mediaType"] = json!(INDEX));
        }),
        row("schema version 1", &["schema version 1"], |lie| {
            lie.document("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#);
        }),
        row("a manifest with layers of schema version 1", ambiguous, |lie| {
            lie.manifest(|m| m["fsLayers"] = json!([]));
        }),
        row("schema version 3", &["schema version 3"], |lie| lie.manifest(|m| m["schemaVersion"] = json!(3))),
        row("no layers", &["lacks \"layers\""], |lie| {
            lie.manifest(|m| drop(m.as_object_mut().unwrap().remove("layers")));
        }),
        row("no configuration", &["lacks \"config\""], |lie| {
            lie.manifest(|m| drop(m.as_object_mut().unwrap().remove("config")));
        }),
        row("an index without manifests", &["no variant for the platform", "none"], |lie| {
            lie.index(|index| index["manifests"] = json!([]));
        }),
        row("an index of artifacts alone", &["no variant for the platform"], |lie| {
            lie.index(|index| index["manifests"][0]["mediaType"] = json!("application/x-sbom"));
        }),
        row("an artifact", &["is an artifact of the type \"application/x-chart\""], |lie| {
            lie.manifest(|m| {
                m["artifactType"] = json!("application/x-chart");
                m["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
            });
        }),
        row("another platform", &["no variant for the platform linux/", "it has plan9/mips"], |lie| {
            lie.index(|index| {
                index["manifests"][0]["platform"] = json!({"os": "plan9", "architecture": "mips"});
            });
        }),
        row("a layer of an unknown media type", &["media type \"application/x-evil\"", "{0}"], |lie| {
            lie.manifest(|m| m["layers"][0]["mediaType"] = json!("application/x-evil"));
        }),
        row("a foreign layer", &["is foreign", "{0}"], |lie| {
            let url = format!("http://{}/x", lie.third);
            foreign(lie, &url);
        }),
        row("a foreign layer in a file of the host", &["is foreign", "{0}"], |lie| {
            foreign(lie, "file:///etc/shadow");
        }),
    ]
}

fn digests() -> Vec<Row> {
    fn layer(lie: &mut Lie, digest: &str) {
        lie.manifest(|m| m["layers"][0]["digest"] = json!(digest));
    }
    vec![
        row("a digest that is a path", JSON, |lie| layer(lie, "sha256:../../../../etc/passwd")),
        row("a digest with an absolute path", JSON, |lie| layer(lie, "/etc/passwd")),
        row("an algorithm that is a path", JSON, |lie| layer(lie, &format!("../x:{}", "0".repeat(64)))),
        row("a digest without digits", JSON, |lie| layer(lie, "sha256:")),
        row("a digest that is short", JSON, |lie| layer(lie, "sha256:1234")),
        row("a digest that is long", JSON, |lie| layer(lie, &format!("sha256:{}", "0".repeat(65)))),
        row("a digest in capitals", JSON, |lie| layer(lie, &format!("sha256:{}", "A".repeat(64)))),
        row("a digest with a NUL", JSON, |lie| layer(lie, &format!("sha256:{}\0", "0".repeat(63)))),
        row("a digest of SHA-512", JSON, |lie| layer(lie, &format!("sha512:{}", "0".repeat(128)))),
        row("a digest of MD5", JSON, |lie| layer(lie, "md5:d41d8cd98f00b204e9800998ecf8427e")),
        row("an index with the digest of a path", &["t/app:v"], |lie| {
            lie.index(|index| index["manifests"][0]["digest"] = json!("sha256:../../x"));
        }),
        row("a configuration's digest that is a path", JSON, |lie| {
            lie.manifest(|m| m["config"]["digest"] = json!("sha256:../../x"));
        }),
    ]
}

fn configurations() -> Vec<Row> {
    let invalid = &["configuration is not valid", "{config}"];
    vec![
        row("a configuration that is empty", invalid, |lie| lie.config_text(b"{}".to_vec())),
        row("a configuration that is no JSON", invalid, |lie| lie.config_text(b"\x7fELF".to_vec())),
        row("a configuration that is not UTF-8", invalid, |lie| {
            lie.config_text(b"{\"os\":\"\xff\"}".to_vec());
        }),
        row("a diffID that is a path", &["invalid diff_id", "{config}"], |lie| {
            lie.config(|config| config["rootfs"]["diff_ids"][0] = json!("sha256:../../x"));
        }),
        row("a diffID less", &["has 2 layers", "1 diff_ids"], |lie| {
            lie.config(|config| drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()));
        }),
        row("a diffID more", &["has 1 layers", "2 diff_ids"], |lie| {
            lie.manifest(|m| drop(m["layers"].as_array_mut().unwrap().pop()));
        }),
        row("no layers at all", &["has 0 layers", "2 diff_ids"], |lie| {
            lie.manifest(|m| m["layers"] = json!([]));
        }),
        row("another kind of root", &["rootfs type \"disk\"", "{config}"], |lie| {
            lie.config(|config| config["rootfs"]["type"] = json!("disk"));
        }),
        row("a configuration of another platform", &["is for the platform plan9/"], |lie| {
            lie.config(|config| config["os"] = json!("plan9"));
        }),
    ]
}
