//! Go's flags in clap's clothes.
//!
//! runc takes `-no-pivot` for `--no-pivot`, and `--debug=true` for `--debug`; go-runc and shims pass both
//! forms. The words are rewritten before clap sees them.
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Where flags end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flags {
    /// At the first word that is no flag: what follows belongs to someone else.
    Lead,
    /// Nowhere.
    Anywhere,
}

/// Rewrites `words` (without the program's name) for `command`.
pub(super) fn normalise(command: &Command, words: &[OsString], flags: Flags) -> Vec<OsString> {
    let mut out = Vec::with_capacity(words.len() + 1);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" || bytes.len() < 2 || bytes[0] != b'-' {
            let end = bytes == b"--" || flags == Flags::Lead;
            if end && bytes != b"--" {
                // clap, too, must take nothing behind this as a flag.
                out.push("--".into());
            }
            out.push(word.clone());
            if end {
                break;
            }
            continue;
        }
        let Some(flag) = Flag::parse(command, bytes) else {
            // Unknown: clap's business.
            out.push(word.clone());
            continue;
        };
        let value = if flag.takes_value() && flag.value.is_none() { words.next() } else { None };
        out.extend(flag.rewritten(value.map(|word| word.as_bytes())));
    }
    out.extend(words.cloned());
    out
}

/// A flag, with one dash or two.
struct Flag<'a> {
    argument: &'a Arg,
    name: &'a str,
    value: Option<&'a [u8]>,
}

impl<'a> Flag<'a> {
    fn parse(command: &'a Command, word: &'a [u8]) -> Option<Flag<'a>> {
        let body = word.strip_prefix(b"--").or_else(|| word.strip_prefix(b"-"))?;
        let (name, value) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(&body[at + 1..])),
            None => (body, None),
        };
        let argument = command.get_arguments().find(|argument| {
            argument.get_long().is_some_and(|long| long.as_bytes() == name)
                || argument.get_short().is_some_and(|short| name == short.to_string().as_bytes())
        })?;
        Some(Flag { argument, name: argument.get_long()?, value })
    }

    fn takes_value(&self) -> bool {
        matches!(self.argument.get_action(), ArgAction::Set | ArgAction::Append)
    }

    /// A switch with a value becomes the switch or nothing; an odd value is left for clap to refuse. A value in the
    /// next word is joined to its flag: Go takes it whatever it begins with, clap would take `-1` for a flag.
    fn rewritten(&self, next: Option<&[u8]>) -> Option<OsString> {
        let mut word = OsString::from(format!("--{}", self.name));
        match self.value.or(next) {
            Some(b"true" | b"1" | b"t" | b"T" | b"TRUE" | b"True") if !self.takes_value() => {}
            Some(b"false" | b"0" | b"f" | b"F" | b"FALSE" | b"False") if !self.takes_value() => return None,
            Some(value) => {
                word.push("=");
                word.push(OsStr::from_bytes(value));
            }
            None => {}
        }
        Some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(words: &str, flags: Flags) -> String {
        let command = Command::new("x")
            .arg(Arg::new("bundle").long("bundle").short('b'))
            .arg(Arg::new("no-pivot").long("no-pivot").short('p').action(ArgAction::SetTrue));
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let out = normalise(&command, &words, flags);
        out.join(OsStr::new(" ")).into_string().expect("text")
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        assert_eq!(rewrite("-no-pivot -bundle x id", Flags::Anywhere), "--no-pivot --bundle=x id");
        assert_eq!(
            rewrite("--no-pivot=true --no-pivot=false -bundle=y", Flags::Anywhere),
            "--no-pivot --bundle=y"
        );
        assert_eq!(rewrite("--bundle=-no-pivot id", Flags::Anywhere), "--bundle=-no-pivot id", "a value");
        assert_eq!(rewrite("-b -no-pivot id", Flags::Anywhere), "--bundle=-no-pivot id", "a value");
        assert_eq!(rewrite("-b=/x -p=false id", Flags::Anywhere), "--bundle=/x id");
        assert_eq!(rewrite("--unknown -x", Flags::Anywhere), "--unknown -x");
        assert_eq!(rewrite("id -no-pivot", Flags::Anywhere), "id --no-pivot");
        assert_eq!(rewrite("-- -no-pivot", Flags::Anywhere), "-- -no-pivot");
    }

    #[test]
    fn flags_of_the_command_to_run_are_not_ours() {
        assert_eq!(rewrite("-no-pivot id ls -no-pivot", Flags::Lead), "--no-pivot -- id ls -no-pivot");
        assert_eq!(rewrite("id -- ls", Flags::Lead), "-- id -- ls");
    }
}
