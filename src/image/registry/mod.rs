//! The client of the distribution protocol (distribution-spec 1.1): manifests and blobs of one repository.
//!
//! Blocking: a pull is a few threads, which share one [`Client`].
//!
//! ```text
//! reference --registries.conf--> endpoints (mirrors, registry) --one Client each--> manifests, blobs
//!                                             credentials, certificates, proxies ----^
//! ```

mod auth;
mod blob;
pub mod challenge;
pub mod credentials;
mod endpoint;
mod error;
mod http;
mod login;
mod meter;
mod origin;
mod proxy;
mod push;
pub mod registries;
mod tls;
mod transport;

#[cfg(test)]
mod tests;

pub use blob::BlobReader;
pub use credentials::Credentials;
pub use endpoint::{Access, Endpoint, TlsVerify};
pub use error::{Object, RegistryError, Subject};
pub use http::{Patience, Source};
pub use login::Login;
pub use origin::UrlError;
pub use push::Uploaded;
pub use registries::{Mirror, NameError, Registries, RegistriesError};
pub use tls::Certificates;

use self::credentials::{Found, Keyring};
use self::endpoint::Security;
use self::http::{Authorization, Request, Response};
use self::origin::{Origin, Scheme, Url};
use self::transport::Transport;
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, MANIFEST_MAX};
use crate::image::reference::Reference;
use serde::Deserialize;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use ureq::http::{Method, header};

type Result<T> = std::result::Result<T, RegistryError>;

/// The largest body of an error, in bytes; more is not read.
const ERROR_MAX: u64 = 64 << 10;
/// The longest that a registry may make a client wait (`Retry-After`).
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What a manifest request accepts.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A manifest or an index as the registry sent it.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub bytes: Vec<u8>,
    /// `Content-Type`
    pub media_type: Option<String>,
    /// Of `bytes`.
    pub digest: Digest,
}

/// Reads and fills one repository of one registry.
pub struct Client {
    transport: Transport,
    patience: Patience,
    endpoint: Endpoint,
    /// The image as its user names it, or the registry.
    of: String,
    /// By tag or digest.
    names: (Option<String>, Option<Digest>),
    keyring: Keyring,
    /// How the endpoint is spoken to; known after the first request.
    origin: Mutex<Option<Origin>>,
    /// The user's credentials; looked for when the registry first asks.
    found: Mutex<Option<Found>>,
    /// What the registry accepted last.
    authorization: Mutex<Option<Authorization>>,
    cancelled: Mutex<bool>,
    cancel: Condvar,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("of", &self.of)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is replaced whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client for the repository of `reference` at one of [`Access::sources`], or at [`Access::primary`];
    /// connects to nothing yet.
    pub fn new(reference: &Reference, endpoint: Endpoint, access: &Access) -> Client {
        let names = (reference.tag().map(str::to_owned), reference.digest().copied());
        Client { names, ..Client::to(endpoint, reference.to_string(), access) }
    }

    fn to(endpoint: Endpoint, of: String, access: &Access) -> Client {
        Client {
            transport: Transport::new(access.patience, access.certificates.clone(), &endpoint),
            patience: access.patience,
            endpoint,
            of,
            names: (None, None),
            keyring: access.keyring.clone(),
            origin: Mutex::new(None),
            found: Mutex::new(None),
            authorization: Mutex::new(None),
            cancelled: Mutex::new(false),
            cancel: Condvar::new(),
        }
    }

    /// Where this client asks.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Makes every request of every thread fail soon.
    pub fn cancel(&self) {
        *lock(&self.cancelled) = true;
        self.cancel.notify_all();
        self.transport.shutdown();
    }

    /// Fetches what the reference names: by its digest if it has one, else by its tag.
    pub fn manifest(&self) -> Result<Fetched> {
        match &self.names {
            (_, Some(digest)) => self.manifest_by_digest(digest),
            (tag, None) => self.fetch_manifest(tag.as_deref().unwrap_or("latest"), None),
        }
    }

    /// Fetches a manifest of the repository; its bytes have that digest.
    pub fn manifest_by_digest(&self, digest: &Digest) -> Result<Fetched> {
        self.fetch_manifest(&digest.to_string(), Some(*digest))
    }

