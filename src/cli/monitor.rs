//! `corten monitor ROOT STATE TASK DRIVER`: what [`Engine::run_task`] starts. It is for nobody at a shell: its standard input
//! is the socket of whoever made the task.
use crate::engine::Engine;
use crate::engine::monitor::task::become_monitor;
use crate::engine::names::Id;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs it. No other verb's arguments are parsed before: tasks wait for this.
pub fn main(argv: &[OsString]) -> ExitCode {
    let [_, _, root, state, task, storage] = argv else {
        eprintln!("Error: corten monitor is not a command for people; see `corten run`");
        return ExitCode::from(super::TOOL_FAILED);
    };
    let Some(id) = task.to_str().and_then(Id::parse) else { return ExitCode::from(super::TOOL_FAILED) };
    let Some(storage) = storage.to_str().and_then(|text| text.parse().ok()) else {
        return ExitCode::from(super::TOOL_FAILED);
    };
    let engine = Engine { storage, ..Engine::new(PathBuf::from(root), PathBuf::from(state)) };
    match become_monitor(engine, id) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever waits was told.
        Err(_) => ExitCode::FAILURE,
    }
}
