//! Fields of headers, sparse files and GNU's long names: rows 26, 27 and 30.

use super::{Corpus, empty, entry};
use crate::header::{Header, record};
use crate::image::Tar;

pub(super) fn cases(corpus: &mut Corpus) {
    sparse(corpus);
    numbers(corpus);
    formats(corpus);
    long_names(corpus);
}

fn sparse(corpus: &mut Corpus) {
    corpus.family(26, "sparse_files");
    let words = &["is a sparse file, which is not supported"];
    let gnu = || Header::new(b'S', "a", 512).gnu();
    let map = |header: Header, at: usize, offset: u64, length: u64| {
        header.octal(386 + 24 * at, 12, offset).octal(398 + 24 * at, 12, length)
    };
    let data = [b'x'; 512];
    corpus.refuse("old GNU", Tar::new().raw(map(gnu(), 0, 0, 512).octal(483, 12, 512), data), words);
    corpus.refuse("old GNU, overlapping", Tar::new().raw(map(map(gnu(), 0, 0, 512), 1, 0, 512), data), words);
    corpus.refuse(
        "old GNU, negative",
        Tar::new().raw(gnu().binary(386, 12, -512).binary(398, 12, 512), data),
        words,
    );
    corpus.refuse(
        "old GNU, huge",
        Tar::new().raw(gnu().binary(386, 12, i64::MAX).binary(398, 12, i64::MAX), data),
        words,
    );
    corpus.refuse("old GNU, more maps", Tar::new().raw(gnu().put(482, [1]), data).bytes([b'1'; 512]), words);
    let pax = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("a", 0o644, &data);
    corpus.refuse("0.0", pax(&[("GNU.sparse.size", b"512"), ("GNU.sparse.numblocks", b"1")]), words);
    corpus.refuse("0.1", pax(&[("GNU.sparse.map", b"0,512"), ("GNU.sparse.size", b"512")]), words);
    corpus.refuse(
        "1.0",
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", b"1099511627776"),
        ]),
        words,
    );
    corpus.refuse("another name", pax(&[("GNU.sparse.name", b"../corten-escape")]), words);
    corpus.refuse("star", pax(&[("SCHILY.realsize", b"1099511627776")]), words);
    let million: Vec<u8> = [&b"0,1"[..], &b",1,1".repeat(200_000)].concat();
    corpus.refuse("200,000 spans", pax(&[("GNU.sparse.map", &million)]), words);
    let repeated: Vec<u8> = (0..1000)
        .flat_map(|at| {
            [record("GNU.sparse.offset", format!("{at}")), record("GNU.sparse.numbytes", b"1")].concat()
        })
        .collect();
    corpus.refuse(
        "repeated keys of 0.0",
        Tar::new().extension(b'x', repeated).node(b'0', "a"),
        &["comes twice"],
    );
}

