//! Extended headers: rows 28 and 29.

use super::{Corpus, empty, entry};
use crate::header::{Header, record};
use crate::image::Tar;

pub(super) fn cases(corpus: &mut Corpus) {
    sizes(corpus);
    records(corpus);
    global(corpus);
}

/// An entry whose data is a whole entry of another archive: what a reader sees that takes another size.
fn smuggled(kind: &str) -> Vec<u8> {
    Tar::new().file(&format!("corten-escape-{kind}"), 0o644, b"smuggled").unfinished()
}

fn sizes(corpus: &mut Corpus) {
    corpus.family(28, "pax_sizes");
    let words = &["in its extended header and"];
    let inner = smuggled("pax");
    let size = |value: &str| Tar::new().pax(&[("size", value.as_bytes())]);
    // CVE-2025-62518: a reader that takes the header's size finds the inner entry.
    let zero = size(&inner.len().to_string()).bytes(entry(b'0', "a").sum()).bytes(&inner);
    corpus.refuse("pax larger", zero, words);
    let pax_zero = size("0").raw(Header::new(b'0', "a", inner.len()), &inner);
    corpus.refuse("pax zero", pax_zero, words);
    corpus.refuse(
        "pax smaller by a block",
        size("512").raw(Header::new(b'0', "a", 1024), [b'x'; 1024]),
        words,
    );
    corpus.refuse("pax smaller by a byte", size("511").raw(Header::new(b'0', "a", 512), [b'x'; 512]), words);
    corpus.accept("equal", size("3").file("a", 0o644, b"xyz"), &["f 644 a size=3"]);
    corpus.accept("equal with zeros", size("0000003").file("a", 0o644, b"xyz"), &["f 644 a size=3"]);
    corpus.refuse("beyond octal", size("8589934592").file("a", 0o644, b"xyz"), &["ends inside of an entry"]);
    corpus.refuse("2^63", size("9223372036854775808").file("a", 0o644, b"xyz"), &["invalid size"]);
    corpus.refuse("2^64 - 1", size("18446744073709551615").file("a", 0o644, b"xyz"), &["invalid size"]);
    for value in ["18446744073709551616", "-1", "+3", "3.0", "0x3", " 3", "3 ", "", "3\0"] {
        corpus.refuse(
            format!("{value:?}"),
            size(value).file("a", 0o644, b"xyz"),
            &["\"size\" has an invalid value"],
        );
    }
    corpus.refuse("on a directory", size("512").dir("d/"), words);
    corpus.refuse("on a symlink", size("512").symlink("l", "x").bytes([b'x'; 512]), words);
    let gnu =
        Tar::new().pax(&[("GNU.sparse.realsize", b"0")]).raw(Header::new(b'0', "a", inner.len()), &inner);
    corpus.refuse("another size by GNU's key", gnu, &["is a sparse file"]);
    let inside = Tar::new().raw(Header::new(b'0', "a", inner.len()), &inner);
    corpus.accept("an archive as data", inside, &["f 644 a size=1024"]);
}

