//! How much a layer may ask for, as flags.
use crate::engine::options::parse;
use crate::image::unpack::Limits;
use clap::Args;

/// What every command that unpacks layers takes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct LimitArgs {
    /// Refuse a layer that is larger than this when it is decompressed, as 20g [default: 128g]. What is free on the
    /// disk is a limit in any case
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_unpacked: Option<u64>,
    /// Refuse a layer that grows to more than N times the size of its blob when it is decompressed; the first 64 MiB
    /// are free [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_ratio: Option<u64>,
}

fn size(text: &str) -> Result<u64, crate::engine::EngineError> {
    // A size has no sign.
    Ok(parse::bytes("--max-unpacked", text)?.unsigned_abs())
}

impl LimitArgs {
    /// The default limits with what was asked for.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.growth.bytes = self.max_unpacked.unwrap_or(limits.growth.bytes);
        limits.growth.ratio = self.max_ratio.unwrap_or(limits.growth.ratio);
        limits
    }

    /// The flags again, for another process of ours.
    pub fn words(&self) -> Vec<String> {
        let word = |flag: &str, value: Option<u64>| value.map(|value| format!("--{flag}={value}"));
        [word("max-unpacked", self.max_unpacked), word("max-ratio", self.max_ratio)]
            .into_iter()
            .flatten()
            .collect()
    }
}
