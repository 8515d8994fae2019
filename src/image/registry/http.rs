//! One HTTP exchange: deadlines, redirects and bounded bodies.
//!
//! A registry is hostile: it may answer never, for ever, a byte a minute, or send the client elsewhere with
//! its credentials (CVE-2020-15157). Hence each wait has a deadline, a body must keep a pace, and an
//! `Authorization` header goes to the origin that it is for and to no other.
use super::error::{RegistryError, Subject};
use super::origin::{Origin, Scheme, Url};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use ureq::http::{self, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, BodyReader, Timeout};

type Result<T> = std::result::Result<T, RegistryError>;

/// How many redirects are followed.
const REDIRECTS_MAX: u32 = 5;
/// The largest file of certificate authorities, in bytes; Debian's has 220 KiB.
const AUTHORITIES_MAX: u64 = 4 << 20;

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

/// A GET request.
#[derive(Debug, Clone)]
pub struct Request {
    pub subject: Arc<Subject>,
    pub url: Url,
    /// Value of `Accept`, if any.
    pub accept: Option<&'static str>,
    /// Ask for the bytes from here on.
    pub from: Option<u64>,
}

/// An answer of any status; its body is still to be read.
pub struct Response {
    pub status: u16,
    /// Who answered, after redirects.
    pub origin: Origin,
    headers: http::HeaderMap,
    length: Option<u64>,
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
    /// Reads some bytes; 0 is the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let start = Instant::now();
        match self.reader.read(buffer) {
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

/// Host names by `/etc/hosts` and DNS alone, with the failure kept apart from other I/O errors.
#[derive(Debug, Default)]
struct HostResolver(DefaultResolver);

#[derive(Debug, thiserror::Error)]
#[error("lookup failed")]
struct LookupError(#[source] io::Error);

impl Resolver for HostResolver {
    fn resolve(
        &self,
        uri: &http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        crate::sys::resolver::use_builtin_services();
        self.0.resolve(uri, config, timeout).map_err(|error| match error {
            ureq::Error::Io(source) => ureq::Error::Other(Box::new(LookupError(source))),
            ureq::Error::HostNotFound => {
                ureq::Error::Other(Box::new(LookupError(io::ErrorKind::NotFound.into())))
            }
            other => other,
        })
    }
}

/// Connections to a registry and to where it sends us.
pub struct Transport {
    patience: Patience,
    plain: Agent,
    /// Made when it is needed first: it reads the host's certificate authorities.
    encrypted: OnceLock<Agent>,
}

impl Transport {
    pub fn new(patience: Patience) -> Transport {
        // Plain HTTP is spoken on this machine only, so it never goes through a proxy.
        let plain = agent(&patience, TlsConfig::default(), None);
        Transport { patience, plain, encrypted: OnceLock::new() }
    }

    /// Closes every connection; what is being read fails.
    pub fn shutdown(&self) {
        self.plain.clone().shutdown();
        if let Some(agent) = self.encrypted.get() {
            agent.clone().shutdown();
        }
    }

    fn agent(&self, scheme: Scheme) -> Result<&Agent> {
        match (scheme, self.encrypted.get()) {
            (Scheme::Http, _) => Ok(&self.plain),
            (Scheme::Https, Some(agent)) => Ok(agent),
            (Scheme::Https, None) => {
                let tls = TlsConfig::builder().root_certs(authorities()?).build();
                let made = agent(&self.patience, tls, ureq::Proxy::try_from_env());
                // Another thread may have been faster; then its agent is used.
                Ok(self.encrypted.get_or_init(|| made))
            }
        }
    }

    /// Sends a request, and again where the answer redirects to. `authorization` stays with its origin.
    pub fn get(&self, request: &Request, authorization: Option<&Authorization>) -> Result<Response> {
        let mut url = request.url.clone();
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS_MAX {
            // Once another origin had a say, it must not choose a path on the first either.
            authorization = authorization.filter(|authorization| authorization.origin == url.origin);
            let response = self.exchange(request, &url, authorization.map(|a| a.value.as_str()))?;
            if !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let subject = || request.subject.clone();
            let location = response.header(header::LOCATION).unwrap_or("");
            let next =
                url.join(location).map_err(|source| RegistryError::Url { subject: subject(), source })?;
            let plain_is_safe = next.origin.is_loopback() && url.origin.scheme == Scheme::Http;
            if next.origin.scheme == Scheme::Http && !plain_is_safe {
                return Err(RegistryError::Downgrade {
                    subject: subject(),
                    from: url.origin,
                    to: next.origin,
                });
            }
            url = next;
        }
        Err(RegistryError::Redirects { subject: request.subject.clone(), limit: REDIRECTS_MAX })
    }

    fn exchange(&self, request: &Request, url: &Url, authorization: Option<&str>) -> Result<Response> {
        let mut builder = self.agent(url.origin.scheme)?.get(url.to_string());
        if let Some(value) = request.accept {
            builder = builder.header(header::ACCEPT, value);
        }
        if let Some(from) = request.from {
            builder = builder.header(header::RANGE, format!("bytes={from}-"));
        }
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let fail = |error| failure(&request.subject, &url.origin, &self.patience, error);
        let (parts, body) = builder.call().map_err(fail)?.into_parts();
        let length = body.content_length();
        let body = Body {
            reader: body.into_with_config().limit(u64::MAX).reader(),
            subject: request.subject.clone(),
            origin: url.origin.clone(),
            pace: Pace { patience: self.patience, waited: Duration::ZERO, bytes: 0 },
        };
        let origin = url.origin.clone();
        Ok(Response { status: parts.status.as_u16(), origin, headers: parts.headers, length, body })
    }
}

fn agent(patience: &Patience, tls: TlsConfig, proxy: Option<ureq::Proxy>) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls)
        .proxy(proxy)
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_send_request(Some(patience.header))
        .timeout_recv_response(Some(patience.header))
        .timeout_per_read(Some(patience.stall))
        .user_agent(concat!("corten/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default(), HostResolver::default())
}

/// The host's certificate authorities, or Mozilla's that are built in when the host has none.
fn authorities() -> Result<RootCerts> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = chosen {
        return read_authorities(&path);
    }
    for path in [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo
        "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
        "/etc/ssl/ca-bundle.pem",             // openSUSE
        "/etc/ssl/cert.pem",                  // Alpine
    ] {
        let path = Path::new(path);
        if path.exists() {
            return read_authorities(path);
        }
    }
    Ok(RootCerts::WebPki)
}

fn read_authorities(path: &Path) -> Result<RootCerts> {
    let fail = |source| RegistryError::Authorities { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path).map_err(fail)?.take(AUTHORITIES_MAX).read_to_end(&mut pem).map_err(fail)?;
    let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(RegistryError::NoAuthority { path: path.to_owned() });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// Names a failure of the HTTP library after what failed.
fn failure(
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
