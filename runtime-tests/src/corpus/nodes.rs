//! Types, modes, owners and times: rows 17, 19, 20, 34 and 35.

use super::{Corpus, empty, entry};
use crate::header::Header;
use crate::image::Tar;

pub(super) fn cases(corpus: &mut Corpus) {
    devices(corpus);
    types(corpus);
    modes(corpus);
    owners(corpus);
    times(corpus);
}

fn devices(corpus: &mut Corpus) {
    corpus.family(17, "devices");
    let node = |kind: u8, name: &str, major: u64, minor: u64| {
        Tar::new().raw(entry(kind, name).device(major, minor), b"")
    };
    corpus.accept("null", node(b'3', "null", 1, 3), &["c 644 null 1:3"]);
    corpus.accept("memory", node(b'3', "mem", 1, 1), &["c 644 mem 1:1"]);
    corpus.accept("disk", node(b'4', "sda", 8, 0), &["b 644 sda 8:0"]);
    corpus.refuse(
        "numbers of junk on a file",
        Tar::new().raw(entry(b'0', "a").put(329, b"junk"), b""),
        &["invalid device number"],
    );
    corpus.accept("largest", node(b'3', "x", 4095, 1_048_575), &["c 644 x 4095:1048575"]);
    corpus.refuse("major too large", node(b'3', "x", 4096, 0), &["invalid device number"]);
    corpus.refuse("minor too large", node(b'4', "x", 0, 1_048_576), &["invalid device number"]);
    let binary =
        |major, minor| Tar::new().raw(entry(b'3', "x").binary(329, 8, major).binary(337, 8, minor), b"");
    corpus.accept("base 256", binary(1, 3), &["c 644 x 1:3"]);
    corpus.refuse("base 256, negative", binary(-1, 3), &["invalid device number"]);
    corpus.refuse("base 256, 2^32 that wraps to 0", binary(1 << 32, 0), &["invalid device number"]);
    corpus.accept(
        "setuid",
        Tar::new().raw(entry(b'3', "x").device(1, 3).mode(0o4666), b""),
        &["c 4666 x 1:3"],
    );
}

fn types(corpus: &mut Corpus) {
    corpus.family(19, "types");
    corpus.accept("FIFO", Tar::new().node(b'6', "a"), &["p 644 a"]);
    corpus.accept("FIFO without permissions", Tar::new().raw(entry(b'6', "a").mode(0), b""), &["p 0 a"]);
    corpus.accept("contiguous file", Tar::new().raw(Header::new(b'7', "a", 1), b"x"), &["f 644 a size=1"]);
    corpus.accept("old file", Tar::new().raw(Header::new(0, "a", 1), b"x"), &["f 644 a size=1"]);
    for kind in [b's', b'8', b'9', b'A', b'D', b'I', b'M', b'N', b'V', b'X', b'W', b' ', 0x7f, 0x80, 0xff, 1]
    {
        corpus.refuse(
            format!("type {kind:#x}"),
            Tar::new().node(kind, "a"),
            &["has the type", "not supported"],
        );
    }
    for kind in *b"123456" {
        let tar = Tar::new().raw(Header::new(kind, "a", 3).link("b").device(1, 3), b"xyz");
        corpus.refuse(format!("data on type {}", char::from(kind)), tar, &["is no file but has 3 bytes"]);
    }
}

fn modes(corpus: &mut Corpus) {
    corpus.family(20, "modes");
    for mode in [0, 0o1, 0o777, 0o1777, 0o2755, 0o4755, 0o6755, 0o7777] {
        let tar = Tar::new()
            .raw(entry(b'0', "a").mode(mode), b"")
            .raw(entry(b'5', "d").mode(mode), b"")
            .file("d/x", 0o644, b"1");
        corpus.accept(
            format!("{mode:o}"),
            tar,
            &[&format!("f {mode:o} a"), &format!("d {mode:o} d"), "f 644 d/x size=1"],
        );
    }
    // Writers put the type there too.
    corpus.accept("with a type", Tar::new().raw(entry(b'0', "a").mode(0o100_644), b""), &["f 644 a"]);
    corpus.accept("with a wrong type", Tar::new().raw(entry(b'0', "a").mode(0o120_4755), b""), &["f 4755 a"]);
    corpus.refuse("negative", Tar::new().raw(entry(b'0', "a").binary(100, 8, -1), b""), &["invalid mode"]);
    corpus.refuse("2^40", Tar::new().raw(entry(b'0', "a").binary(100, 8, 1 << 40), b""), &["invalid mode"]);
    corpus.accept(
        "setuid of another owner",
        Tar::new().raw(entry(b'0', "a").mode(0o6755).owner(7, 8), b""),
        &["f 6755 a owner=7:8"],
    );
}

