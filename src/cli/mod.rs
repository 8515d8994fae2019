//! The command lines.
use std::ffi::OsString;
use std::process::ExitCode;

pub mod oci;

/// `corten VERB …`, the container tool.
pub fn main(_argv: &[OsString]) -> ExitCode {
    eprintln!("corten: no verb is built yet");
    ExitCode::from(125)
}
