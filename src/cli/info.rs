//! `corten info`
use super::Context;
use crate::engine::record::Status;
use crate::runtime::cgroup::Host;
use clap::Args;
use serde_json::json;

/// Show what corten finds on this machine
#[derive(Debug, Args)]
pub struct InfoArgs {}

/// Runs `corten info`.
pub fn run(_args: &InfoArgs, context: &Context) -> anyhow::Result<u8> {
    let engine = &context.engine;
    let (mut total, mut running) = (0u64, 0u64);
    for id in engine.ids()? {
        total += 1;
        running += u64::from(matches!(engine.status(&id)?, Status::Running(_) | Status::Unmonitored(_)));
    }
    let system = nix::sys::utsname::uname()?;
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "root": engine.root,
        "state": engine.state,
        "images": context.store()?.images()?.len(),
        "containers": { "total": total, "running": running },
        "cgroups": format!("{:?}", Host::detect()?.mode()).to_lowercase(),
        "kernel": system.release().to_string_lossy(),
        "architecture": std::env::consts::ARCH,
    });
    println!("{info:#}");
    Ok(0)
}
