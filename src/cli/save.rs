//! `corten save`
use super::Context;
use super::archive::{self, Archive};
use crate::image::reference::Reference;
use crate::image::save::{self, Saved};
use crate::image::store::Store;
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Write images into an archive, with their names
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// Write this file, or directory, instead of standard output
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::OciArchive)]
    format: Format,
    /// By name, which is saved with it, or by ID
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// What `corten save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tar archive of an OCI layout: every blob as it is, no digest changes
    OciArchive,
    /// An OCI layout in a new directory
    OciDir,
    /// What every docker and podman loads: plain layers; the image's ID stays, its manifest's digest does not
    DockerArchive,
}

/// Runs `corten save`.
pub fn run(args: &SaveArgs, context: &Context) -> anyhow::Result<()> {
    let store = context.store()?;
    let images = chosen(&store, &args.images)?;
    if args.format == Format::OciDir {
        let Some(output) = &args.output else { bail!("a directory needs --output") };
        return archive::directory(output, |dir| Ok(save::oci_directory(&store, &images, dir)?));
    }
    let mut out = Archive::create(args.output.as_deref())?;
    match args.format {
        Format::DockerArchive => save::docker_archive(&store, &images, &mut out)?,
        Format::OciArchive | Format::OciDir => save::oci_archive(&store, &images, &mut out)?,
    }
    out.finish()
}

/// Each image once, with the names that it was asked by.
fn chosen(store: &Store, given: &[String]) -> anyhow::Result<Vec<Saved>> {
    let mut chosen: Vec<Saved> = Vec::new();
    for text in given {
        let image = store.resolve(text)?;
        let name = text.parse().ok().filter(|name: &Reference| image.names.contains(name));
        match chosen.iter_mut().find(|saved| saved.image.manifest.digest == image.manifest.digest) {
            Some(saved) => saved.names.extend(name.filter(|name| !saved.names.contains(name))),
            None => chosen.push(Saved { image, names: name.into_iter().collect() }),
        }
    }
    Ok(chosen)
}
