//! `corten rmi`
use super::{Context, for_each};
use crate::engine::names::Id;
use crate::image::store::StoreError;
use clap::Args;
use std::io::Write;

/// Remove names of images, and images with their last name.
///
/// An image that a container uses stays.
#[derive(Debug, Args)]
pub struct RmiArgs {
    /// Names or IDs of images
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// Take all names away, also of an image with several names and of one that a container uses
    #[arg(long, short)]
    pub force: bool,
}

/// Runs `corten rmi`. All images are tried; each that fails is reported.
pub fn run(args: &RmiArgs, context: &Context) -> anyhow::Result<u8> {
    let store = context.store()?;
    // Containers that are gone hold nothing.
    context.engine.sweep_leases(&store)?;
    for_each(&args.images, |image| {
        let removal = store.remove(image, args.force).map_err(|error| with_names(error, context))?;
        let mut out = std::io::stdout().lock();
        for name in &removal.untagged {
            writeln!(out, "Untagged: {}", name.familiar())?;
        }
        for digest in removal.deleted.iter().chain(&removal.layers) {
            writeln!(out, "Deleted: {digest}")?;
        }
        Ok(())
    })
}

/// The store knows containers by their IDs alone.
fn with_names(error: StoreError, context: &Context) -> StoreError {
    match error {
        StoreError::InUse { name, holders } => {
            let named = |id: String| {
                let record = Id::parse(&id).and_then(|id| context.engine.record(&id).ok().flatten());
                record.map_or_else(
                    || id.clone(),
                    |record| format!("{} ({})", record.name, &id[..12.min(id.len())]),
                )
            };
            StoreError::InUse { name, holders: holders.into_iter().map(named).collect() }
        }
        error => error,
    }
}
