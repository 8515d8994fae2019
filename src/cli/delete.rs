//! `corten delete`
use super::{Context, for_each};
use clap::Args;

/// Remove containers
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Also running ones, and what a crash left of one; that there is none of that name is no error
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
            result => context.engine.delete(&store, &result?, args.force, args.volumes)?,
        }
        println!("{name}");
        Ok(())
    })
}
