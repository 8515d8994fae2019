//! Bind mounts with mapped owners: `uidMappings`, `gidMappings`, `idmap`, `ridmap`.
//!
//! Which file systems can be mapped depends on the kernel: ext4 can since 5.12, a tmpfs since 6.3, an overlay cannot.
//! Where the test's directory cannot, the error that says so is what is tested.

use crate::{in_own_mounts, words};
use runtime_tests::{Bundle, Fixture, Outcome};
use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// A directory with files of 0:0 and 5:6, and one below a directory, that everybody may read.
fn source(fixture: &Fixture, name: &str) -> PathBuf {
    fixture.file(&format!("{name}/root"), "");
    let five = fixture.file(&format!("{name}/five"), "");
    fchown(std::fs::File::open(five).unwrap(), Some(5), Some(6)).unwrap();
    let dir = fixture.path().join(name);
    std::fs::File::open(&dir).unwrap().set_permissions(PermissionsExt::from_mode(0o777)).unwrap();
    dir
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": size}])
}

/// A bundle with the bind mount `/t` and further fields of it.
fn bound<'f>(bundle: Bundle<'f>, source: &Path, options: &[&str], fields: Value) -> Bundle<'f> {
    let mut mount = json!({"destination": "/t", "type": "bind", "source": source, "options": options});
    for (key, value) in fields.as_object().unwrap() {
        mount[key] = value.clone();
    }
    bundle.push("/mounts", mount).script("stat -c '%n %u:%g' /t/*; touch /t/new 2>/dev/null; true")
}

/// Whether this kernel maps owners on the file system of `path`.
fn can_be_mapped(path: &Path) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    let kind = nix::sys::statfs::statfs(path).unwrap().filesystem_type();
    kind == nix::sys::statfs::EXT4_SUPER_MAGIC || (kind == nix::sys::statfs::TMPFS_MAGIC && version >= (6, 3))
}

/// The output, if the file system can be mapped; else the error has been looked at.
#[track_caller]
fn mapped(fixture: &Fixture, outcome: Outcome) -> Option<String> {
    if can_be_mapped(fixture.path()) {
        return Some(outcome.ok().stdout);
    }
    outcome.exits(1).says("cannot map the owners").says("/t").says("no support for mapped mounts");
    fixture.clean_up();
    None
}

#[test]
fn mappings_of_the_mount() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    let fields = json!({"uidMappings": map(0, 1000, 10), "gidMappings": map(0, 2000, 10)});
    let bundle = bound(fixture.bundle(), &source, &["bind"], fields);
    let Some(out) = mapped(&fixture, bundle.run()) else { return };
    assert_eq!(out, "/t/five 1005:2006\n/t/root 1000:2000\n");
    assert!(!source.join("new").exists(), "root of the container is nobody there");
    // Who is mapped writes as the one that the file system knows.
    let [uids, gids] = [(7, 0), (8, 0)].map(|(inside, outside)| {
        // The directory itself needs owners too: the kernel lets nobody write to what belongs to nobody.
        json!([{"containerID": 0, "hostID": 500, "size": 1}, {"containerID": inside, "hostID": outside, "size": 1}])
    });
    let fields = json!({"uidMappings": uids, "gidMappings": gids});
    bound(fixture.bundle(), &source, &["bind"], fields).run().ok();
    let made = std::fs::metadata(source.join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 7);
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&made), 8);
}

#[test]
fn a_user_namespace_with_its_own_mappings() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    for options in [&["bind", "idmap"][..], &["rbind", "ridmap"]] {
        let bundle = bound(fixture.bundle(), &source, options, json!({})).user_namespace();
        let Some(out) = mapped(&fixture, bundle.run()) else { return };
        assert_eq!(out.lines().take(2).collect::<Vec<_>>(), ["/t/five 5:6", "/t/root 0:0"], "{options:?}");
        assert!(!out.contains("65534"), "{out}");
        let new = std::fs::metadata(source.join("new")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&new), 0);
        std::fs::remove_file(source.join("new")).unwrap();
    }
    // Without, nobody's.
    let bundle = bound(fixture.bundle(), &source, &["bind"], json!({})).user_namespace();
    assert_eq!(bundle.run().stdout.lines().next(), Some("/t/five 65534:65534"));
}

