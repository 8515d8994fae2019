//! D-Bus messages as bytes: pure (D-Bus Specification 0.43, "Marshaling" and "Message Format").
use std::borrow::Cow;

/// The longest message that is taken from a peer; systemd's answers have a few hundred bytes.
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// The fixed part of a message: what is needed to know its length.
pub(super) const HEAD: usize = 16;

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(Cow<'static, str>),
    /// Elements of one type, whose signature is needed where there is none.
    Array(Cow<'static, str>, Vec<Value>),
    Tuple(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn text(text: impl Into<Cow<'static, str>>) -> Value {
        Value::Text(text.into())
    }

    /// `ay`
    pub(super) fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().copied().map(Value::Byte).collect())
    }

    /// `au`
    pub(super) fn numbers(numbers: &[u32]) -> Value {
        Value::Array("u".into(), numbers.iter().copied().map(Value::U32).collect())
    }

    /// `a(ss)`
    pub(super) fn pairs(pairs: Vec<(String, String)>) -> Value {
        let pair = |(one, two)| Value::Tuple(vec![Value::text(one), Value::text(two)]);
        Value::Array("(ss)".into(), pairs.into_iter().map(pair).collect())
    }

    /// Its type in the words of the specification.
    pub(super) fn signature(&self) -> String {
        let plain = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Text(_) => "s",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Tuple(fields) => {
                return format!("({})", fields.iter().map(Value::signature).collect::<String>());
            }
        };
        plain.to_owned()
    }
}

/// What a call is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// Bytes in little endian, each value aligned to its size from the beginning.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // What we send is bounded by config.json's own bound, far below 4 GiB.
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        // Ours are short; a configuration's are bounded where they are parsed.
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        macro_rules! number {
            ($number:expr, $size:expr) => {{
                self.align($size);
                self.0.extend($number.to_le_bytes());
            }};
        }
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(flag) => self.u32(u32::from(*flag)),
            Value::I16(number) => number!(number, 2),
            Value::U16(number) => number!(number, 2),
            Value::I32(number) => number!(number, 4),
            Value::U32(number) => self.u32(*number),
            Value::I64(number) => number!(number, 8),
            Value::U64(number) => number!(number, 8),
            Value::Double(number) => number!(number, 8),
            Value::Text(text) => self.text(text),
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
            Value::Tuple(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Array(element, items) => {
                self.u32(0);
                let length_at = self.0.len() - 4;
                // The length does not count the padding before the first element.
                self.align(alignment(element));
                let start = self.0.len();
                items.iter().for_each(|item| self.value(item));
                let length = u32::try_from(self.0.len() - start).unwrap_or(u32::MAX);
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
        }
    }
}

