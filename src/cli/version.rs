//! `corten version`
use clap::Args;

/// Show the version
#[derive(Debug, Args)]
pub struct VersionArgs {}

/// Runs `corten version`.
pub fn run(_args: &VersionArgs) -> anyhow::Result<u8> {
    println!("corten {}", env!("CARGO_PKG_VERSION"));
    Ok(0)
}
