//! Packings: rows 38 and 39.

use super::{Case, Corpus, Media};
use crate::image::{Tar, gzip};

pub(super) fn cases(corpus: &mut Corpus) {
    members(corpus);
    gzip_fields(corpus);
    frames(corpus);
    magic(corpus);
}

fn layer() -> Tar {
    Tar::new().file("a", 0o644, b"content")
}

const TREE: &[&str] = &["f 644 a size=7"];

fn good(corpus: &mut Corpus, label: &str, media: Media, blob: Vec<u8>) {
    corpus.accept(label, layer(), TREE).packed(media, blob);
}

fn bad<'a>(
    corpus: &'a mut Corpus,
    label: &str,
    media: Media,
    blob: Vec<u8>,
    words: &[&'static str],
) -> &'a mut Case {
    corpus.refuse(label, layer(), words).packed(media, blob)
}

fn members(corpus: &mut Corpus) {
    corpus.family(38, "gzip_members");
    let stream = layer().finish();
    let (first, second) = stream.split_at(700);
    let (one, two, none) = (gzip(first), gzip(second), gzip(b""));
    let whole = gzip(&stream);
    let gz = Media::Gzip;
    good(corpus, "one", gz, whole.clone());
    good(corpus, "two", gz, [&one[..], &two].concat());
    good(corpus, "empty ones", gz, [&none[..], &one, &none, &two, &none].concat());
    let bytes: Vec<u8> = stream.iter().flat_map(|byte| gzip(&[*byte])).collect();
    good(corpus, "one for each byte", gz, bytes);
    good(corpus, "a thousand empty ones", gz, [none.repeat(1000), whole.clone()].concat());
    let garbage = &["garbage after its gzip data"];
    bad(corpus, "garbage after it", gz, [&whole[..], b"garbage"].concat(), garbage);
    bad(corpus, "zeros after it", gz, [&whole[..], &[0; 512]].concat(), garbage);
    bad(corpus, "a tar archive after it", gz, [&whole[..], &stream].concat(), garbage);
    bad(corpus, "half a magic after it", gz, [&whole[..], &[0x1f]].concat(), &[]);
    bad(
        corpus,
        "half a member after it",
        gz,
        [&whole[..], &none[..10]].concat(),
        &["ends inside of its compressed data"],
    );
    bad(
        corpus,
        "a member of garbage after it",
        gz,
        [&whole[..], &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3], &[0xff; 20]].concat(),
        &["damaged gzip data"],
    );
    bad(
        corpus,
        "another archive as a member",
        gz,
        [&whole[..], &gzip(&Tar::new().file("b", 0o644, b"x").finish())].concat(),
        &["data after its end mark"],
    );
}

fn gzip_fields(corpus: &mut Corpus) {
    corpus.family(38, "gzip_fields");
    let whole = gzip(&layer().finish());
    let end = whole.len();
    let changed = |at: usize, byte: u8| {
        let mut blob = whole.clone();
        blob[at] = byte;
        blob
    };
    let gz = Media::Gzip;
    let damaged = &["damaged gzip data"];
    bad(corpus, "checksum", gz, changed(end - 5, whole[end - 5] ^ 1), damaged);
    bad(corpus, "length", gz, changed(end - 4, whole[end - 4] ^ 1), damaged);
    bad(corpus, "method", gz, changed(2, 7), damaged);
    bad(corpus, "reserved flags", gz, changed(3, 0xe0), damaged);
    bad(corpus, "data", gz, changed(12, whole[12] ^ 0xff), &[]);
    let truncated = &["ends inside of its compressed data"];
    for length in [3, 9, 10, 11, end / 2, end - 8, end - 4, end - 1] {
        bad(corpus, &format!("the first {length} of {end} bytes"), gz, whole[..length].to_vec(), truncated);
    }
    let header =
        |flags: u8, fields: &[u8]| [&[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3], fields, &whole[10..]].concat();
    good(corpus, "name", gz, header(8, b"../../evil\0"));
    good(corpus, "comment", gz, header(16, b"comment\0"));
    good(corpus, "extra field", gz, header(4, b"\x04\0abcd"));
    good(corpus, "extra field of 64 KiB", gz, header(4, &[&[0xff, 0xff][..], &[b'x'; 0xffff]].concat()));
    good(corpus, "name of 100 KiB", gz, header(8, &[&vec![b'n'; 100 << 10][..], &[0]].concat()));
    bad(corpus, "checksum of the header", gz, header(2, b"\x12\x34"), damaged);
    bad(
        corpus,
        "endless name",
        gz,
        [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &[b'n'; 1000]].concat(),
        truncated,
    );
}

