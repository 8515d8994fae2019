//! `kill -9` at points spread over the system calls of the runtime's commands: `delete --force` leaves nothing.
//!
//! `scripts/kill-campaign.sh` tries every system call.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use runtime_tests::Fixture;
use runtime_tests::campaign::{Findings, Shape, Stage, Verb, asks_again, points};
use runtime_tests::events::patience;
use runtime_tests::kill_point::{Fault, Victim, run_until};
use std::process::{Command, Stdio};

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
        let mut findings = Findings::new(&format!("kill {verb:?} {shape:?} {who:?}"));
        let count = stage.prepare();
        let whole = run_until(&count.command, Fault::Kill(Victim::Command), None, patience());
        assert_eq!(whole.code, Some(0), "{verb:?} {shape:?} alone: {}", whole.stderr);
        let wrong = stage.settle(count);
        assert!(wrong.is_empty(), "{verb:?} {shape:?} alone: {wrong:?}");
        let total = whole.points;
        assert!(total > 50, "only {total} system call stops seen");
        for point in points(total, 1, phase as u64, victims.len() as u64) {
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
            if asks_again(verb, point) {
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

/// Linux 6.18 kills a process at its birth in a cgroup whose count of uses of `cgroup.kill` is not that of its
/// parent's cgroup; nobody had asked for it.
#[test]
fn a_process_that_the_kernel_killed_at_its_birth_is_made_again() {
    let fixture = Fixture::new();
    let hierarchies = runtime_tests::cgroup::hierarchies();
    let v2 = hierarchies.iter().find(|one| one.controllers.is_empty()).expect("missing need: cgroup v2");
    let parent = v2.mount.join(fixture.token());
    std::fs::create_dir(&parent).unwrap();
    std::fs::write(parent.join("cgroup.kill"), "1").unwrap();
    let within = |command: Command| {
        let mut shell = Command::new("/bin/sh");
        let script = "echo 0 > \"$0\" && exec \"$@\"";
        shell.args(["-c", script]).arg(parent.join("cgroup.procs"));
        shell.arg(command.get_program()).args(command.get_args());
        runtime_tests::run(&mut shell)
    };
    let bundle = fixture.bundle().args(["/bin/true"]);
    within(bundle.run_command(&[])).ok();
    let bundle = fixture.bundle().args(["/bin/sleep", "1000"]);
    within(bundle.create_command(&[])).ok();
    within(fixture.oci(["start", &bundle.id])).ok();
    within(fixture.oci(["exec", &bundle.id, "/bin/true"])).ok();
    fixture.clean_up();
    std::fs::remove_dir(&parent).unwrap();
}

/// Whatever exec had made when its container was taken from it goes with the container.
#[test]
fn exec_into_a_container_that_is_being_deleted_leaves_nothing() {
    let fixture = Fixture::new();
    for _ in 0..4 {
        let bundle = fixture.bundle().args(["/bin/sleep", "1000"]);
        bundle.create().ok();
        bundle.oci("start").ok();
        let exec = || {
            let mut command = fixture.oci(["exec", &bundle.id, "/bin/sleep", "1000"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().unwrap()
        };
        let before: Vec<_> = (0..3).map(|_| exec()).collect();
        let delete = fixture.oci(["delete", "--force", &bundle.id]).spawn().unwrap();
        let after: Vec<_> = (0..3).map(|_| exec()).collect();
        for mut child in before.into_iter().chain([delete]).chain(after) {
            assert!(runtime_tests::command::wait(&mut child, patience()).is_some(), "it does not end");
        }
        fixture.run_oci(["delete", "--force", &bundle.id]).ok();
        fixture.assert_clean();
    }
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

/// Its mounts do not end with it.
#[test]
fn create_among_the_hosts_mounts_is_killed() {
    sweep(Verb::Create, Shape::Shared, MAKER);
}

#[test]
fn delete_among_the_hosts_mounts_is_killed() {
    sweep(Verb::Delete, Shape::Shared, LONER);
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
fn kill_of_much_is_killed() {
    sweep(Verb::Kill, Shape::Rich, LONER);
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
