//! `delete`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::error::{ErrorKind, Kind};
use crate::runtime::delete;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Deletes any resources held by the container, often used with a detached container
#[derive(Debug, Parser)]
#[command(name = "delete", override_usage = "corten-oci delete [command options] <container-id>")]
struct Words {
    /// Forcibly deletes the container if it is still running (uses SIGKILL)
    #[arg(long, short)]
    force: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    match delete::delete(&context.root, &only_id::<Words>(&words.args)?, words.force) {
        // What was to be removed is not there: that is what the caller wanted.
        Err(error) if words.force && error.kind() == ErrorKind::NotFound => Ok(ExitCode::SUCCESS),
        done => {
            done?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
