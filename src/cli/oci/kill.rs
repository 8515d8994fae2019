//! `kill`.
use super::argv::Flags;
use super::{Context, Count, Outcome, check_count, id, words_of};
use crate::runtime::kill;
use clap::Parser;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::process::ExitCode;

/// Sends the specified signal (default: SIGTERM) to the container's init process
#[derive(Debug, Parser)]
#[command(name = "kill", override_usage = "corten-oci kill [command options] <container-id> [signal]")]
struct Words {
    /// Send the specified signal to all processes inside the container
    #[arg(long, short)]
    all: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Lead);
    check_count::<Words>(&words.args, Count::Between(1, 2))?;
    let name = words.args.get(1).map_or("SIGTERM".into(), |word| word.to_string_lossy());
    let signal = signal(&name).ok_or_else(|| anyhow::anyhow!("unknown signal {name:?}"))?;
    kill::kill(&context.root, &id(&words.args[0]), signal, words.all)?;
    Ok(ExitCode::SUCCESS)
}

/// `KILL`, `SIGKILL`, `kill` or `9`; real-time signals by number only, as with runc.
fn signal(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        // 64 is SIGRTMAX; 0 only asks whether the process is there (kill(2)).
        return (0..=64).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse::<Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn signals_have_numbers_and_names() {
        for (name, number) in [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("0", 0), ("34", 34)] {
            assert_eq!(signal(name), Some(number), "{name}");
        }
        for name in ["", "FOO", "-9", "65", "SIG", "SIGSIGKILL", "9 "] {
            assert_eq!(signal(name), None, "{name}");
        }
    }
}