#[test]
fn a_user_namespace_with_other_mappings() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    let fields = json!({"uidMappings": map(5, 100_003, 1), "gidMappings": map(6, 100_004, 1)});
    let bundle = bound(fixture.bundle(), &source, &["bind"], fields).user_namespace();
    let Some(out) = mapped(&fixture, bundle.run()) else { return };
    assert_eq!(out, "/t/five 3:4\n/t/root 65534:65534\n");
}

#[test]
fn a_user_namespace_that_is_joined() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    let first = fixture.bundle().user_namespace().args(["/probe", "wait"]);
    let mut lines = first.started();
    lines.next_line();
    let path = format!("/proc/{}/ns/user", first.pid());
    let bundle = fixture.bundle().user_namespace();
    let bundle = bound(bundle, &source, &["bind", "idmap"], json!({})).namespace("user", Some(&path));
    let bundle = bundle.unset("/linux/uidMappings").unset("/linux/gidMappings");
    let Some(out) = mapped(&fixture, bundle.run()) else { return };
    assert_eq!(out.lines().take(2).collect::<Vec<_>>(), ["/t/five 5:6", "/t/root 0:0"]);
}

#[test]
fn idmap_is_for_one_mount_and_ridmap_for_the_tree() {
    let fixture = Fixture::new();
    if !can_be_mapped(fixture.path()) {
        return a_file_system_below_that_cannot_be_mapped(&fixture);
    }
    let (top, below) = (source(&fixture, "top"), source(&fixture, "below"));
    std::fs::create_dir(top.join("below")).unwrap();
    let fields = json!({"uidMappings": map(0, 1000, 10), "gidMappings": map(0, 2000, 10)});
    for (option, of_below) in [("idmap", "0:0"), ("ridmap", "1000:2000")] {
        let bundle = bound(fixture.bundle(), &top, &["rbind", option], fields.clone());
        let bundle = bundle.script("stat -c %u:%g /t/root /t/below/root");
        let (from, to) = (below.display(), top.display());
        let script = format!("mount --bind {from} {to}/below; exec {}", words(&bundle.run_command(&[])));
        let out = in_own_mounts(&fixture, &script).ok().stdout;
        assert_eq!(out, format!("1000:2000\n{of_below}\n"), "{option}");
    }
    a_file_system_below_that_cannot_be_mapped(&fixture);
}

fn a_file_system_below_that_cannot_be_mapped(fixture: &Fixture) {
    let fields = json!({"uidMappings": map(0, 1000, 10), "gidMappings": map(0, 2000, 10)});
    // A procfs is on no kernel.
    let bundle = bound(fixture.bundle(), Path::new("/proc/sys"), &["rbind", "ridmap"], fields);
    bundle
        .create()
        .exits(1)
        .says("cannot map the owners of /proc/sys on /t")
        .says("no support for mapped mounts");
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn mappings_in_the_option() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    let bundle =
        bound(fixture.bundle(), &source, &["bind", "idmap=uids=0-1000-1#5-7-1;gids=0-2000-10"], json!({}));
    let Some(out) = mapped(&fixture, bundle.run()) else { return };
    assert_eq!(out, "/t/five 7:2006\n/t/root 1000:2000\n");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let fixture = Fixture::new();
    let source = source(&fixture, "dir");
    let (one, two) = (map(0, 1000, 10), map(0, 2000, 10));
    for (options, fields, word) in [
        (&["bind", "idmap"][..], json!({}), "needs mappings"),
        (&["bind"], json!({"uidMappings": one}), "must be given together"),
        (&["bind", "idmap=uids=0-1-1"], json!({}), "idmap=…"),
        (&["bind"], json!({"uidMappings": map(0, 1, 0), "gidMappings": two}), "a mapping is empty"),
        (&["bind"], json!({"uidMappings": map(0, u32::MAX, 2), "gidMappings": two}), "beyond the largest id"),
    ] {
        bound(fixture.bundle(), &source, options, fields).create().exits(1).says("/t").says(word);
        fixture.clean_up();
    }
    // The kernel refuses lines that overlap.
    let twice =
        json!([{"containerID": 0, "hostID": 0, "size": 2}, {"containerID": 1, "hostID": 9, "size": 2}]);
    let fields = json!({"uidMappings": twice, "gidMappings": two});
    bound(fixture.bundle(), &source, &["bind"], fields).create().exits(1).says("refuses the mappings");
    fixture.clean_up();
    let mount = json!({"destination": "/t", "type": "tmpfs", "uidMappings": one, "gidMappings": two});
    fixture.bundle().push("/mounts", mount).create().exits(1).says("bind mounts only");
    fixture.clean_up();
    fixture.assert_clean();
}
