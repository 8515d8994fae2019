//! The client of the distribution protocol (distribution-spec 1.1): manifests and blobs of one repository.
//!
//! Blocking: a pull is a few threads, which share one [`Client`].

mod blob;
pub mod challenge;
pub mod credentials;
mod error;
mod http;
mod origin;

#[cfg(test)]
mod tests;

pub use blob::BlobReader;
pub use credentials::Credentials;
pub use error::{RegistryError, Subject};
pub use http::Patience;
pub use origin::UrlError;

use self::challenge::Challenge;
use self::credentials::Found;
use self::http::{Authorization, Request, Response, Transport};
use self::origin::{Origin, Scheme, Url};
use crate::image::digest::Digest;
use crate::image::manifest::{Descriptor, MANIFEST_MAX};
use crate::image::reference::Reference;
use serde::Deserialize;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use ureq::http::header;

type Result<T> = std::result::Result<T, RegistryError>;

/// The largest answer of a token service, in bytes.
const TOKEN_MAX: u64 = 1 << 20;
/// The largest body of an error, in bytes; more is not read.
const ERROR_MAX: u64 = 64 << 10;

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

/// Reads one repository of one registry.
pub struct Client {
    transport: Transport,
    patience: Patience,
    origin: Origin,
    reference: Reference,
    credentials: Option<Credentials>,
    /// A program that has the credentials and is not called; for the error.
    helper: Option<String>,
    /// What the registry accepted last.
    authorization: Mutex<Option<Authorization>>,
    cancelled: Mutex<bool>,
    cancel: Condvar,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("reference", &self.reference).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each value is replaced whole, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Another registry that has the same repositories, which is asked in place of the one that a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(Origin);

impl Mirror {
    /// Reads `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    ///
    /// # Errors
    /// It is anything else, also if a path follows.
    pub fn parse(text: &str) -> std::result::Result<Mirror, UrlError> {
        let url = Url::parse(text)?;
        match url.to_string().strip_prefix(&url.origin.to_string()) {
            Some("/") => Ok(Mirror(url.origin)),
            _ => Err(UrlError::Malformed { text: text.chars().take(200).collect() }),
        }
    }
}

impl Client {
    /// The same client, asking a mirror; credentials for the registry itself are not for it.
    pub fn through(self, mirror: &Mirror) -> Client {
        Client { origin: mirror.0.clone(), credentials: None, helper: None, ..self }
    }

    /// A client for the repository of `reference`; connects to nothing yet.
    pub fn new(reference: &Reference, credentials: Found, patience: Patience) -> Client {
        let (credentials, helper) = match credentials {
            Found::Credentials(credentials) => (Some(credentials), None),
            Found::Helper { program, .. } => (None, Some(program)),
            Found::Nothing => (None, None),
        };
        Client {
            transport: Transport::new(patience),
            patience,
            origin: Origin::of_registry(reference.registry()),
            reference: reference.clone(),
            credentials,
            helper,
            authorization: Mutex::new(None),
            cancelled: Mutex::new(false),
            cancel: Condvar::new(),
        }
    }

    /// Makes every request of every thread fail soon.
    pub fn cancel(&self) {
        *lock(&self.cancelled) = true;
        self.cancel.notify_all();
        self.transport.shutdown();
    }

    /// Fetches what the reference names: by its digest if it has one, else by its tag.
    pub fn manifest(&self) -> Result<Fetched> {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => self.manifest_by_digest(digest),
            (None, Some(tag)) => self.fetch_manifest(tag, None),
            // A reference has one of the two.
            (None, None) => {
                Err(RegistryError::NotFound { subject: Arc::new(Subject::Manifest(self.reference.clone())) })
            }
        }
    }

    /// Fetches a manifest of the repository; its bytes have that digest.
    pub fn manifest_by_digest(&self, digest: &Digest) -> Result<Fetched> {
        self.fetch_manifest(&digest.to_string(), Some(*digest))
    }

