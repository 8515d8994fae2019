//! Links: rows 3 to 8 and 12.

use super::{Corpus, empty, entry};
use crate::header::Header;
use crate::image::Tar;

const NO_DIR: &str = "is no directory";
const NOT_THERE: &str = "which is not there";

pub(super) fn cases(corpus: &mut Corpus) {
    targets(corpus);
    through(corpus);
    over_links_below(corpus);
    leaves(corpus);
    hard_links_out(corpus);
    metadata(corpus);
    senseless(corpus);
    whiteouts_through(corpus);
}

/// Targets that lead to the directory outside, by each way that a layer has.
fn ways_out(corpus: &Corpus) -> Vec<(&'static str, String)> {
    let outside = &corpus.outside;
    vec![
        ("absolute", outside.clone()),
        ("climbing", format!("../../../../../../../../../../../..{outside}")),
        ("by the root of a process", format!("/proc/self/root{outside}")),
        ("by a working directory", "/proc/self/cwd".to_owned()),
        ("parent", "..".to_owned()),
        ("root", "/".to_owned()),
    ]
}

fn targets(corpus: &mut Corpus) {
    corpus.family(3, "symlink_targets");
    for (label, target) in ways_out(corpus) {
        corpus.accept(label, Tar::new().symlink("a", &target), &[&format!("l a -> {target}")]);
    }
    for target in
        ["a", ".", "./", "../../x/./y//", "no/such", " ", "-rf", "\\", "/dev/null", "/proc/self/fd/1"]
    {
        corpus.accept(
            target,
            Tar::new().symlink("a", target),
            &[&format!("l a -> {}", target.escape_default())],
        );
    }
    corpus.accept("a loop", Tar::new().symlink("a", "b").symlink("b", "a"), &["l a -> b", "l b -> a"]);
    corpus.accept("not UTF-8", Tar::new().linked(b'2', "a", b"\xff"), &["l a -> \\xff"]);
    corpus.refuse("empty", Tar::new().symlink("a", ""), &["link target is invalid"]);
    corpus.refuse(
        "NUL",
        Tar::new().pax(&[("linkpath", b"a\0b")]).node(b'2', "a"),
        &["\"linkpath\" has an invalid value"],
    );
}

/// Adds what a layer puts below the directory `d`.
type Child = fn(Tar) -> Tar;

fn through(corpus: &mut Corpus) {
    corpus.family(4, "write_through_symlink");
    let children: [(&str, Child); 7] = [
        ("file", |tar| tar.file("d/corten-escape", 0o644, b"x")),
        ("directory", |tar| tar.dir("d/corten-escape/")),
        ("symlink", |tar| tar.symlink("d/corten-escape", "x")),
        ("hard link", |tar| tar.file("f", 0o644, b"").linked(b'1', "d/corten-escape", "f")),
        ("FIFO", |tar| tar.node(b'6', "d/corten-escape")),
        ("deep", |tar| tar.file("d/corten-escape/a/b", 0o644, b"x")),
        ("overwrite", |tar| tar.file("d/secret", 0o644, b"x")),
    ];
    for (way, target) in ways_out(corpus) {
        for (label, child) in children {
            corpus.refuse(format!("{label} {way}"), child(Tar::new().symlink("d", &target)), &[NO_DIR]);
        }
    }
    let inside = Tar::new().dir("r/").symlink("d", "r").file("d/x", 0o644, b"");
    corpus.refuse("a directory of the layer", inside, &["its parent \"d\" is no directory"]);
    let outside = corpus.outside.clone();
    // The cache of parents has it (CVE-2025-47290).
    let exchanged =
        Tar::new().dir("d/").file("d/x", 0o644, b"").symlink("d", &outside).file("d/secret", 0o644, b"");
    corpus.refuse("exchanged after use", exchanged, &[NO_DIR]);
    let deeper = Tar::new()
        .dir("a/b/c/")
        .file("a/b/c/x", 0o644, b"")
        .symlink("a", &outside)
        .file("a/b/c/y", 0o644, b"");
    corpus.refuse("an ancestor exchanged after use", deeper, &[NO_DIR]);
    let hard = Tar::new().symlink("l", &outside).linked(b'1', "d", "l").file("d/corten-escape", 0o644, b"");
    corpus.refuse("a hard link to the symlink", hard, &[NO_DIR]);
    let chain = Tar::new().symlink("a", "b").symlink("b", &outside).file("a/corten-escape", 0o644, b"");
    corpus.refuse("a chain", chain, &[NO_DIR]);
}

