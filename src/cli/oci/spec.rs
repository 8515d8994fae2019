//! `spec`.
use super::argv::Flags;
use super::{Count, Outcome, check_count, words_of};
use crate::cli::output;
use crate::runtime::spec;
use anyhow::Context as _;
use clap::Parser;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

/// Creates a new specification file named "config.json" for the bundle
#[derive(Debug, Parser)]
#[command(name = "spec", override_usage = "corten-oci spec [command options]")]
struct Words {
    /// Path to the root of the bundle directory
    #[arg(long, short, value_name = "DIR", value_parser = super::words::path())]
    bundle: Option<PathBuf>,
    /// Generate a configuration for a rootless container
    #[arg(long)]
    rootless: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    check_count::<Words>(&words.args, Count::Exactly(0))?;
    let path = words.bundle.unwrap_or_default().join("config.json");
    let ids = words.rootless.then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    let text = output::json(&spec::Ordered(&spec::template(super::OCI_VERSION, cgroups(), ids)), b"\t")?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o666).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(anyhow::anyhow!("File {} exists. Remove it first", path.display()).into());
        }
        file => file.with_context(|| format!("cannot create {}", path.display()))?,
    };
    file.write_all(&text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn cgroups() -> spec::Cgroups {
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    if unified { spec::Cgroups::Unified } else { spec::Cgroups::Legacy }
}
