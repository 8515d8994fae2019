//! Names of entries: rows 1, 2, 9, 31, 32 and 33.

use super::{Corpus, empty, entry};
use crate::header::Header;
use crate::image::Tar;

/// The types of entries that have a name of their own.
const KINDS: [(&str, u8); 7] = [
    ("file", b'0'),
    ("hardlink", b'1'),
    ("symlink", b'2'),
    ("char", b'3'),
    ("block", b'4'),
    ("dir", b'5'),
    ("fifo", b'6'),
];

const ESCAPES: &str = "leads out of the layer";

pub(super) fn cases(corpus: &mut Corpus) {
    dotdot(corpus);
    absolute(corpus);
    root(corpus);
    long(corpus);
    odd(corpus);
    duplicates(corpus);
}

/// An entry of any type.
fn any(kind: u8, name: &str) -> Tar {
    Tar::new().file("target", 0o644, b"").raw(entry(kind, name).link("target").device(1, 3), b"")
}

fn dotdot(corpus: &mut Corpus) {
    corpus.family(1, "dotdot");
    for name in [
        "../corten-escape",
        "a/../../corten-escape",
        "/../corten-escape",
        "a/..",
        "..",
        "../",
        "./../corten-escape",
        "a/b/../../../corten-escape",
        "a/../corten-escape",
        "..//corten-escape",
        "a/./../corten-escape",
        "../../../../../../../../../../tmp/corten-escape",
    ] {
        corpus.refuse(
            name,
            if name.ends_with('/') { Tar::new().node(b'5', name) } else { empty(name) },
            &[ESCAPES],
        );
    }
    for (kind, letter) in KINDS {
        corpus.refuse(
            format!("{kind} above"),
            any(letter, "../corten-escape"),
            &[ESCAPES, "../corten-escape"],
        );
        corpus.refuse(format!("{kind} through"), any(letter, "target/../../corten-escape"), &[ESCAPES]);
    }
    corpus.family(1, "dotdot_by_other_fields");
    let path: &[u8] = b"x/../../corten-escape";
    corpus.refuse("pax path", Tar::new().pax(&[("path", path)]).node(b'0', "x"), &[ESCAPES]);
    corpus.refuse("GNU long name", Tar::new().extension(b'L', path).node(b'0', "x"), &[ESCAPES]);
    let prefix = entry(b'0', "corten-escape").put(345, "..");
    corpus.refuse("ustar prefix", Tar::new().raw(prefix, b""), &[ESCAPES]);
    let prefix = entry(b'0', "../../corten-escape").put(345, "a");
    corpus.refuse("ustar prefix and name", Tar::new().raw(prefix, b""), &[ESCAPES]);
    corpus.refuse("whiteout", empty("../.wh.corten-escape"), &[ESCAPES]);
    corpus.refuse("opaque", empty("a/../../.wh..wh..opq"), &[ESCAPES]);
}

fn absolute(corpus: &mut Corpus) {
    corpus.family(2, "absolute");
    for name in ["/abs", "//abs", "///abs", "/./abs", "/.//./abs"] {
        corpus.accept(name, empty(name), &["f 644 abs"]);
    }
    let outside = format!("{}/corten-escape", corpus.outside);
    let parts: Vec<&str> = outside.trim_start_matches('/').split('/').collect();
    let mut tree: Vec<String> =
        (1..parts.len()).map(|end| format!("d 755 {} time=0.000000000", parts[..end].join("/"))).collect();
    tree.push(format!("f 644 {}", parts.join("/")));
    let tree: Vec<&str> = tree.iter().map(String::as_str).collect();
    corpus.accept("a directory of the host", empty(&outside), &tree);
    corpus.accept("pax path", Tar::new().pax(&[("path", b"/abs")]).node(b'0', "x"), &["f 644 abs"]);
}