fn records(corpus: &mut Corpus) {
    corpus.family(28, "pax_records");
    let raw = |body: &[u8]| Tar::new().extension(b'x', body).node(b'0', "a");
    let length = &["a record has a wrong length"];
    for (label, body) in [
        ("too long", &b"99 path=x\n"[..]),
        ("too short", b"5 path=x\n"),
        ("zero", b"0 path=x\n"),
        ("leading zero", b"010 path=x\n"),
        ("negative", b"-9 path=x\n"),
        ("no number", b"path=x\n"),
        ("no space", b"9path=x\n"),
        ("no newline", b"9 path=xx"),
        ("huge", b"99999999999999999999 path=x\n"),
        ("2^64 that wraps", b"18446744073709551625 path=x\n"),
        ("hexadecimal", b"0xa path=x\n"),
        ("tab for the space", b"10\tpath=x\n"),
        ("zero bytes after the last", b"10 path=x\n\0\0\0"),
        ("newline inside of the length", b"1\n0 path=x\n"),
    ] {
        corpus.refuse(label, raw(body), length);
    }
    let padded = Tar::new()
        .bytes(Header::new(b'x', "extension", 10).sum())
        .bytes(b"10 path=x\n9 size=1\n")
        .bytes(vec![0; 493])
        .node(b'0', "a");
    corpus.refuse("records in the padding", padded, &["is padded with data"]);
    corpus.refuse("no equals sign", raw(b"8 pathx\n"), &["no key or no value"]);
    corpus.refuse("no key", raw(b"5 =x\n"), &["no key or no value"]);
    corpus.refuse("NUL in the key", raw(&record("pa\0th", b"x")), &["no key or no value"]);
    corpus.accept("newline in the value", raw(&record("path", b"x\n9 path=y\n")), &["f 644 x\\n9 path=y\\n"]);
    corpus.accept("equals sign in the value", raw(&record("path", b"x=y")), &["f 644 x=y"]);
    for key in ["path", "linkpath", "size", "uid", "mtime", "comment", "SCHILY.xattr.user.a"] {
        let twice = [record(key, b"1"), record(key, b"1")].concat();
        corpus.refuse(format!("{key} twice"), raw(&twice), &["comes twice"]);
    }
    corpus.refuse("path with a NUL", raw(&record("path", b"a\0../b")), &["\"path\" has an invalid value"]);
    corpus.refuse(
        "linkpath that is empty",
        raw(&record("linkpath", b"")),
        &["\"linkpath\" has an invalid value"],
    );
    corpus.refuse(
        "an unknown character set",
        raw(&record("hdrcharset", b"UTF-7")),
        &["\"hdrcharset\" has an invalid value"],
    );
    corpus.accept(
        "binary names",
        raw(&[record("hdrcharset", b"BINARY"), record("path", b"\xff")].concat()),
        &["f 644 \\xff"],
    );
    corpus.accept(
        "keys that nobody knows",
        raw(&[record("x", b""), record("uname", b"root"), record("atime", b"x")].concat()),
        &["f 644 a"],
    );
    corpus.accept("empty header", raw(b""), &["f 644 a"]);
    corpus.family(28, "pax_after_pax");
    let conflict = &["follows another one for the same entry"];
    corpus.refuse(
        "two",
        Tar::new().pax(&[("path", b"one")]).pax(&[("path", b"two")]).node(b'0', "x"),
        conflict,
    );
    corpus.refuse(
        "size and path",
        Tar::new().pax(&[("size", b"0")]).pax(&[("path", b"two")]).node(b'0', "x"),
        conflict,
    );
    corpus.refuse("no follower", Tar::new().pax(&[("path", b"one")]), &["followed by no entry"]);
    corpus.refuse(
        "no follower but a global header",
        Tar::new().pax(&[("path", b"one")]).extension(b'g', record("comment", b"x")),
        &["followed by no entry"],
    );
    corpus.refuse(
        "pax and sum of junk",
        Tar::new().pax(&[("path", b"one")]).bytes([b'x'; 512]),
        &["wrong checksum"],
    );
    corpus.refuse(
        "1 MiB and 1",
        Tar::new().extension(b'x', vec![b'1'; (1 << 20) + 1]),
        &["is too large: at most 1048576"],
    );
    corpus.refuse(
        "1 PiB claimed",
        Tar::new().raw(entry(b'x', "x").binary(124, 12, 1 << 50), b""),
        &["is too large: at most 1048576"],
    );
    corpus.refuse(
        "Solaris's own",
        Tar::new().extension(b'X', record("path", b"one")).node(b'0', "x"),
        &["has the type 'X'"],
    );
}

fn global(corpus: &mut Corpus) {
    corpus.family(29, "global_headers");
    let global = |body: &[u8]| Tar::new().extension(b'g', body).node(b'0', "a");
    for (key, value) in [
        ("path", &b"../corten-escape"[..]),
        ("linkpath", b"x"),
        ("size", b"0"),
        ("uid", b"0"),
        ("gid", b"0"),
        ("mtime", b"0"),
        ("hdrcharset", b"BINARY"),
        ("GNU.sparse.name", b"x"),
        ("SCHILY.xattr.user.a", b"1"),
        ("SCHILY.realsize", b"1"),
    ] {
        corpus.refuse(key, global(&record(key, value)), &["must not stand in a global header"]);
    }
    corpus.accept("comment", global(&record("comment", b"0123456789abcdef")), &["f 644 a"]);
    corpus.accept(
        "several",
        empty("b")
            .extension(b'g', record("comment", b"1"))
            .extension(b'g', record("comment", b"2"))
            .node(b'0', "a"),
        &["f 644 a", "f 644 b"],
    );
    corpus.refuse(
        "at the end",
        empty("a").extension(b'g', record("comment", b"1")),
        &["followed by no entry"],
    );
    corpus.accept(
        "between pax and its entry",
        Tar::new().pax(&[("path", b"b")]).extension(b'g', record("comment", b"1")).node(b'0', "a"),
        &["f 644 b"],
    );
    corpus.refuse("malformed", global(b"99 comment=x\n"), &["a record has a wrong length"]);
    corpus.refuse(
        "1 MiB and 1",
        Tar::new().extension(b'g', vec![b'1'; (1 << 20) + 1]),
        &["is too large: at most 1048576"],
    );
}
