//! One HTTP exchange: deadlines, redirects and bounded bodies.
//!
//! A registry is hostile: it may answer never, for ever, a byte a minute, or send the client elsewhere with
//! its credentials (CVE-2020-15157). Hence each wait has a deadline, a body must keep a pace, and an
//! `Authorization` header goes to the origin that it is for and to no other.
use super::error::{RegistryError, Subject};
use super::meter::metered;
use super::origin::{Origin, Scheme, Url};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::http::{self, Method, header};
use ureq::{BodyReader, Timeout};

type Result<T> = std::result::Result<T, RegistryError>;

/// How many redirects are followed.
pub const REDIRECTS_MAX: u32 = 5;

/// Deadlines and retries.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the name lookup, and again for connecting with TLS.
    pub connect: Duration,
    /// Until the whole header of an answer is there.
    pub header: Duration,
    /// How long a body may bring no byte.
    pub stall: Duration,
    /// In each window of this length that is spent waiting for a body, it must bring [`Patience::pace`] bytes.
    pub window: Duration,
    /// Bytes for each window.
    pub pace: u64,
    /// How often a transient failure is tried again before any progress.
    pub retries: u32,
    /// Before the first retry; doubled for each further one.
    pub backoff: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            connect: Duration::from_secs(15),
            header: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            window: Duration::from_secs(60),
            pace: 64 << 10,
            retries: 3,
            backoff: Duration::from_millis(250),
        }
    }
}

/// A value of the `Authorization` header, and the only origin that may see it.
#[derive(Clone)]
pub struct Authorization {
    pub origin: Origin,
    pub value: String,
}

/// Bytes that are sent, and sent again from anywhere where it is necessary.
pub trait Source: Sync {
    /// Starts to read at byte `offset`.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl Source for &[u8] {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(&self[offset..]))
    }
}

/// A part of a source.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub source: &'a dyn Source,
    pub from: u64,
    pub length: u64,
    /// Is told of each piece that was taken from the source.
    pub sent: &'a (dyn Fn(u64) + Sync),
}

/// A request.
#[derive(Clone)]
pub struct Request<'a> {
    pub method: Method,
    pub subject: Arc<Subject>,
    pub url: Url,
    pub headers: Vec<(header::HeaderName, String)>,
    /// What a POST, PUT or PATCH sends; nothing if absent.
    pub body: Option<Part<'a>>,
}

impl Request<'_> {
    /// A request without a body.
    pub fn new(method: Method, subject: Arc<Subject>, url: Url) -> Self {
        Request { method, subject, url, headers: Vec::new(), body: None }
    }

    /// A GET request.
    pub fn get(subject: Arc<Subject>, url: Url) -> Self {
        Request::new(Method::GET, subject, url)
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Reads exactly so many bytes; an earlier end is an error, because the length was announced.
pub struct Exactly<'a> {
    pub reader: Box<dyn Read + 'a>,
    pub left: u64,
    pub sent: &'a (dyn Fn(u64) + Sync),
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let count = self.reader.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        (self.sent)(count as u64);
        Ok(count)
    }
}

/// An answer of any status; its body is still to be read.
pub struct Response {
    pub status: u16,
    /// Who answered, after redirects.
    pub origin: Origin,
    pub headers: http::HeaderMap,
    pub length: Option<u64>,
    pub body: Body,
}

impl Response {
    /// The values of a header that are text.
    pub fn header_all(&self, name: http::HeaderName) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
    }

    /// The first value of a header.
    pub fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// `Content-Length`
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

/// A body that must keep its pace.
pub struct Body {
    reader: BodyReader<'static>,
    subject: Arc<Subject>,
    origin: Origin,
    pace: Pace,
}

impl Body {
    pub fn new(
        reader: BodyReader<'static>,
        subject: Arc<Subject>,
        origin: Origin,
        patience: Patience,
    ) -> Body {
        Body { reader, subject, origin, pace: Pace { patience, waited: Duration::ZERO, bytes: 0 } }
    }

    /// Reads some bytes; 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let start = Instant::now();
        match metered(self.pace.patience.window, || self.reader.read(buffer)) {
            Ok(count) => {
                if count > 0 && !self.pace.keeps(start.elapsed(), count) {
                    return Err(RegistryError::TimedOut {
                        subject: self.subject.clone(),
                        origin: self.origin.clone(),
                        what: "sends next to nothing",
                        after: self.pace.patience.window,
                    });
                }
                Ok(count)
            }
            Err(error) => {
                Err(failure(&self.subject, &self.origin, &self.pace.patience, ureq::Error::from(error)))
            }
        }
    }

    /// Reads the whole body, which may have at most `limit` bytes.
    pub fn read_all(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                return Ok(bytes);
            }
            if (bytes.len() + count) as u64 > limit {
                return Err(RegistryError::TooLarge { subject: self.subject.clone(), limit });
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
    }
}

/// Counts the time that is spent waiting, not the time that the reader takes to use what came.
struct Pace {
    patience: Patience,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn keeps(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < self.patience.window {
            return true;
        }
        let kept = self.bytes >= self.patience.pace;
        self.waited = Duration::ZERO;
        self.bytes = 0;
        kept
    }
}

/// Why a host name has no address, kept apart from other I/O errors.
#[derive(Debug, thiserror::Error)]
#[error("lookup failed")]
pub struct LookupError(#[source] pub io::Error);

/// Names a failure of the HTTP library after what failed.
pub fn failure(
    subject: &Arc<Subject>,
    origin: &Origin,
    patience: &Patience,
    error: ureq::Error,
) -> RegistryError {
    use io::ErrorKind as K;
    let subject = subject.clone();
    let origin = origin.clone();
    match error {
        ureq::Error::Timeout(timeout) => {
            let (what, after) = match timeout {
                Timeout::Resolve => ("has had no address", patience.connect),
                Timeout::Connect => ("has accepted no connection", patience.connect),
                Timeout::PerRead => ("has sent nothing", patience.stall),
                Timeout::PerWrite => ("has taken nothing", patience.stall),
                Timeout::RecvBody => ("sends next to nothing", patience.window),
                _ => ("has not answered", patience.header),
            };
            RegistryError::TimedOut { subject, origin, what, after }
        }
        ureq::Error::Other(other) => match other.downcast::<LookupError>() {
            Ok(lookup) => RegistryError::Lookup { subject, host: origin.host().to_owned(), source: lookup.0 },
            Err(other) => {
                RegistryError::Http { subject, origin, source: Box::new(ureq::Error::Other(other)) }
            }
        },
        ureq::Error::Io(source) => match source.kind() {
            K::ConnectionRefused | K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable => {
                RegistryError::Connect { subject, origin, source }
            }
            // What rustls refuses: a certificate, or an answer that is not TLS at all.
            K::InvalidData if origin.scheme == Scheme::Https => {
                RegistryError::Tls { subject, origin, source }
            }
            _ => RegistryError::Broken { subject, origin, source },
        },
        other => RegistryError::Http { subject, origin, source: Box::new(other) },
    }
}
