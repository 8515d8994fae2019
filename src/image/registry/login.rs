//! Whether a registry accepts credentials (distribution-spec 1.1, "Determining Support").
use super::credentials::{Credentials, Keyring};
use super::endpoint::{Access, Endpoint};
use super::error::Object;
use super::http::Request;
use super::origin::Url;
use super::registries::RegistriesError;
use super::{Client, Result, lock};
use crate::image::reference::Reference;

/// What a registry said to credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It asked for them, and took them.
    Accepted,
    /// It does not ask.
    NotAsked,
}

impl Client {
    /// Asks a registry, `host[:port]`, whether it accepts credentials.
    ///
    /// # Errors
    /// [`super::RegistryError::Unauthorized`] if it does not; [`super::RegistryError::NotFound`] if it is no registry.
    pub fn log_in(registry: &str, credentials: Credentials, access: &Access) -> Result<Login> {
        let endpoint = Endpoint { repository: String::new(), ..access.of_registry(registry) };
        let access = Access { keyring: Keyring::Given(credentials), ..access.clone() };
        let client = Client::to(endpoint, registry.to_owned(), &access);
        let subject = client.subject(Object::Login);
        let url = Url::new(&client.origin(&subject)?, "/v2/".to_owned());
        client.persistent(&Request::get(subject, url))?;
        let asked = lock(&client.authorization).is_some();
        Ok(if asked { Login::Accepted } else { Login::NotAsked })
    }
}

impl Access {
    /// A registry itself, by what registries.conf says of any repository in it.
    fn of_registry(&self, registry: &str) -> Endpoint {
        let any: std::result::Result<Reference, _> = format!("{registry}/any/image").parse();
        let known = any.ok().map(|reference| self.primary(&reference));
        match known {
            Some(Ok(endpoint)) if endpoint.registry == registry => endpoint,
            _ => Endpoint::at(registry, "", super::endpoint::Wanted::Configured, false, self),
        }
    }

    /// Whether a registry may be spoken to at all.
    ///
    /// # Errors
    /// [`RegistriesError::Blocked`]
    pub fn check_registry(&self, registry: &str) -> std::result::Result<(), RegistriesError> {
        match format!("{registry}/any/image").parse::<Reference>() {
            Ok(reference) => self.primary(&reference).map(drop),
            // Then it has no images either.
            Err(_) => Ok(()),
        }
    }
}
