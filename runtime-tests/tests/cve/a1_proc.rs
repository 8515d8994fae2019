//! Procfs and sysfs are what they seem to be: what is written to them reaches the kernel.

use runtime_tests::Fixture;
use std::os::unix::fs::symlink;

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
