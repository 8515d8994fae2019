//! `corten rmi`
use clap::Args;
use std::io::Write;
use std::path::Path;

use crate::image::store::Store;

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

/// Runs `corten rmi` on the store under `root`. All images are tried; the last failure is returned.
pub fn run(args: &RmiArgs, root: &Path) -> anyhow::Result<()> {
    let store = Store::open(root)?;
    let mut failure: Option<anyhow::Error> = None;
    for image in &args.images {
        match store.remove(image, args.force) {
            Ok(removal) => {
                let mut out = std::io::stdout().lock();
                for name in &removal.untagged {
                    writeln!(out, "Untagged: {}", name.familiar())?;
                }
                if let Some(id) = removal.deleted {
                    writeln!(out, "Deleted: {id}")?;
                }
            }
            Err(error) => {
                if let Some(earlier) = failure.replace(error.into()) {
                    eprintln!("corten: {earlier:#}");
                }
            }
        }
    }
    failure.map_or(Ok(()), Err)
}
