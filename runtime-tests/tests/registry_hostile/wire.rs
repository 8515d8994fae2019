//! Connections that break, and what is no HTTP.

use crate::table::{Lie, Row, body, raw, row};
use runtime_tests::registry::{Answer, Body, MANIFEST};

/// A head and the layer 0.
fn headed(lie: &mut Lie, headers: &str) {
    let bytes = lie.image.blobs[0].1.clone();
    let headers = headers.replace("{size}", &bytes.len().to_string());
    lie.blob(0, raw([format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), &bytes].concat()));
}

/// A head and the manifest.
fn manifest(lie: &mut Lie, headers: &str) {
    let bytes = lie.image.manifest.clone();
    let headers = headers.replace("{size}", &bytes.len().to_string());
    lie.tag(raw([format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes(), &bytes].concat()));
}

pub fn rows() -> Vec<Row> {
    ends().into_iter().chain(heads()).chain(chunks()).collect()
}

fn ends() -> Vec<Row> {
    let broke = &["broke"];
    vec![
        row("an end before the answer", broke, |lie| lie.tag(raw(""))),
        row("a reset before the answer", broke, |lie| lie.tag(Answer::raw(Body::Reset(Vec::new())))),
        row("an end inside of a head", broke, |lie| lie.tag(raw("HTTP/1.1 200 OK\r\nContent-Ty"))),
        row("a reset inside of a head", broke, |lie| {
            lie.tag(Answer::raw(Body::Reset(b"HTTP/1.1 200 OK\r\nContent-Ty".to_vec())));
        }),
        row("an end inside of a manifest", broke, |lie| {
            let bytes = lie.image.manifest.clone();
            lie.tag(body(200, Body::Cut(bytes[..50].to_vec(), bytes.len())));
        }),
        row("a reset inside of a manifest", broke, |lie| {
            lie.tag(Answer::raw(Body::Reset(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{".to_vec())));
        }),
        row("a manifest by its digest that breaks off", broke, |lie| lie.by_digest(raw(""))),
        row("an end before a configuration", &["broke", "{config}"], |lie| lie.blob(2, raw(""))),
        row("an end before a layer", &["broke", "{0}"], |lie| lie.blob(0, raw(""))),
        row("an end inside of a layer", &["is truncated", "40 of", "{0}"], |lie| {
            let bytes = lie.image.blobs[0].1.clone();
            lie.blob(0, body(200, Body::Cut(bytes[..40].to_vec(), bytes.len())));
        }),
        row("a reset inside of a layer", &["{0}"], |lie| {
            let bytes = lie.image.blobs[0].1.clone();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            lie.blob(0, Answer::raw(Body::Reset([head.as_bytes(), &bytes[..40]].concat())));
        }),
        row("an end before a token", &["token", "broke"], |lie| lie.token(raw(""))),
        row("an end inside of a token", &["token", "broke"], |lie| {
            lie.token(body(200, Body::Cut(br#"{"tok"#.to_vec(), 100)));
        }),
        row("an end inside of an error", &["access denied"], |lie| {
            lie.tag(body(403, Body::Cut(br#"{"errors"#.to_vec(), 100)));
        }),
    ]
}

fn heads() -> Vec<Row> {
    let http = &["does not speak HTTP as it should"];
    vec![
        row("no HTTP at all", http, |lie| lie.tag(raw("SSH-2.0-OpenSSH_9.2\r\n"))),
        row("an alert of TLS", http, |lie| lie.tag(raw(b"\x15\x03\x03\x00\x02\x02\x28".to_vec()))),
        row("HTTP 0.9", http, |lie| lie.tag(raw(lie.image.manifest.clone()))),
        row("HTTP 3.7", http, |lie| lie.tag(raw("HTTP/3.7 200 OK\r\n\r\n{}"))),
        row("a status of one digit", http, |lie| lie.tag(raw("HTTP/1.1 2 OK\r\n\r\n{}"))),
        row("the status 999", &["status 999"], |lie| {
            lie.tag(raw("HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"));
        }),
        row("a header without a colon", http, |lie| manifest(lie, "Nonsense\r\n")),
        row("a header with a NUL", http, |lie| manifest(lie, "X-Odd: a\0b\r\n")),
        row("a header name with a space", http, |lie| manifest(lie, "X Odd: a\r\n")),
        row("a media type that is not UTF-8", &["not valid JSON"], |lie| {
            lie.tag(
                raw(b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}".to_vec()),
            );
        }),
        row("a negative length", http, |lie| manifest(lie, "Content-Length: -1\r\n")),
        row("a length of 2^64", http, |lie| manifest(lie, "Content-Length: 18446744073709551616\r\n")),
        row("a length that is no number", http, |lie| manifest(lie, "Content-Length: many\r\n")),
        row("two lengths", http, |lie| manifest(lie, "Content-Length: {size}\r\nContent-Length: 5\r\n")),
        row("two lengths of a layer", &["{0}"], |lie| {
            headed(lie, "Content-Length: 5\r\nContent-Length: {size}\r\n");
        }),
        row("a length and chunks", &["t/app:v"], |lie| {
            manifest(lie, "Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n");
        }),
        row("an encoding that is none", &["t/app:v"], |lie| {
            lie.tag(
                Answer::new(MANIFEST, runtime_tests::image::gzip(&lie.image.manifest))
                    .header("Content-Encoding: gzip"),
            );
        }),
        row("another protocol", &["t/app:v"], |lie| {
            lie.tag(raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nx"));
        }),
        row("hints and then nothing", &["broke"], |lie| lie.tag(raw("HTTP/1.1 103 Early Hints\r\n\r\n"))),
    ]
}

fn chunks() -> Vec<Row> {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bad = &["t/app:v"];
    vec![
        row("a chunk size of nonsense", bad, |lie| lie.tag(raw(format!("{HEAD}zz\r\n{{}}\r\n0\r\n\r\n")))),
        row("a negative chunk size", bad, |lie| lie.tag(raw(format!("{HEAD}-2\r\n{{}}\r\n0\r\n\r\n")))),
        row("a chunk size of 2^68", bad, |lie| {
            lie.tag(raw(format!("{HEAD}100000000000000002\r\n{{}}\r\n0\r\n\r\n")));
        }),
        row("a chunk of 2^63 bytes", bad, |lie| lie.tag(raw(format!("{HEAD}8000000000000000\r\n{{}}")))),
        row("a chunk that is longer than it says", bad, |lie| {
            lie.tag(raw(format!("{HEAD}2\r\n{{}}{{}}\r\n0\r\n\r\n")));
        }),
        row("chunks without the last one", &["broke"], |lie| lie.tag(raw(format!("{HEAD}2\r\n{{}}\r\n")))),
        row("a layer in chunks without the last one", &["is truncated", "{0}"], |lie| {
            lie.blob(
                0,
                raw([format!("{HEAD}1e\r\n").as_bytes(), &lie.image.blobs[0].1[..30], b"\r\n"].concat()),
            );
        }),
        row("a layer in chunks of nonsense", &["{0}"], |lie| {
            lie.blob(0, raw(format!("{HEAD}zz\r\n")));
        }),
    ]
}
