//! The limits of a layer, as flags: what is refused, and with which numbers.

use crate::store::Store;
use runtime_tests::image::{Image, Tar, gzip};
use runtime_tests::registry::{Registry, site};
use serde_json::json;
use std::process::Command;

const MIB: usize = 1 << 20;

/// An image with a file of this many zeros; its gzip layer is a thousandth of that.
fn zeros(count: usize) -> Image {
    Image { layers: vec![Tar::new().file("zeros", 0o644, &vec![0; count]).finish()], config: json!({}) }
}

#[test]
fn max_unpacked_is_a_limit_of_each_layer() {
    let store = Store::new();
    let archive = store.file("archive", &zeros(4 * MIB).oci_archive("zeros"));
    for (size, bytes) in [("4m", 4 * MIB), ("1k", 1024), ("0", 0)] {
        let outcome = store.corten(&["load", "--max-unpacked", size, "-i", &archive]).exits(125);
        let text = format!("layer grows to more than {bytes} bytes when it is decompressed");
        assert!(outcome.stderr.contains(&text), "{}", outcome.stderr);
        store.is_empty();
    }
    store.corten(&["load", "--max-unpacked=5m", "-i", &archive]).ok();
}

#[test]
fn max_ratio_is_a_limit_after_the_first_64_mib() {
    let store = Store::new();
    let small = store.file("small", &zeros(60 * MIB).oci_archive("small"));
    store.corten(&["load", "--max-ratio", "1", "-i", &small]).ok();
    let large = store.file("large", &zeros(90 * MIB).oci_archive("large"));
    let outcome = store.corten(&["load", "--max-ratio", "20", "-i", &large]).exits(125);
    assert!(outcome.stderr.contains("more than 20 times the size of its blob"), "{}", outcome.stderr);
    store.corten(&["load", "--max-ratio", "100000", "-i", &large]).ok();
}

#[test]
fn pull_and_run_have_the_limits_too() {
    let store = Store::new();
    let registry = Registry::serving(site("t/app", "v", &zeros(4 * MIB).blobs()));
    let reference = format!("{}/t/app:v", registry.address());
    let text = "layer grows to more than 1048576 bytes when it is decompressed";
    for words in [
        &["pull", "--max-unpacked", "1m"][..],
        &["run", "--rm", "--max-unpacked", "1m"],
        &["create", "--max-unpacked", "1m"],
    ] {
        let outcome = store.corten(&[words, &[&reference]].concat()).exits(125);
        assert!(outcome.stderr.contains(text), "{words:?}: {}", outcome.stderr);
        store.is_empty();
    }
    store.corten(&["pull", "--max-unpacked=5m", &reference]).ok();
}

#[test]
fn an_archive_that_is_compressed_itself_has_the_limits_too() {
    let store = Store::new();
    let archive = store.file("archive", &gzip(&zeros(4 * MIB).docker_archive("zeros")));
    let outcome = store.corten(&["load", "--max-unpacked", "2m", "-i", &archive]).exits(125);
    assert!(outcome.stderr.contains("more than 2097152 bytes"), "{}", outcome.stderr);
    store.is_empty();
}

#[test]
fn flags_that_are_no_limits() {
    let store = Store::new();
    for (flag, value) in [
        ("--max-unpacked", "x"),
        ("--max-unpacked", "-1"),
        ("--max-unpacked", ""),
        ("--max-ratio", "0"),
        ("--max-ratio", "1.5"),
    ] {
        let outcome = store.corten(&["load", &format!("{flag}={value}"), "-i", "/dev/null"]).exits(125);
        assert!(outcome.stderr.contains(flag), "{}", outcome.stderr);
    }
}

/// Row 37 of the table of hostile layers: the free space is a limit, and a bomb is refused before the disk is full.
#[test]
fn row_37_a_bomb_is_refused_before_the_disk_is_full() {
    let store = Store::on_tmpfs("size=24m");
    let archive = store.file("archive", &zeros(60 * MIB).oci_archive("zeros"));
    let outcome = store.corten(&["load", "-i", &archive]).exits(125);
    let stated = outcome.stderr.split("needs more than the ").nth(1).and_then(|rest| rest.split(' ').next());
    let stated: usize = stated.unwrap_or_else(|| panic!("{}", outcome.stderr)).parse().unwrap();
    assert!(stated <= 24 * MIB && stated > 20 * MIB, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("bytes that are free"), "{}", outcome.stderr);
    store.is_empty();
}

/// Row 42: what ends in the middle of a layer leaves nothing: no space, no inodes, a file that may not grow.
#[test]
fn row_42_no_space_no_inodes_and_no_larger_files() {
    let many = (0..400).fold(Tar::new(), |tar, at| tar.file(&format!("f{at}"), 0o644, b"x"));
    let many = Image { layers: vec![many.finish()], config: json!({}) };
    let store = Store::on_tmpfs("size=64m,nr_inodes=200");
    let archive = store.file("archive", &many.oci_archive("many"));
    let outcome = store.corten(&["load", "-i", &archive]).exits(125);
    assert!(outcome.stderr.contains("no space left on device"), "{}", outcome.stderr);
    store.is_empty();
    // Two layers that fit alone, and not together: space ends after the check of what is free.
    let store = Store::on_tmpfs("size=24m");
    let layer = |name: &str| Tar::new().file(name, 0o644, &vec![0; 14 * MIB]).finish();
    let two = Image { layers: vec![layer("a"), layer("b")], config: json!({}) };
    let archive = store.file("archive", &two.oci_archive("two"));
    store.corten(&["load", "-i", &archive]).exits(125);
    store.is_empty();
    // The kernel kills a process that writes beyond it, in the middle of a layer.
    let store = Store::new();
    let archive = store.file("archive", &two.oci_archive("two"));
    let mut limited = Command::new("prlimit");
    limited
        .arg("--fsize=1000000")
        .arg(store.command(&[]).get_program())
        .args(store.command(&["load", "-i", &archive]).get_args());
    let outcome = runtime_tests::run(&mut limited);
    assert_ne!(outcome.code, Some(0), "a file larger than its limit");
    store.corten(&["images"]).ok();
    store.is_empty();
}
