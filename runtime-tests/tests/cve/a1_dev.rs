//! The image's own /dev.

use runtime_tests::Fixture;
use serde_json::json;
use std::os::unix::fs::symlink;

#[test]
fn cve_2025_31133_dev_null_of_the_image_masks_nothing() {
    let fixture = Fixture::new();
    for kind in ["link", "file"] {
        let bundle = fixture
            .bundle()
            .file("/etc/target", "evil")
            .script("cat /proc/timer_list; echo wrote > /proc/timer_list");
        let mounts = bundle.config["mounts"].as_array().unwrap().clone();
        let without_dev: Vec<_> = mounts
            .into_iter()
            .filter(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"))
            .collect();
        let bundle =
            bundle.set("/mounts", json!(without_dev)).set("/linux/maskedPaths", json!(["/proc/timer_list"]));
        let null = bundle.rootfs().join("dev/null");
        match kind {
            "link" => symlink("/etc/target", &null).unwrap(),
            _ => std::fs::write(&null, "evil").unwrap(),
        }
        let outcome = bundle.run();
        // Refused, or masked by the real device: both are safe.
        assert!(!outcome.stdout.contains("evil"), "{kind}: {}", outcome.stdout);
        assert_eq!(std::fs::read_to_string(bundle.rootfs().join("etc/target")).unwrap(), "evil", "{kind}");
    }
}

#[test]
fn cve_2026_41579_links_in_the_image_do_not_lead_outside() {
    let fixture = Fixture::new();
    let canary = fixture.path().join("canary");
    std::fs::create_dir(&canary).unwrap();
    for name in ["dev", "mnt", "etc/deep"] {
        for target in
            [canary.to_str().unwrap().to_owned(), format!("../../../../../../../..{}", canary.display())]
        {
            let bundle = fixture.bundle();
            let path = bundle.rootfs().join(name);
            let _ = std::fs::remove_dir(&path);
            symlink(&target, &path).unwrap();
            let mut bundle = bundle.mount("/mnt/new/dir", "tmpfs", "tmpfs", &[]).mount(
                "/etc/deep/er",
                "tmpfs",
                "tmpfs",
                &[],
            );
            if name == "dev" {
                let mounts = bundle.config["mounts"].as_array().unwrap().clone();
                let kept: Vec<_> = mounts
                    .into_iter()
                    .filter(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"))
                    .collect();
                bundle = bundle.set("/mounts", json!(kept)).push(
                    "/linux/devices",
                    json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}),
                );
            }
            // Whether it is refused or kept inside is the runtime's choice; the host is not.
            let _ = bundle.run();
            let inside: Vec<_> =
                std::fs::read_dir(&canary).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert!(inside.is_empty(), "{name} -> {target}: {inside:?}");
            fixture.clean_up();
        }
    }
    fixture.assert_clean();
}
