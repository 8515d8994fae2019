//! `kill -9` of the runtime at points spread over its system calls: `delete --force` leaves nothing.
//!
//! `CORTEN_TEST_KILL_POINTS` sets how many points of each kind are tried (`all`: every system call).

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::kill_point::{Victim, run_until};
use runtime_tests::{Bundle, Fixture};
use std::process::Command;

/// Which of the 1..=total stops are tried.
fn points(total: u64) -> Vec<u64> {
    let wanted = match std::env::var("CORTEN_TEST_KILL_POINTS") {
        Err(_) => 24,
        Ok(text) if text == "all" => total,
        Ok(text) => text.parse().expect("CORTEN_TEST_KILL_POINTS is a number or all"),
    };
    let wanted = wanted.min(total);
    (1..=wanted).map(|index| index * total / wanted).collect()
}

/// Kills the command at its points; after each, delete by force must leave nothing and free the id.
fn sweep(victim: Victim, command_of: fn(&Bundle<'_>) -> Command) {
    let fixture = Fixture::new();
    let prepare = || fixture.bundle().args(["/bin/true"]);
    let total = run_until(&command_of(&prepare()), None, victim);
    fixture.clean_up();
    fixture.assert_clean();
    assert!(total > 100, "only {total} system call stops seen");
    let mut failures = Vec::new();
    // What one point left is there at the next one too.
    let mut told = std::collections::BTreeSet::new();
    let points = points(total);
    assert!(points.len() >= 10);
    for point in &points {
        let bundle = prepare();
        run_until(&command_of(&bundle), Some(*point), victim);
        let deleted = fixture.run_oci(["delete", "--force", &bundle.id]);
        if deleted.code != Some(0) {
            failures.push(format!("point {point}: delete --force: {}", deleted.stderr.trim()));
        }
        let new = fixture.leaks().into_iter().filter(|left| told.insert(left.clone()));
        failures.extend(new.map(|left| format!("point {point}: {left}")));
        let again = bundle.create();
        if again.code != Some(0) {
            failures.push(format!("point {point}: the id is not free: {}", again.stderr.trim()));
        }
        fixture.clean_up();
    }
    assert!(failures.is_empty(), "of {} points in {total}:\n  {}", points.len(), failures.join("\n  "));
}

fn create(bundle: &Bundle<'_>) -> Command {
    bundle.create_command(&[])
}

fn run(bundle: &Bundle<'_>) -> Command {
    bundle.run_command(&[])
}

#[test]
fn create_is_killed() {
    sweep(Victim::Command, create);
}

#[test]
fn create_and_its_children_are_killed() {
    sweep(Victim::Tree, create);
}

#[test]
fn a_child_of_create_is_killed() {
    sweep(Victim::Child, create);
}

#[test]
fn run_is_killed() {
    sweep(Victim::Command, run);
}

#[test]
fn run_and_its_children_are_killed() {
    sweep(Victim::Tree, run);
}