fn numbers(corpus: &mut Corpus) {
    corpus.family(27, "sizes");
    let size = |header: Header| Tar::new().raw(header, b"").bytes([b'x'; 512]);
    let words = &["invalid size"];
    let file = || entry(b'0', "a");
    corpus.refuse("2^63 - 1", size(file().binary(124, 12, i64::MAX)), words);
    corpus.refuse("negative", size(file().binary(124, 12, -1)), words);
    corpus.refuse("-512", size(file().binary(124, 12, -512)), words);
    corpus.refuse("beyond 64 bits", size(file().put(124, [0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), words);
    for text in [
        "99999999999",
        "0000000000x",
        "-0000000001",
        "0x000000001",
        "1 2 3 4 5 6",
        "        +1 ",
        "0000000\x001111",
    ] {
        corpus.refuse(format!("{text:?}"), size(file().put(124, format!("{text:\0<12}"))), words);
    }
    corpus.refuse("2^62", size(file().binary(124, 12, 1 << 62)), &["ends inside of an entry"]);
    corpus.refuse("1 TiB", size(file().binary(124, 12, 1 << 40)), &["ends inside of an entry"]);
    corpus.accept(
        "spaces before",
        Tar::new().bytes(Header::new(b'0', "a", 1).put(124, b"          1\0").sum()).bytes([b'x'; 512]),
        &["f 644 a size=1"],
    );
    corpus.accept(
        "no NUL",
        Tar::new().bytes(file().put(124, b"000000000001").sum()).bytes([b'x'; 512]),
        &["f 644 a size=1"],
    );
    corpus.accept("empty field", Tar::new().bytes(file().put(124, [0; 12]).sum()), &["f 644 a"]);
    corpus.accept(
        "base 256",
        Tar::new().bytes(file().binary(124, 12, 1).sum()).bytes([b'x'; 512]),
        &["f 644 a size=1"],
    );
    corpus.family(27, "other_numbers");
    for (label, offset, length, words) in [
        ("mode", 100, 8, "invalid mode"),
        ("owner", 108, 8, "invalid owner"),
        ("group", 116, 8, "invalid group"),
        ("time", 136, 12, "invalid time"),
    ] {
        corpus.refuse(
            format!("{label} of junk"),
            Tar::new().raw(file().put(offset, vec![b'z'; length]), b""),
            &[words],
        );
        corpus.refuse(
            format!("{label} of 8s"),
            Tar::new().raw(file().put(offset, vec![b'8'; length]), b""),
            &[words],
        );
    }
}

fn formats(corpus: &mut Corpus) {
    corpus.family(27, "checksums_and_formats");
    let good = Header::new(b'0', "a", 0).sum();
    let changed = |at: usize, byte: u8| {
        let mut header = good;
        header[at] = byte;
        Tar::new().bytes(header)
    };
    corpus.refuse("changed name", changed(0, b'b'), &["wrong checksum"]);
    corpus.refuse("changed last byte", changed(511, 1), &["wrong checksum"]);
    corpus.refuse("checksum of junk", changed(148, b'z'), &["wrong checksum"]);
    corpus.refuse("no checksum", Tar::new().bytes(entry(b'0', "a").bare()), &["wrong checksum"]);
    corpus.refuse(
        "unknown version",
        Tar::new().raw(entry(b'0', "a").put(263, b"99"), b""),
        &["unknown format"],
    );
    corpus.refuse("star", Tar::new().raw(entry(b'0', "a").put(508, b"tar\0"), b""), &["unknown format"]);
    corpus.refuse(
        "half a magic",
        Tar::new().raw(entry(b'0', "a").put(257, b"ustar\0\0\0"), b""),
        &["unknown format"],
    );
    corpus.accept("seventh edition", Tar::new().raw(entry(b'0', "a").v7(), b""), &["f 644 a"]);
    corpus.accept("GNU", Tar::new().raw(entry(b'0', "a").gnu(), b""), &["f 644 a"]);
    // GNU has times where ustar has the prefix.
    corpus.accept(
        "GNU with what would be a prefix",
        Tar::new().raw(entry(b'0', "a").gnu().put(345, "../../x"), b""),
        &["f 644 a"],
    );
    corpus.accept(
        "ustar prefix",
        Tar::new().raw(entry(b'0', "a").put(345, "p/q"), b""),
        &["d 755 p time=0.000000000", "d 755 p/q time=0.000000000", "f 644 p/q/a"],
    );
    corpus.refuse("text", Tar::new().bytes(b"this is no tar archive".repeat(100)), &[]);
    corpus.refuse("a zip archive", Tar::new().bytes(b"PK\x03\x04".repeat(256)), &[]);
    corpus.refuse("an ELF file", Tar::new().bytes([&b"\x7fELF"[..], &[1; 1020]].concat()), &[]);
    corpus.accept("nothing but the end", Tar::new(), &[]);
}

fn long_names(corpus: &mut Corpus) {
    corpus.family(30, "gnu_long_names");
    let long = |body: &[u8]| Tar::new().extension(b'L', body);
    let conflict = &["follows another one for the same entry"];
    corpus.accept(
        "long name",
        long(b"a/long/name\0").node(b'0', "x"),
        &["d 755 a time=0.000000000", "d 755 a/long time=0.000000000", "f 644 a/long/name"],
    );
    corpus.accept("without its NUL", long(b"name").node(b'0', "x"), &["f 644 name"]);
    corpus.accept(
        "long link",
        Tar::new().extension(b'K', b"target\0").linked(b'2', "l", "x"),
        &["l l -> target"],
    );
    corpus.accept(
        "both",
        long(b"name\0").extension(b'K', b"target\0").linked(b'2', "l", "x"),
        &["l name -> target"],
    );
    corpus.accept(
        "long link of a file",
        Tar::new().extension(b'K', b"target\0").node(b'0', "f"),
        &["f 644 f"],
    );
    corpus.refuse("two long names", long(b"one\0").extension(b'L', b"two\0").node(b'0', "x"), conflict);
    corpus.refuse(
        "two long links",
        Tar::new().extension(b'K', b"one\0").extension(b'K', b"two\0").linked(b'2', "x", "y"),
        conflict,
    );
    corpus.refuse(
        "a chain of a thousand",
        (0..1000).fold(Tar::new(), |tar, _| tar.extension(b'L', b"x\0")).node(b'0', "x"),
        conflict,
    );
    corpus.refuse("long name, then pax", long(b"one\0").pax(&[("path", b"two")]).node(b'0', "x"), conflict);
    corpus.refuse(
        "pax, then long name",
        Tar::new().pax(&[("path", b"two")]).extension(b'L', b"one\0").node(b'0', "x"),
        conflict,
    );
    corpus.refuse(
        "64 KiB and 1",
        long(&vec![b'a'; (64 << 10) + 1]).node(b'0', "x"),
        &["is too large: at most 65536"],
    );
    corpus.refuse("1 MiB", long(&vec![b'a'; 1 << 20]).node(b'0', "x"), &["is too large: at most 65536"]);
    let claimed = Tar::new().raw(entry(b'L', "x").binary(124, 12, 1 << 50), b"").node(b'0', "x");
    corpus.refuse("1 PiB claimed", claimed, &["is too large: at most 65536"]);
    corpus.refuse(
        "negative size",
        Tar::new().raw(entry(b'L', "x").binary(124, 12, -1), b""),
        &["invalid size"],
    );
    corpus.refuse("no follower", long(b"name\0"), &["followed by no entry"]);
    corpus.refuse(
        "no follower but a global header",
        long(b"name\0").extension(b'g', record("comment", b"x")),
        &["followed by no entry"],
    );
    corpus.refuse("NUL inside", long(b"a\0b\0").node(b'0', "x"), &["holds a NUL byte or is empty"]);
    corpus.refuse("empty", long(b"\0").node(b'0', "x"), &["holds a NUL byte or is empty"]);
    corpus.refuse("of no bytes", long(b"").node(b'0', "x"), &["holds a NUL byte or is empty"]);
    corpus.accept(
        "twice, each with its entry",
        long(b"one\0").node(b'0', "x").extension(b'L', b"two\0").node(b'0', "x"),
        &["f 644 one", "f 644 two"],
    );
    corpus.accept(
        "for one entry only",
        long(b"one\0").node(b'0', "x").node(b'0', "y"),
        &["f 644 one", "f 644 y"],
    );
    corpus.refuse(
        "of a whiteout, below it",
        empty("a").extension(b'L', b".wh.a/b\0").node(b'0', "x"),
        &["reserved for whiteouts"],
    );
}
