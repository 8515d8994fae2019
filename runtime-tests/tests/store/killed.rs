//! `kill -9` at points spread over the system calls of pull, load, commit and rmi: the store is sound, the next try
//! succeeds, and after `prune` nothing is left that a store without kills would not have.
//!
//! `scripts/kill-campaign.sh` tries every system call.
use crate::world::{World, serve, small};
use runtime_tests::campaign::{Findings, points};
use runtime_tests::events::patience;
use runtime_tests::kill_point::{Fault, Victim, run_until};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is tried at each point.
struct Trial<'a> {
    /// The command that is killed.
    args: &'a [&'a str],
    /// Brings the store to where the command is due.
    prepare: &'a dyn Fn(&World),
    /// Takes away all that the command has made.
    settle: &'a dyn Fn(&World),
    /// Five points each when nothing else is asked for.
    weight: u64,
}

/// What is in the store but for the entry of names, whose bytes depend on what else was named.
fn kept(world: &World) -> BTreeMap<PathBuf, u64> {
    let mut files = world.files();
    // Made by the first pull, and kept empty.
    files.remove(Path::new("partial"));
    files.retain(|path, _| !path.ends_with("index.json") && !path.starts_with("containers"));
    files
}

fn sweep(name: &str, world: &World, trial: &Trial<'_>) {
    let victims = [Victim::Command, Victim::Tree];
    let mut findings = Findings::new(&format!("kill {name}"));
    (trial.prepare)(world);
    let idle = kept(world);
    let whole = run_until(&world.command(trial.args), Fault::Kill(Victim::Command), None, patience());
    assert_eq!(whole.code, Some(0), "{name} alone: {}", whole.stderr);
    let done = kept(world);
    (trial.settle)(world);
    let total = whole.points;
    assert!(total > 50, "only {total} system call stops seen");
    for (nth, point) in points(total, trial.weight, 0, 1).into_iter().enumerate() {
        (trial.prepare)(world);
        let fault = Fault::Kill(victims[nth % victims.len()]);
        let trace = run_until(&world.command(trial.args), fault, Some(point), patience());
        let mut wrong: Vec<String> = trace.hang.into_iter().map(|hang| format!("hangs: {hang}")).collect();
        let fsck = world.corten(&["fsck"]);
        if fsck.code != Some(0) {
            wrong.push(format!("fsck: {}{}", fsck.stdout.trim(), fsck.stderr.trim()));
        }
        // What was removed needs no second removal.
        let again = world.corten(trial.args);
        if again.code != Some(0) && !again.stderr.contains("no image is known as") {
            wrong.push(format!("again: {}", again.stderr.trim()));
        }
        world.corten(&["prune"]).ok();
        wrong.extend(differences("after the second try", &kept(world), &done));
        (trial.settle)(world);
        (trial.prepare)(world);
        wrong.extend(differences("in the end", &kept(world), &idle));
        let end = std::time::Instant::now() + patience();
        let mut left = world.left();
        // A process whose parent was killed ends by itself, and tells nobody.
        while !left.is_empty() && std::time::Instant::now() < end {
            std::thread::yield_now();
            left = world.left();
        }
        wrong.extend(left);
        let place = trace.struck.unwrap_or_else(|| "past the end".to_owned());
        findings.point(&format!("point {point}, {place}"), wrong);
    }
    findings.tell(total);
    findings.assert_none();
}

fn differences(when: &str, have: &BTreeMap<PathBuf, u64>, want: &BTreeMap<PathBuf, u64>) -> Vec<String> {
    let more = have.iter().filter(|(path, size)| want.get(*path) != Some(size));
    let less = want.keys().filter(|path| !have.contains_key(*path));
    more.map(|(path, size)| format!("{when}: {} of {size} bytes", path.display()))
        .chain(less.map(|path| format!("{when}: {} is missing", path.display())))
        .collect()
}

#[test]
fn pull_is_killed() {
    let world = World::in_memory();
    let (_registry, reference) = serve(&small("pulled").blobs());
    sweep(
        "pull",
        &world,
        &Trial {
            args: &["pull", &reference],
            prepare: &|world| drop(world.corten(&["images"]).ok()),
            settle: &|world| {
                world.corten(&["rmi", &reference]).ok();
                world.corten(&["prune", "--all"]).ok();
            },
            weight: 12,
        },
    );
}

#[test]
fn load_is_killed() {
    let world = World::in_memory();
    let archive = world.file("archive.tar", &small("loaded").oci_archive("localhost/loaded:latest"));
    sweep(
        "load",
        &world,
        &Trial {
            args: &["load", "--input", &archive],
            prepare: &|world| drop(world.corten(&["images"]).ok()),
            settle: &|world| {
                world.corten(&["rmi", "localhost/loaded"]).ok();
                world.corten(&["prune", "--all"]).ok();
            },
            weight: 4,
        },
    );
}

#[test]
fn rmi_is_killed() {
    let world = World::in_memory();
    let archive = world.file("archive.tar", &small("removed").oci_archive("localhost/removed:latest"));
    sweep(
        "rmi",
        &world,
        &Trial {
            args: &["rmi", "localhost/removed"],
            prepare: &|world| drop(world.corten(&["load", "--input", &archive]).ok()),
            settle: &|world| drop(world.corten(&["prune", "--all"]).ok()),
            weight: 12,
        },
    );
}

#[test]
fn commit_is_killed() {
    let world = World::in_memory();
    world.load(&small("base"), "localhost/base");
    let id = world.corten(&["create", "--network", "none", "--name", "one", "localhost/base"]).ok().stdout;
    let upper = world.root().join("containers").join(id.trim()).join("upper");
    std::fs::write(upper.join("written"), "by the container").unwrap();
    sweep(
        "commit",
        &world,
        &Trial {
            args: &["commit", "one", "localhost/made"],
            prepare: &|_| {},
            settle: &|world| {
                world.corten(&["rmi", "localhost/made"]).ok();
                world.corten(&["prune"]).ok();
            },
            weight: 12,
        },
    );
    world.corten(&["delete", "one"]).ok();
}
