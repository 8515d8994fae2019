//! Ends of streams, and images that do not fit their layers: rows 40 and 41.

use super::{Case, Corpus, Lie, Media, Verdict};
use crate::image::{Tar, gzip};

pub(super) fn cases(corpus: &mut Corpus) {
    truncated(corpus);
    ends(corpus);
    lies(corpus);
}

fn layer() -> Tar {
    Tar::new().dir("d/").file("d/x", 0o644, b"content").symlink("l", "d/x").node(b'0', ".wh.gone")
}

fn raw<'a>(corpus: &'a mut Corpus, label: &str, stream: Vec<u8>, words: &[&'static str]) -> &'a mut Case {
    corpus.add(label, stream, Verdict::Refused(words.to_vec()))
}

fn truncated(corpus: &mut Corpus) {
    corpus.family(40, "truncated");
    let stream = layer().finish();
    // Every byte of it is a unit test's; here are the places between which something changes.
    for length in [
        0, 1, 156, 257, 511, 512, 513, 1023, 1024, 1025, 1031, 1032, 1535, 1536, 2047, 2048, 2560, 2561,
        3071, 3072, 3583,
    ] {
        // `import` says of nothing at all what it should have been.
        let words: &[&'static str] =
            if length == 0 { &["end mark"] } else { &["ends inside of an entry or without its end mark"] };
        raw(corpus, &format!("{length} of {} bytes", stream.len()), stream[..length].to_vec(), words);
        if length % 512 == 0 && length > 0 {
            raw(
                corpus,
                &format!("{length} of {} bytes, gzip", stream.len()),
                stream[..length].to_vec(),
                words,
            )
            .packed(Media::Gzip, gzip(&stream[..length]));
        }
    }
}

fn ends(corpus: &mut Corpus) {
    corpus.family(40, "ends");
    let tree = &["d 755 d", "f 644 d/x size=7", "l l -> d/x"];
    let body = layer().unfinished();
    let with = |end: &[u8]| [&body[..], end].concat();
    raw(corpus, "no end mark", with(b""), &["without its end mark"]);
    raw(corpus, "half an end mark", with(&[0; 512]), &["without its end mark"]);
    raw(
        corpus,
        "a zero block in the middle",
        [&body[..], &[0; 512], &body, &[0; 1024]].concat(),
        &["that does not end it"],
    );
    raw(corpus, "data after the end", [&body[..], &[0; 1024], b"x"].concat(), &["data after its end mark"]);
    raw(
        corpus,
        "an archive after the end",
        [&body[..], &[0; 1024], &body, &[0; 1024]].concat(),
        &["data after its end mark"],
    );
    raw(
        corpus,
        "data long after the end",
        [&body[..], &[0; 60_000], b"x"].concat(),
        &["data after its end mark"],
    );
    for zeros in [1025, 1536, 10_240, 300_000] {
        let verdict = Verdict::Tree(tree.iter().map(|line| (*line).to_owned()).collect());
        corpus.add(format!("{zeros} zeros"), with(&vec![0; zeros]), verdict);
    }
}

fn lies(corpus: &mut Corpus) {
    corpus.family(41, "image_and_layer");
    let below = || Tar::new().file("gone", 0o644, b"below");
    for (label, lie, words) in [
        ("diffID", Lie::DiffId, "sha256:"),
        ("digest", Lie::Digest, "digest"),
        ("larger size", Lie::Larger, ""),
        ("smaller size", Lie::Smaller, ""),
        ("more diffIDs", Lie::MoreDiffIds, "diff_ids"),
        ("fewer diffIDs", Lie::FewerDiffIds, "diff_ids"),
        ("swapped diffIDs", Lie::Swapped, "sha256:"),
        ("one layer twice", Lie::Twice, "diff_ids"),
    ] {
        corpus.refuse(label, layer(), &[words]).over(below()).lie = Some(lie);
    }
}
