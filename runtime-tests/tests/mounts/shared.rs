//! Containers without a mount namespace: their mounts are made among the runtime's own, and go with `delete`.

use crate::{in_own_mounts, words};
use runtime_tests::{Fixture, leaks, run};
use serde_json::json;

/// Mounts of this mount namespace below the container's state directory.
fn mounts(fixture: &Fixture, id: &str) -> Vec<String> {
    let place = format!(" {}/{id}/root", fixture.state_root().display());
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(&place)).map(str::to_owned).collect()
}

#[test]
fn mounts_among_the_hosts_go_with_delete() {
    let fixture = Fixture::new();
    let volume = fixture.file("volume/file", "kept");
    let bundle = fixture
        .bundle()
        .sharing_mounts()
        .set("/root/readonly", json!(true))
        .mount("/made/by/us", "bind", volume.parent().unwrap(), &["rbind", "rw"])
        .mount("/made/by/us/deeper", "tmpfs", "tmpfs", &[])
        .mount("/etc/file", "bind", &volume, &["bind", "ro"])
        .script(
            "touch /made/by/us/deeper/new; (echo x > /new) 2>/dev/null || echo read-only; cat /etc/file; echo; \
             cat /proc/1/comm; exec /probe wait",
        );
    for end in ["delete", "delete --force", "end"] {
        let mut lines = bundle.started();
        assert_eq!(lines.next_line(), "read-only");
        assert_eq!(lines.next_line(), "kept");
        assert_eq!(lines.next_line(), "sh", "the container's own procfs");
        let pid = bundle.pid();
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap(), own);
        assert!(mounts(&fixture, &bundle.id).len() > 8, "{:?}", mounts(&fixture, &bundle.id));
        // Nothing is mounted on the bundle's own directory.
        assert_eq!(leaks::entries(&bundle.rootfs().join("proc")), Vec::<String>::new());
        if end != "delete --force" {
            bundle.kill_and_wait("KILL");
        }
        match end {
            "delete" => bundle.oci("delete").ok(),
            _ => fixture.run_oci(["delete", "--force", &bundle.id]).ok(),
        };
        assert_eq!(mounts(&fixture, &bundle.id), Vec::<String>::new(), "{end}");
        assert_eq!(std::fs::read_to_string(&volume).unwrap(), "kept");
    }
    fixture.assert_clean();
}

#[test]
fn run_to_its_end_leaves_no_mount() {
    let fixture = Fixture::new();
    fixture.bundle().sharing_mounts().args(["/bin/true"]).run().ok();
    // What fails after the mounts are made.
    fixture.bundle().sharing_mounts().args(["/nosuch"]).run().says("/nosuch");
    fixture.bundle().sharing_mounts().mount("/dev/null/x", "tmpfs", "tmpfs", &[]).create().exits(1);
    let bundle = fixture.bundle().sharing_mounts().args(["/probe", "wait"]);
    bundle.create().ok();
    bundle.oci("delete").ok();
    fixture.assert_clean();
}

/// runc and crun run it in the host's root.
#[test]
fn exec_enters_the_containers_root() {
    let fixture = Fixture::new();
    let none = ["pid", "network", "ipc", "uts", "cgroup"];
    let shared = || fixture.bundle().sharing_mounts().unset("/hostname").args(["/probe", "wait"]);
    for bundle in [shared(), none.into_iter().fold(shared(), |bundle, kind| bundle.without_namespace(kind))] {
        let bundle = bundle.file("only-in-the-image", "here");
        bundle.started().next_line();
        assert_eq!(bundle.exec(&["/bin/cat", "/only-in-the-image"]).ok().stdout, "here");
        assert_eq!(bundle.exec(&["/bin/sh", "-c", "pwd; ls -d /proc/1"]).ok().stdout, "/\n/proc/1\n");
        assert_eq!(bundle.exec_with(&["--cwd", "/etc"], &["/bin/pwd"]).ok().stdout, "/etc\n");
        // In another mount namespace its root is not there, and the host's is not taken for it.
        let exec = words(&fixture.oci(["exec", &bundle.id, "/bin/true"]));
        let place = fixture.state_root().join(&bundle.id).join("root").display().to_string();
        in_own_mounts(&fixture, &format!("umount -l {place}; umount -l {place}; {exec}"))
            .exits(255)
            .says("no mount namespace");
        bundle.exec(&["/bin/true"]).ok();
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    }
    fixture.assert_clean();
}

/// What is attached below a shared mount goes to its peers: here a second view of the test's directory stands for
/// another mount namespace.
#[test]
fn nothing_stays_where_the_state_directory_is_shared() {
    let fixture = Fixture::new();
    fixture.file("bound/below/file", "seen");
    std::fs::create_dir(fixture.path().join("peer")).unwrap();
    let bundle = fixture
        .bundle()
        .sharing_mounts()
        .mount("/bound", "bind", fixture.path().join("bound"), &["rbind"])
        .mount("/bound/below", "tmpfs", "tmpfs", &[])
        .args(["/probe", "wait"]);
    let dir = fixture.path().display();
    let create = words(&bundle.create_command(&[]));
    let delete = words(&fixture.oci(["delete", "--force", &bundle.id]));
    let script = format!(
        "mount --bind {dir} {dir}; mount --make-private {dir}; mount --make-shared {dir}; mount --bind {dir} {dir}/peer; \
         before=$(grep {dir} /proc/self/mountinfo); {create} >/dev/null 2>&1 </dev/null; \
         cat {dir}/bound/below/file; echo; ls {dir}/peer/state/{id}/root | wc -l; {delete}; \
         [ \"$before\" = \"$(grep {dir} /proc/self/mountinfo)\" ] || cat /proc/self/mountinfo",
        id = bundle.id
    );
    assert_eq!(in_own_mounts(&fixture, &script).ok().stdout, "seen\n0\n");
}

#[test]
fn what_cannot_be_had_without_a_mount_namespace_is_refused() {
    let fixture = Fixture::new();
    let bundle = || fixture.bundle().sharing_mounts();
    for (bundle, field) in [
        (bundle().set("/linux/maskedPaths", json!(["/proc/kcore"])), "linux.maskedPaths"),
        (bundle().set("/linux/readonlyPaths", json!(["/proc/sys"])), "linux.readonlyPaths"),
        (bundle().set("/linux/rootfsPropagation", json!("rshared")), "linux.rootfsPropagation"),
        (bundle().user_namespace(), "linux.namespaces"),
    ] {
        run(&mut bundle.create_command(&[])).exits(1).says("MNT namespace").says(field);
    }
    fixture.assert_clean();
}
