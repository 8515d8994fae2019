//! The words of a verb: parsed by clap, refused in the words of Go's flag package, which callers match.
use super::argv::{self, Flags};
use super::{Failure, NAME};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::path::PathBuf;

/// What became of the words of a verb.
pub(super) enum Parsed<T> {
    Words(T),
    /// `--help`.
    Help(String),
}

pub(super) fn parse<T: CommandFactory + FromArgMatches>(
    words: &[OsString],
    flags: Flags,
) -> Result<Parsed<T>, Failure> {
    // Of a flag that stands twice the last one counts.
    let mut command = T::command().no_binary_name(true).args_override_self(true);
    let words = argv::normalise(&command, words, flags);
    let error = match command.try_get_matches_from_mut(words) {
        Ok(matches) => match T::from_arg_matches(&matches) {
            Ok(parsed) => return Ok(Parsed::Words(parsed)),
            Err(error) => error,
        },
        Err(error) => error,
    };
    if error.kind() == ErrorKind::DisplayHelp {
        return Ok(Parsed::Help(error.to_string()));
    }
    let message = explain(&error);
    let usage = format!("Incorrect Usage: {message}\n\n{}\n", command.render_help());
    Err(Failure::Usage { message, usage, code: 1 })
}

/// The error in the words of Go's flag package, which callers match.
fn explain(error: &clap::Error) -> String {
    let flag = || match error.get(ContextKind::InvalidArg) {
        // `--bundle <DIR>` or `-x`, with the dashes of the user.
        Some(ContextValue::String(flag)) => flag.split_whitespace().next().unwrap_or_default().to_string(),
        _ => String::new(),
    };
    let value = || match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.clone(),
        _ => String::new(),
    };
    let bare = |flag: String| format!("-{}", flag.trim_start_matches('-'));
    match error.kind() {
        ErrorKind::TooManyValues => {
            format!("invalid boolean value {:?} for {}: parse error", value(), bare(flag()))
        }
        ErrorKind::UnknownArgument => format!("flag provided but not defined: {}", bare(flag())),
        ErrorKind::InvalidValue if value().is_empty() => format!("flag needs an argument: {}", bare(flag())),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            format!("invalid value {:?} for flag {}: parse error", value(), bare(flag()))
        }
        _ => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string()
        }
    }
}

/// Parses the words of a verb; `Err` also for `--help`, which ends the call well.
macro_rules! words_of {
    ($type:ty, $words:expr, $flags:expr) => {
        match super::parse::<$type>($words, $flags)? {
            super::Parsed::Words(parsed) => parsed,
            super::Parsed::Help(text) => return Ok(super::printed(crate::cli::output::stdout(text))),
        }
    };
}
pub(super) use words_of;

/// How many positional words a verb takes.
pub(super) enum Count {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

pub(super) fn check_count<T: CommandFactory>(words: &[OsString], count: Count) -> Result<(), Failure> {
    let (fits, text) = match count {
        Count::Exactly(wanted) => (words.len() == wanted, format!("exactly {wanted}")),
        Count::AtLeast(least) => (words.len() >= least, format!("a minimum of {least}")),
        Count::Between(least, most) => {
            let bound = if words.len() < least {
                format!("minimum of {least}")
            } else {
                format!("maximum of {most}")
            };
            ((least..=most).contains(&words.len()), format!("a {bound}"))
        }
    };
    if fits {
        return Ok(());
    }
    let mut command = T::command();
    let message = format!("{NAME}: {:?} requires {text} argument(s)", command.get_name());
    let usage = format!("Incorrect Usage.\n\n{}\n", command.render_help());
    Err(Failure::Usage { message, usage, code: 1 })
}

/// The only positional word, a container's id.
pub(super) fn only_id<T: CommandFactory>(words: &[OsString]) -> Result<String, Failure> {
    check_count::<T>(words, Count::Exactly(1))?;
    Ok(id(&words[0]))
}

/// An id that is no text is no valid id; the replacement characters make the runtime say so.
pub(super) fn id(word: &OsString) -> String {
    word.to_string_lossy().into_owned()
}

/// A path, or nothing: an empty one is none, as everywhere in runc.
pub(super) fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The path of a flag, if it is given and not empty.
pub(super) fn given(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}