/// Of the first type of a signature.
fn alignment(signature: &str) -> usize {
    match signature.as_bytes().first() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// A method call with its arguments.
pub(super) fn call(serial: u32, call: Call<'_>, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.value(argument));
    let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
    message.length(body.0.len());
    message.u32(serial);
    let fields = [
        (PATH, "o", call.path),
        (INTERFACE, "s", call.interface),
        (MEMBER, "s", call.member),
        (DESTINATION, "s", call.destination),
    ];
    message.u32(0);
    let start = message.0.len();
    for (code, kind, text) in fields {
        message.align(8);
        message.0.push(code);
        message.signature(kind);
        message.text(text);
    }
    if !arguments.is_empty() {
        message.align(8);
        message.0.push(SIGNATURE);
        message.signature("g");
        message.signature(&arguments.iter().map(Value::signature).collect::<String>());
    }
    let length = u32::try_from(message.0.len() - start).unwrap_or(u32::MAX);
    message.0[start - 4..start].copy_from_slice(&length.to_le_bytes());
    message.align(8);
    message.0.extend(body.0);
    message.0
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
// Header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer to the call of this serial number.
    Reply { to: u32 },
    /// The refusal of it.
    Error { to: u32, name: String },
    /// `member` of a signal.
    Signal { member: String },
    /// A call of us, which nobody has a reason for.
    Other,
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub kind: Kind,
    signature: String,
    body: Vec<u8>,
    big_endian: bool,
}

/// What is wrong with a message.
pub(super) type Malformed = &'static str;

/// The length of the whole message, from its fixed part.
pub(super) fn length(head: &[u8; HEAD]) -> Result<usize, Malformed> {
    let reader = Reader { bytes: head, at: 4, big_endian: endian(head)? };
    let (body, fields) = (reader.peek(4), reader.peek(12));
    let all = u64::from(fields).next_multiple_of(8) + u64::from(body) + HEAD as u64;
    usize::try_from(all).ok().filter(|all| *all <= MAX_MESSAGE).ok_or("a message is longer than a mebibyte")
}

/// Parses a whole message.
pub(super) fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
    const SHORT: Malformed = "a message is cut short";
    let head: &[u8; HEAD] = bytes.first_chunk().ok_or(SHORT)?;
    let big_endian = endian(head)?;
    let mut reader = Reader { bytes, at: 12, big_endian };
    let end = reader.peek(12) as usize + HEAD;
    if bytes.len() < end.next_multiple_of(8) {
        return Err(SHORT);
    }
    reader.at = HEAD;
    let (mut name, mut member, mut to, mut signature) = (None, None, None, String::new());
    while reader.at < end {
        reader.align(8);
        let code = reader.byte().ok_or(SHORT)?;
        match reader.signature().ok_or(SHORT)?.as_str() {
            "u" => {
                let number = reader.u32().ok_or(SHORT)?;
                to = if code == REPLY_SERIAL { Some(number) } else { to };
            }
            "g" => {
                let text = reader.signature().ok_or(SHORT)?;
                signature = if code == SIGNATURE { text } else { signature };
            }
            "s" | "o" => {
                let text = reader.text().ok_or(SHORT)?;
                match code {
                    ERROR_NAME => name = Some(text),
                    MEMBER => member = Some(text),
                    _ => {}
                }
            }
            _ => return Err("a header field has an unknown type"),
        }
    }
    let kind = match (head[1], to, name, member) {
        (METHOD_RETURN, Some(to), ..) => Kind::Reply { to },
        (ERROR, Some(to), Some(name), _) => Kind::Error { to, name },
        (SIGNAL, _, _, Some(member)) => Kind::Signal { member },
        _ => Kind::Other,
    };
    let body = bytes[end.next_multiple_of(8)..].to_vec();
    Ok(Message { kind, signature, body, big_endian })
}

fn endian(head: &[u8; HEAD]) -> Result<bool, Malformed> {
    match head[0] {
        b'l' => Ok(false),
        b'B' => Ok(true),
        _ => Err("it does not speak D-Bus"),
    }
}

impl Message {
    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, big_endian: self.big_endian }
    }

    /// The first argument, where it is a string or an object's path, also inside a variant.
    pub(super) fn text(&self) -> Option<String> {
        let mut reader = self.reader();
        let kind = match self.signature.as_str() {
            "v" => reader.signature()?,
            other => other.get(..1)?.to_owned(),
        };
        matches!(kind.as_str(), "s" | "o").then(|| reader.text())?
    }

    /// Path and result of the job, where this is the signal `JobRemoved`.
    pub(super) fn job_removed(&self) -> Option<(String, String)> {
        let ours = matches!(&self.kind, Kind::Signal { member } if member == "JobRemoved");
        if !ours || self.signature != "uoss" {
            return None;
        }
        let mut reader = self.reader();
        let _number = reader.u32()?;
        let job = reader.text()?;
        let _unit = reader.text()?;
        Some((job, reader.text()?))
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let value = self.bytes.get(self.at..)?.first_chunk::<4>().map(|bytes| self.number(*bytes))?;
        self.at += 4;
        Some(value)
    }

    /// A number of the fixed part, which is there.
    fn peek(&self, at: usize) -> u32 {
        self.bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| self.number(*bytes))
    }

    fn number(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        self.take(1)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests;
