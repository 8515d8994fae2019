//! `corten oci VERB …` and `corten-oci VERB …`, the face of runc.
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one verb and returns the exit code that runc would.
pub fn main(_argv: &[OsString]) -> ExitCode {
    eprintln!("corten-oci: no verb is built yet");
    ExitCode::from(1)
}
