//! Whiteouts: rows 10, 11, 13 to 16 and 18.

use super::{Corpus, empty, entry};
use crate::header::Header;
use crate::image::Tar;

const OPAQUE: &str = ".wh..wh..opq";

pub(super) fn cases(corpus: &mut Corpus) {
    reserved(corpus);
    own(corpus);
    opaque(corpus);
    shapes(corpus);
    devices(corpus);
}

fn reserved(corpus: &mut Corpus) {
    let refuse = |corpus: &mut Corpus, names: &[&str]| {
        for name in names {
            corpus.refuse(*name, empty(name), &["reserved for whiteouts"]);
        }
    };
    corpus.family(10, "whiteout_of_nothing");
    refuse(corpus, &[".wh.", "a/.wh.", "./.wh.", "a/b/c/.wh."]);
    corpus.refuse("directory", Tar::new().dir(".wh./"), &["reserved for whiteouts"]);
    corpus.refuse("below it", empty(".wh./a"), &["reserved for whiteouts"]);
    corpus.family(11, "whiteout_of_dots");
    refuse(corpus, &[".wh..", ".wh...", "a/.wh..", "a/.wh...", "a/b/.wh..."]);
    corpus
        .refuse("of the root's parent, over a layer", empty(".wh..."), &["reserved for whiteouts"])
        .over(empty("a"));
    corpus.family(15, "aufs_marks");
    refuse(
        corpus,
        &[
            ".wh..wh.plnk",
            ".wh..wh.aufs",
            ".wh..wh.orph",
            ".wh..wh..plnk",
            ".wh..wh..tmp",
            ".wh..wh.",
            ".wh..wh..wh.a",
            "a/.wh..wh.x",
        ],
    );
    refuse(corpus, &[".wh.a/b", "a/.wh..wh..opq/b", ".wh.a/.wh.b"]);
    corpus.accept("not quite a mark", empty("a.wh.b"), &["f 644 a.wh.b"]);
    corpus.accept("not quite a prefix", empty(".wha"), &["f 644 .wha"]);
}

fn own(corpus: &mut Corpus) {
    corpus.family(13, "whiteout_and_own_entry");
    let below = || Tar::new().file("x", 0o644, b"below").dir("d/").file("d/x", 0o644, b"below");
    let mine = |tar: Tar, name: &str| tar.file(name, 0o644, b"mine");
    corpus
        .accept("file, then whiteout", mine(Tar::new(), "x").node(b'0', ".wh.x"), &["f 644 x size=4"])
        .over(below());
    corpus.accept("whiteout, then file", mine(empty(".wh.x"), "x"), &["f 644 x size=4"]).over(below());
    let opaque = &["d 755 d [trusted.overlay.opaque]", "f 644 d/y size=4"];
    corpus
        .accept("directory, then whiteout", mine(Tar::new().dir("d/"), "d/y").node(b'0', ".wh.d"), opaque)
        .over(below());
    corpus.accept("whiteout, then directory", mine(empty(".wh.d").dir("d/"), "d/y"), opaque).over(below());
    corpus
        .accept("symlink, then whiteout", Tar::new().symlink("x", "y").node(b'0', ".wh.x"), &["l x -> y"])
        .over(below());
    corpus.accept("twice", empty(".wh.x").node(b'0', ".wh.x"), &["w x"]).over(below());
    corpus.accept("of what is not there", empty(".wh.none"), &[]).over(below());
    corpus.accept("without layers below", empty(".wh.x"), &[]);
    corpus.accept("of what a whiteout below hides", empty(".wh.x"), &[]).over(below()).over(empty(".wh.x"));
    corpus
        .accept("in a directory that is not there", empty("no/.wh.x"), &["d 755 no time=0.000000000"])
        .over(below());
    corpus
        .refuse("below a file", mine(Tar::new(), "f").node(b'0', "f/.wh.x"), &["is no directory"])
        .over(below());
}

