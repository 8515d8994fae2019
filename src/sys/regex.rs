//! Extended regular expressions of POSIX (regex(3)).
use std::ffi::{CStr, CString};

/// Longer expressions are refused, in bytes: compiling one may take memory out of proportion to it.
const MAX_EXPRESSION: usize = 1024;
/// No message of regerror(3) is longer.
const MAX_MESSAGE: usize = 256;

/// Why an expression cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("regular expression {expression:?}: {reason}")]
pub struct RegexError {
    expression: String,
    reason: String,
}

/// A compiled expression.
pub struct Regex {
    compiled: libc::regex_t,
}

impl std::fmt::Debug for Regex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Regex").finish_non_exhaustive()
    }
}

impl Regex {
    /// Compiles `expression`.
    ///
    /// # Errors
    /// For one that is none, is longer than 1024 bytes or contains a NUL byte.
    pub fn new(expression: &str) -> Result<Regex, RegexError> {
        let refused = |reason: String| RegexError { expression: expression.into(), reason };
        if expression.len() > MAX_EXPRESSION {
            return Err(refused(format!("longer than {MAX_EXPRESSION} bytes")));
        }
        let text = CString::new(expression).map_err(|_| refused("contains a NUL byte".into()))?;
        // SAFETY: all of its fields are numbers and pointers, for which zero is a value.
        let mut compiled: libc::regex_t = unsafe { std::mem::zeroed() };
        // SAFETY: `text` ends with NUL, and the call writes to `compiled` alone.
        let code =
            unsafe { libc::regcomp(&mut compiled, text.as_ptr(), libc::REG_EXTENDED | libc::REG_NOSUB) };
        if code != 0 {
            let mut message = [0_u8; MAX_MESSAGE];
            // SAFETY: `compiled` is what regcomp(3) left of the same expression; at most the array's length is written.
            unsafe { libc::regerror(code, &compiled, message.as_mut_ptr().cast(), message.len()) };
            let message = CStr::from_bytes_until_nul(&message).unwrap_or_default();
            return Err(refused(message.to_string_lossy().into_owned()));
        }
        Ok(Regex { compiled })
    }

    /// Whether a part of `text` matches; a text with a NUL byte never does.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: `compiled` was compiled without an error and is not freed yet; `text` ends with NUL; with no room for
        // places of matches none are written.
        unsafe { libc::regexec(&self.compiled, text.as_ptr(), 0, std::ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled without an error, freed only here.
        unsafe { libc::regfree(&mut self.compiled) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_text_is_enough() {
        let matches = |expression, text| Regex::new(expression).unwrap().matches(text);
        assert!(matches("test-*", "a-test-1") && matches("^(a|b)+$", "abba") && matches("", "x"));
        assert!(!matches("^test", "a-test") && !matches("a", "b") && !matches("a", "a\0"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for wrong in ["(", "a\0", &"a".repeat(MAX_EXPRESSION + 1)] {
            assert!(Regex::new(wrong).is_err(), "{wrong:?}");
        }
    }
}