fn root(corpus: &mut Corpus) {
    corpus.family(9, "root_entry");
    for name in [".", "/", "./", "//", "/.", "././"] {
        for (kind, letter) in KINDS {
            match letter {
                b'5' => drop(corpus.accept(format!("{kind} {name}"), any(letter, name), &["f 644 target"])),
                // A file whose name ends with a slash is refused for that.
                b'0' => drop(corpus.refuse(format!("{kind} {name}"), any(letter, name), &[])),
                _ => drop(corpus.refuse(format!("{kind} {name}"), any(letter, name), &["root directory"])),
            }
        }
    }
    let outside = corpus.outside.clone();
    let then = |tar: Tar| tar.file("corten-escape", 0o644, b"x");
    corpus.refuse("symlink, then a file", then(Tar::new().linked(b'2', "./", &outside)), &["root directory"]);
    corpus.refuse(
        "pax path",
        Tar::new().pax(&[("path", b"./.")]).linked(b'2', "x", &outside),
        &["root directory"],
    );
}

fn long(corpus: &mut Corpus) {
    corpus.family(31, "long_names");
    let path = |path: &[u8]| Tar::new().pax(&[("path", path)]).node(b'0', "x");
    let component = vec![b'a'; 255];
    let line = format!("f 644 {}", "a".repeat(255));
    corpus.accept("255 bytes", path(&component), &[&line]);
    corpus.refuse("256 bytes", path(&[b'a'; 256]), &["component longer than 255"]);
    corpus.refuse(
        "256 bytes by GNU",
        Tar::new().extension(b'L', [b'a'; 256]).node(b'0', "x"),
        &["component longer"],
    );
    corpus.refuse("64 KiB", path(&vec![b'a'; 64 << 10]), &["component longer"]);
    let whiteout = [&b".wh."[..], &[b'a'; 252]].concat();
    corpus.refuse("a whiteout of 256 bytes", path(&whiteout), &["component longer"]);
    corpus.refuse("4096 bytes", path(&[&b"a/".repeat(2049)[..], b"a"].concat()), &["longer than 4095"]);
    corpus.refuse("10,000 deep", path(&[&b"d/".repeat(10_000)[..], b"d"].concat()), &["longer than 4095"]);
    corpus.refuse("500,000 deep", path(&[&b"d/".repeat(500_000)[..], b"d"].concat()), &["longer than 4095"]);
    let deep = [&b"d/".repeat(500)[..], b"f"].concat();
    let mut lines: Vec<String> =
        (1..=500).map(|depth| format!("d 755 {} time=0.000000000", vec!["d"; depth].join("/"))).collect();
    lines.push(format!("f 644 {}", String::from_utf8_lossy(&deep)));
    corpus.accept("500 deep", path(&deep), &lines.iter().map(String::as_str).collect::<Vec<_>>());
    corpus.refuse(
        "target of 4096 bytes",
        Tar::new().pax(&[("linkpath", &[b't'; 4096])]).node(b'2', "x"),
        &["link target is invalid"],
    );
    let target = [b't'; 4095];
    let line = format!("l x -> {}", "t".repeat(4095));
    corpus.accept("target of 4095 bytes", Tar::new().pax(&[("linkpath", &target)]).node(b'2', "x"), &[&line]);
}

