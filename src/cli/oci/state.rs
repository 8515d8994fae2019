//! `state`.
use super::argv::Flags;
use super::shown::Shown;
use super::{Context, Outcome, only_id, words_of};
use crate::cli::output;
use crate::runtime::state::State;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Outputs the state of a container
#[derive(Debug, Parser)]
#[command(name = "state", override_usage = "corten-oci state <container-id>")]
struct Words {
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let state = State::load(&context.root, &only_id::<Words>(&words.args)?)?;
    let shown = Shown::new(&state, &context.root, String::new())?;
    // No newline at the end: so does runc.
    output::stdout(output::json(&shown, b"  ")?)?;
    Ok(ExitCode::SUCCESS)
}
