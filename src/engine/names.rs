//! Ids and names of containers.
use super::error::EngineError;
use crate::sys::random;

/// Hexadecimal digits of an id.
pub const ID_LENGTH: usize = 64;
/// How much of an id people are shown, and what a container's host name is.
pub const SHORT_LENGTH: usize = 12;
/// More than any tool gives; file names end at 255 bytes.
const MAX_NAME: usize = 128;

/// The id of a container: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(String);

impl Id {
    /// A new id; it begins with a letter or has one in its first twelve digits, because a host name of
    /// digits alone is taken for a number by many programs.
    pub fn generate() -> Result<Self, EngineError> {
        loop {
            let mut bytes = [0u8; ID_LENGTH / 2];
            random::fill(&mut bytes)?;
            let mut text = String::with_capacity(ID_LENGTH);
            for byte in bytes {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
                }
            }
            if text[..SHORT_LENGTH].bytes().any(|digit| digit.is_ascii_alphabetic()) {
                return Ok(Self(text));
            }
        }
    }

    /// Reads a whole id; it is what makes a string safe as a file name.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == ID_LENGTH && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_LENGTH]
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lower-case hexadecimal digits alone.
pub fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Checks a name that a user gives: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, as docker and podman.
pub fn validate(name: &str) -> Result<(), EngineError> {
    let wrong = |reason| Err(EngineError::InvalidName { name: name.to_owned(), reason });
    if name.is_empty() {
        return wrong("is empty");
    }
    if name.len() > MAX_NAME {
        return wrong("is longer than 128 characters");
    }
    if !name.as_bytes()[0].is_ascii_alphanumeric() {
        return wrong("does not begin with a letter or a digit");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return wrong("has a character other than letters, digits, '_', '.' and '-'");
    }
    if name.len() == ID_LENGTH && is_hex(name) {
        return wrong("has the form of an id");
    }
    Ok(())
}

/// Words of steel and of what weathers it.
const FIRST: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clear", "coastal", "copper", "crisp", "dry", "early", "even", "firm",
    "golden", "grand", "hardy", "keen", "light", "lucid", "mellow", "mild", "neat", "noble", "plain",
    "quick", "quiet", "russet", "rustic", "sober", "steady", "sturdy", "sunny", "warm",
];
const SECOND: [&str; 32] = [
    "anchor", "anvil", "arch", "beam", "bolt", "bridge", "canal", "cargo", "crane", "deck", "dock", "facade",
    "ferry", "forge", "girder", "harbour", "hull", "ingot", "jetty", "keel", "ladle", "lock", "mast", "pier",
    "plate", "quay", "rail", "rivet", "rudder", "sail", "span", "truss",
];

/// A name for a container that was given none, from eight random bytes' worth of the id.
pub fn generate(id: &Id) -> String {
    let at = |from: usize| usize::from_str_radix(&id.as_str()[from..from + 4], 16).unwrap_or(0);
    format!("{}_{}_{}", FIRST[at(12) % FIRST.len()], SECOND[at(16) % SECOND.len()], &id.as_str()[20..24])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let id = Id::generate().unwrap();
        assert_eq!(Id::parse(id.as_str()), Some(id.clone()));
        assert_ne!(Id::generate().unwrap(), id);
        for wrong in ["", "abc", "../../../../etc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
        validate(&generate(&id)).unwrap();
    }

    #[test]
    fn names() {
        for right in ["a", "web-1", "Web_2.x", "0", &"a".repeat(128)] {
            validate(right).unwrap();
        }
        for wrong in ["", "-a", ".", "..", "a/b", "a b", "ä", "a\n", &"a".repeat(129), &"a".repeat(64)] {
            validate(wrong).unwrap_err();
        }
    }
}
