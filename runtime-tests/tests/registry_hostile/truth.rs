//! Bytes that are not what was promised: digests, sizes, ranges.

use crate::table::{Lie, Row, TAG, body, row};
use runtime_tests::image::{Tar, digest, gzip};
use runtime_tests::registry::{Answer, Body, MANIFEST, with_layer};
use serde_json::json;

const WRONG: &str = "is wrong: its digest is sha256:";

/// A part of the layer 0, from byte 50 on, which nobody asked for.
fn part(lie: &mut Lie, header: &str) {
    let bytes = lie.image.blobs[0].1.clone();
    let size = bytes.len();
    let header = header.replace("{last}", &(size - 1).to_string()).replace("{size}", &size.to_string());
    let answer = Answer { status: 206, ..Answer::new("x", bytes[50..].to_vec()) };
    lie.blob(0, if header.is_empty() { answer } else { answer.header(header) });
}

/// A blob in place of the layer 0.
fn layer(lie: &mut Lie, blob: Vec<u8>) {
    lie.image = with_layer(lie.image.clone(), 0, blob);
    lie.manifest(|_| {});
}

pub fn rows() -> Vec<Row> {
    digests().into_iter().chain(lengths()).chain(ranges()).chain(layers()).collect()
}

fn digests() -> Vec<Row> {
    vec![
        row("a layer with the wrong digest", &["{0}", WRONG], |lie| {
            lie.bytes(0, |bytes| bytes[100] ^= 1);
        }),
        row("a layer that is another one", &["wrong size", "{0}"], |lie| {
            let other = lie.image.blobs[1].1.clone();
            lie.bytes(0, |bytes| *bytes = other);
        }),
        row("a configuration with the wrong digest", &["{config}", WRONG], |lie| {
            lie.bytes(2, |bytes| *bytes.last_mut().unwrap() = b' ');
        }),
        row("a manifest that is not what its header says", &[WRONG], |lie| {
            let name = digest(b"another");
            let answer = Answer::new(MANIFEST, lie.image.manifest.clone());
            lie.tag(answer.header(format!("Docker-Content-Digest: {name}")));
        }),
        row("a manifest that is not what its index says", &[WRONG], |lie| {
            let mut bytes = lie.image.manifest.clone();
            bytes.push(b'\n');
            lie.by_digest(Answer::new(MANIFEST, bytes));
        }),
        row("a manifest of another size than its index says", &["but its index says 7"], |lie| {
            lie.index(|index| index["manifests"][0]["size"] = json!(7));
        }),
        row("layers in the other order than their diffIDs", &["cannot unpack layer", "diffID"], |lie| {
            lie.manifest(|manifest| manifest["layers"].as_array_mut().unwrap().reverse());
        }),
        row("the diffID of something else", &["cannot unpack layer", "diffID", "{1}"], |lie| {
            lie.config(|config| config["rootfs"]["diff_ids"][1] = json!(digest(b"another")));
        }),
        row("one layer twice", &["cannot unpack layer", "diffID"], |lie| {
            lie.manifest(|manifest| manifest["layers"][1] = manifest["layers"][0].clone());
        }),
    ]
}

