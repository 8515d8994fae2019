//! Exit codes and errors.
use crate::world::{IMAGE, World};

#[test]
fn a_command_runs_and_nothing_stays() {
    let world = World::new();
    let outcome = world.once(&[], &["echo", "hello"]).ok();
    assert_eq!(outcome.stdout, "hello\n");
    assert_eq!(outcome.stderr, "");
    world.assert_nothing_left();
}

#[test]
fn exit_codes_are_the_containers() {
    let world = World::new();
    world.once(&[], &["sh", "-c", "exit 7"]).exits(7);
    // The shell is init, and kills a child of its own: 128 + 9.
    world.once(&[], &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).exits(137);
}

#[test]
fn a_missing_command_is_127() {
    let world = World::new();
    world.once(&[], &["no-such-command"]).exits(127).says("no-such-command");
    world.run(&["run", "--name", "stays", IMAGE, "no-such-command"]).exits(127);
    assert_eq!(world.run(&["ps", "-aq"]).ok().stdout, "", "a container that never ran does not stay");
    world.assert_nothing_left();
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let world = World::new();
    world.once(&[], &["/etc/passwd"]).exits(126).says("/etc/passwd");
    world.once(&[], &["/etc"]).exits(126);
}

#[test]
fn a_failure_of_the_tool_is_125() {
    let world = World::new();
    world.run(&["run", "--no-such-flag", IMAGE, "true"]).exits(125).says("no-such-flag");
    world.run(&["run", "--rm", "--pull", "never", "localhost/absent"]).exits(125).says("localhost/absent");
    world.run(&["run", "--rm", "Not A Reference"]).exits(125);
    world.once(&["-u", "99999999999"], &["true"]).exits(125).says("99999999999");
    world.once(&["-u", "nobody-here"], &["true"]).exits(125).says("nobody-here");
    world.once(&["-m", "1m"], &["true"]).exits(125).says("6m");
    world.once(&["--network", "macvlan"], &["true"]).exits(125).says("macvlan");
    world.once(&["-v", "/no/such/path:/x"], &["true"]).exits(125).says("/no/such/path");
    world.once(&["--cpuset-cpus", "4000"], &["true"]).exits(125).says("cpu");
    world.run(&["exec", "nobody", "true"]).exits(125).says("nobody");
    world.assert_nothing_left();
}

#[test]
fn errors_are_printed_once() {
    let world = World::new();
    let outcome = world.once(&[], &["no-such-command"]);
    assert_eq!(outcome.stderr.matches("no-such-command").count(), 1, "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
}

#[test]
fn both_outputs_and_the_input_are_passed_on() {
    let world = World::new();
    let outcome = world.once(&[], &["sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let mut child = world.spawn(&["run", "--rm", "-i", IMAGE, "wc", "-c"]);
    let mut input = child.stdin.take().unwrap();
    // More than any buffer on the way holds.
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        input.write_all(&vec![b'x'; 3_000_000]).unwrap();
    });
    let outcome = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&outcome.stdout).trim(), "3000000");
}

#[test]
fn without_interactive_the_input_is_empty() {
    let world = World::new();
    assert_eq!(world.once(&[], &["cat"]).ok().stdout, "");
}
