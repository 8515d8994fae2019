//! `corten commit`, `corten export` and `corten import`
use super::Context;
use super::archive::Archive;
use super::limits::LimitArgs;
use crate::engine::commit::{Commit, Pause};
use crate::engine::timestamp::Timestamp;
use crate::image::build::{self, Description, Import, Instruction};
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use anyhow::{Context as _, bail};
use clap::{ArgAction, Args};
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

/// Make an image of a container: its image, and what it has changed as one more layer
///
/// What is mounted in the container is not part of it. Prints the image's ID.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// Who made it, for the image's configuration
    #[arg(long, short, value_name = "AUTHOR")]
    author: Option<String>,
    /// Change the image's configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or WORKDIR as
    /// in a Dockerfile
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<Instruction>,
    /// A comment, for the image's history
    #[arg(long, short, value_name = "TEXT", default_value = "")]
    message: String,
    /// Let a running container stand still meanwhile
    #[arg(long, short, value_name = "BOOL", num_args = 0..=1, require_equals = true, action = ArgAction::Set,
        default_value_t = true, default_missing_value = "true")]
    pause: bool,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "NAME")]
    name: Option<Reference>,
}

/// Write the file system of a container into a tar archive
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Write this file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// By name, id or the beginning of the id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Make an image of a root file system in a tar archive
///
/// The archive, plain or packed with gzip or zstd, becomes the image's only layer. Prints the image's ID.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Change the image's configuration, as in a Dockerfile
    #[arg(long, short, value_name = "INSTRUCTION")]
    change: Vec<Instruction>,
    /// A comment, for the image's history
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,
    /// What the file system is for, instead of this host
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    #[command(flatten)]
    limits: LimitArgs,
    /// The archive; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The image's name
    #[arg(value_name = "NAME")]
    name: Option<Reference>,
}

/// Runs `corten commit`.
pub fn commit(args: &CommitArgs, context: &Context) -> anyhow::Result<()> {
    let name = without_digest(args.name.as_ref())?;
    let record = context.engine.find(&args.container)?;
    let image = context.engine.commit(
        &context.store()?,
        &Commit {
            record: &record,
            name,
            changes: &args.change,
            author: args.author.clone(),
            message: args.message.clone(),
            created: created()?,
            pause: if args.pause { Pause::Yes } else { Pause::No },
        },
    )?;
    writeln!(std::io::stdout(), "{}", image.id)?;
    Ok(())
}

/// Runs `corten export`.
pub fn export(args: &ExportArgs, context: &Context) -> anyhow::Result<()> {
    let record = context.engine.find(&args.container)?;
    let mut out = Archive::create(args.output.as_deref())?;
    context.engine.export(&context.store()?, &record, &mut out)?;
    out.finish()
}

/// Runs `corten import`.
pub fn import(args: &ImportArgs, context: &Context) -> anyhow::Result<()> {
    let name = without_digest(args.name.as_ref())?;
    let shown = args.file.to_string_lossy();
    let input = match shown.as_ref() {
        "-" if std::io::stdin().is_terminal() => {
            bail!("standard input is a terminal: name an archive, or pipe one in")
        }
        "-" => {
            File::from(std::io::stdin().as_fd().try_clone_to_owned().context("cannot read standard input")?)
        }
        url if url.starts_with("http://") || url.starts_with("https://") => {
            bail!("corten imports files: fetch {url} first, or pipe it in")
        }
        path => File::open(&args.file).with_context(|| format!("cannot open {path}"))?,
    };
    let platform = args.platform.clone().unwrap_or_else(host_without_level);
    let comment = args.message.clone().unwrap_or_else(|| format!("Imported from {shown}"));
    let description = Description { created: created()?.to_string(), comment, ..Description::default() };
    let image = build::import(
        &context.store()?,
        Import {
            input,
            name,
            platform: &platform,
            changes: &args.change,
            description: &description,
            limits: args.limits.limits(),
        },
    )?;
    writeln!(std::io::stdout(), "{}", image.id)?;
    Ok(())
}

fn without_digest(name: Option<&Reference>) -> anyhow::Result<Option<&Reference>> {
    match name {
        Some(name) if name.digest().is_some() => {
            bail!("{name} has a digest: only a registry gives such names")
        }
        name => Ok(name),
    }
}

/// This host's platform without the level of its processor, of which a file system says nothing.
fn host_without_level() -> Platform {
    let host = Platform::host().to_string();
    let mut parts = host.split('/');
    Platform::new(parts.next().unwrap_or("linux"), parts.next().unwrap_or_default(), None)
}

/// Now, or what `SOURCE_DATE_EPOCH` says (reproducible-builds.org), so that an image can be made again to the byte.
fn created() -> anyhow::Result<Timestamp> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(Timestamp::now()) };
    let seconds = text.to_str().and_then(|text| text.parse::<u32>().ok());
    match seconds {
        Some(seconds) => Ok(Timestamp::from_unix(Duration::from_secs(seconds.into()))),
        None => bail!("SOURCE_DATE_EPOCH is {text:?}: want seconds since 1970"),
    }
}
