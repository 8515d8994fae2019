//! `corten tag` and `corten untag`
use super::Context;
use crate::image::reference::Reference;
use anyhow::bail;
use clap::Args;

/// Give an image more names
#[derive(Debug, Args)]
pub struct TagArgs {
    /// By name or ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// New names; an image that has one of them loses it
    #[arg(value_name = "NAME", required = true)]
    names: Vec<Reference>,
}

/// Take names away from an image; the image stays
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// By name or ID
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which names; all if none is given
    #[arg(value_name = "NAME")]
    names: Vec<Reference>,
}

/// Runs `corten tag`.
pub fn run(args: &TagArgs, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    for name in &args.names {
        if name.digest().is_some() {
            bail!("{name} has a digest: only a registry gives such names");
        }
    }
    // Held from before it is looked up, so that it is not removed meanwhile.
    let import = store.import()?;
    let image = store.resolve(&args.image)?;
    for name in &args.names {
        import.commit_image(Some(name), &image.manifest)?;
    }
    Ok(())
}

/// Runs `corten untag`.
pub fn untag(args: &UntagArgs, context: &Context) -> anyhow::Result<()> {
    context.store()?.untag(&args.image, &args.names)?;
    Ok(())
}
