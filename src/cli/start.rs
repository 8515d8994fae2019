//! `corten start`
use super::{Context, for_each};
use crate::engine::EngineError;
use crate::engine::attach::Streams;
use crate::engine::client::{Client, Session, terminal_size};
use crate::engine::launch::{Start, launch};
use crate::engine::record::Record;
use crate::engine::signals::Forwarded;
use clap::Args;

/// Start containers that do not run
#[derive(Debug, Args)]
pub struct StartArgs {
    /// Stay attached to its output, pass signals on, and return its exit code
    #[arg(short, long)]
    attach: bool,
    /// Pass standard input on; the container must have been made with it
    #[arg(short, long)]
    interactive: bool,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten start`.
pub fn run(args: &StartArgs, context: &Context) -> anyhow::Result<u8> {
    let attach = args.attach || args.interactive;
    match args.containers.as_slice() {
        [one] if attach => {
            let record = context.engine.find(one)?;
            let signals = Forwarded::catch()?;
            let Some(client) = start(context, &record, true)? else {
                return Err(EngineError::WrongState {
                    id: record.name,
                    status: "running".into(),
                    needed: "there is nothing to start; see `corten logs -f`",
                }
                .into());
            };
            let session = Session {
                stdin: args.interactive && record.options.interactive,
                tty: record.options.tty,
                signals: true,
            };
            Ok(client.attach(&context.engine, session, &signals)?.code)
        }
        _ if attach => anyhow::bail!("only one container can be attached to"),
        several => for_each(several, |name| {
            let record = context.engine.find(name)?;
            start(context, &record, false)?;
            println!("{name}");
            Ok(())
        }),
    }
}

/// `None` if it runs already.
fn start(context: &Context, record: &Record, foreground: bool) -> anyhow::Result<Option<Client>> {
    let engine = &context.engine;
    if record.task.is_some() {
        return start_in_task(context, record, foreground);
    }
    engine.settle(record)?;
    let id = record.id()?;
    let Some(lock) = engine.try_lock(&id)? else { return Ok(None) };
    let store = context.store()?;
    let image = store.resolve(&record.image_id).map_err(EngineError::from)?;
    let start = Start {
        engine,
        store: &store,
        image: &image,
        foreground,
        keep_failed: true,
        terminal: if record.options.tty { terminal_size() } else { None },
    };
    let client = Client::new(launch(&start, record.clone(), lock)?, id);
    client.started()?;
    Ok(Some(client))
}

/// The task's monitor starts it.
fn start_in_task(context: &Context, record: &Record, foreground: bool) -> anyhow::Result<Option<Client>> {
    let engine = &context.engine;
    let id = record.id()?;
    if engine.status(&id)?.is_live() {
        return Ok(None);
    }
    engine.start_in_task(record)?;
    if !foreground {
        return Ok(None);
    }
    match Client::connect(engine, &id, Streams { output: true, ..Streams::default() })? {
        Some(client) => Ok(Some(client)),
        None => anyhow::bail!("container {} has ended already; see `corten logs`", record.name),
    }
}
