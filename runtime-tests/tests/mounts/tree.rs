//! The tree as a whole: propagation of the root, read-only roots with mounts in them, devices, destinations.

use crate::{in_own_mounts, line_of, mount_of, report, words};
use runtime_tests::{Fixture, needs};
use serde_json::{Value, json};

/// The line of the root, without what comes after the dash.
fn root_line(report: &Value) -> String {
    line_of(report, "/").split_once(" - ").unwrap().0.to_owned()
}

#[test]
fn propagation_of_the_root_as_seen_inside() {
    let fixture = Fixture::new();
    for (given, present, absent) in [
        ("shared", " shared:", " unbindable"),
        ("rshared", " shared:", " unbindable"),
        ("slave", "", " shared:"),
        ("rslave", "", " shared:"),
        ("private", "", " shared:"),
        ("rprivate", "", " shared:"),
        ("unbindable", " unbindable", " shared:"),
        ("runbindable", " unbindable", " shared:"),
    ] {
        let line = root_line(&report(fixture.bundle().set("/linux/rootfsPropagation", json!(given)))) + " ";
        assert!(line.contains(present) && !line.contains(absent), "{given}: {line}");
    }
    fixture
        .bundle()
        .set("/linux/rootfsPropagation", json!("public"))
        .create()
        .exits(1)
        .says("linux.rootfsPropagation");
    fixture.clean_up();
}

/// The runtime is started in a mount namespace of the test's own in which the root's file system is shared, so that
/// events can come in; what the container mounts must not go out, but where the root is shared.
#[test]
fn mounts_of_the_host_come_in_where_the_root_is_a_slave() {
    let fixture = Fixture::new();
    for (given, arrives) in [("rslave", true), ("rprivate", false), ("", true)] {
        let bundle = fixture.bundle().set("/linux/rootfsPropagation", json!(given)).args(["/probe", "wait"]);
        let bundle = if given.is_empty() { bundle.unset("/linux/rootfsPropagation") } else { bundle };
        let rootfs = bundle.rootfs();
        std::fs::create_dir(rootfs.join("mnt")).unwrap();
        let create = bundle.create_command(&[]);
        let exec = words(&fixture.oci(["exec", &bundle.id, "/bin/ls", "/mnt"]));
        let start = words(&fixture.oci(["start", &bundle.id]));
        let delete = words(&fixture.oci(["delete", "--force", &bundle.id]));
        let root = rootfs.display();
        let script = format!(
            "mount --bind {root} {root}; mount --make-shared {root}; {create} >/dev/null 2>&1 </dev/null; {start}; \
             mount -t tmpfs none {root}/mnt; touch {root}/mnt/came; {exec}; {delete}",
            create = words(&create)
        );
        let out = in_own_mounts(&fixture, &script).ok().stdout;
        assert_eq!(out.trim() == "came", arrives, "{given:?}: {out:?}");
    }
}

#[test]
fn a_read_only_root_with_mounts_in_it() {
    let fixture = Fixture::new();
    fixture.file("volume/file", "v");
    let bundle = fixture
        .bundle()
        .set("/root/readonly", json!(true))
        .mount("/made/by/us", "bind", fixture.path().join("volume"), &["rbind", "rw"])
        .mount("/made/by/us/deeper", "tmpfs", "tmpfs", &[])
        .mount("/etc/hosts", "bind", fixture.file("hosts", "h"), &["bind", "ro"])
        .script(
            "echo x > /made/by/us/new && echo volume; echo x > /made/by/us/deeper/new && echo tmpfs; \
             cat /etc/hosts; echo; (echo x > /etc/hosts) 2>/dev/null || echo file; (echo x > /new) 2>/dev/null || echo root; \
             /probe report",
        );
    let out = bundle.run().ok().stdout;
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..5], ["volume", "tmpfs", "h", "file", "root"]);
    let seen: Value = serde_json::from_str(lines[5]).unwrap();
    assert!(mount_of(&seen, "/").0.starts_with("ro"));
    assert!(mount_of(&seen, "/made/by/us").0.starts_with("rw"));
}

