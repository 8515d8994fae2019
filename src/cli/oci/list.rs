//! `list`.
use super::argv::Flags;
use super::shown::Shown;
use super::{Context, Outcome, words_of};
use crate::cli::output;
use crate::runtime::state::{self, State, StateError};
use clap::Parser;
use std::ffi::OsString;
use std::io::Read;
use std::process::ExitCode;

/// Lists containers started with the given root
#[derive(Debug, Parser)]
#[command(name = "list", override_usage = "corten-oci list [command options]")]
struct Words {
    /// Select one of: table or json
    #[arg(long, short, default_value = "table")]
    format: String,
    /// Display only container IDs
    #[arg(long, short)]
    quiet: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

/// Largest /etc/passwd that is read for the owners' names, in bytes.
const MAX_PASSWD: u64 = 1024 * 1024;

pub(super) fn main(context: &Context, words: &[OsString]) -> Outcome {
    let words = words_of!(Words, words, Flags::Anywhere);
    super::check_count::<Words>(&words.args, super::Count::Exactly(0))?;
    let states = state::list(&context.root)?;
    let text = match (words.quiet, words.format.as_str()) {
        (true, _) => states.iter().map(|state| format!("{}\n", state.id)).collect(),
        (false, "table") => table(context, &states)?,
        (false, "json") => json(context, &states)?,
        _ => return Err(anyhow::anyhow!("invalid format option").into()),
    };
    output::stdout(text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown<'a>(context: &Context, states: &'a [State]) -> Result<Vec<Shown<'a>>, StateError> {
    let passwd = if states.is_empty() { String::new() } else { read_passwd() };
    states.iter().map(|state| Shown::new(state, &context.root, owner(&passwd, state.owner))).collect()
}

fn table(context: &Context, states: &[State]) -> Result<String, StateError> {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from).to_vec();
    let row = |one: Shown<'_>| {
        vec![
            one.id.to_string(),
            one.pid.to_string(),
            one.status.to_string(),
            one.bundle.display().to_string(),
            one.created.to_string(),
            one.owner,
        ]
    };
    let rows: Vec<_> = std::iter::once(header).chain(shown(context, states)?.into_iter().map(row)).collect();
    Ok(output::table(&rows))
}

/// One line; Go writes a list without entries as `null`.
fn json(context: &Context, states: &[State]) -> anyhow::Result<String> {
    if states.is_empty() {
        return Ok("null\n".into());
    }
    Ok(serde_json::to_string(&shown(context, states)?)? + "\n")
}

fn read_passwd() -> String {
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open("/etc/passwd") {
        // Without names the numbers are shown.
        let _ = file.take(MAX_PASSWD).read_to_string(&mut text);
    }
    text
}

/// The user's name, or `#uid` as runc shows one without a name.
fn owner(passwd: &str, uid: u32) -> String {
    let uid = uid.to_string();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_string())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn owners_have_names_or_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nme:x:1000:1000::/:/bin/sh\n";
        assert_eq!(super::owner(passwd, 0), "root");
        assert_eq!(super::owner(passwd, 1000), "me");
        assert_eq!(super::owner(passwd, 7), "#7");
    }
}
