//! `kill -9` at points spread over the system calls of the runtime's commands: `delete --force` leaves nothing.
//!
//! `scripts/kill-campaign.sh` tries every system call.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::Fixture;
use runtime_tests::campaign::{Findings, Shape, Stage, Verb, points};
use runtime_tests::events::patience;
use runtime_tests::kill_point::{Fault, Victim, run_until};

/// Points of each sweep when nothing else is asked for.
const USUAL: u64 = 5;

/// Who is killed; the container's init is either there before the command or its child.
#[derive(Debug, Clone, Copy)]
enum Who {
    Command,
    Tree,
    Child,
    Init,
}

/// Kills at the points of a command; after each, delete by force must leave nothing and free the id.
fn sweep(verb: Verb, shape: Shape, victims: &[Who]) {
    let fixture = Fixture::new();
    let mut all = Vec::new();
    for (phase, &who) in victims.iter().enumerate() {
        let mut stage = Stage::new(&fixture, verb, shape);
        let mut findings = Findings::new((verb, shape, who));
        let count = stage.prepare();
        let whole = run_until(&count.command, Fault::Kill(Victim::Command), None, patience());
        assert_eq!(whole.code, Some(0), "{verb:?} {shape:?} alone: {}", whole.stderr);
        let wrong = stage.settle(count);
        assert!(wrong.is_empty(), "{verb:?} {shape:?} alone: {wrong:?}");
        let total = whole.points;
        assert!(total > 50, "only {total} system call stops seen");
        for point in points(total, USUAL, phase as u64, victims.len() as u64) {
            let due = stage.prepare();
            let victim = match who {
                Who::Command => Victim::Command,
                Who::Tree => Victim::Tree,
                Who::Child => Victim::Child,
                Who::Init => Victim::Process(due.init.expect("a container")),
            };
            let trace = run_until(&due.command, Fault::Kill(victim), Some(point), patience());
            let mut wrong: Vec<String> =
                trace.hang.into_iter().map(|hang| format!("hangs: {hang}")).collect();
            wrong.extend(stage.settle(due));
            if matches!(verb, Verb::Create | Verb::Run) {
                wrong.extend(stage.again());
            }
            let place = trace.struck.unwrap_or_else(|| "past the end".to_owned());
            if !wrong.is_empty() {
                stage = Stage::new(&fixture, verb, shape);
            }
            findings.point(&format!("point {point}, {place}"), wrong);
        }
        findings.tell(total);
        all.push(findings);
    }
    all.into_iter().for_each(Findings::assert_none);
}

const MAKER: &[Who] = &[Who::Command, Who::Tree, Who::Child];
const USER: &[Who] = &[Who::Command, Who::Tree, Who::Init];
const JOINER: &[Who] = &[Who::Command, Who::Tree, Who::Child, Who::Init];
/// They start no process.
const LONER: &[Who] = &[Who::Command, Who::Init];

#[test]
fn create_is_killed() {
    sweep(Verb::Create, Shape::Plain, MAKER);
}

#[test]
fn create_of_much_is_killed() {
    sweep(Verb::Create, Shape::Rich, MAKER);
}

#[test]
fn run_is_killed() {
    sweep(Verb::Run, Shape::Plain, MAKER);
}

#[test]
fn run_of_much_is_killed() {
    sweep(Verb::Run, Shape::Rich, MAKER);
}

#[test]
fn start_is_killed() {
    sweep(Verb::Start, Shape::Plain, LONER);
}

#[test]
fn start_of_much_is_killed() {
    sweep(Verb::Start, Shape::Rich, USER);
}

#[test]
fn exec_is_killed() {
    sweep(Verb::Exec, Shape::Plain, JOINER);
}

#[test]
fn exec_in_much_is_killed() {
    sweep(Verb::Exec, Shape::Rich, JOINER);
}

#[test]
fn kill_is_killed() {
    sweep(Verb::Kill, Shape::Plain, LONER);
}

#[test]
fn delete_is_killed() {
    sweep(Verb::Delete, Shape::Plain, LONER);
}

#[test]
fn delete_of_much_is_killed() {
    sweep(Verb::Delete, Shape::Rich, USER);
}

#[test]
fn pause_is_killed() {
    sweep(Verb::Pause, Shape::Plain, LONER);
}

#[test]
fn resume_is_killed() {
    sweep(Verb::Resume, Shape::Plain, LONER);
}
