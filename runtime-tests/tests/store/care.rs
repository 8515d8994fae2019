//! `df`, `prune`, `rmi` and `fsck`.
use crate::world::{World, large, small};
use runtime_tests::run;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn du(path: &Path) -> u64 {
    let out = run(Command::new("du").args(["-s", "--block-size=1"]).arg(path)).ok().stdout;
    out.split_whitespace().next().unwrap().parse().unwrap()
}

/// What directories that lose entries keep, because ext4 never makes them shorter.
const OVERHEAD: u64 = 64 << 10;

#[test]
fn df_agrees_with_du_and_prune_frees_what_df_promised() {
    let world = World::on_disk();
    world.load(&small("shared"), "localhost/one");
    let mut more = small("shared");
    more.layers.push(large(7, 300_000).layers.remove(0));
    world.load(&more, "localhost/two");
    world.load(&large(8, 500_000), "localhost/three");
    // A half blob of somebody who was killed.
    std::fs::write(world.root().join("staging/blob-1-1"), vec![1; 100_000]).unwrap();

    let dry = world.json(&["prune", "--all", "--dry-run"]);
    let used = world.json(&["df"]);
    assert_eq!(used["size"].as_u64(), Some(du(world.root())));
    let image = |used: &Value, name: &str| {
        let images = used["images"].as_array().unwrap().clone();
        let named = |image: &Value| image["names"][0].as_str().unwrap().contains(name);
        images.into_iter().find(named).unwrap()
    };
    // du of the blobs and layers that only this image has.
    let (one, two) = (image(&used, "/one"), image(&used, "/two"));
    let number = |value: &Value| value.as_u64().unwrap();
    assert_eq!(number(&one["shared"]), number(&two["shared"]), "{used}");
    assert!(number(&two["unique"]) >= 600_000 && number(&one["unique"]) < 100_000, "{used}");

    let before = du(world.root());
    world.corten(&["rmi", "localhost/two"]).ok();
    let freed = before - du(world.root());
    assert!(freed.abs_diff(number(&two["unique"])) <= OVERHEAD, "{freed} {two}");

    // Opening the store has swept the half blob.
    let used = world.json(&["df"]);
    let promised = number(&used["reclaimable"]);
    let before = du(world.root());
    let told = world.json(&["prune", "--all"]);
    let freed = before - du(world.root());
    assert_eq!(number(&told["bytes"]), promised);
    assert!(freed.abs_diff(promised) <= OVERHEAD, "{freed} {promised}");
    assert!(number(&dry["bytes"]) > promised);
    assert_eq!(number(&world.json(&["df"])["reclaimable"]), 0);
    let table = world.corten(&["df", "-v"]).ok().stdout;
    assert!(table.contains("RECLAIMABLE") && table.contains("Volumes"), "{table}");
}

#[test]
fn prune_tells_why_and_a_dry_run_removes_nothing() {
    let world = World::in_memory();
    world.load(&small("old"), "localhost/app");
    world.load(&small("new"), "localhost/app");
    let before = world.files();
    let told = world.corten(&["prune", "--dry-run", "--verbose"]).ok().stdout;
    for line in [
        "would remove image sha256:",
        "dangling: it has no name",
        "no image and no container uses it",
        "image localhost/app:latest uses it",
        "Would free ",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(world.files(), before);
    // Its configuration says 2001.
    world.corten(&["prune", "--filter", "until=2000-01-01T00:00:00Z"]).ok();
    assert_eq!(world.json(&["images"]).as_array().unwrap().len(), 2);
    let told = world.corten(&["prune", "--filter", "until=24h"]).ok().stdout;
    assert!(told.contains("removed layer"), "{told}");
    assert_eq!(world.json(&["images"]).as_array().unwrap().len(), 1);
    world.corten(&["prune", "--filter", "label=x"]).fails().says("only until=TIME is known");
    world.assert_sound();
}

#[test]
fn rmi_tries_all_and_tells_what_goes() {
    let world = World::in_memory();
    world.load(&small("a"), "localhost/a");
    world.load(&small("b"), "localhost/b");
    let outcome = world.corten(&["rmi", "localhost/a", "localhost/absent", "localhost/b"]).fails();
    assert!(outcome.stderr.contains("localhost/absent"), "{}", outcome.stderr);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines[0], "Untagged: localhost/a:latest");
    // Each image, and its two layers.
    assert_eq!(lines.iter().filter(|line| line.starts_with("Deleted: sha256:")).count(), 6, "{lines:?}");
    assert!(world.files().keys().all(|path| !path.to_string_lossy().contains("sha256/")));
}

#[test]
fn fsck_finds_damage_and_repairs_it() {
    let world = World::in_memory();
    world.load(&small("x"), "localhost/x");
    world.assert_sound();
    let files = world.files();
    let word = files.keys().find(|path| path.ends_with("etc/word")).unwrap();
    std::fs::write(world.root().join(word), "").unwrap();
    let report = world.corten(&["fsck", "--format", "json"]).exits(4).json();
    assert_eq!(report["findings"][0]["subject"]["kind"], "layer", "{report}");
    assert_eq!(report["findings"][0]["result"]["outcome"], "found", "{report}");
    let told = world.corten(&["fsck", "--repair"]).exits(1).stdout;
    assert!(told.contains("has another size: repaired"), "{told}");
    world.assert_sound();
    assert_eq!(std::fs::read_to_string(world.root().join(word)).unwrap(), "x");
    // A blob that is not what it was: it goes, and the next load brings it again.
    let blob = files.keys().find(|path| path.to_string_lossy().contains("sha256/") && files[*path] > 1000);
    std::fs::write(world.root().join(blob.unwrap()), "x").unwrap();
    world.corten(&["fsck", "--repair"]).exits(4);
    world.corten(&["fsck", "--repair", "--quick"]).exits(4);
    world.load(&small("x"), "localhost/x");
    world.assert_sound();
}