fn lengths() -> Vec<Row> {
    vec![
        row("a layer that is a byte longer", &["has the wrong size", "{1}"], |lie| {
            lie.bytes(1, |bytes| bytes.push(0));
        }),
        row("a layer that is a byte shorter", &["has the wrong size", "{1}"], |lie| {
            lie.bytes(1, |bytes| bytes.truncate(bytes.len() - 1));
        }),
        row("a configuration that is a byte longer", &["has the wrong size", "{config}"], |lie| {
            lie.bytes(2, |bytes| bytes.push(b' '));
        }),
        row("an empty layer", &["is truncated", "0 of", "{0}"], |lie| lie.bytes(0, Vec::clear)),
        row("an empty configuration", &["is truncated", "0 of", "{config}"], |lie| lie.bytes(2, Vec::clear)),
        row("an empty manifest", &["not valid JSON"], |lie| lie.document(MANIFEST, "")),
        row("no content for a manifest", &["not valid JSON"], |lie| {
            lie.site.remove(TAG);
            lie.tag(Answer::raw(Body::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())));
        }),
        row("no content for a layer", &["{0}"], |lie| {
            lie.blob(0, Answer::raw(Body::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())));
        }),
        row("a layer without a length that ends early", &["is truncated", "{0}"], |lie| {
            let bytes = [b"HTTP/1.1 200 OK\r\n\r\n", &lie.image.blobs[0].1[..30]].concat();
            lie.blob(0, Answer::raw(Body::Raw(bytes)));
        }),
        row("a layer without a length or a byte", &["is truncated", "0 of", "{0}"], |lie| {
            lie.blob(0, Answer::raw(Body::Raw(b"HTTP/1.1 200 OK\r\n\r\n".to_vec())));
        }),
        row("a configuration that ends early", &["is truncated", "{config}"], |lie| {
            let bytes = lie.image.config.clone();
            lie.blob(2, body(200, Body::Cut(bytes[..20].to_vec(), bytes.len())));
        }),
        row("a layer whose length is another one", &["has the wrong size", "{0}"], |lie| {
            let bytes = lie.image.blobs[0].1.clone();
            lie.blob(0, body(200, Body::Cut(bytes, 1 << 40)));
        }),
        row("a size in the manifest that is smaller", &["wrong size", "{0}"], |lie| {
            lie.manifest(|manifest| manifest["layers"][0]["size"] = json!(10));
        }),
        row("a size in the manifest that is 0", &["{0}"], |lie| {
            lie.manifest(|manifest| manifest["layers"][0]["size"] = json!(0));
        }),
        row("a size in the manifest that is 2^64 - 1", &["wrong size", "{0}"], |lie| {
            lie.manifest(|manifest| manifest["layers"][0]["size"] = json!(u64::MAX));
        }),
    ]
}

fn ranges() -> Vec<Row> {
    vec![
        row("a range that nobody asked for", &["is truncated", "{0}"], |lie| {
            part(lie, "Content-Range: bytes 50-{last}/{size}");
        }),
        row("a range that does not say which", &["is truncated", "{0}"], |lie| part(lie, "")),
        row("a range of a larger blob", &["has the wrong size", "{0}"], |lie| {
            part(lie, "Content-Range: bytes 0-{last}/99999999");
        }),
        row("a range that says to be the whole", &["{0}"], |lie| {
            part(lie, "Content-Range: bytes 0-{last}/{size}");
        }),
        row("a range of nonsense", &["is truncated", "{0}"], |lie| {
            part(lie, "Content-Range: bytes 18446744073709551616--1/*");
        }),
        row("a range that cannot be had", &["status 416", "{0}"], |lie| lie.blob(0, Answer::status(416))),
    ]
}

fn layers() -> Vec<Row> {
    let bad = &["cannot unpack layer", "{0}"];
    vec![
        row("a layer that is not gzip", &["cannot unpack layer", "{0}", "media type says gzip"], |lie| {
            layer(lie, b"not gzip at all".to_vec());
        }),
        row("a layer that is zstd and says gzip", bad, |lie| {
            layer(lie, zstd::encode_all(&Tar::new().finish()[..], 1).unwrap());
        }),
        row("a layer that is plain and says gzip", bad, |lie| layer(lie, Tar::new().dir("a/").finish())),
        row("a layer that is gzip and says to be plain", bad, |lie| {
            lie.manifest(|manifest| {
                manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
            });
        }),
        row("a layer that is gzip and says zstd", bad, |lie| {
            lie.manifest(|manifest| {
                manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd");
            });
        }),
        row("a layer that climbs", &["cannot unpack layer", "{0}", "../evil"], |lie| {
            layer(lie, gzip(&Tar::new().file("../evil", 0o644, b"x").finish()));
        }),
        row("a layer that is no archive", bad, |lie| layer(lie, gzip(&b"no tar archive".repeat(100)))),
        row("a layer whose archive ends early", bad, |lie| {
            layer(lie, gzip(&Tar::new().file("a", 0o644, b"x").finish()[..700]));
        }),
    ]
}
