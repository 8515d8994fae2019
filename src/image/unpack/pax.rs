//! Extended headers of POSIX.1-2024 pax(1): records `LENGTH KEY=VALUE\n`.
use super::tar::{Time, show};

/// Why an extended header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PaxError {
    #[error("a record has a wrong length")]
    Length,
    #[error("a record has no key or no value")]
    Malformed,
    #[error("key {key:?} comes twice")]
    Duplicate { key: String },
    #[error("key {key:?} has an invalid value")]
    Value { key: String },
    #[error("key {key:?} must not stand in a global header")]
    Global { key: String },
    #[error("key {key:?} is not supported")]
    Unsupported { key: String },
}

type Result<T> = std::result::Result<T, PaxError>;

/// The longest name and the largest value of an attribute (limits.h of Linux).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 64 << 10;

/// What the records of one entry say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: bool,
}

impl Records {
    pub(super) fn parse(body: &[u8]) -> Result<Records> {
        let mut records = Records::default();
        let mut seen = std::collections::HashSet::new();
        for record in split(body) {
            let (key, value) = record?;
            if !seen.insert(key) {
                return Err(PaxError::Duplicate { key: show(key) });
            }
            records.set(key, value)?;
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let invalid = || PaxError::Value { key: show(key) };
        let name = || (!value.is_empty() && !value.contains(&0)).then(|| value.to_vec()).ok_or_else(invalid);
        match key {
            b"path" => self.path = Some(name()?),
            b"linkpath" => self.linkpath = Some(name()?),
            b"size" => self.size = Some(decimal(value).ok_or_else(invalid)?),
            b"uid" => self.uid = Some(decimal(value).ok_or_else(invalid)?),
            b"gid" => self.gid = Some(decimal(value).ok_or_else(invalid)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(invalid)?),
            b"hdrcharset" => match value {
                // The names are bytes here in either case.
                b"BINARY" | b"ISO-IR 10646 2000 UTF-8" => {}
                _ => return Err(invalid()),
            },
            b"SCHILY.realsize" => self.sparse = true,
            _ if key.starts_with(b"GNU.sparse.") => self.sparse = true,
            // Times that layers do not keep, names of owners, and notes.
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.len() > XATTR_NAME_MAX || value.len() > XATTR_SIZE_MAX {
                        return Err(invalid());
                    }
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// A global header is refused if it would change what an entry is, since readers differ in how far it
/// reaches; the notes that `git archive` leaves in one are fine.
pub(super) fn check_global(body: &[u8]) -> Result<()> {
    for record in split(body) {
        let (key, _) = record?;
        let changes =
            matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" | b"hdrcharset")
                || key.starts_with(b"GNU.sparse.")
                || key.starts_with(b"SCHILY.");
        if changes {
            return Err(PaxError::Global { key: show(key) });
        }
    }
    Ok(())
}

/// The keys and values of all records.
fn split(mut body: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if body.is_empty() {
            return None;
        }
        let record = first(body);
        body = record.as_ref().map_or(&[][..], |(_, _, rest)| rest);
        Some(record.map(|(key, value, _)| (key, value)))
    })
}

/// The first record's key and value, and what follows it.
fn first(body: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    // 1 MiB has seven digits.
    let space = body.iter().take(9).position(|&byte| byte == b' ').ok_or(PaxError::Length)?;
    let digits = &body[..space];
    if digits.first().is_none_or(|&first| first == b'0') {
        return Err(PaxError::Length);
    }
    let length = decimal(digits).and_then(|length| usize::try_from(length).ok()).ok_or(PaxError::Length)?;
    if length <= space + 1 || length > body.len() {
        return Err(PaxError::Length);
    }
    let (record, rest) = body.split_at(length);
    let record = record[space + 1..].strip_suffix(b"\n").ok_or(PaxError::Length)?;
    let equals = record.iter().position(|&byte| byte == b'=').ok_or(PaxError::Malformed)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(PaxError::Malformed);
    }
    Ok((key, value, rest))
}

/// Digits only, at most 2^64-1.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`, clamped to what 64 bits hold; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Option<Time> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = point.map_or((text, &b""[..]), |at| (&text[..at], &text[at + 1..]));
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = std::str::from_utf8(whole).ok()?.parse::<i64>().unwrap_or(i64::MAX);
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = digits.fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        // The nanoseconds count forward: -1.25 is -2 and 0.75.
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}