    /// A blob of the repository, from its first byte; the reader checks its size, not its digest.
    pub fn blob(&self, descriptor: &Descriptor) -> BlobReader<'_> {
        let subject = self.blob_subject(descriptor);
        let url = self.url("blobs", &descriptor.digest.to_string());
        BlobReader::new(self, subject, url, descriptor.size)
    }

    /// Fetches a small blob, whose digest is checked here.
    pub fn small_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let mut reader = self.blob(descriptor);
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
            let subject = self.blob_subject(descriptor);
            return Err(RegistryError::WrongDigest { subject, want: descriptor.digest, got });
        }
        Ok(bytes)
    }

    fn blob_subject(&self, descriptor: &Descriptor) -> Arc<Subject> {
        Arc::new(Subject::Blob { reference: self.reference.clone(), digest: descriptor.digest })
    }

    fn url(&self, kind: &str, name: &str) -> Url {
        // The repository, tags and digests consist of characters that a path may carry.
        Url::new(&self.origin, format!("/v2/{}/{kind}/{name}", self.reference.repository()))
    }

    fn fetch_manifest(&self, name: &str, want: Option<Digest>) -> Result<Fetched> {
        let subject = Arc::new(Subject::Manifest(self.reference.clone()));
        let request = Request {
            subject: subject.clone(),
            url: self.url("manifests", name),
            accept: Some(ACCEPT),
            from: None,
        };
        let mut failures = 0;
        loop {
            match self.authorized(&request).and_then(|response| read_manifest(&subject, want, response)) {
                Err(error) if error.is_transient() && failures < self.patience.retries => {
                    failures += 1;
                    self.back_off(&subject, failures)?;
                }
                result => return result,
            }
        }
    }

    fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Waits before the next attempt; a cancelled client does not.
    fn back_off(&self, subject: &Arc<Subject>, failures: u32) -> Result<()> {
        let deadline = Instant::now() + self.patience.backoff * 2u32.saturating_pow(failures.min(8) - 1);
        let mut cancelled = lock(&self.cancelled);
        while !*cancelled {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.cancel.wait_timeout(cancelled, left);
            cancelled = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(RegistryError::Cancelled { subject: subject.clone() })
    }

    /// Sends a request with what the registry accepted last, and once more with what it asks for then.
    fn authorized(&self, request: &Request) -> Result<Response> {
        if *lock(&self.cancelled) {
            return Err(RegistryError::Cancelled { subject: request.subject.clone() });
        }
        let used = lock(&self.authorization).clone();
        let mut response = self.transport.get(request, used.as_ref())?;
        // Only the registry itself may ask for credentials, not where it redirects to.
        if response.status == 401 && response.origin == self.origin {
            let fresh = self.authenticate(request, response, used)?;
            response = self.transport.get(request, Some(&fresh))?;
        }
        self.check(&request.subject, response)
    }

    fn authenticate(
        &self,
        request: &Request,
        response: Response,
        used: Option<Authorization>,
    ) -> Result<Authorization> {
        let mut current = lock(&self.authorization);
        if let Some(fresh) = current.as_ref()
            && used.as_ref().map(|used| &used.value) != Some(&fresh.value)
        {
            // Another thread has just done it.
            return Ok(fresh.clone());
        }
        let challenges: Vec<Challenge> =
            response.header_all(header::WWW_AUTHENTICATE).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match bearer.or(challenges.first()) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.token(&request.subject, realm, service.as_deref(), scope.as_deref())?
            }
            Some(Challenge::Basic) => match &self.credentials {
                Some(credentials) => credentials.basic(),
                None => return Err(self.refused(&request.subject, response)),
            },
            None => return Err(RegistryError::Challenge { subject: request.subject.clone() }),
        };
        let fresh = Authorization { origin: self.origin.clone(), value };
        *current = Some(fresh.clone());
        Ok(fresh)
    }

    /// Fetches a token (distribution's `spec/auth/token.md`).
    fn token(
        &self,
        subject: &Arc<Subject>,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String> {
        let url =
            Url::parse(realm).map_err(|source| RegistryError::Url { subject: subject.clone(), source })?;
        let encrypted = url.origin.scheme == Scheme::Https;
        let stays_here = url.origin.is_loopback() && self.origin.is_loopback();
        if !(encrypted || stays_here) {
            return Err(RegistryError::Realm { subject: subject.clone(), realm: url.origin });
        }
        let default_scope = format!("repository:{}:pull", self.reference.repository());
        let mut query = vec![("scope", scope.unwrap_or(&default_scope))];
        query.extend(service.map(|service| ("service", service)));
        let subject = Arc::new(Subject::Token { reference: self.reference.clone(), realm: url.shown() });
        // To another origin credentials go encrypted or not at all: anybody on this machine can open a port.
        let authorization = self
            .credentials
            .as_ref()
            .filter(|_| encrypted || url.origin == self.origin)
            .map(|credentials| Authorization { origin: url.origin.clone(), value: credentials.basic() });
        let request =
            Request { subject: subject.clone(), url: url.with_query(&query), accept: None, from: None };
        let response = self.transport.get(&request, authorization.as_ref())?;
        let mut response = self.check(&subject, response)?;
        let bytes = response.body.read_all(TOKEN_MAX)?;
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer: Answer = serde_json::from_slice(&bytes)
            .map_err(|source| RegistryError::Token { subject: subject.clone(), source })?;
        let token =
            answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RegistryError::TokenCharacters { subject });
        }
        Ok(format!("Bearer {token}"))
    }

    /// An answer that brings what was asked for, or the error that it is.
    fn check(&self, subject: &Arc<Subject>, response: Response) -> Result<Response> {
        if matches!(response.status, 200 | 206) { Ok(response) } else { Err(self.refused(subject, response)) }
    }

    fn refused(&self, subject: &Arc<Subject>, mut response: Response) -> RegistryError {
        let subject = subject.clone();
        let status = response.status;
        let Refusal { code, message } = refusal(&mut response);
        match status {
            401 => RegistryError::Unauthorized { subject, message, program: self.helper.clone() },
            403 => RegistryError::Denied { subject, message },
            404 if code == "NAME_UNKNOWN" => RegistryError::NameUnknown { subject },
            404 => RegistryError::NotFound { subject },
            _ => RegistryError::Status { subject, status, message },
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
