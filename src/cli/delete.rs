//! `corten delete`
use super::{Context, for_each};
use anyhow::bail;
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Also running ones, those of tasks, and what a crash left of one; that there is none of that name is no
    /// error
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten delete`.
pub fn run(args: &DeleteArgs, context: &Context) -> anyhow::Result<u8> {
    let store = context.store()?;
    context.engine.sweep(&store)?;
    for_each(&args.containers, |name| {
        match context.engine.find(name) {
            Err(crate::engine::EngineError::NoSuchContainer { .. }) if args.force => return Ok(()),
            result => {
                let record = result?;
                if let (Some(task), false) = (&record.task, args.force) {
                    bail!("container {name} belongs to task {task}; to delete it all the same, use --force");
                }
                context.engine.delete(&store, &record, args.force, args.volumes)?;
            }
        }
        println!("{name}");
        Ok(())
    })
}
