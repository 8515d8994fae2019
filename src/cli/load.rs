//! `corten load`
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::limits::LimitArgs;
use crate::image::digest::Digest;
use crate::image::load::{self, Options, Source};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::store::{Store, TakenName};

/// Load images from an archive: an OCI layout (as a tar archive or a directory) or what `docker save` writes.
///
/// Images get the names that the archive gives them, but for those that other images have.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Read this file or layout directory instead of standard input
    #[arg(long, short, value_name = "PATH")]
    pub input: Option<PathBuf>,
    /// Which platform's image to take of an index instead of this host's
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Take names away from the images that have them
    #[arg(long)]
    pub replace: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// What to print
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Text)]
    pub format: Format,
}

/// What `corten load` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line for each name
    Text,
    /// A JSON array with an object for each image
    Json,
}

/// `--format json`
#[derive(Serialize)]
struct Report<'a> {
    id: Digest,
    names: &'a [Reference],
    /// Of the manifest.
    digest: Digest,
}

/// Runs `corten load` on the store under `root`.
pub fn run(args: &LoadArgs, root: &Path) -> anyhow::Result<()> {
    let store = Store::open(root)?;
    let source = match args.input.as_deref() {
        Some(path) if path.is_dir() => Source::Directory(path),
        Some(path) => {
            Source::Stream(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
        }
        None if std::io::stdin().is_terminal() => {
            bail!("standard input is a terminal: name an archive with --input, or pipe one in")
        }
        None => {
            let input = std::io::stdin().as_fd().try_clone_to_owned();
            Source::Stream(File::from(input.context("cannot read standard input")?))
        }
    };
    let mut options = Options { limits: args.limits.limits(), ..Options::default() };
    if let Some(platform) = &args.platform {
        options.platform = platform.clone();
    }
    if args.replace {
        options.taken = TakenName::Move;
    }
    let loaded = load::load(&store, source, &options)?;
    let mut out = std::io::stdout().lock();
    match args.format {
        Format::Json => {
            let reports: Vec<Report<'_>> = loaded
                .iter()
                .map(|loaded| Report {
                    id: loaded.image.id,
                    names: &loaded.names,
                    digest: loaded.image.manifest.digest,
                })
                .collect();
            serde_json::to_writer(&mut out, &reports)?;
            writeln!(out)?;
        }
        Format::Text => {
            for loaded in &loaded {
                if loaded.names.is_empty() {
                    writeln!(out, "Loaded image ID: {}", loaded.image.id)?;
                }
                for name in &loaded.names {
                    writeln!(out, "Loaded image: {}", name.familiar())?;
                }
            }
        }
    }
    let refused: Vec<String> =
        loaded.iter().flat_map(|loaded| &loaded.refused).map(Reference::familiar).collect();
    if !refused.is_empty() {
        bail!("other images have the name {}, and keep it: use --replace, or corten tag", refused.join(", "));
    }
    Ok(())
}
