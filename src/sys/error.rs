//! The error of a system call.
use nix::errno::Errno;

/// A system call that failed: which, on what, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call} {args}: {}", lower_case(errno.desc()))]
pub struct SysError {
    /// Name of the call as in its man page.
    pub call: &'static str,
    /// The arguments that identify the object, for a reader.
    pub args: String,
    /// Why.
    pub errno: Errno,
}

impl SysError {
    /// `map_err(SysError::on("openat", "etc/passwd"))`.
    pub fn on<A: Into<String>>(call: &'static str, args: A) -> impl FnOnce(Errno) -> SysError {
        move |errno| SysError { call, args: args.into(), errno }
    }

    /// The same for `std::io::Error`; an error without an errno is told as EIO.
    pub fn io<A: Into<String>>(call: &'static str, args: A) -> impl FnOnce(std::io::Error) -> SysError {
        move |error| SysError {
            call,
            args: args.into(),
            errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        }
    }
}

/// "No such file or directory" as it reads inside a sentence; callers of runc match it in lower case.
fn lower_case(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}