    /// A blob of the repository, from byte `offset`; the reader checks its size, not its digest.
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> BlobReader<'_> {
        self.foreign_blob(descriptor, &[], offset)
    }

    /// A blob that may be elsewhere too: `urls` are tried first, without credentials, and only encrypted.
    pub fn foreign_blob(&self, descriptor: &Descriptor, urls: &[String], offset: u64) -> BlobReader<'_> {
        BlobReader::new(self, self.blob_subject(&descriptor.digest), descriptor, urls, offset)
    }

    /// Fetches a small blob, whose digest is checked here.
    pub fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut reader = self.blob(descriptor, 0);
        let mut bytes = Vec::new();
        let mut buffer = [0; 16 << 10];
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
        let got = Digest::of(&bytes);
        if got != descriptor.digest {
            let subject = self.blob_subject(&descriptor.digest);
            return Err(RegistryError::WrongDigest { subject, want: descriptor.digest, got });
        }
        Ok(bytes)
    }

    /// What an error about a blob calls it.
    pub fn blob_subject(&self, digest: &Digest) -> Arc<Subject> {
        self.subject(Object::Blob(*digest))
    }

    fn subject(&self, object: Object) -> Arc<Subject> {
        let name = self.endpoint.name();
        // The endpoint of a login is the registry.
        let via = (!self.of.starts_with(name.trim_end_matches('/'))).then_some(name);
        Arc::new(Subject { object, of: self.of.clone(), via })
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        // The repository, tags and digests consist of characters that a path may carry.
        let origin = lock(&self.origin).clone();
        let origin = origin.unwrap_or_else(|| Origin::of_registry(&self.endpoint.registry, Scheme::Https));
        Url::new(&origin, format!("/v2/{}/{kind}/{name}", self.endpoint.repository))
    }

    fn fetch_manifest(&self, name: &str, want: Option<Digest>) -> Result<Fetched> {
        let subject = self.subject(Object::Manifest);
        self.origin(&subject)?;
        let url = self.url("manifests", name);
        let request = Request::get(subject.clone(), url).header(header::ACCEPT, ACCEPT);
        let mut failures = 0;
        loop {
            match self.authorized(&request).and_then(|response| read_manifest(&subject, want, response)) {
                Err(error) if error.is_transient() && failures < self.patience.retries => {
                    failures += 1;
                    self.back_off(&error, failures)?;
                }
                result => return result,
            }
        }
    }

    fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Waits before the next attempt, as long as the registry wants; a cancelled client does not.
    fn back_off(&self, error: &RegistryError, failures: u32) -> Result<()> {
        let subject = error.subject().unwrap_or_else(|| self.subject(Object::Manifest));
        let own = self.patience.backoff * 2u32.saturating_pow(failures.min(8).saturating_sub(1));
        let wait = error.retry_after().map_or(own, |after| after.max(own));
        if wait > RETRY_AFTER_MAX {
            return Err(RegistryError::TooBusy { subject, after: wait });
        }
        if self.wait(wait) { Ok(()) } else { Err(RegistryError::Cancelled { subject }) }
    }

    /// Waits so long; `false` if the client is cancelled.
    pub fn wait(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut cancelled = lock(&self.cancelled);
        while !*cancelled {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.cancel.wait_timeout(cancelled, left);
            cancelled = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// How the endpoint is spoken to: one that may be spoken to in the clear is asked once whether it has TLS.
    fn origin(&self, subject: &Arc<Subject>) -> Result<Origin> {
        // Held meanwhile: the other threads wait for the answer.
        let mut known = lock(&self.origin);
        if let Some(origin) = &*known {
            return Ok(origin.clone());
        }
        let of = |scheme| Origin::of_registry(&self.endpoint.registry, scheme);
        let origin = match self.endpoint.security {
            Security::Plain => of(Scheme::Http),
            Security::Verified => of(Scheme::Https),
            Security::Any => {
                let url = Url::new(&of(Scheme::Https), "/v2/".to_owned());
                let request = Request::new(Method::GET, subject.clone(), url);
                match self.transport.send_here(&request) {
                    Err(
                        RegistryError::Tls { .. }
                        | RegistryError::Broken { .. }
                        | RegistryError::Connect { .. }
                        | RegistryError::Http { .. },
                    ) => of(Scheme::Http),
                    answer => answer.map(|_| of(Scheme::Https))?,
                }
            }
        };
        *known = Some(origin.clone());
        Ok(origin)
    }

    /// An answer that brings what was asked for, or the error that it is.
    fn check(&self, subject: &Arc<Subject>, response: Response) -> Result<Response> {
        if matches!(response.status, 200..=299) { Ok(response) } else { Err(self.refused(subject, response)) }
    }

    fn refused(&self, subject: &Arc<Subject>, mut response: Response) -> RegistryError {
        let subject = subject.clone();
        let status = response.status;
        let retry_after = response
            .header(header::RETRY_AFTER)
            // A date means nothing without a clock that agrees; then the usual time is waited.
            .and_then(|text| text.trim().parse().ok().map(Duration::from_secs));
        let Refusal { code, message } = refusal(&mut response);
        let program = match &*lock(&self.found) {
            Some(Found::Helper { program }) => Some(program.clone()),
            _ => None,
        };
        match status {
            401 => RegistryError::Unauthorized { subject, message, program },
            403 => RegistryError::Denied { subject, message },
            404 if code == "NAME_UNKNOWN" => RegistryError::NameUnknown { subject },
            404 => RegistryError::NotFound { subject },
            _ => RegistryError::Status { subject, status, message, retry_after },
        }
    }
}

fn read_manifest(subject: &Arc<Subject>, want: Option<Digest>, mut response: Response) -> Result<Fetched> {
    let bytes = response.body.read_all(MANIFEST_MAX)?;
    let digest = Digest::of(&bytes);
    // A registry that names a digest must send those bytes; one that names another algorithm's does not bind.
    let announced = || response.header("docker-content-digest").and_then(|text| text.parse().ok());
    if let Some(want) = want.or_else(announced).filter(|want| *want != digest) {
        return Err(RegistryError::WrongDigest { subject: subject.clone(), want, got: digest });
    }
    let media_type = response.header(header::CONTENT_TYPE).map(str::to_owned);
    Ok(Fetched { bytes, media_type, digest })
}

#[derive(Default)]
struct Refusal {
    code: String,
    message: String,
}

/// Reads the errors of distribution-spec's "Error Codes"; anything else is no message.
fn refusal(response: &mut Response) -> Refusal {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    // The status says enough if the body cannot be read.
    let Ok(bytes) = response.body.read_all(ERROR_MAX) else { return Refusal::default() };
    let first =
        serde_json::from_slice(&bytes).ok().and_then(|errors: Errors| errors.errors.into_iter().next());
    first.map_or_else(Refusal::default, |error| {
        let text = if error.message.is_empty() { &error.code } else { &error.message };
        Refusal { message: text.chars().take(300).collect(), code: error.code }
    })
}
