//! The root file system: mounts and their options, devices, masked and read-only paths, propagation, the console.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod basic;
mod corners;
mod options;
mod owners;
mod shared;
mod tree;

use runtime_tests::{Bundle, Fixture, Outcome, run};
use serde_json::Value;
use std::process::Command;

/// The mount table line of a mount point, as (options, type, super options).
fn mount_of(report: &Value, point: &str) -> (String, String, String) {
    let line = line_of(report, point);
    let (mount, source) = line.split_once(" - ").unwrap();
    let source: Vec<_> = source.split(' ').collect();
    (mount.split(' ').nth(5).unwrap().to_owned(), source[0].to_owned(), source[2].to_owned())
}

/// The last line of the mount table about a mount point.
fn line_of(report: &Value, point: &str) -> String {
    let table = report["mountinfo"].as_str().unwrap();
    table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(point))
        .unwrap_or_else(|| panic!("{point} is not mounted:\n{table}"))
        .to_owned()
}

/// Whether a list separated by commas has the word.
fn has(options: &str, word: &str) -> bool {
    options.split(',').any(|option| option == word)
}

fn report(bundle: Bundle<'_>) -> Value {
    bundle.args(["/probe", "report"]).run().ok().json()
}

/// Runs a shell script in a mount namespace that ends with it: what it mounts, the host never sees.
#[track_caller]
fn in_own_mounts(fixture: &Fixture, script: &str) -> Outcome {
    let mut shell = Command::new("unshare");
    run(shell.args(["-m", "sh", "-c", &format!("set -e; {script}")]).env("CORTEN_TEST", fixture.token()))
}

/// A command as the words of a shell.
fn words(command: &Command) -> String {
    let all = [command.get_program()].into_iter().chain(command.get_args());
    all.map(|word| format!("'{}'", word.to_str().unwrap())).collect::<Vec<_>>().join(" ")
}