fn over_links_below(corpus: &mut Corpus) {
    corpus.family(4, "write_through_symlink_below");
    for (way, target) in ways_out(corpus) {
        let below = Tar::new().symlink("d", &target);
        // The directory hides the link: an image is the same tree everywhere.
        corpus
            .accept(way, empty("d/corten-escape"), &["d 755 d time=0.000000000", "f 644 d/corten-escape"])
            .over(below.clone());
        corpus
            .accept(format!("{way}, whiteout"), empty("d/.wh.secret"), &["d 755 d time=0.000000000"])
            .over(below.clone());
        corpus
            .refuse(format!("{way}, hard link"), Tar::new().linked(b'1', "x", "d/secret"), &[NOT_THERE])
            .over(below);
    }
}

fn leaves(corpus: &mut Corpus) {
    corpus.family(5, "file_over_symlink");
    let secret = format!("{}/secret", corpus.outside);
    for (label, target) in
        [("absolute", secret.as_str()), ("dangling", "no/such"), ("itself", "a"), ("device", "/dev/null")]
    {
        let tar = Tar::new().symlink("a", target).file("a", 0o600, b"mine");
        corpus.accept(label, tar, &["f 600 a size=4"]);
        corpus
            .accept(
                format!("{label} of a layer below"),
                Tar::new().file("a", 0o600, b"mine"),
                &["f 600 a size=4"],
            )
            .over(Tar::new().symlink("a", target));
        corpus.accept(format!("{label}, directory"), Tar::new().symlink("a", target).dir("a/"), &["d 755 a"]);
        corpus.accept(
            format!("{label}, FIFO"),
            Tar::new().symlink("a", target).node(b'6', "a"),
            &["p 644 a"],
        );
    }
}

fn hard_links_out(corpus: &mut Corpus) {
    corpus.family(6, "hard_link_out");
    let out = "link target leads out";
    for target in ["../../etc/shadow", "..", "a/../../etc/shadow", "/../etc/shadow"] {
        corpus.refuse(target, Tar::new().linked(b'1', "x", target), &[out]);
    }
    corpus.refuse("by pax", Tar::new().pax(&[("linkpath", b"../secret")]).node(b'1', "x"), &[out]);
    corpus.refuse("by GNU", Tar::new().extension(b'K', b"../secret").node(b'1', "x"), &[out]);
    let secret = format!("{}/secret", corpus.outside);
    corpus.refuse(
        "absolute",
        Tar::new().pax(&[("linkpath", secret.as_bytes())]).node(b'1', "x"),
        &[NOT_THERE],
    );
    for target in ["/etc/shadow", "etc/passwd", "/proc/self/exe", "/proc/1/environ"] {
        corpus.refuse(format!("absolute {target}"), Tar::new().linked(b'1', "x", target), &[NOT_THERE]);
    }
    for (way, target) in ways_out(corpus) {
        let tar = Tar::new().symlink("d", &target).linked(b'1', "x", "d/secret");
        corpus.refuse(format!("through a symlink, {way}"), tar, &[NOT_THERE]);
    }
    let below = Tar::new().symlink("l", &secret);
    corpus
        .refuse("to a symlink below", Tar::new().linked(b'1', "x", "l"), &["is no regular file"])
        .over(below);
    let below = Tar::new().raw(entry(b'3', "null").device(1, 3), b"");
    corpus
        .refuse("to a device below", Tar::new().linked(b'1', "x", "null"), &["is no regular file"])
        .over(below);
    corpus
        .refuse("to a directory below", Tar::new().linked(b'1', "x", "d"), &["is no regular file"])
        .over(Tar::new().dir("d/"));
    corpus
        .accept("to a file below", Tar::new().linked(b'1', "x", "f"), &["f 4755 x size=1"])
        .over(Tar::new().file("f", 0o4755, b"1"));
    let gone = corpus.refuse("to a file that was removed", Tar::new().linked(b'1', "x", "f"), &[NOT_THERE]);
    gone.over(Tar::new().file("f", 0o644, b"1")).over(empty(".wh.f"));
    let hidden = corpus.refuse(
        "to a file that the layer hides",
        Tar::new().node(b'0', ".wh..wh..opq").linked(b'1', "x", "f"),
        &[NOT_THERE],
    );
    hidden.over(Tar::new().file("f", 0o644, b"1"));
}

