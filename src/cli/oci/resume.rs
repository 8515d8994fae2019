//! `resume`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::runtime::pause;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Resumes all processes that have been previously paused
#[derive(Debug, Parser)]
#[command(name = "resume", override_usage = "corten-oci resume <container-id>")]
struct Words {
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    pause::resume(&context.root, &only_id::<Words>(&words.args)?)?;
    Ok(ExitCode::SUCCESS)
}
