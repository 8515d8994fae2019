//! `corten inspect`
use super::{Context, report};
use crate::engine::inspect::inspect;
use clap::Args;

/// Show all that is known of containers, as a JSON array in docker's words
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// Runs `corten inspect`.
pub fn run(args: &InspectArgs, context: &Context) -> anyhow::Result<u8> {
    let (mut all, mut code) = (Vec::new(), 0);
    for name in &args.containers {
        match context.engine.find(name).and_then(|record| inspect(&context.engine, &record)) {
            Ok(value) => all.push(value),
            Err(error) => code = report(&error.into()),
        }
    }
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(code)
}