fn metadata(corpus: &mut Corpus) {
    corpus.family(7, "hard_link_metadata");
    let secret = format!("{}/secret", corpus.outside);
    let fields = |header: Header| header.mode(0o4777).owner(1000, 1000).octal(136, 12, 1);
    let link = |target: &str| fields(entry(b'1', "b").link(target));
    let line = format!("l a -> {secret}");
    let same = format!("l b -> {secret} = a");
    corpus.accept(
        "mode and owner, symlink",
        Tar::new().symlink("a", &secret).raw(link("a"), b""),
        &[&line, &same],
    );
    let attribute: &[(&str, &[u8])] = &[("SCHILY.xattr.user.evil", b"1")];
    corpus.accept(
        "attribute, symlink",
        Tar::new().symlink("a", &secret).pax(attribute).raw(link("a"), b""),
        &[&line, &same],
    );
    corpus.accept(
        "mode and owner, file",
        Tar::new().file("a", 0o644, b"").raw(link("a"), b""),
        &["f 644 a", "f 644 b = a"],
    );
    corpus.accept(
        "attribute, file",
        Tar::new().file("a", 0o644, b"").pax(attribute).raw(link("a"), b""),
        &["f 644 a", "f 644 b = a"],
    );
    corpus.accept("mode, FIFO", Tar::new().node(b'6', "a").raw(link("a"), b""), &["p 644 a", "p 644 b = a"]);
    let device = Tar::new().raw(entry(b'3', "a").device(1, 3), b"").raw(link("a"), b"");
    corpus.accept("mode, device", device, &["c 644 a 1:3", "c 644 b = a 1:3"]);
    corpus.refuse(
        "data",
        Tar::new().file("a", 0o644, b"x").raw(Header::new(b'1', "b", 1).link("a"), b"y"),
        &["is no file but has 1 bytes"],
    );
    corpus
        .accept("mode, file below", Tar::new().raw(link("a"), b""), &["f 600 b size=1"])
        .over(Tar::new().file("a", 0o600, b"1"));
    corpus.accept(
        "symlink with a mode",
        Tar::new().raw(entry(b'2', "a").link(&secret).mode(0o4777), b""),
        &[&line],
    );
    corpus.accept(
        "symlink with an attribute",
        Tar::new().pax(attribute).linked(b'2', "a", &secret),
        &[&line],
    );
}

fn senseless(corpus: &mut Corpus) {
    corpus.family(8, "senseless_hard_links");
    let link = |tar: Tar, name: &str, target: &str| tar.linked(b'1', name, target);
    let new = Tar::new;
    let after = "which comes after it or is the link itself";
    corpus.refuse("before its target", link(new(), "a", "b").node(b'0', "b"), &[after]);
    corpus.refuse("to itself", link(new(), "a", "a"), &[after]);
    corpus.refuse("to itself over a file", link(empty("a"), "a", "a"), &[after]);
    corpus.refuse("a loop", link(link(new(), "a", "b"), "b", "a"), &[after]);
    let ring = link(link(link(new(), "a", "b"), "b", "c"), "c", "a");
    corpus.refuse("a loop of three", ring, &[after]);
    corpus.refuse("to a directory", link(new().dir("d/"), "a", "d"), &["which is a directory"]);
    corpus.refuse("to a directory without an entry", link(empty("d/x"), "a", "d"), &["which is a directory"]);
    corpus.refuse("to the root", link(new(), "a", "/"), &["which is a directory"]);
    corpus.refuse("to the root by a dot", link(new(), "a", "."), &["which is a directory"]);
    corpus.refuse("to its own directory", link(new().dir("d/"), "d/a", "d"), &["which is a directory"]);
    corpus.refuse("to nothing", link(new(), "a", "b"), &[NOT_THERE]);
    corpus.refuse("to what a whiteout names", link(empty(".wh.b"), "a", "b"), &[NOT_THERE]);
    corpus.refuse("to a whiteout", link(empty(".wh.b"), "a", ".wh.b"), &[NOT_THERE]);
    corpus.refuse("to an opaque mark", link(empty("d/.wh..wh..opq"), "a", "d/.wh..wh..opq"), &[NOT_THERE]);
    corpus.refuse("over its own target", link(empty("d/x"), "d", "d/x"), &[NOT_THERE]);
    corpus.refuse("with an empty target", link(new(), "a", ""), &["link target is invalid"]);
    corpus.accept(
        "to a hard link",
        link(link(empty("a"), "b", "a"), "c", "b"),
        &["f 644 a", "f 644 b = a", "f 644 c = a"],
    );
}

fn whiteouts_through(corpus: &mut Corpus) {
    corpus.family(12, "whiteout_through_symlink");
    for (way, target) in ways_out(corpus) {
        corpus.refuse(
            format!("whiteout {way}"),
            Tar::new().symlink("d", &target).node(b'0', "d/.wh.secret"),
            &[NO_DIR],
        );
        corpus.refuse(
            format!("opaque {way}"),
            Tar::new().symlink("d", &target).node(b'0', "d/.wh..wh..opq"),
            &[NO_DIR],
        );
    }
    corpus.refuse("in the layer", Tar::new().dir("r/").symlink("d", "r").node(b'0', "d/.wh.x"), &[NO_DIR]);
}
