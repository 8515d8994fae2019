//! `start`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::runtime::start;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Executes the user defined process in a created container
#[derive(Debug, Parser)]
#[command(name = "start", override_usage = "corten-oci start <container-id>")]
struct Words {
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    start::start(&context.root, &only_id::<Words>(&words.args)?)?;
    Ok(ExitCode::SUCCESS)
}
