//! Extended attributes: rows 21 to 25.

use super::Corpus;
use crate::header::record;
use crate::image::Tar;

pub(super) fn cases(corpus: &mut Corpus) {
    capabilities(corpus);
    left_out(corpus);
    access_lists(corpus);
    names_and_sizes(corpus);
}

fn with(name: &str, value: &[u8]) -> Tar {
    Tar::new().pax(&[(&format!("SCHILY.xattr.{name}"), value)]).node(b'0', "a")
}

/// `struct vfs_cap_data` of this revision.
fn capability(revision: u8, length: usize) -> Vec<u8> {
    let mut value = vec![0; length];
    if length > 5 {
        value[5] = 4;
    }
    if length > 3 {
        value[0] = 1;
        value[3] = revision;
    }
    value
}

fn capabilities(corpus: &mut Corpus) {
    corpus.family(21, "file_capabilities");
    let name = "security.capability";
    let words = &["\"security.capability\" has an invalid name or value"];
    corpus.accept("revision 2", with(name, &capability(2, 20)), &["f 644 a [security.capability]"]);
    corpus.accept("revision 3", with(name, &capability(3, 24)), &["f 644 a [security.capability]"]);
    for (revision, length) in [
        (0, 20),
        (1, 20),
        (2, 12),
        (2, 19),
        (2, 21),
        (2, 24),
        (3, 20),
        (4, 24),
        (255, 24),
        (2, 4),
        (2, 3),
        (2, 0),
    ] {
        corpus.refuse(
            format!("revision {revision}, {length} bytes"),
            with(name, &capability(revision, length)),
            words,
        );
    }
    let value = capability(2, 20);
    let records: &[(&str, &[u8])] = &[("SCHILY.xattr.security.capability", &value)];
    corpus.accept("on a directory", Tar::new().pax(records).dir("d/"), &["d 755 d"]);
    corpus.accept("on a symlink", Tar::new().pax(records).symlink("l", "x"), &["l l -> x"]);
    corpus.accept(
        "on a hard link",
        Tar::new().file("a", 0o755, b"").pax(records).linked(b'1', "b", "a"),
        &["f 755 a", "f 755 b = a"],
    );
}

fn left_out(corpus: &mut Corpus) {
    corpus.family(22, "trusted_attributes");
    let drop = |corpus: &mut Corpus, names: &[&str]| {
        for name in names {
            corpus.accept(format!("{name} on a file"), with(name, b"y"), &["f 644 a"]);
            let records: &[(&str, &[u8])] = &[(&format!("SCHILY.xattr.{name}"), b"y")];
            corpus.accept(
                format!("{name} on a directory"),
                Tar::new().pax(records).dir("d/").file("d/x", 0o644, b""),
                &["d 755 d", "f 644 d/x"],
            );
        }
    };
    drop(corpus, &["trusted.x", "trusted.md5sum"]);
    corpus.family(23, "overlay_attributes");
    for mark in [
        "opaque",
        "redirect",
        "metacopy",
        "origin",
        "impure",
        "whiteout",
        "whiteouts",
        "protattr",
        "overlay.opaque",
    ] {
        drop(corpus, &[&format!("trusted.overlay.{mark}"), &format!("user.overlay.{mark}")]);
    }
    corpus.family(24, "attributes_of_the_host");
    drop(
        corpus,
        &[
            "security.selinux",
            "security.ima",
            "security.evm",
            "security.SMACK64",
            "security.apparmor",
            "system.nfs4_acl",
            "system.x",
            "none",
        ],
    );
    let other: &[(&str, &[u8])] = &[
        ("LIBARCHIVE.xattr.user.a", b"eA=="),
        ("RHT.security.selinux", b"x"),
        ("SCHILY.acl.access", b"user::rwx"),
    ];
    corpus.accept("other writers' keys", Tar::new().pax(other).node(b'0', "a"), &["f 644 a"]);
}

fn access_lists(corpus: &mut Corpus) {
    corpus.family(24, "access_lists");
    // user::rw-, user:1000:r--, group::r--, mask::r--, other::r--
    let good = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ]
    .concat();
    let name = "system.posix_acl_access";
    corpus.accept("access list", with(name, &good), &["f 644 a [system.posix_acl_access]"]);
    let records: &[(&str, &[u8])] = &[("SCHILY.xattr.system.posix_acl_default", &good)];
    corpus.accept(
        "default list",
        Tar::new().pax(records).dir("d/").file("d/x", 0o644, b""),
        &["d 755 d [system.posix_acl_default]", "f 644 d/x"],
    );
    corpus.accept("default list on a file", Tar::new().pax(records).node(b'0', "a"), &["f 644 a"]);
    for (label, value) in [
        ("empty", &b""[..]),
        ("short", b"\x02\0\0"),
        ("version 1", b"\x01\0\0\0"),
        ("half an entry", b"\x02\0\0\0xxxx"),
    ] {
        corpus.refuse(label, with(name, value), &["has an invalid name or value"]);
    }
}

fn names_and_sizes(corpus: &mut Corpus) {
    corpus.family(25, "attribute_names_and_sizes");
    let invalid = &["has an invalid value"];
    corpus.accept("value of any bytes", with("user.a", b"\0\xff=\n"), &["f 644 a [user.a]"]);
    corpus.accept("empty value", with("user.a", b""), &["f 644 a [user.a]"]);
    corpus.accept(
        "name of 255 bytes",
        with(&format!("user.{}", "n".repeat(250)), b""),
        &[&format!("f 644 a [user.{}]", "n".repeat(250))],
    );
    corpus.refuse("name of 256 bytes", with(&format!("user.{}", "n".repeat(251)), b""), invalid);
    corpus.refuse("value of 64 KiB and 1", with("user.a", &vec![0; (64 << 10) + 1]), invalid);
    corpus.refuse("no name", with("", b"x"), invalid);
    corpus.refuse("user. alone", with("user.", b"x"), &["\"user.\" has an invalid name or value"]);
    corpus.refuse("NUL in the name", with("user.a\0b", b"x"), &["no key or no value"]);
    let twice = [record("SCHILY.xattr.user.a", b"1"), record("SCHILY.xattr.user.a", b"2")].concat();
    corpus.refuse(
        "twice",
        Tar::new().extension(b'x', twice).node(b'0', "a"),
        &["\"SCHILY.xattr.user.a\" comes twice"],
    );
    let many: Vec<u8> =
        (0..3000).flat_map(|at| record(format!("SCHILY.xattr.trusted.{at}"), vec![b'x'; 300])).collect();
    corpus.accept("3,000 of them", Tar::new().extension(b'x', many).node(b'0', "a"), &["f 644 a"]);
    let records: &[(&str, &[u8])] = &[("SCHILY.xattr.user.a", b"1")];
    corpus.accept("on a FIFO", Tar::new().pax(records).node(b'6', "p"), &["p 644 p"]);
    corpus.accept("on a symlink", Tar::new().pax(records).symlink("l", "a"), &["l l -> a"]);
    corpus.accept(
        "on a directory without permissions",
        Tar::new().pax(records).raw(super::entry(b'5', "d").mode(0), b""),
        &["d 0 d [user.a]"],
    );
}
