//! Too much of something: bodies without end, headers without end, lists that are too long.

use crate::table::{Lie, Row, body, row};
use runtime_tests::header::Header;
use runtime_tests::image::digest;
use runtime_tests::registry::{Answer, Body, INDEX, MANIFEST, with_layer};
use serde_json::{Value, json};
use std::io::Write;

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn flood(head: impl Into<Vec<u8>>, piece: impl Into<Vec<u8>>) -> Answer {
    Answer::raw(Body::Flood(head.into(), piece.into()))
}

fn times(value: &mut Value, count: usize) {
    let first = value[0].clone();
    *value = Value::Array(vec![first; count]);
}

/// 256 MiB of zeros in one file, packed as tight as gzip can.
fn bomb() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&Header::new(b'0', "zeros", 256 << 20).sum()).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..256).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.write_all(&zeros[..1024]).unwrap();
    encoder.finish().unwrap()
}

pub fn rows() -> Vec<Row> {
    bodies().into_iter().chain(heads()).chain(lists()).collect()
}

fn bodies() -> Vec<Row> {
    let manifest = &["larger than 4194304 bytes"];
    vec![
        row("an endless manifest", manifest, |lie| lie.tag(body(200, Body::Endless))),
        row("an endless manifest in chunks", manifest, |lie| {
            let head = format!("{OK}Content-Type: {MANIFEST}\r\nTransfer-Encoding: chunked\r\n\r\n");
            lie.tag(flood(head, "10\r\n                \r\n"));
        }),
        row("an endless manifest of one byte a chunk", manifest, |lie| {
            lie.tag(flood(format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n"));
        }),
        row("a manifest that says to be of 1 TiB", &["broke"], |lie| {
            lie.tag(body(200, Body::Cut(b"{".to_vec(), 1 << 40)));
        }),
        row("an endless manifest by its digest", manifest, |lie| lie.by_digest(body(200, Body::Endless))),
        row("an endless configuration", &["is too long", "{config}"], |lie| {
            lie.blob(2, body(200, Body::Endless));
        }),
        row("an endless layer", &["is too long", "{1}"], |lie| lie.blob(1, body(200, Body::Endless))),
        row("an endless layer in chunks", &["is too long", "{0}"], |lie| {
            lie.blob(
                0,
                flood(format!("{OK}Transfer-Encoding: chunked\r\n\r\n"), "10\r\n                \r\n"),
            );
        }),
        row("an endless layer as large as the manifest says", &["cannot unpack layer", "{0}"], |lie| {
            lie.manifest(|manifest| manifest["layers"][0]["size"] = json!(1u64 << 60));
            lie.blob(0, body(200, Body::Endless));
        }),
        row("an endless error for a manifest", &["access denied"], |lie| lie.tag(body(403, Body::Endless))),
        row("an endless error for a layer", &["does not have it", "{0}"], |lie| {
            lie.blob(0, body(404, Body::Endless));
        }),
        row("an endless challenge", &["authentication that is not supported"], |lie| {
            lie.tag(body(401, Body::Endless));
        }),
        row("an endless redirect", &["does not have it"], |lie| {
            lie.tag(body(307, Body::Endless).header("Location: /nowhere"));
        }),
        row("an endless token", &["token", "larger than 1048576 bytes"], |lie| {
            lie.token(body(200, Body::Endless));
        }),
        row("an endless error of a token service", &["token", "unauthorized"], |lie| {
            lie.token(body(401, Body::Endless));
        }),
        row(
            "a layer that inflates without end",
            &["cannot unpack layer", "times the size of its blob"],
            |lie| {
                lie.image = with_layer(lie.image.clone(), 0, bomb());
                lie.manifest(|_| {});
            },
        ),
    ]
}

fn heads() -> Vec<Row> {
    let http = &["does not speak HTTP as it should"];
    vec![
        row("an endless header", http, |lie| lie.tag(flood(format!("{OK}X-Long: "), "x"))),
        row("endless headers", http, |lie| lie.tag(flood(OK, "X-More: x\r\n"))),
        row("an endless status line", http, |lie| lie.tag(flood("HTTP/1.1 200 ", "OK "))),
        row("a header block of 1 MiB", http, |lie| {
            lie.tag(Answer::new(MANIFEST, "{}").header(format!("X-Long: {}", "x".repeat(1 << 20))));
        }),
        row("a thousand headers", http, |lie| {
            let answer = Answer::new(MANIFEST, "{}");
            lie.tag((0..1000).fold(answer, |answer, n| answer.header(format!("X-{n}: x"))));
        }),
        row("an endless header of a layer", http, |lie| lie.blob(0, flood(format!("{OK}X-Long: "), "x"))),
        row("early hints without end", http, |lie| {
            lie.tag(flood("", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"));
        }),
        row("100 Continue without end", http, |lie| lie.tag(flood("", "HTTP/1.1 100 Continue\r\n\r\n"))),
        row("trailers without end", &["goes on without content"], |lie| {
            lie.tag(flood(
                format!("{OK}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n"),
                "X-Trailer: x\r\n",
            ));
        }),
        row("trailers of a layer without end", &["goes on without content", "{0}"], |lie| {
            let head = format!("{OK}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", lie.image.blobs[0].1.len());
            let head = [head.as_bytes(), &lie.image.blobs[0].1, b"\r\n0\r\n"].concat();
            lie.blob(0, flood(head, "X-Trailer: x\r\n"));
        }),
        row("a chunk's extension without end", &["t/app:v"], |lie| {
            lie.tag(flood(format!("{OK}Transfer-Encoding: chunked\r\n\r\n2;"), "x"));
        }),
        row("a challenge of 20 KiB", &["authentication that is not supported"], |lie| {
            let realm = format!("http://{}/{}", lie.here, "x".repeat(20 << 10));
            lie.realm(&realm);
        }),
        row("a redirect of 20 KiB", &["bad URL", "too long"], |lie| {
            lie.tag(Answer::status(307).header(format!("Location: /{}", "x".repeat(20 << 10))));
        }),
        row("a token of 900 KiB", &["t/app:v"], |lie| {
            lie.token(Answer::new("application/json", json!({"token": "x".repeat(900 << 10)}).to_string()));
        }),
        row("nothing but zero bytes", http, |lie| lie.tag(flood("", "\0"))),
    ]
}

fn lists() -> Vec<Row> {
    vec![
        row("a layer more than are supported", &["has 501 layers, at most 500"], |lie| {
            lie.manifest(|manifest| times(&mut manifest["layers"], 501));
        }),
        row("an entry more than are supported", &["has 1025 entries, at most 1024"], |lie| {
            lie.index(|index| times(&mut index["manifests"], 1025));
        }),
        row("a URL more than are supported", &["has 17 URLs, at most 16", "{0}"], |lie| {
            lie.manifest(|manifest| manifest["layers"][0]["urls"] = json!(vec!["https://x.invalid/"; 17]));
        }),
        row("diffIDs without number", &["{config}", "has 501 layers"], |lie| {
            lie.config(|config| times(&mut config["rootfs"]["diff_ids"], 501));
        }),
        row("a configuration larger than any", &["configuration of 8388609 bytes is too large"], |lie| {
            lie.manifest(|manifest| manifest["config"]["size"] = json!((8 << 20) + 1));
        }),
        row("indexes in indexes", &["nested more than 3 deep"], nested),
        row("brackets in brackets", &["not valid JSON"], |lie| {
            lie.document(MANIFEST, format!(r#"{{"schemaVersion":2,"x":{}"#, "[".repeat(1 << 20)));
        }),
        row("a configuration of brackets", &["configuration is not valid", "{config}"], |lie| {
            lie.config_text("[".repeat(1 << 20).into_bytes());
        }),
        row("a number of a million digits", &["t/app:v"], |lie| {
            lie.document(MANIFEST, format!(r#"{{"schemaVersion":{}}}"#, "9".repeat(1 << 20)));
        }),
        row("a key of 1 MiB, twice", &["not valid JSON"], |lie| {
            let key = "x".repeat(1 << 20);
            lie.document(MANIFEST, format!(r#"{{"{key}":1,"{key}":1}}"#));
        }),
        row("a name of a platform of 1 KiB", &["no variant for the platform"], |lie| {
            lie.index(|index| index["manifests"][0]["platform"]["os"] = json!("x".repeat(1 << 10)));
        }),
    ]
}

/// Indexes of which each names the next one.
fn nested(lie: &mut Lie) {
    let (mut inner, mut kind) = (lie.image.manifest.clone(), MANIFEST);
    for _ in 0..5 {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
            {"mediaType": kind, "digest": digest(&inner), "size": inner.len()}]});
        inner = serde_json::to_vec(&index).unwrap();
        kind = INDEX;
        let answer = Answer::new(INDEX, inner.clone());
        lie.site.insert(format!("/v2/t/app/manifests/{}", digest(&inner)), answer.clone());
        lie.tag(answer);
    }
}
