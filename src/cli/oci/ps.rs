//! `ps`.
use super::argv::Flags;
use super::{Context, Count, Outcome, check_count, id, words_of};
use crate::cli::output;
use crate::runtime::processes;
use crate::runtime::state::State;
use anyhow::Context as _;
use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// Displays the processes running inside a container
#[derive(Debug, Parser)]
#[command(name = "ps", override_usage = "corten-oci ps [command options] <container-id> [ps options]")]
struct Words {
    /// Select one of: table or json
    #[arg(long, short, default_value = "table")]
    format: String,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Lead);
    check_count::<Words>(&words.args, Count::AtLeast(1))?;
    let state = State::load(&context.root, &id(&words.args[0]))?;
    let pids = processes::pids(&state)?;
    match words.format.as_str() {
        // Go writes a list without entries as `null`.
        "json" if pids.is_empty() => output::stdout("null\n")?,
        "json" => output::stdout(serde_json::to_string(&pids)? + "\n")?,
        "table" => output::stdout(run_ps(&words.args[1..], &pids)?)?,
        _ => return Err(anyhow::anyhow!("invalid format option").into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The host's ps(1) with the caller's options, reduced to the container's processes.
fn run_ps(options: &[OsString], pids: &[i32]) -> anyhow::Result<String> {
    let default = [OsString::from("-ef")];
    let options = if options.is_empty() { &default[..] } else { options };
    let done = std::process::Command::new("ps").args(options).output().context("cannot run ps")?;
    let text = String::from_utf8_lossy(&done.stdout);
    anyhow::ensure!(done.status.success(), "ps: {}", String::from_utf8_lossy(&done.stderr).trim());
    filter(&text, pids).context("couldn't find PID field in ps output")
}

/// The header, and the lines whose PID column holds one of `pids`; `None` without such a column.
fn filter(text: &str, pids: &[i32]) -> Option<String> {
    let mut lines = text.lines();
    let header = lines.next()?;
    let column = header.split_whitespace().position(|title| title == "PID")?;
    let ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    Some(std::iter::once(header).chain(lines.filter(ours)).map(|line| format!("{line}\n")).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn lines_are_chosen_by_their_pid_column() {
        let text = "UID        PID  PPID CMD\nroot         1     0 init\nroot        22     1 sleep 1\n";
        let chosen = super::filter(text, &[22]).expect("a PID column");
        assert_eq!(chosen, "UID        PID  PPID CMD\nroot        22     1 sleep 1\n");
        assert_eq!(super::filter("UID CMD\n", &[22]), None);
    }
}
