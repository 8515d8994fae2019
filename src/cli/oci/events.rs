//! `events`.
use super::argv::Flags;
use super::{Context, Outcome, only_id, words_of};
use crate::runtime::state::State;
use clap::Parser;
use std::ffi::OsString;

/// Displays container events such as OOM notifications, cpu, memory, and IO usage statistics
#[derive(Debug, Parser)]
#[command(name = "events", override_usage = "corten-oci events [command options] <container-id>")]
struct Words {
    /// Set the stats collection interval
    #[arg(long, value_name = "DURATION")]
    interval: Option<String>,
    /// Display the container's stats then exit
    #[arg(long)]
    stats: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

/// The words are checked, and the container is looked for, so that a caller's own mistake is told first.
pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let state = State::load(&context.root, &only_id::<Words>(&words.args)?)?;
    let what = if words.stats || words.interval.is_some() { "statistics" } else { "events" };
    Err(anyhow::anyhow!("{what} of container {:?}: events is not built in this version", state.id).into())
}
