//! Whether a registry accepts credentials (distribution-spec 1.1, "Determining Support").
use super::credentials::{Credentials, Keyring};
use super::endpoint::{Access, Endpoint};
use super::error::Object;
use super::http::Request;
use super::origin::{Scheme, Url};
use super::registries::RegistriesError;
use super::{Client, Origin, Result, lock};
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
        client.origin(&subject)?;
        let origin = lock(&client.origin).clone();
        let origin = origin.unwrap_or_else(|| Origin::of_registry(registry, Scheme::Https));
        let request = Request::get(subject.clone(), Url::new(&origin, "/v2/".to_owned()));
        let mut failures = 0;
        loop {
            match client.authorized(&request) {
                Ok(_) => break,
                Err(error) if error.is_transient() && failures < client.patience.retries => {
                    failures += 1;
                    client.back_off(&error, failures)?;
                }
                Err(error) => return Err(error),
            }
        }
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
