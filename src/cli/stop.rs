//! `corten stop`
use super::{Context, for_each};
use clap::Args;
use std::time::Duration;

/// Stop containers: the stop signal first, then SIGKILL
#[derive(Debug, Args)]
pub struct StopArgs {
    /// How long to wait before SIGKILL [default: what the container was made with, or 10]
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS")]
    time: Option<u32>,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten stop`.
pub fn run(args: &StopArgs, context: &Context) -> anyhow::Result<u8> {
    let timeout = args.time.map(|seconds| Duration::from_secs(seconds.into()));
    for_each(&args.containers, |name| {
        let record = context.engine.find(name)?;
        context.engine.stop(&record, timeout)?;
        println!("{name}");
        Ok(())
    })
}
