//! An errno at points spread over the system calls of the runtime's commands and of their children: no hang, no
//! panic, nothing left after `delete --force`, and the errno is named, or the command has done its work.
//!
//! `scripts/kill-campaign.sh` tries every system call.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use nix::errno::Errno;
use nix::sys::signal::Signal;
use runtime_tests::Fixture;
use runtime_tests::campaign::{Due, Findings, Shape, Stage, Verb, asks_again, is_exhaustive, points};
use runtime_tests::kill_point::{Fault, Trace, run_until};
use runtime_tests::needs::stretched;
use std::time::Duration;

const ERRNOS: [Errno; 7] =
    [Errno::ENOMEM, Errno::ENOSPC, Errno::EIO, Errno::EINTR, Errno::EAGAIN, Errno::EMFILE, Errno::EPERM];

/// Puts an errno at the points of a command. A sample goes round the errnos; all is all of them at each point.
fn sweep(verb: Verb, shape: Shape) {
    let fixture = Fixture::new();
    let mut stage = Stage::new(&fixture, verb, shape);
    let mut findings = Findings::new(&format!("errno {verb:?} {shape:?}"));
    let count = stage.prepare();
    let whole = run_until(&count.command, Fault::Errno(Errno::EIO), None, stretched(Duration::from_secs(20)));
    assert_eq!(whole.code, Some(0), "{verb:?} {shape:?} alone: {}", whole.stderr);
    let wrong = stage.settle(count);
    assert!(wrong.is_empty(), "{verb:?} {shape:?} alone: {wrong:?}");
    let total = whole.points;
    assert!(total > 20, "only {total} system calls seen");
    // Two seconds are for the runtime; tracing costs more than it does, and other tests run beside it.
    let within = stretched(Duration::from_secs(2)) + whole.took * 5;
    for (index, point) in points(total, 3, 1, 2).into_iter().enumerate() {
        let all = if is_exhaustive() { 0..ERRNOS.len() } else { index % 7..index % 7 + 1 };
        for errno in &ERRNOS[all] {
            let due = stage.prepare();
            let trace = run_until(&due.command, Fault::Errno(*errno), Some(point), within);
            let mut wrong: Vec<String> = judge(&stage, &due, &trace, *errno).into_iter().collect();
            wrong.extend(stage.settle(due));
            if asks_again(verb, point) {
                wrong.extend(stage.again());
            }
            if !wrong.is_empty() {
                stage = Stage::new(&fixture, verb, shape);
            }
            let place = trace.struck.unwrap_or_else(|| "past the end".to_owned());
            findings.point(&format!("point {point}, {errno:?} from {place}"), wrong);
        }
    }
    let errnos = if is_exhaustive() { ERRNOS.len() as u64 } else { 1 };
    findings.tell(total * errnos);
    findings.assert_none();
}

/// What was wrong with the end of a command, if anything.
fn judge(stage: &Stage<'_>, due: &Due, trace: &Trace, errno: Errno) -> Option<String> {
    let said = trace.stderr.trim();
    if let Some(hang) = &trace.hang {
        return Some(format!("hangs: {hang}; {said}"));
    }
    let aborted = matches!(trace.signal, Some(Signal::SIGABRT | Signal::SIGSEGV));
    if aborted || matches!(trace.code, Some(101 | 134)) || said.contains("panicked") {
        return Some(format!("panics: {said}"));
    }
    match trace.code {
        // Made, and told so, before its process failed to wait for the start.
        Some(0) if stage.verb == Verb::Create && trace.struck.as_deref() == Some("accept4") => None,
        Some(0) => stage.verify(due),
        Some(_) if names(said, errno) => None,
        Some(code) => Some(format!("exit code {code}, and the errno is not named: {said}")),
        None => Some(format!("ended by {:?}: {said}", trace.signal)),
    }
}

/// Whether a message names an errno, by its words, its symbol or its number.
fn names(message: &str, errno: Errno) -> bool {
    let message = message.to_lowercase();
    [errno.desc().to_lowercase(), format!("{errno:?}").to_lowercase(), format!("os error {}", errno as i32)]
        .iter()
        .any(|name| message.contains(name))
}

#[test]
fn create_meets_errors() {
    sweep(Verb::Create, Shape::Plain);
}

#[test]
fn create_of_much_meets_errors() {
    sweep(Verb::Create, Shape::Rich);
}

#[test]
fn run_meets_errors() {
    sweep(Verb::Run, Shape::Plain);
}

#[test]
fn run_of_much_meets_errors() {
    sweep(Verb::Run, Shape::Rich);
}

#[test]
fn start_meets_errors() {
    sweep(Verb::Start, Shape::Plain);
}

#[test]
fn start_of_much_meets_errors() {
    sweep(Verb::Start, Shape::Rich);
}

#[test]
fn exec_meets_errors() {
    sweep(Verb::Exec, Shape::Plain);
}

#[test]
fn exec_in_much_meets_errors() {
    sweep(Verb::Exec, Shape::Rich);
}

#[test]
fn kill_meets_errors() {
    sweep(Verb::Kill, Shape::Plain);
}

#[test]
fn kill_of_much_meets_errors() {
    sweep(Verb::Kill, Shape::Rich);
}

#[test]
fn delete_meets_errors() {
    sweep(Verb::Delete, Shape::Plain);
}

#[test]
fn delete_of_much_meets_errors() {
    sweep(Verb::Delete, Shape::Rich);
}

#[test]
fn pause_meets_errors() {
    sweep(Verb::Pause, Shape::Plain);
}

#[test]
fn resume_meets_errors() {
    sweep(Verb::Resume, Shape::Plain);
}
