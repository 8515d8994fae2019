//! Annotations `org.systemd.property.NAME` as properties of the unit: pure.
//!
//! The caller of the runtime is trusted with them; who passes annotations of others on must not pass these
//! (CVE-2022-0811). Whatever is not wholly understood is refused, nothing is passed on as it is.
use std::collections::HashMap;

use super::wire::Value;
use super::{Error, Property, Result};

const PREFIX: &str = "org.systemd.property.";
/// A property has a word or a short list.
const MAX_TEXT: usize = 64 << 10;
/// No property of a unit nests deeper.
const MAX_DEPTH: usize = 8;
/// What the specification of D-Bus allows.
const MAX_SIGNATURE: usize = 255;

/// The properties that `annotations` ask for, in the order of their names.
///
/// # Errors
/// [`Error::Annotation`] for a name that is not of letters, or a value that is no GVariant text of a basic type,
/// or a list or tuple of such.
pub(super) fn properties(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut all = Vec::new();
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(PREFIX) else { continue };
        let bad = |reason| Error::Annotation { key: key.clone(), reason };
        all.push(property(name, text).map_err(bad)?);
    }
    all.sort_by(|(one, _), (two, _)| one.cmp(two));
    Ok(all)
}

type Parsed<T> = std::result::Result<T, &'static str>;

fn property(name: &str, text: &str) -> Parsed<Property> {
    if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err("a property's name has three letters or more, and nothing else");
    }
    if text.len() > MAX_TEXT {
        return Err("its value is longer than 64 KiB");
    }
    let value = value(text)?;
    // systemd(5) speaks of `TimeoutStopSec`, the bus of `TimeoutStopUSec`.
    match name.strip_suffix("Sec") {
        Some(stem) if stem.ends_with(|last: char| last.is_ascii_lowercase()) => {
            Ok((format!("{stem}USec").into(), microseconds(&value)?))
        }
        _ => Ok((name.to_owned().into(), value)),
    }
}

fn microseconds(value: &Value) -> Parsed<Value> {
    const SECOND: u64 = 1_000_000;
    let negative = "a negative number of seconds";
    let seconds = match value {
        Value::Byte(number) => u64::from(*number),
        Value::U16(number) => u64::from(*number),
        Value::U32(number) => u64::from(*number),
        Value::U64(number) => *number,
        Value::I16(number) => u64::try_from(*number).map_err(|_| negative)?,
        Value::I32(number) => u64::try_from(*number).map_err(|_| negative)?,
        Value::I64(number) => u64::try_from(*number).map_err(|_| negative)?,
        // 2^53 is where a double stops to count by ones: longer than any timeout.
        Value::Double(number) if (0.0..9e9).contains(number) => {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "its range is checked"
            )]
            return Ok(Value::U64((number * 1e6) as u64));
        }
        _ => return Err("a number of seconds is expected"),
    };
    seconds.checked_mul(SECOND).map(Value::U64).ok_or("it is too long a time")
}

