//! Disks without room.
use crate::world::{NAME, World, large, serve, small};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use runtime_tests::Outcome;
use std::path::{Path, PathBuf};

/// A tmpfs of some bytes.
struct Small {
    place: PathBuf,
}

impl Small {
    fn new(world: &World, bytes: usize) -> Self {
        let place = world.path("small");
        std::fs::create_dir(&place).unwrap();
        let options = format!("size={bytes},mode=755");
        mount(Some("none"), &place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("missing need: mount of a tmpfs");
        Self { place }
    }

    fn root(&self) -> PathBuf {
        self.place.join("root")
    }

    /// Takes all but so many bytes.
    fn fill(&self, left: usize) -> PathBuf {
        let stat = nix::sys::statvfs::statvfs(&self.place).unwrap();
        let free = usize::try_from(stat.blocks_available() * stat.fragment_size()).unwrap();
        let filler = self.place.join("filler");
        std::fs::write(&filler, vec![0; free.saturating_sub(left)]).unwrap();
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.place, MntFlags::MNT_DETACH);
    }
}

/// Refused for want of room, by the name of what did not fit.
#[track_caller]
fn assert_no_room(outcome: Outcome, names: &[&str]) {
    assert_eq!(outcome.code, Some(125), "{}", outcome.stderr);
    let told = &outcome.stderr;
    assert!(
        told.contains("ENOSPC")
            || told.to_lowercase().contains("no space")
            || told.contains("free")
            || told.contains("takes more than"),
        "{told}"
    );
    assert!(names.iter().any(|name| told.contains(name)), "{names:?} in {told}");
    assert!(told.starts_with("Error: ") && !told.contains("panicked"), "{told}");
}

fn files_of(world: &World) -> Vec<PathBuf> {
    let kept = |path: &PathBuf| {
        ["content/blobs/sha256", "layers", "staging"]
            .iter()
            .any(|dir| path.starts_with(dir) && path != Path::new(dir))
    };
    world.files().into_keys().filter(kept).collect()
}

#[test]
fn a_pull_without_room_leaves_nothing_and_succeeds_with_room() {
    let world = World::in_memory();
    let disk = Small::new(&world, 8 << 20);
    let world = world.at(disk.root());
    let image = large(1, 2 << 20).blobs();
    let (_registry, reference) = serve(&image);
    world.corten(&["images"]).ok();
    // No room for the blob, for the layer beside it, for the last record.
    for left in [1 << 20, 3 << 20, (4 << 20) + (8 << 10)] {
        let filler = disk.fill(left);
        let outcome = world.corten(&["pull", &reference]);
        if outcome.code != Some(0) {
            assert_no_room(outcome, &[NAME, &image.blobs[0].0]);
            world.assert_sound();
        }
        std::fs::remove_file(filler).unwrap();
        world.corten(&["pull", &reference]).ok();
        world.assert_sound();
        world.corten(&["rmi", &reference]).ok();
        world.corten(&["prune", "--all"]).ok();
        assert_eq!(files_of(&world), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_load_without_room_leaves_nothing_and_succeeds_with_room() {
    let world = World::in_memory();
    let disk = Small::new(&world, 8 << 20);
    let archive = world.file("archive.tar", &large(2, 2 << 20).oci_archive("localhost/large:latest"));
    let world = world.at(disk.root());
    world.corten(&["images"]).ok();
    for left in [1 << 20, 3 << 20] {
        let filler = disk.fill(left);
        assert_no_room(
            world.corten(&["load", "--input", &archive]),
            &["archive", "layer", "blob", "sha256:"],
        );
        world.assert_sound();
        std::fs::remove_file(filler).unwrap();
        world.corten(&["prune", "--all"]).ok();
        assert_eq!(files_of(&world), Vec::<PathBuf>::new());
    }
    world.corten(&["load", "--input", &archive]).ok();
    world.assert_sound();
}

#[test]
fn a_commit_without_room_leaves_nothing() {
    let world = World::in_memory();
    let disk = Small::new(&world, 16 << 20);
    let archive = world.file("archive.tar", &small("base").docker_archive("localhost/base:latest"));
    let world = world.at(disk.root());
    world.corten(&["load", "--input", &archive]).ok();
    let id = world.corten(&["create", "--network", "none", "--name", "one", "localhost/base"]).ok().stdout;
    let upper = world.root().join("containers").join(id.trim()).join("upper");
    std::fs::write(upper.join("large"), large(3, 2 << 20).layers.remove(0)).unwrap();
    let before = files_of(&world);
    let filler = disk.fill(1 << 20);
    assert_no_room(world.corten(&["commit", "one", "localhost/made"]), &["layer", "blob", "one", "sha256:"]);
    std::fs::remove_file(filler).unwrap();
    world.assert_sound();
    world.corten(&["prune"]).ok();
    assert_eq!(files_of(&world), before);
    world.corten(&["commit", "one", "localhost/made"]).ok();
    world.assert_sound();
    world.corten(&["delete", "one"]).ok();
}
