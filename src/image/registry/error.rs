//! What can go wrong between this host and a registry.
use super::credentials::CredentialsError;
use super::origin::{Origin, UrlError};
use crate::error::{ErrorKind, Kind};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What was asked for; every error names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Manifest(Reference),
    /// A configuration or a layer of an image.
    Blob {
        reference: Reference,
        digest: Digest,
    },
    /// A token that the registry wants to see.
    Token {
        reference: Reference,
        realm: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Manifest(reference) => write!(f, "manifest of {reference}"),
            Subject::Blob { reference, digest } => write!(f, "blob {digest} of {reference}"),
            Subject::Token { reference, realm } => write!(f, "token for {reference} from {realm}"),
        }
    }
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("cannot use the stored registry credentials")]
    Credentials(#[source] CredentialsError),
    #[error("cannot read the certificate authorities in {}", path.display())]
    Authorities {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no certificate authority in {} is valid", path.display())]
    NoAuthority { path: PathBuf },
    #[error("cannot fetch the {subject}: cannot look up the host {host:?}")]
    Lookup {
        subject: Arc<Subject>,
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch the {subject}: cannot connect to {origin}")]
    Connect {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch the {subject}: there is no secure connection to {origin}")]
    Tls {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch the {subject}: the connection to {origin} broke")]
    Broken {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("cannot fetch the {subject}: {origin} does not speak HTTP as it should")]
    Http {
        subject: Arc<Subject>,
        origin: Origin,
        #[source]
        source: Box<ureq::Error>,
    },
    #[error("cannot fetch the {subject}: {origin} {what} for {} seconds", after.as_secs_f32())]
    TimedOut { subject: Arc<Subject>, origin: Origin, what: &'static str, after: Duration },
    #[error("cannot fetch the {subject}: cancelled")]
    Cancelled { subject: Arc<Subject> },
    #[error("cannot fetch the {subject}: the registry sent a bad URL")]
    Url {
        subject: Arc<Subject>,
        #[source]
        source: UrlError,
    },
    #[error("cannot fetch the {subject}: {from} redirects to {to}, which is not encrypted")]
    Downgrade { subject: Arc<Subject>, from: Origin, to: Origin },
    #[error("cannot fetch the {subject}: more than {limit} redirects")]
    Redirects { subject: Arc<Subject>, limit: u32 },
    #[error("cannot fetch the {subject}: the token service {realm} is not encrypted")]
    Realm { subject: Arc<Subject>, realm: Origin },
    #[error("cannot fetch the {subject}: the registry wants an authentication that is not supported")]
    Challenge { subject: Arc<Subject> },
    #[error("cannot fetch the {subject}: unauthorized{}{}", said(message), helper(program))]
    Unauthorized { subject: Arc<Subject>, message: String, program: Option<String> },
    #[error("cannot fetch the {subject}: access denied{}", said(message))]
    Denied { subject: Arc<Subject>, message: String },
    #[error("cannot fetch the {subject}: the registry has no such repository")]
    NameUnknown { subject: Arc<Subject> },
    #[error("cannot fetch the {subject}: the registry does not have it")]
    NotFound { subject: Arc<Subject> },
    #[error("cannot fetch the {subject}: the registry answers with status {status}{}", said(message))]
    Status { subject: Arc<Subject>, status: u16, message: String },
    #[error("cannot fetch the {subject}: the answer is larger than {limit} bytes")]
    TooLarge { subject: Arc<Subject>, limit: u64 },
    #[error("cannot fetch the {subject}: the answer is not a token")]
    Token {
        subject: Arc<Subject>,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot fetch the {subject}: the token has characters that no header may carry")]
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
        format!(" (credentials are kept by the helper docker-credential-{program}, which is not called: use --creds)")
    })
}

impl RegistryError {
    /// Whether the same request may well succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self {
            RegistryError::Broken { .. } | RegistryError::Truncated { .. } => true,
            RegistryError::Status { status, .. } => (500..600).contains(status),
            _ => false,
        }
    }
}

impl Kind for RegistryError {
    fn kind(&self) -> ErrorKind {
        use RegistryError as E;
        match self {
            E::Credentials(_) | E::Authorities { .. } | E::NoAuthority { .. } => ErrorKind::InvalidInput,
            E::Lookup { .. }
            | E::Connect { .. }
            | E::Tls { .. }
            | E::Broken { .. }
            | E::Http { .. }
            | E::Status { .. } => ErrorKind::Network,
            E::TimedOut { .. } => ErrorKind::TimedOut,
            E::Cancelled { .. } => ErrorKind::WrongState,
            E::Challenge { .. } => ErrorKind::Unsupported,
            E::Downgrade { .. } | E::Realm { .. } | E::Unauthorized { .. } | E::Denied { .. } => {
                ErrorKind::PermissionDenied
            }
            E::NameUnknown { .. } | E::NotFound { .. } => ErrorKind::NotFound,
            E::TooLarge { .. } => ErrorKind::Exhausted,
            E::Url { .. }
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
