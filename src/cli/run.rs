//! `corten run`
use super::Context;
use super::container::ContainerArgs;
use crate::engine::EngineError;
use crate::engine::client::{Client, Session, terminal_size};
use crate::engine::create::create;
use crate::engine::launch::{Start, launch};
use crate::engine::record::Record;
use crate::engine::signals::Forwarded;
use crate::image::store::Store;
use clap::Args;

/// Run a command in a new container
///
/// Exit codes: the command's; 128 + the signal that ended it; 127 if it is not in the image, 126 if it cannot be
/// executed, 125 if corten failed.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    container: ContainerArgs,
}

/// Runs `corten run`.
pub fn run(args: &RunArgs, context: &Context) -> anyhow::Result<u8> {
    let request = args.container.request()?;
    let store = context.store()?;
    let image = args.container.resolve(context, &store)?;
    let cidfile = args.container.claim_cidfile()?;
    // Before anything is made: from here on an interrupt reaches the container or what cleans up.
    let signals = if args.detach { None } else { Some(Forwarded::catch()?) };
    let (record, lock) = create(&context.engine, &store, &image, request)?;
    let start = Start {
        engine: &context.engine,
        store: &store,
        image: &image,
        foreground: !args.detach,
        keep_failed: false,
        terminal: if args.container.tty() { terminal_size() } else { None },
    };
    let socket = match launch(&start, record.clone(), lock) {
        Ok(socket) => socket,
        Err(error) => return Err(undo(context, &store, &record, error)),
    };
    let client = Client::new(socket, record.id()?);
    match client.started() {
        Err(error @ EngineError::MonitorLost { .. }) => return Err(undo(context, &store, &record, error)),
        result => result?,
    }
    if let Some(file) = cidfile {
        file.keep(&record.id)?;
    }
    drop(image);
    let Some(signals) = signals else {
        println!("{}", record.id);
        return Ok(0);
    };
    let session = Session { stdin: args.container.interactive(), tty: args.container.tty(), signals: true };
    Ok(client.attach(&context.engine, session, &signals)?.code)
}

/// A container that was never started is of no use to anybody.
fn undo(context: &Context, store: &Store, record: &Record, error: EngineError) -> anyhow::Error {
    match context.engine.delete(store, record, true, true) {
        Ok(()) => error.into(),
        Err(left) => anyhow::Error::from(error).context(format!(
            "container {} could not be removed ({})",
            record.name,
            crate::error::chain(&left)
        )),
    }
}
