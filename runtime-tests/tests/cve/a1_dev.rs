//! The image's own /dev.

use crate::races::{Canary, Racer, rounds};
use runtime_tests::terminal::ConsoleSocket;
use runtime_tests::{Bundle, Fixture, command, needs};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

#[test]
fn cve_2025_31133_dev_null_of_the_image_masks_nothing() {
    let fixture = Fixture::new();
    for kind in ["link", "file"] {
        let bundle = fixture
            .bundle()
            .file("/etc/target", "evil")
            .script("cat /proc/timer_list; echo wrote > /proc/timer_list");
        let bundle = bundle.own_dev().set("/linux/maskedPaths", json!(["/proc/timer_list"]));
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
                bundle = bundle.own_dev().push(
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

/// What an image can have put at a path; the target of links is a file of the host.
const PLANTED: [&str; 5] = ["link", "climbing link", "hardlink", "fifo", "directory"];

fn plant(kind: &str, path: &std::path::Path, canary: &Canary) {
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir(path);
    match kind {
        "link" => symlink(canary.secret(), path).unwrap(),
        "climbing link" => symlink(format!("{}/secret", canary.climbing()), path).unwrap(),
        // Not to the host's file, which no image can reach: to another one of the image.
        "hardlink" => {
            let other = path.with_extension("other");
            std::fs::write(&other, "other").unwrap();
            nix::unistd::linkat(
                nix::fcntl::AT_FDCWD,
                &other,
                nix::fcntl::AT_FDCWD,
                path,
                nix::fcntl::AtFlags::empty(),
            )
            .unwrap();
        }
        "fifo" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap(),
        _ => std::fs::create_dir(path).unwrap(),
    }
}

#[test]
fn cve_2026_88264_and_cve_2026_88265_devices_of_the_image_that_are_none() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    for name in ["null", "zero", "console", "ptmx", "tty", "fuse"] {
        for kind in PLANTED {
            let device = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "uid": 12, "gid": 13, "fileMode": 0o600});
            let bundle = fixture
                .bundle()
                .own_dev()
                .push("/linux/devices", device)
                .set("/process/terminal", json!(name == "console"))
                .args(["/probe", "wait"]);
            let bundle = match name {
                "console" => bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]),
                _ => bundle,
            };
            let path = bundle.rootfs().join("dev").join(name);
            plant(kind, &path, &canary);
            let socket = ConsoleSocket::new(fixture.path().join(format!("{name}{}", kind.replace(' ', "-"))));
            let options: &[&str] = if name == "console" { &["--console-socket", socket.path()] } else { &[] };
            let created = command::run(&mut bundle.create_command(options));
            // What is no such device is refused, ptmx replaced, and a console mounted on what is no link; the node of
            // the image is never given away (chown).
            match (name, kind) {
                ("ptmx", "link" | "climbing link" | "hardlink" | "fifo")
                | ("console", "hardlink" | "fifo") => {
                    created.ok();
                }
                ("console", _) => drop(created.exits(1).says("console")),
                _ => drop(created.exits(1).says(&format!("/dev/{name}"))),
            }
            if kind == "hardlink" {
                let owner = std::fs::symlink_metadata(path.with_extension("other")).unwrap();
                assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0, "{name}");
                assert_eq!(std::fs::read_to_string(path.with_extension("other")).unwrap(), "other", "{name}");
            }
            fixture.clean_up();
            canary.assert_untouched();
        }
    }
    fixture.assert_clean();
}

#[test]
fn cve_2026_41579_links_of_dev_that_the_image_has_already() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    for name in ["ptmx", "fd", "pts", "stdin", "stdout", "stderr", "core", "shm", "mqueue"] {
        for target in
            [canary.dir.to_str().unwrap().to_owned(), canary.climbing(), format!("{}/new", canary.climbing())]
        {
            let bundle = fixture
                .bundle()
                .own_dev()
                .mount("/dev/shm", "tmpfs", "shm", &[])
                .mount("/dev/mqueue", "mqueue", "mqueue", &[])
                .script("echo x > /dev/shm/file; true");
            symlink(&target, bundle.rootfs().join("dev").join(name)).unwrap();
            // Whether it is refused or kept inside is the runtime's choice; the host is not.
            let _ = bundle.run();
            fixture.clean_up();
            canary.assert_untouched();
        }
    }
    fixture.assert_clean();
}

