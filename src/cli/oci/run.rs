//! `run`.
use super::argv::Flags;
use super::create::{Attachment, Options, notify_proxy, notify_socket, request};
use super::foreground::Foreground;
use super::{Context, Failure, Outcome, only_id, words_of};
use crate::runtime::create::{CreateRequest, Created, StartMode, create};
use crate::runtime::delete::delete;
use crate::runtime::sd_notify::Proxy;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Creates and runs a container
#[derive(Debug, Parser)]
#[command(name = "run", override_usage = "corten-oci run [command options] <container-id>")]
struct Words {
    #[command(flatten)]
    options: Options,
    /// Detach from the container's process
    #[arg(long, short)]
    detach: bool,
    /// Do not delete the container after it exits
    #[arg(long)]
    keep: bool,
    /// Disable the use of the subreaper used to reap reparented processes
    #[arg(long)]
    no_subreaper: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    let id = only_id::<Words>(&words.args)?;
    let ran = if words.detach { detached(context, id, words) } else { attached(context, id, words) };
    ran.map_err(|error| Failure::of("corten-oci run", error, 1))
}

fn detached(context: &Context, id: String, words: Words) -> anyhow::Result<ExitCode> {
    let mut request = request(context, id.clone(), words.options, Attachment::Detached)?;
    request.start = start_mode();
    let (created, notify) = created(context, &id, request)?;
    let container = started(context, &id, created.start())?;
    if let Some(notify) = notify {
        notify.wait(container.pid, &container.pidfd)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn attached(context: &Context, id: String, words: Words) -> anyhow::Result<ExitCode> {
    let mut request = request(context, id.clone(), words.options, Attachment::Foreground)?;
    request.start = start_mode();
    // Before the container exists: a signal that arrives from here on is for it.
    let foreground = Foreground::prepare(!words.no_subreaper)?;
    let (created, notify) = created(context, &id, request)?;
    let container = started(context, &id, created.start())?;
    let code = foreground.attend(container, notify)?;
    if !words.keep {
        delete(&context.root, &id, false)?;
    }
    Ok(ExitCode::from(code))
}

/// The container before its start, and the notify socket that it asked for.
fn created(context: &Context, id: &str, request: CreateRequest) -> anyhow::Result<(Created, Option<Proxy>)> {
    let created = create(request)?;
    match notify_proxy(context, id) {
        Ok(notify) => Ok((created, notify)),
        Err(error) => {
            // It has its record locked.
            drop(created);
            started(context, id, Err(error))
        }
    }
}

/// With a notify socket the program must wait until the socket is there.
fn start_mode() -> StartMode {
    if notify_socket().is_some() { StartMode::OnCall } else { StartMode::AtOnce }
}

/// A container whose program could not be started is removed again, as if it had not been created.
fn started<T, E>(context: &Context, id: &str, result: Result<T, E>) -> Result<T, E> {
    if result.is_err()
        && let Err(error) = delete(&context.root, id, true)
    {
        // The first error is the one to report.
        tracing::warn!(error = %crate::error::chain(&error), "the container is left behind");
    }
    result
}