fn odd(corpus: &mut Corpus) {
    corpus.family(32, "odd_names");
    for (label, name, shown) in [
        ("not UTF-8", &b"\xff\xfe"[..], "\\xff\\xfe"),
        ("newline", b"a\nb", "a\\nb"),
        ("carriage return", b"a\rb", "a\\rb"),
        ("escape sequence", b"\x1b[2Ja", "\\x1b[2Ja"),
        ("backslash", b"a\\..\\b", "a\\\\..\\\\b"),
        ("dash", b"-rf", "-rf"),
        ("checkpoint", b"--checkpoint-action=exec=sh", "--checkpoint-action=exec=sh"),
        ("space", b" ", " "),
        ("three dots", b"...", "..."),
        ("dots and spaces", b".. ", ".. "),
        ("percent", b"%2e%2e", "%2e%2e"),
        ("right to left", "\u{202e}txt".as_bytes(), "\\xe2\\x80\\xaetxt"),
        ("overlong slash", b"..\xc0\xafa", "..\\xc0\\xafa"),
        ("colon", b"C:", "C:"),
        ("quotes", b"\"'`$(x)", "\\\"\\'`$(x)"),
        ("star", b"*", "*"),
    ] {
        corpus.accept(label, empty(name), &[&format!("f 644 {shown}")]);
    }
    corpus.accept("dots and slashes", empty("./a//./b"), &["d 755 a time=0.000000000", "f 644 a/b"]);
    corpus.refuse("empty", empty(""), &["its name is empty"]);
    corpus.refuse("empty directory", Tar::new().node(b'5', ""), &["its name is empty"]);
    corpus.refuse(
        "empty by pax",
        Tar::new().pax(&[("path", b"")]).node(b'0', "x"),
        &["\"path\" has an invalid value"],
    );
    corpus.refuse("slash at the end", empty("a/"), &["a file ends with a slash"]);
    corpus.accept(
        "slash at the end, seventh edition",
        Tar::new().raw(entry(0, "a/").v7(), b""),
        &["d 644 a"],
    );
    corpus.accept("100 bytes without a NUL", empty([b'n'; 100]), &[&format!("f 644 {}", "n".repeat(100))]);
}

fn duplicates(corpus: &mut Corpus) {
    corpus.family(33, "duplicates");
    let file = |tar: Tar, name: &str, data: &[u8]| tar.file(name, 0o644, data);
    let new = Tar::new;
    corpus.accept("two files", file(file(new(), "a", b"longer"), "a", b"x"), &["f 644 a size=1"]);
    corpus.accept("two spellings", file(file(new(), "a", b"xx"), "./a", b"y"), &["f 644 a size=1"]);
    corpus.accept("two directories", file(new().dir("a/"), "a/x", b"").dir("a/"), &["d 755 a", "f 644 a/x"]);
    corpus.accept(
        "directory, then file",
        file(file(new().dir("a/"), "a/x", b""), "a", b"1"),
        &["f 644 a size=1"],
    );
    corpus.accept("file, then directory", file(new(), "a", b"1").dir("a/"), &["d 755 a"]);
    corpus.accept(
        "directory, then symlink",
        file(new().dir("a/"), "a/x", b"").symlink("a", "b"),
        &["l a -> b"],
    );
    corpus.accept(
        "symlink, then directory",
        file(new().symlink("a", "/etc").dir("a/"), "a/x", b""),
        &["d 755 a", "f 644 a/x"],
    );
    corpus.accept(
        "file, directory, symlink, file",
        file(file(new(), "a", b"1").dir("a/").symlink("a", "x"), "a", b"22"),
        &["f 644 a size=2"],
    );
    corpus.accept("FIFO, then symlink", new().node(b'6', "a").symlink("a", "b"), &["l a -> b"]);
    corpus.accept(
        "fields of the last",
        new().file("a", 0o4755, b"").raw(Header::new(b'0', "a", 0).owner(1, 2), b""),
        &["f 644 a owner=1:2"],
    );
    corpus.accept(
        "a hard link keeps the first content",
        file(file(new(), "a", b"1").linked(b'1', "b", "a"), "a", b"22"),
        &["f 644 a size=2", "f 644 b size=1"],
    );
    corpus.accept(
        "a hundred times",
        (0..100).fold(new(), |tar, at| file(tar, "a", &vec![b'x'; at])),
        &["f 644 a size=99"],
    );
    corpus.refuse(
        "file as a parent",
        file(file(new(), "a", b""), "a/x", b""),
        &["its parent \"a\" is no directory", "a/x"],
    );
    corpus.refuse("FIFO as a parent", file(new().node(b'6', "a"), "a/x", b""), &["is no directory"]);
    corpus.refuse(
        "device as a parent",
        file(new().raw(entry(b'3', "a").device(1, 3), b""), "a/x", b""),
        &["is no directory"],
    );
    corpus.refuse(
        "file as a grandparent",
        file(file(new(), "a", b""), "a/x/y", b""),
        &["its parent \"a\" is no directory"],
    );
}
