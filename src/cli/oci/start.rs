//! `start`.
use super::argv::Flags;
use super::create::notify_proxy;
use super::{Context, Outcome, only_id, words_of};
use crate::runtime::start;
use crate::runtime::state::State;
use crate::sys::pidfd;
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
    let id = only_id::<Words>(&words.args)?;
    // Before the program runs: it may be ready at once.
    let notify = notify_proxy(context, &id)?;
    start::start(&context.root, &id)?;
    if let Some(notify) = notify
        && let Some(init) = State::load(&context.root, &id)?.init
        && let Ok(pidfd) = pidfd::open(init.pid)
        && init.is_alive()?
    {
        notify.wait(init.pid(), pidfd)?;
    }
    Ok(ExitCode::SUCCESS)
}
