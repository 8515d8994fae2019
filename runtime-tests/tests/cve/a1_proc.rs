//! Procfs and sysfs are what they seem to be: what is written to them reaches the kernel.

use crate::races::Canary;
use runtime_tests::{Fixture, command};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn cve_2019_19921_proc_and_sys_must_be_directories() {
    let fixture = Fixture::new();
    for name in ["proc", "sys"] {
        for kind in ["link", "dangling", "file"] {
            let bundle = fixture.bundle();
            let path = bundle.rootfs().join(name);
            std::fs::remove_dir(&path).unwrap();
            match kind {
                "link" => symlink("/tmp", &path).unwrap(),
                "dangling" => symlink("/nosuch", &path).unwrap(),
                _ => std::fs::write(&path, "").unwrap(),
            }
            bundle.create().exits(1).says(name);
            fixture.clean_up();
        }
    }
    fixture.assert_clean();
}

#[test]
fn cve_2019_16884_nothing_hides_a_part_of_proc() {
    let fixture = Fixture::new();
    let source = fixture.file("fake", "fake");
    std::fs::create_dir(fixture.path().join("dir")).unwrap();
    for destination in ["/proc/self/attr", "/proc/sys", "/x/../proc/1"] {
        let bundle =
            fixture.bundle().mount(destination, "bind", fixture.path().join("dir"), &["bind"]).script("true");
        bundle.create().exits(1).says("inside /proc");
        fixture.clean_up();
    }
    // Through a link of the image, which no path in the configuration tells.
    let bundle =
        fixture.bundle().mount("/link/sys", "bind", fixture.path().join("dir"), &["bind"]).script("true");
    symlink("/proc", bundle.rootfs().join("link")).unwrap();
    bundle.create().exits(1).says("inside /proc");
    fixture.clean_up();
    // What lxcfs does stays possible.
    let bundle = fixture.bundle().mount("/proc/uptime", "bind", source, &["bind"]).script("cat /proc/uptime");
    assert_eq!(bundle.run().ok().stdout, "fake");
    fixture.assert_clean();
}

#[test]
fn cve_2019_16884_a_volume_over_proc_with_a_fake_attr() {
    let fixture = Fixture::new();
    let volume = fixture.path().join("volume");
    for file in
        ["self/attr/exec", "thread-self/attr/exec", "self/attr/apparmor/exec", "sys/net/ipv4/ip_forward"]
    {
        fixture.file(&format!("volume/{file}"), "decoy");
    }
    for options in [&["bind"][..], &["rbind"]] {
        // In place of the procfs, on top of it, and below a link.
        for destination in ["/proc", "/proc/", "/x/../proc", "/proc/self/attr", "/proc/sys/net"] {
            let bundle = fixture
                .bundle()
                .mount(destination, "bind", &volume, options)
                .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
            bundle.create().exits(1).says("/proc");
            fixture.clean_up();
        }
    }
    let decoy = std::fs::read_to_string(volume.join("sys/net/ipv4/ip_forward")).unwrap();
    assert_eq!(decoy, "decoy");
    fixture.assert_clean();
}

/// youki's: the same for mounts of every type, wherever the link is on the way.
#[test]
fn cve_2025_54867_and_cve_2023_28642_links_below_mounts_of_every_type() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    std::fs::create_dir(fixture.path().join("source")).unwrap();
    for (kind, options) in [
        ("proc", &[][..]),
        ("sysfs", &["ro"]),
        ("tmpfs", &[]),
        ("mqueue", &[]),
        ("devpts", &["newinstance"]),
        ("cgroup", &["ro"]),
        ("bind", &["bind"]),
        ("bind", &["rbind"]),
    ] {
        for target in [canary.dir.to_str().unwrap().to_owned(), canary.climbing(), "/etc".to_owned()] {
            for destination in ["/link", "/link/below"] {
                let source = if kind == "bind" { fixture.path().join("source") } else { kind.into() };
                let bundle = fixture
                    .bundle()
                    .mount(destination, kind, source, options)
                    .script(&format!("[ -e {} ] && echo escaped; true", canary.secret().display()));
                symlink(&target, bundle.rootfs().join("link")).unwrap();
                let outcome = bundle.run();
                if matches!(kind, "proc" | "sysfs") {
                    outcome.exits(1).says("must be mounted on a real directory");
                } else {
                    assert_eq!(outcome.stdout, "", "{kind} on {destination} -> {target}");
                }
                fixture.clean_up();
                canary.assert_untouched();
            }
        }
    }
    fixture.assert_clean();
}

#[test]
fn cve_2023_27561_proc_in_a_volume_that_is_shared() {
    let fixture = Fixture::new();
    let volume = fixture.path().join("volume");
    std::fs::create_dir_all(volume.join("fake/self/attr")).unwrap();
    symlink("fake", volume.join("proc")).unwrap();
    let bundle =
        fixture.bundle().mount("/vol", "bind", &volume, &["rbind"]).mount("/vol/proc", "proc", "proc", &[]);
    bundle.create().exits(1).says("/vol/proc").says("must be mounted on a real directory");
    fixture.clean_up();
    let bundle = fixture.bundle();
    let rootfs = bundle.rootfs();
    std::fs::remove_dir(rootfs.join("proc")).unwrap();
    symlink("vol/proc", rootfs.join("proc")).unwrap();
    bundle.create().exits(1).says("/proc").says("must be mounted on a real directory");
    fixture.clean_up();
    fixture.assert_clean();
}

/// A procfs of the caller in which something lies over what the runtime writes.
#[test]
fn cve_2025_52881_and_cve_2025_62596_a_procfs_with_decoys() {
    let fixture = Fixture::new();
    let source = fixture.path().join("procfs");
    std::fs::create_dir(&source).unwrap();
    let decoy = fixture.file("decoy/ip_forward", "decoy");
    let caps = json!(["CAP_SYS_ADMIN"]);
    let bundle = fixture.bundle();
    let mounts = bundle.config["mounts"].as_array().unwrap().clone();
    let kept: Vec<_> = mounts.into_iter().filter(|mount| mount["destination"] != "/proc").collect();
    let bundle = bundle
        .set("/mounts", json!(kept))
        .mount("/proc", "bind", &source, &["rbind"])
        .set("/linux/maskedPaths", json!([]))
        .set("/linux/readonlyPaths", json!([]))
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
        .set("/process/capabilities", json!({"bounding": caps, "effective": caps, "permitted": caps}))
        .script("mkdir /p; mount -t proc proc /p; cat /p/sys/net/ipv4/ip_forward");
    let script = format!(
        "mount -t proc proc {source}; mount --bind {decoy} {source}/sys/net/ipv4; exec {run}",
        source = source.display(),
        decoy = decoy.parent().unwrap().display(),
        run = words(&bundle.run_command(&[])),
    );
    let mut shell = Command::new("unshare");
    let outcome = command::run(
        shell.args(["-m", "sh", "-c", &format!("set -e; {script}")]).env("CORTEN_TEST", fixture.token()),
    );
    // The value is set in the kernel, or the container is not made.
    assert_eq!(
        std::fs::read_to_string(&decoy).unwrap(),
        "decoy",
        "the decoy was written: {}",
        outcome.stderr
    );
    match outcome.code {
        Some(0) => assert_eq!(outcome.stdout, "1\n", "the kernel's value, through a procfs without decoys"),
        _ => drop(outcome.exits(1).says("net.ipv4.ip_forward")),
    }
    fixture.clean_up();
    fixture.assert_clean();
}

fn words(command: &Command) -> String {
    let all = [command.get_program()].into_iter().chain(command.get_args());
    all.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}
