//! Power losses: what an ext4 has on its disk at some system call of a pull is a store that is sound, or was not there.
//!
//! The disk is a file behind a loop device. What the mounted file system has not written yet is not in it: a copy of
//! the file is what a machine finds that lost its power at that moment.
use crate::world::{World, serve, small};
use runtime_tests::campaign::{Findings, points};
use runtime_tests::events::patience;
use runtime_tests::kill_point::{Fault, Victim, run_until};
use runtime_tests::{needs, run};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in a file, mounted until this is dropped.
struct Disk {
    place: PathBuf,
}

impl Disk {
    fn mount(file: &Path, place: &Path) -> Self {
        std::fs::create_dir_all(place).unwrap();
        // Nothing is written for its age meanwhile: only what is asked for by fsync(2) and its like.
        run(Command::new("mount").args(["-o", "loop,commit=600"]).arg(file).arg(place)).ok();
        Self { place: place.to_owned() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let outcome = run(Command::new("umount").arg(&self.place));
        assert!(outcome.code == Some(0) || std::thread::panicking(), "umount: {}", outcome.stderr);
    }
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to)).ok();
}

/// An empty ext4 of 32 MiB.
fn empty(world: &World) -> PathBuf {
    let file = world.path("empty.img");
    std::fs::File::create(&file).unwrap().set_len(32 << 20).unwrap();
    let program = needs::program("mkfs.ext4", "e2fsprogs");
    let options = "lazy_itable_init=0,lazy_journal_init=0";
    run(Command::new(program).args(["-q", "-J", "size=4", "-E", options]).arg(&file)).ok();
    file
}

#[test]
fn a_power_loss_leaves_no_half_layer() {
    let world = World::in_memory();
    let empty = empty(&world);
    let (disk, lost) = (world.path("disk.img"), world.path("lost.img"));
    let (before, after) = (world.path("before"), world.path("after"));
    let (_registry, reference) = serve(&small("power").blobs());
    let world = world.at(before.join("root"));
    let mut findings = Findings::new("power loss pull");
    let args = ["pull", &reference];
    let total = {
        copy(&empty, &disk);
        let _disk = Disk::mount(&disk, &before);
        let whole = run_until(&world.command(&args), Fault::Kill(Victim::Tree), None, patience());
        assert_eq!(whole.code, Some(0), "pull alone: {}", whole.stderr);
        whole.points
    };
    let world = world.at(after.join("root"));
    for point in points(total, 4, 0, 1) {
        copy(&empty, &disk);
        let trace = {
            let _disk = Disk::mount(&disk, &before);
            let mut pull = Command::new(needs::corten());
            pull.arg("--root").arg(before.join("root")).args(args);
            let trace = run_until(&pull, Fault::Kill(Victim::Tree), Some(point), patience());
            // Before the file system is unmounted, which writes all that it has.
            copy(&disk, &lost);
            trace
        };
        let mut wrong = Vec::new();
        let _disk = Disk::mount(&lost, &after);
        for step in [&["fsck"][..], &args, &["fsck"], &["rmi", &reference], &["prune", "--all"]] {
            let outcome = world.corten(step);
            if outcome.code != Some(0) {
                wrong.push(format!("{step:?}: {}{}", outcome.stdout.trim(), outcome.stderr.trim()));
            }
        }
        let files = world.files();
        let orphans = files.keys().filter(|path| {
            ["content/blobs/sha256", "layers", "staging"]
                .iter()
                .any(|dir| path.parent() == Some(Path::new(dir)))
        });
        wrong.extend(orphans.map(|path| format!("left: {}", path.display())));
        let place = trace.struck.unwrap_or_else(|| "past the end".to_owned());
        findings.point(&format!("point {point}, {place}"), wrong);
    }
    findings.tell(total);
    findings.assert_none();
}