fn owners(corpus: &mut Corpus) {
    corpus.family(34, "owners");
    let owner =
        |uid: i64, gid: i64| Tar::new().raw(entry(b'0', "a").binary(108, 8, uid).binary(116, 8, gid), b"");
    corpus.accept(
        "octal limit",
        Tar::new().raw(entry(b'0', "a").owner(0o777_7777, 0), b""),
        &["f 644 a owner=2097151:0"],
    );
    for id in [1_i64 << 31, (1 << 32) - 2] {
        corpus.accept(format!("{id}"), owner(id, id), &[&format!("f 644 a owner={id}:{id}")]);
    }
    for id in [(1_i64 << 32) - 1, 1 << 32, (1 << 32) + 1, i64::MAX, -1, -2, i64::MIN] {
        corpus.refuse(format!("owner {id}"), owner(id, 0), &["invalid owner"]);
        corpus.refuse(format!("group {id}"), owner(0, id), &["invalid group"]);
    }
    let pax = |value: &str| Tar::new().pax(&[("uid", value.as_bytes())]).node(b'0', "a");
    corpus.accept("pax 4294967294", pax("4294967294"), &["f 644 a owner=4294967294:0"]);
    for value in ["4294967295", "4294967296", "18446744073709551615"] {
        corpus.refuse(format!("pax {value}"), pax(value), &["invalid owner"]);
    }
    for value in
        ["-1", "+1", "0x0", " 0", "1 ", "", "18446744073709551616", "99999999999999999999999", "root"]
    {
        corpus.refuse(format!("pax {value:?}"), pax(value), &["\"uid\" has an invalid value"]);
    }
    corpus.refuse(
        "symlink",
        Tar::new().raw(entry(b'2', "a").link("b").binary(108, 8, (1 << 32) - 1), b""),
        &["invalid owner"],
    );
}

fn times(corpus: &mut Corpus) {
    corpus.family(35, "times");
    let pax = |value: &str| Tar::new().pax(&[("mtime", value.as_bytes())]).node(b'0', "a");
    for (value, time) in [
        ("0", "0.000000000"),
        ("1.5", "1.500000000"),
        ("-1.25", "-2.750000000"),
        ("1.9999999999999999", "1.999999999"),
        ("1.", "1.000000000"),
        ("-0", "0.000000000"),
        ("1000000000.000000001", "1000000000.000000001"),
    ] {
        corpus.accept(value, pax(value), &[&format!("f 644 a time={time}")]);
    }
    // The file system's own range decides what is kept of these.
    for value in
        ["9223372036854775807", "-9223372036854775808", "99999999999999999999.9", "18446744073709551616"]
    {
        let tar = pax(value)
            .pax(&[("mtime", value.as_bytes())])
            .dir("d/")
            .pax(&[("mtime", value.as_bytes())])
            .symlink("l", "x");
        corpus.add(value, tar.finish(), super::Verdict::Paths(3));
    }
    corpus.add(
        "2^62 in the header",
        Tar::new().raw(entry(b'0', "a").binary(136, 12, 1 << 62), b"").finish(),
        super::Verdict::Paths(1),
    );
    corpus.add(
        "-2^63 in the header",
        Tar::new().raw(entry(b'0', "a").binary(136, 12, i64::MIN), b"").finish(),
        super::Verdict::Paths(1),
    );
    for value in ["", "x", "1e9", "1.x", ".5", "--1", "1.-5", "nan", "inf", "0x10"] {
        corpus.refuse(format!("{value:?}"), pax(value), &["\"mtime\" has an invalid value"]);
    }
    let mut huge = [0xff_u8; 12];
    huge[0] = 0x80;
    corpus.refuse("beyond 64 bits", empty("ok").raw(entry(b'0', "a").put(136, huge), b""), &["invalid time"]);
}
