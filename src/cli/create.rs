//! `corten create`
use super::Context;
use super::container::ContainerArgs;
use crate::engine::create::create;
use clap::Args;

/// Make a container without starting it, and print its id
#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    container: ContainerArgs,
}

/// Runs `corten create`.
pub fn run(args: &CreateArgs, context: &Context) -> anyhow::Result<u8> {
    let request = args.container.request()?;
    let store = context.store()?;
    let image = args.container.resolve(context, &store)?;
    let cidfile = args.container.claim_cidfile()?;
    let (record, _lock) = create(&context.engine, &store, &image, request)?;
    if let Some(file) = cidfile {
        file.keep(&record.id)?;
    }
    println!("{}", record.id);
    Ok(0)
}
