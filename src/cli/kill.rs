//! `corten kill`
use super::{Context, for_each};
use crate::engine::options::parse;
use clap::Args;

/// Send a signal to containers
#[derive(Debug, Args)]
pub struct KillArgs {
    /// By name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten kill`.
pub fn run(args: &KillArgs, context: &Context) -> anyhow::Result<u8> {
    let signal = parse::signal("--signal", &args.signal)?;
    for_each(&args.containers, |name| {
        let record = context.engine.find(name)?;
        context.engine.kill(&record, signal)?;
        println!("{name}");
        Ok(())
    })
}