fn opaque(corpus: &mut Corpus) {
    corpus.family(14, "opaque_directories");
    let below =
        || Tar::new().dir("d/").file("d/x", 0o644, b"below").dir("d/e/").file("d/e/x", 0o644, b"below");
    let marked = "d 755 d [trusted.overlay.opaque]";
    let mark = format!("d/{OPAQUE}");
    corpus
        .accept("first", Tar::new().dir("d/").node(b'0', &mark).node(b'0', "d/y"), &[marked, "f 644 d/y"])
        .over(below());
    corpus
        .accept("late", Tar::new().dir("d/").node(b'0', "d/y").node(b'0', &mark), &[marked, "f 644 d/y"])
        .over(below());
    corpus.accept("before its directory", empty(&mark).dir("d/"), &[marked]).over(below());
    corpus.accept("twice", Tar::new().dir("d/").node(b'0', &mark).node(b'0', &mark), &[marked]).over(below());
    corpus.accept("without its directory", empty(&mark), &["d 755 d [trusted.overlay.opaque]"]).over(below());
    corpus
        .accept(
            "nested",
            Tar::new().dir("d/").dir("d/e/").node(b'0', format!("d/e/{OPAQUE}")).node(b'0', &mark),
            &[marked, "d 755 d/e [trusted.overlay.opaque]"],
        )
        .over(below());
    corpus
        .accept(
            "in an absent directory",
            empty(format!("no/such/{OPAQUE}")),
            &["d 755 no time=0.000000000", "d 755 no/such time=0.000000000 [trusted.overlay.opaque]"],
        )
        .over(below());
    corpus.accept("at the root", empty(OPAQUE).node(b'0', "y"), &["f 644 y"]).over(below());
    corpus.accept("at the root by a dot", empty(format!("./{OPAQUE}")), &[]).over(below());
    corpus.refuse("on a file", empty("d").node(b'0', &mark), &["is no directory"]).over(below());
    corpus
        .refuse("on a symlink", Tar::new().symlink("d", "e").node(b'0', &mark), &["is no directory"])
        .over(below());
    corpus
        .accept(
            "of a directory that goes",
            Tar::new().dir("d/").node(b'0', &mark).node(b'0', "d"),
            &["f 644 d"],
        )
        .over(below());
    corpus
        .accept("of a directory that is made anew", empty(&mark).node(b'0', "d").dir("d/"), &["d 755 d"])
        .over(below());
}

fn shapes(corpus: &mut Corpus) {
    corpus.family(16, "whiteout_of_another_shape");
    for name in [".wh.x", "a/.wh..wh..opq"] {
        let words = &["a whiteout must be an empty file"];
        corpus.refuse(format!("{name} with data"), Tar::new().file(name, 0o644, b"1"), words);
        corpus.refuse(format!("{name} directory"), Tar::new().node(b'5', name), words);
        corpus.refuse(format!("{name} symlink"), Tar::new().symlink(name, "y"), words);
        corpus.refuse(format!("{name} hard link"), empty("y").linked(b'1', name, "y"), words);
        corpus.refuse(format!("{name} FIFO"), Tar::new().node(b'6', name), words);
        corpus.refuse(format!("{name} device"), Tar::new().raw(entry(b'3', name).device(1, 3), b""), words);
        corpus.refuse(format!("{name} device 0:0"), Tar::new().node(b'3', name), words);
    }
}

fn devices(corpus: &mut Corpus) {
    corpus.family(18, "whiteout_device");
    let words = &["it is the device 0:0"];
    corpus.refuse("alone", Tar::new().node(b'3', "x"), words);
    corpus
        .refuse("over a file below", Tar::new().node(b'3', "x"), words)
        .over(Tar::new().file("x", 0o644, b"1"));
    corpus.refuse("in a directory", Tar::new().dir("d/").node(b'3', "d/x"), words);
    corpus.refuse(
        "with numbers of the base 256",
        Tar::new().raw(Header::new(b'3', "x", 0).binary(329, 8, 0).binary(337, 8, 0), b""),
        words,
    );
    corpus.refuse("with empty numbers", Tar::new().raw(entry(b'3', "x").put(329, [0; 16]), b""), words);
    corpus.refuse("in the place of an own file", empty("x").node(b'3', "x"), words);
    corpus.accept("block 0:0", Tar::new().node(b'4', "x"), &["b 644 x 0:0"]);
}