#[test]
fn a_relative_destination_is_below_the_root_and_warned_of() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle().mount("relative/dir", "tmpfs", "tmpfs", &[]).args(["/probe", "report"]);
    let outcome = bundle.run().ok().says("relative/dir");
    assert_eq!(mount_of(&outcome.json(), "/relative/dir").1, "tmpfs");
    // It does not climb out.
    let bundle = fixture.bundle().mount("../../up", "tmpfs", "tmpfs", &[]).args(["/probe", "report"]);
    assert_eq!(mount_of(&bundle.run().ok().json(), "/up").1, "tmpfs");
}

#[test]
fn destinations_that_are_missing_are_made() {
    let fixture = Fixture::new();
    let file = fixture.file("file", "f");
    let bundle = fixture
        .bundle()
        .mount("/a/b/dir", "tmpfs", "tmpfs", &[])
        .mount("/c/d/file", "bind", file, &["bind"])
        .script("stat -c '%F %a' /a/b/dir /c/d /c/d/file");
    let out = bundle.run().ok().stdout;
    assert_eq!(out.lines().next(), Some("directory 1777"), "{out}");
    assert!(out.contains("directory 755\nregular"), "{out}");
    assert!(needs::exists(bundle.rootfs().join("c/d/file")));
}

#[test]
fn a_directory_on_a_file_and_a_file_on_a_directory_are_refused() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path().join("dir")).unwrap();
    let bundle =
        fixture.bundle().file("/there", "").mount("/there", "bind", fixture.path().join("dir"), &["bind"]);
    bundle.create().exits(1).says("/there");
    let bundle = fixture.bundle().mount("/etc", "bind", fixture.file("file", ""), &["bind"]);
    bundle.create().exits(1).says("/etc");
    fixture.clean_up();
    fixture.assert_clean();
}

#[test]
fn devices_of_every_type() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .push(
            "/linux/devices",
            json!({"path": "/dev/c", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}),
        )
        .push("/linux/devices", json!({"path": "/dev/u", "type": "u", "major": 1, "minor": 3, "uid": 7}))
        .push("/linux/devices", json!({"path": "/dev/b", "type": "b", "major": 7, "minor": 0, "gid": 8}))
        .push("/linux/devices", json!({"path": "/dev/p", "type": "p"}))
        .args(["/probe", "report"]);
    let dev = bundle.run().ok().json()["dev"].clone();
    assert_eq!(dev["c"], "c 1:5 600 0:0");
    assert_eq!(dev["u"], "c 1:3 666 7:0");
    assert_eq!(dev["b"], "b 7:0 666 0:8");
    assert_eq!(dev["p"], "p 666 0:0");
    for (device, word) in [
        (json!({"path": "/dev/a", "type": "a", "major": 1, "minor": 3}), "one of b, c, u and p"),
        (json!({"path": "/dev/n", "type": "c", "major": -1, "minor": 3}), "no such device number"),
        (json!({"path": "relative", "type": "c", "major": 1, "minor": 3}), "absolute"),
    ] {
        fixture.bundle().push("/linux/devices", device).create().exits(1).says(word);
    }
    fixture.clean_up();
}

#[test]
fn masked_and_read_only_paths_may_be_links_and_may_be_missing() {
    let fixture = Fixture::new();
    let bundle = fixture
        .bundle()
        .file("/real/file", "hidden")
        .file("/plain", "kept")
        .set("/linux/maskedPaths", json!(["/link/file", "/absent", "/absent/deep"]))
        .set("/linux/readonlyPaths", json!(["/plain", "/absent"]))
        .script("cat /real/file; cat /plain; (echo x > /plain) 2>/dev/null || echo ' refused'");
    std::os::unix::fs::symlink("real", bundle.rootfs().join("link")).unwrap();
    assert_eq!(bundle.run().ok().stdout, "kept refused\n");
    for field in ["maskedPaths", "readonlyPaths"] {
        let bundle = fixture.bundle().set(&format!("/linux/{field}"), json!(["relative"]));
        bundle.create().exits(1).says(field);
    }
    fixture.clean_up();
}
