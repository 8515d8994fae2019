//! `pause`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::runtime::pause;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Suspends all processes inside the container
#[derive(Debug, Parser)]
#[command(name = "pause", override_usage = "corten-oci pause <container-id>")]
struct Words {
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    pause::pause(&context.root, &only_id::<Words>(&words.args)?)?;
    Ok(ExitCode::SUCCESS)
}