#[test]
fn cve_2025_52565_the_console_is_the_peer_of_our_terminal() {
    let fixture = Fixture::new();
    let canary = Canary::new(&fixture);
    let bundle = fixture.bundle().own_dev().set("/process/terminal", json!(true)).args(["/probe", "wait"]);
    // A devpts as ever, on a directory that is exchanged with a link, beside a console that is one too.
    let bundle = bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]);
    let dev = bundle.rootfs().join("dev");
    std::fs::create_dir(dev.join("pts")).unwrap();
    std::fs::write(dev.join("console"), "").unwrap();
    symlink(&canary.dir, dev.join("pts-link")).unwrap();
    symlink(canary.secret(), dev.join("console-link")).unwrap();
    let racers = [Racer::new(&dev, "pts", "pts-link"), Racer::new(&dev, "console", "console-link")];
    let socket = ConsoleSocket::new(fixture.path().join("socket"));
    let mut created = 0;
    let deadline = Instant::now() + needs::stretched(Duration::from_secs(10));
    // Most rounds are lost to the race; where rounds are few, they go on to the first that is not.
    for round in 0.. {
        if round >= rounds() / 2 && (created > 0 || Instant::now() > deadline) {
            break;
        }
        let outcome = command::run(&mut bundle.create_command(&["--console-socket", socket.path()]));
        if outcome.code != Some(0) {
            assert!(outcome.stderr.contains("create failed"), "{}", outcome.stderr);
            fixture.clean_up();
            continue;
        }
        created += 1;
        let master = socket.receive();
        let of = |path: &str| {
            let metadata = std::fs::metadata(path).ok()?;
            let device = std::os::unix::fs::MetadataExt::dev(&metadata);
            Some((device, std::os::unix::fs::MetadataExt::rdev(&metadata)))
        };
        let pid = bundle.pid();
        let stdin = of(&format!("/proc/{pid}/fd/0")).unwrap();
        assert_eq!(nix::sys::stat::major(stdin.1), 136, "standard input is a pseudo-terminal");
        let names = ["console", "console-link"].map(|name| format!("/proc/{pid}/root/dev/{name}"));
        assert!(
            // The names go on changing between two looks.
            (0..10_000).any(|_| names.iter().any(|name| of(name) == Some(stdin))),
            "/dev/console is another terminal"
        );
        drop(master);
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
    }
    drop(racers);
    canary.assert_untouched();
    assert!(created > 0, "no race was survived: nothing was tested");
}

/// A FIFO whose other end a process of the container waits at: to open it is to be noticed.
#[test]
fn what_the_container_puts_at_dev_ptmx_is_not_opened() {
    let fixture = Fixture::new();
    let trap = "rm -f /dev/ptmx; mkfifo /dev/ptmx; (cat /dev/ptmx; echo opened > /opened) & echo ready; wait; exec sleep 1000";
    let add = |bundle: &Bundle<'_>| {
        let socket = ConsoleSocket::new(fixture.path().join(format!("{}.sock", bundle.id)));
        let words = ["--tty", "--detach", "--console-socket", socket.path()];
        let outcome = bundle.exec_with(&words, &["/bin/true"]);
        let opened = bundle.rootfs().join("opened");
        // Whoever is woken is there by the end of this.
        bundle.exec(&["/bin/sh", "-c", "sleep 0.2"]).ok();
        assert!(!std::fs::exists(opened).unwrap(), "the FIFO was opened");
        outcome
    };
    // With a devpts the terminal comes from that.
    let bundle = fixture.bundle().script(trap);
    assert_eq!(bundle.started().next_line(), "ready");
    add(&bundle).ok();
    // Without one there is no terminal.
    let bundle = fixture.bundle().own_dev().script(trap);
    assert_eq!(bundle.started().next_line(), "ready");
    add(&bundle).says("not the pseudo-terminal multiplexer");
    fixture.clean_up();
    fixture.assert_clean();
}
