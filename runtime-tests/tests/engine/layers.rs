//! How the layers of an image become a container's root.
use super::world::{IMAGE, World};
use runtime_tests::command;
use runtime_tests::image::{Image, Tar};

/// As many layers as docker allows: more than a page of mount options names.
#[test]
fn an_image_of_128_layers_runs() {
    let world = World::new();
    let mut image = Image::busybox();
    for at in image.layers.len()..128 {
        let layer = Tar::new().dir("many/").file(&format!("many/{at}"), 0o644, b"").file(
            "last",
            0o644,
            at.to_string().as_bytes(),
        );
        image.layers.push(layer.finish());
    }
    world.load(&image, "localhost/many");
    let outcome = world.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "localhost/many",
        "sh",
        "-c",
        "ls many | wc -l; cat last",
    ]);
    assert_eq!(outcome.ok().stdout.split_whitespace().collect::<Vec<_>>(), ["126", "127"]);
    world.assert_nothing_left();
}

#[test]
fn a_container_on_a_copy_keeps_what_it_writes() {
    let world = World::new();
    let run = |args: &[&str]| {
        let mut command = world.corten(args);
        command::run(command.env("CORTEN_STORAGE_DRIVER", "copy")).ok().stdout
    };
    let script = "echo written > /kept; rm /etc/release; grep ' / ' /proc/self/mountinfo";
    let told = run(&["run", "--name", "copied", "--network", "none", IMAGE, "sh", "-c", script]);
    assert!(!told.contains("overlay"), "{told}");
    // It stays on its copy, whoever starts it again.
    world.run(&["start", "copied"]).ok();
    world.run(&["wait", "copied"]).ok();
    let changes = world.run(&["diff", "copied"]).ok().stdout;
    assert_eq!(changes.lines().collect::<Vec<_>>(), ["C /etc", "D /etc/release", "A /kept"], "{changes}");
    world.run(&["commit", "copied", "localhost/made"]).fails().says("use export and import");
    world.run(&["delete", "copied"]).ok();
    world.run(&["--storage-driver", "vfs", "ps"]).fails().says("want auto, overlay or copy");
    world.assert_nothing_left();
}

#[test]
fn an_image_in_use_names_its_container_and_its_layers_stay() {
    let world = World::new();
    let id = world.background(
        &["--name", "holder", "--network", "none"],
        &["sh", "-c", "while :; do cat /etc/release; sleep 0.1; done"],
    );
    world.await_log("holder", "corten test image");
    let error = world.run(&["rmi", IMAGE]).fails().stderr;
    assert!(error.contains(&format!("holder ({})", &id[..12])), "{error}");
    let kept = world.run(&["prune", "--all", "--verbose"]).ok().stdout;
    assert!(kept.contains(&format!("container {id} uses it")) && kept.contains("Freed 0B"), "{kept}");
    // A damaged layer is not exchanged below it.
    let layer = world.root().join("layers");
    let files = std::fs::read_dir(layer).unwrap().map(|entry| entry.unwrap().path().join("fs/etc/release"));
    let release = files.into_iter().find(|path| path.exists()).unwrap();
    std::fs::write(&release, "corten test imagE\n").unwrap();
    let told = world.run(&["fsck", "--repair"]).exits(4).stdout;
    assert!(told.contains("not repaired while these run"), "{told}");
    world.run(&["kill", "holder"]).ok();
    world.run(&["fsck", "--repair"]).exits(1);
    world.run(&["fsck"]).ok();
    assert_eq!(std::fs::read_to_string(&release).unwrap(), "corten test image\n");
    world.run(&["delete", "holder"]).ok();
    world.run(&["prune", "--all"]).ok();
    world.run(&["df"]).ok();
    world.assert_nothing_left();
}