/// Parses GVariant's text format.
fn value(text: &str) -> Parsed<Value> {
    let mut parser = Parser { rest: text.trim_start() };
    let value = parser.value(None, 0)?;
    if parser.rest.is_empty() { Ok(value) } else { Err("there is something behind the value") }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Takes `token` and the blanks behind it.
    fn eat(&mut self, token: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(token) else { return false };
        self.rest = rest.trim_start();
        true
    }

    /// Takes characters while they are of a word or a number.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest.trim_start();
        word
    }

    /// One value; `kind` is its signature, where something before it has told.
    fn value(&mut self, kind: Option<&str>, depth: usize) -> Parsed<Value> {
        if depth > MAX_DEPTH {
            return Err("it nests too deep");
        }
        match self.rest.chars().next() {
            None => Err("a value is missing"),
            Some('@') => {
                self.rest = &self.rest[1..];
                let end = self.rest.find(char::is_whitespace).ok_or("a type has no value")?;
                let (signature, rest) = self.rest.split_at(end);
                self.rest = rest.trim_start();
                if signature.len() > MAX_SIGNATURE || first_type(signature) != Some(signature) {
                    return Err("it has an unknown type");
                }
                self.value(Some(signature), depth + 1)
            }
            Some(quote @ ('\'' | '"')) => match kind {
                None | Some("s") => self.string(quote).map(Value::text),
                Some(_) => Err("a string is not of the type that is told"),
            },
            Some('[') => self.array(kind, depth),
            Some('(') => self.tuple(kind, depth),
            Some('<') => {
                self.eat('<');
                let inner = self.value(None, depth + 1)?;
                if !self.eat('>') || kind.is_some_and(|kind| kind != "v") {
                    return Err("a variant is not of the type that is told, or has no end");
                }
                Ok(Value::Variant(inner.into()))
            }
            Some(_) => self.plain(kind, depth),
        }
    }

    /// A number, a boolean, or a type's name before a value.
    fn plain(&mut self, kind: Option<&str>, depth: usize) -> Parsed<Value> {
        let named = match self.word() {
            "true" | "false" if kind.is_some_and(|kind| kind != "b") => {
                return Err("a boolean is not of the type that is told");
            }
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            "boolean" => "b",
            "byte" => "y",
            "int16" => "n",
            "uint16" => "q",
            "int32" => "i",
            "uint32" => "u",
            "int64" => "x",
            "uint64" => "t",
            "double" => "d",
            "string" => "s",
            "" => return Err("it is no GVariant text"),
            word => return number(word, kind),
        };
        if kind.is_some_and(|kind| kind != named) {
            return Err("a value is not of the type that is told");
        }
        self.value(Some(named), depth + 1)
    }

    fn array(&mut self, kind: Option<&str>, depth: usize) -> Parsed<Value> {
        let mut element = match kind {
            None => None,
            Some(kind) => {
                Some(kind.strip_prefix('a').ok_or("a list is not of the type that is told")?.to_owned())
            }
        };
        let mut items = Vec::new();
        self.eat('[');
        while !self.eat(']') {
            if !items.is_empty() && !self.eat(',') {
                return Err("a list has no end");
            }
            let item = self.value(element.as_deref(), depth + 1)?;
            // The first tells the type of all.
            element.get_or_insert_with(|| item.signature());
            items.push(item);
        }
        let element = element.ok_or("an empty list needs its type before it, as in @as []")?;
        Ok(Value::Array(element.into(), items))
    }

    fn tuple(&mut self, kind: Option<&str>, depth: usize) -> Parsed<Value> {
        const OTHER: &str = "a tuple is not of the type that is told";
        let mut kinds = match kind {
            None => None,
            Some(kind) => Some(kind.strip_prefix('(').and_then(|kind| kind.strip_suffix(')')).ok_or(OTHER)?),
        };
        let mut fields = Vec::new();
        self.eat('(');
        while !self.eat(')') {
            if !fields.is_empty() && !self.eat(',') {
                return Err("a tuple has no end");
            }
            let one = match &mut kinds {
                None => None,
                Some(rest) => {
                    let one = first_type(rest).ok_or(OTHER)?;
                    *rest = &rest[one.len()..];
                    Some(one)
                }
            };
            fields.push(self.value(one, depth + 1)?);
        }
        if fields.is_empty() || kinds.is_some_and(|rest| !rest.is_empty()) {
            return Err(OTHER);
        }
        Ok(Value::Tuple(fields))
    }

    fn string(&mut self, quote: char) -> Parsed<String> {
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((at, one)) = characters.next() {
            match one {
                '\\' => text.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, 'r')) => '\r',
                    Some((_, same @ ('\\' | '\'' | '"'))) => same,
                    _ => return Err("a string has an unknown escape"),
                }),
                '\0' => return Err("a string holds no NUL"),
                _ if one == quote => {
                    self.rest = self.rest[at + 1..].trim_start();
                    return Ok(text);
                }
                _ => text.push(one),
            }
        }
        Err("a string has no end")
    }
}

/// The first whole type of a signature, of the types that a value here can have.
fn first_type(signature: &str) -> Option<&str> {
    let end = match signature.as_bytes().first()? {
        b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'v' => 1,
        b'a' => 1 + first_type(&signature[1..])?.len(),
        b'(' => {
            let mut at = 1;
            while signature.as_bytes().get(at) != Some(&b')') {
                at += first_type(signature.get(at..)?)?.len();
            }
            at + 1
        }
        _ => return None,
    };
    Some(&signature[..end])
}

/// A number of a type; an integer without one is an int32, as everywhere in GVariant.
fn number(word: &str, kind: Option<&str>) -> Parsed<Value> {
    const NONE: &str = "it is neither a number of its type nor any other value";
    if kind == Some("d") || kind.is_none() && word.contains('.') {
        return word.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double).ok_or(NONE);
    }
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (digits, radix) = match digits.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (digits, 10),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NONE);
    }
    let number = i128::from_str_radix(digits, radix).map_err(|_| NONE)? * sign;
    match kind {
        None | Some("i") => number.try_into().map(Value::I32),
        Some("y") => number.try_into().map(Value::Byte),
        Some("n") => number.try_into().map(Value::I16),
        Some("q") => number.try_into().map(Value::U16),
        Some("u") => number.try_into().map(Value::U32),
        Some("x") => number.try_into().map(Value::I64),
        Some("t") => number.try_into().map(Value::U64),
        Some(_) => return Err(NONE),
    }
    .map_err(|_| "a number is out of the range of its type")
}

#[cfg(test)]
mod tests;
