//! What can go wrong between this host and a registry.
use super::credentials::CredentialsError;
use super::origin::{Origin, UrlError};
use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Object {
    /// A manifest or an index that is fetched.
    Manifest,
    /// A configuration or a layer of an image that is fetched.
    Blob(Digest),
    /// A token that the registry wants to see.
    Token { realm: String },
    /// A manifest or an index that is pushed.
    PushedManifest,
    /// A configuration or a layer of an image that is pushed.
    PushedBlob(Digest),
    /// The registry itself: whether it accepts credentials.
    Login,
}

/// What was asked for, of what and where; every error names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub object: Object,
    /// The image, or the registry where no image is meant.
    pub of: String,
    /// Who is asked, where that is not the registry which the image's name has.
    pub via: Option<String>,
}

impl Subject {
    /// What cannot be done if it fails.
    pub fn task(&self) -> String {
        match &self.object {
            Object::PushedManifest | Object::PushedBlob(_) => format!("push the {self}"),
            Object::Login => format!("log in to {self}"),
            _ => format!("fetch the {self}"),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.of;
        match &self.object {
            Object::Manifest | Object::PushedManifest => write!(f, "manifest of {of}"),
            Object::Blob(digest) | Object::PushedBlob(digest) => write!(f, "blob {digest} of {of}"),
            Object::Token { realm } => write!(f, "token for {of} from {realm}"),
            Object::Login => f.write_str(of),
        }?;
        match &self.via {
            Some(via) => write!(f, " (asked for at {via})"),
            None => Ok(()),
        }
    }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot {}: the stored credentials cannot be used", subject.task())]
    Credentials {
        subject: Arc<Subject>,
        #[source]
        source: Box<CredentialsError>,
    },
    #[error("the environment variable {variable} names no proxy: want http://[USER:PASSWORD@]HOST:PORT")]
    Proxy { variable: &'static str },
    #[error("{} has no private key that can be read without a password", path.display())]
    NoKey { path: PathBuf },
    #[error("the private key {} cannot be used with its certificate", path.display())]
    ClientKey {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("cannot read the certificates in {}", path.display())]
    Authorities {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no certificate in {} is valid", path.display())]
    NoAuthority { path: PathBuf },
    #[error("cannot {}: cannot look up the host {host:?}", subject.task())]
    Lookup {
        subject: Arc<Subject>,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {}: cannot connect to {origin}", subject.task())]
    Connect {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot {}: there is no secure connection to {origin}", subject.task())]
    Tls {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot {}: the connection to {origin} broke", subject.task())]
    Broken {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot {}: {origin} does not speak HTTP as it should", subject.task())]
    Http {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("cannot {}: {origin} {what} for {} seconds", subject.task(), after.as_secs_f32())]
    TimedOut { subject: Arc<Subject>, origin: Origin, what: &'static str, after: Duration },
    #[error("cannot {}: cancelled", subject.task())]
    Cancelled { subject: Arc<Subject> },
    #[error("cannot {}: the registry sent a bad URL", subject.task())]
    Url {
        subject: Arc<Subject>,
        #[source]
        source: UrlError,
    },
    #[error("cannot {}: {from} redirects to {to}, which is not encrypted", subject.task())]
    Downgrade { subject: Arc<Subject>, from: Origin, to: Origin },
    #[error("cannot {}: it is said to be at {origin}, which is not encrypted", subject.task())]
    Foreign { subject: Arc<Subject>, origin: Origin },
    #[error("cannot {}: more than {limit} redirects", subject.task())]
    Redirects { subject: Arc<Subject>, limit: u32 },
    #[error("cannot {}: the token service {realm} is not encrypted", subject.task())]
    Realm { subject: Arc<Subject>, realm: Origin },
    #[error("cannot {}: the registry wants an authentication that is not supported", subject.task())]
    Challenge { subject: Arc<Subject> },
    #[error("cannot {}: unauthorized{}{}", subject.task(), said(message), helper(program))]
    Unauthorized { subject: Arc<Subject>, message: String, program: Option<String> },
    #[error("cannot {}: access denied{}", subject.task(), said(message))]
    Denied { subject: Arc<Subject>, message: String },
    #[error("cannot {}: the registry has no such repository", subject.task())]
    NameUnknown { subject: Arc<Subject> },
    #[error("cannot {}: the registry does not have it", subject.task())]
    NotFound { subject: Arc<Subject> },
    #[error("cannot {}: the registry answers with status {status}{}", subject.task(), said(message))]
    Status {
        subject: Arc<Subject>,
        status: u16,
        message: String,
        /// `Retry-After`
        retry_after: Option<Duration>,
    },
    #[error("cannot {}: the registry wants to be asked again in {} seconds, which is too long to wait", subject.task(), after.as_secs())]
    TooBusy { subject: Arc<Subject>, after: Duration },
    #[error("cannot {}: the registry breaks the upload protocol: {what}", subject.task())]
    Upload { subject: Arc<Subject>, what: &'static str },
    #[error("cannot {}: its bytes cannot be read", subject.task())]
    Source {
        subject: Arc<Subject>,
        #[source]
        source: io::Error,
    },
    #[error("cannot {}: the answer is larger than {limit} bytes", subject.task())]
    TooLarge { subject: Arc<Subject>, limit: u64 },
    #[error("cannot {}: the answer is not a token", subject.task())]
    Token {
        subject: Arc<Subject>,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot {}: the token has characters that no header may carry", subject.task())]
    TokenCharacters { subject: Arc<Subject> },
    #[error("the {subject} is wrong: its digest is {got}, want {want}")]
    WrongDigest { subject: Arc<Subject>, want: Digest, got: Digest },
    #[error("the {subject} has the wrong size: the registry sends {got} bytes, want {want}")]
    WrongSize { subject: Arc<Subject>, want: u64, got: u64 },
    #[error("the {subject} is too long: more than {want} bytes")]
    TooLong { subject: Arc<Subject>, want: u64 },
    #[error("the {subject} is truncated: {got} of {want} bytes")]
    Truncated { subject: Arc<Subject>, want: u64, got: u64 },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": the registry says {message:?}") }
}

fn helper(program: &Option<String>) -> String {
    program.as_ref().map_or_else(String::new, |program| {
        format!(" (the credentials are kept by docker-credential-{program}, which is not in PATH)")
    })
}

impl RegistryError {
    /// Whether the same request may well succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Broken { .. } | RegistryError::Truncated { .. } => true,
            // 501 and 505 are no failures that pass.
            RegistryError::Status { status, .. } => {
                matches!(status, 408 | 429 | 500..=599) && !matches!(status, 501 | 505)
            }
            _ => false,
        }
    }

    /// What the failed request was about.
    pub fn subject(&self) -> Option<Arc<Subject>> {
        match self {
            RegistryError::Broken { subject, .. }
            | RegistryError::Truncated { subject, .. }
            | RegistryError::Status { subject, .. } => Some(subject.clone()),
            _ => None,
        }
    }

    /// How long the registry wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

impl Kind for RegistryError {
    fn kind(&self) -> ErrorKind {
        use RegistryError as E;
        match self {
            E::Credentials { .. }
            | E::Authorities { .. }
            | E::NoAuthority { .. }
            | E::Proxy { .. }
            | E::NoKey { .. }
            | E::ClientKey { .. } => ErrorKind::InvalidInput,
            E::Lookup { .. }
            | E::Connect { .. }
            | E::Tls { .. }
            | E::Broken { .. }
            | E::Http { .. }
            | E::TooBusy { .. }
            | E::Status { .. } => ErrorKind::Network,
            E::Source { .. } => ErrorKind::System,
            E::TimedOut { .. } => ErrorKind::TimedOut,
            E::Cancelled { .. } => ErrorKind::WrongState,
            E::Challenge { .. } => ErrorKind::Unsupported,
            E::Downgrade { .. }
            | E::Foreign { .. }
            | E::Realm { .. }
            | E::Unauthorized { .. }
            | E::Denied { .. } => ErrorKind::PermissionDenied,
            E::NameUnknown { .. } | E::NotFound { .. } => ErrorKind::NotFound,
            E::TooLarge { .. } => ErrorKind::Exhausted,
            E::Url { .. }
            | E::Upload { .. }
            | E::Redirects { .. }
            | E::Token { .. }
            | E::TokenCharacters { .. }
            | E::WrongDigest { .. }
            | E::WrongSize { .. }
            | E::TooLong { .. }
            | E::Truncated { .. } => ErrorKind::Corrupt,
        }
    }
}
