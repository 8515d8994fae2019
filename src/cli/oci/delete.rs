//! `delete`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::error::{ErrorKind, Kind};
use crate::runtime::delete::{self, DeleteError};
use crate::runtime::state;
use crate::sys::regex::Regex;
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
    /// The argument is an extended regular expression (regex(7)): delete all containers whose ids it matches
    #[arg(long)]
    regex: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let given = only_id::<Words>(&words.args)?;
    if words.regex {
        matching(context, &given, words.force)?;
    } else {
        one(context, &given, words.force)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn one(context: &Context, id: &str, force: bool) -> Result<(), DeleteError> {
    match delete::delete(&context.root, id, force) {
        // What was to be removed is not there: that is what the caller wanted.
        Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// All that match, whatever becomes of the others; the first failure is the one to report.
fn matching(context: &Context, expression: &str, force: bool) -> anyhow::Result<()> {
    let expression = Regex::new(expression)?;
    let mut result = Ok(());
    for id in state::ids(&context.root)?.iter().filter(|id| expression.matches(id)) {
        match one(context, id, force) {
            Err(error) if result.is_err() => tracing::warn!("{}", crate::error::chain(&error)),
            Err(error) => result = Err(error),
            Ok(()) => {}
        }
    }
    Ok(result?)
}