/// A zstd frame of one raw block (RFC 8878), with this descriptor and these bytes after it.
fn frame(descriptor: u8, fields: &[u8], data: &[u8]) -> Vec<u8> {
    let block = u32::try_from(data.len()).expect("a short block") << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, descriptor][..], fields, &block.to_le_bytes()[..3], data].concat()
}

fn frames(corpus: &mut Corpus) {
    corpus.family(39, "zstd_frames");
    let stream = layer().finish();
    let (first, second) = stream.split_at(700);
    let pack = |bytes: &[u8]| zstd::stream::encode_all(bytes, 3).expect("zstd");
    let whole = pack(&stream);
    let zs = Media::Zstd;
    let skippable = |length: usize| {
        [
            &[0x50, 0x2a, 0x4d, 0x18][..],
            &u32::try_from(length).expect("short").to_le_bytes(),
            &vec![b's'; length],
        ]
        .concat()
    };
    good(corpus, "one", zs, whole.clone());
    good(corpus, "two", zs, [pack(first), pack(second)].concat());
    good(corpus, "skippable first", zs, [skippable(100), whole.clone()].concat());
    good(corpus, "skippable last", zs, [whole.clone(), skippable(100)].concat());
    good(corpus, "skippable between", zs, [pack(first), skippable(0), pack(second)].concat());
    good(corpus, "skippable of 512 KiB", zs, [skippable(512 << 10), whole.clone()].concat());
    good(corpus, "raw block, window of 128 MiB", zs, frame(0, &[17 << 3], &stream));
    let damaged = &["damaged zstd data"];
    bad(corpus, "window of 256 MiB", zs, frame(0, &[18 << 3], &stream), damaged);
    bad(corpus, "window of 3.75 TiB", zs, frame(0, &[0xff], &stream), damaged);
    bad(corpus, "dictionary", zs, frame(1, &[10 << 3, 7], &stream), damaged);
    bad(corpus, "reserved bit", zs, frame(8, &[10 << 3], &stream), damaged);
    bad(corpus, "wrong content size", zs, frame(0x20, &[1], &stream), damaged);
    bad(corpus, "wrong checksum", zs, [frame(4, &[10 << 3], &stream), vec![1, 2, 3, 4]].concat(), damaged);
    bad(corpus, "garbage after it", zs, [&whole[..], b"garbage"].concat(), &[]);
    bad(corpus, "zeros after it", zs, [&whole[..], &[0; 512]].concat(), &[]);
    for length in [5, whole.len() / 2, whole.len() - 1] {
        bad(
            corpus,
            &format!("the first {length} of {} bytes", whole.len()),
            zs,
            whole[..length].to_vec(),
            &["ends inside of its compressed data"],
        );
    }
    bad(corpus, "half a skippable frame", zs, [whole, skippable(100)[..50].to_vec()].concat(), &[]);
}

fn magic(corpus: &mut Corpus) {
    corpus.family(39, "media_type_and_magic");
    let stream = layer().finish();
    let gz = gzip(&stream);
    let zs = zstd::stream::encode_all(&stream[..], 3).expect("zstd");
    // `load` of a Docker archive goes by the first bytes alone: the archive has no media types.
    for (label, media, blob) in [
        ("plain as gzip", Media::Gzip, &stream),
        ("plain as zstd", Media::Zstd, &stream),
        ("gzip as plain", Media::Plain, &gz),
        ("gzip as zstd", Media::Zstd, &gz),
        ("zstd as plain", Media::Plain, &zs),
        ("zstd as gzip", Media::Gzip, &zs),
    ] {
        bad(corpus, label, media, blob.clone(), &["but its media type says"]);
    }
    bad(corpus, "nothing as gzip", Media::Gzip, Vec::new(), &["but its media type says"]);
    bad(corpus, "xz as gzip", Media::Gzip, b"\xfd7zXZ\0junk".to_vec(), &["but its media type says"]);
    bad(corpus, "gzip in gzip", Media::Gzip, gzip(&gz), &[]);
    bad(corpus, "zstd in gzip", Media::Gzip, gzip(&zs), &[]);
}
