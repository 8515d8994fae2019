//! `corten search`
use super::Context;
use super::images::{Columns, Format, print};
use clap::Args;

/// Find images of this machine by a part of their names
///
/// Registries are not asked: they have no search that all of them speak.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What a name must hold, in upper or lower case
    #[arg(value_name = "TERM")]
    term: String,
    /// Do not shorten IDs
    #[arg(long)]
    no_trunc: bool,
    /// Print at most so many images
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    format: Format,
}

/// Runs `corten search`.
pub fn run(args: &SearchArgs, context: &Context) -> anyhow::Result<()> {
    let term = args.term.to_lowercase();
    let mut images = context.store()?.images()?;
    for image in &mut images {
        image.names.retain(|name| name.to_string().to_lowercase().contains(&term));
    }
    images.retain(|image| !image.names.is_empty());
    images.truncate(args.limit.unwrap_or(usize::MAX));
    print(images, args.format, Columns { whole: args.no_trunc, digests: false })
}
