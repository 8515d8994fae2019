//! `corten wait`
use super::{Context, for_each};
use clap::Args;

/// Wait until containers end, and print their exit codes
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten wait`.
pub fn run(args: &WaitArgs, context: &Context) -> anyhow::Result<u8> {
    for_each(&args.containers, |name| {
        let record = context.engine.find(name)?;
        println!("{}", context.engine.wait(&record)?.code);
        Ok(())
    })
}
