//! Where a repository is asked for, and how that is spoken to.
use super::credentials::Keyring;
use super::http::Patience;
use super::origin;
use super::registries::Registries;
use super::tls::Certificates;
use crate::image::reference::Reference;
use std::sync::Arc;

/// Whether a registry must prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVerify {
    /// As registries.conf says of the registry; plain HTTP to this machine if nothing says more.
    #[default]
    Configured,
    /// Always, also to this machine and to registries that registries.conf calls insecure.
    Always,
    /// Never, and a registry that does not speak TLS is spoken to in the clear.
    Never,
}

/// How registries are reached: all that does not depend on the image.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// `registries.conf`: mirrors, blocked registries, short names.
    pub registries: Arc<Registries>,
    pub keyring: Keyring,
    pub certificates: Certificates,
    pub verify: TlsVerify,
    pub patience: Patience,
}

/// How an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// HTTP: only to this machine.
    Plain,
    /// HTTPS with a certificate that is verified.
    Verified,
    /// HTTPS with any certificate, or HTTP if there is no TLS: only where the user or registries.conf says so.
    Any,
}

/// What the configuration says about how an endpoint is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing special.
    Configured,
    /// `insecure = true`
    Insecure,
    /// An URL with its scheme.
    Exactly(Security),
}

impl Wanted {
    /// Of the field `insecure`.
    pub fn of(insecure: bool) -> Wanted {
        if insecure { Wanted::Insecure } else { Wanted::Configured }
    }
}

/// A repository of a registry under which an image is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host[:port]`
    pub registry: String,
    pub repository: String,
    pub security: Security,
    /// It is a mirror: credentials that were given for the registry itself are not for it.
    pub mirror: bool,
}

impl Endpoint {
    /// The place that a reference names itself.
    pub fn of(reference: &Reference, access: &Access) -> Endpoint {
        let (registry, repository) = (reference.registry(), reference.repository());
        Endpoint::at(registry, repository, Wanted::Configured, false, access)
    }

    /// Another place.
    pub fn at(registry: &str, repository: &str, wanted: Wanted, mirror: bool, access: &Access) -> Endpoint {
        let here = origin::is_here(registry);
        let security = match (access.verify, wanted) {
            (_, Wanted::Exactly(security)) => security,
            (TlsVerify::Always, _) => Security::Verified,
            (TlsVerify::Never, _) | (TlsVerify::Configured, Wanted::Insecure) => Security::Any,
            // Nobody else can listen there; but who has put certificates there means TLS.
            _ if here && !access.certificates.has(registry) => Security::Plain,
            _ => Security::Verified,
        };
        Endpoint { registry: registry.to_owned(), repository: repository.to_owned(), security, mirror }
    }

    /// `host[:port]/repository`
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }
}
