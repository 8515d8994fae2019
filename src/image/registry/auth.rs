//! What a registry wants to see before it answers: basic credentials or a token (distribution's
//! `spec/auth/token.md` and `spec/auth/oauth.md`).
use super::challenge::{self, Challenge};
use super::credentials::{Credentials, Found, Secret};
use super::error::{Object, RegistryError, Subject};
use super::http::{Authorization, Part, Request, Response};
use super::origin::{Origin, Url};
use super::{Client, Result, lock};
use serde::Deserialize;
use std::sync::Arc;
use ureq::http::{Method, header};

/// The largest answer of a token service, in bytes.
pub(super) const TOKEN_MAX: u64 = 1 << 20;

/// How this program calls itself to a service that takes identity tokens.
const CLIENT_ID: &str = "corten";

impl Client {
    /// Sends a request with what the registry accepted last, and once more with what it asks for then: a token
    /// that expired meanwhile is replaced, also in the middle of a blob.
    pub(super) fn authorized(&self, request: &Request<'_>) -> Result<Response> {
        let response = self.answered(request)?;
        self.check(&request.subject, response)
    }

    /// The same, with an answer of any status.
    pub(super) fn answered(&self, request: &Request<'_>) -> Result<Response> {
        if *lock(&self.cancelled) {
            return Err(RegistryError::Cancelled { subject: request.subject.clone() });
        }
        let origin = self.origin(&request.subject)?;
        let used = lock(&self.authorization).clone();
        let response = self.transport.send(request, used.as_ref())?;
        // Only the registry itself may ask for credentials, not where it redirects to.
        if response.status != 401 || response.origin != origin {
            return Ok(response);
        }
        match self.authenticate(request, &response, used)? {
            Some(fresh) => self.transport.send(request, Some(&fresh)),
            None => Ok(response),
        }
    }

    /// What the registry asks for; nothing if it asks for credentials that there are not.
    fn authenticate(
        &self,
        request: &Request<'_>,
        response: &Response,
        used: Option<Authorization>,
    ) -> Result<Option<Authorization>> {
        let mut current = lock(&self.authorization);
        if let Some(fresh) = current.as_ref()
            && used.as_ref().map(|used| &used.value) != Some(&fresh.value)
        {
            // Another thread has just done it.
            return Ok(Some(fresh.clone()));
        }
        let challenges: Vec<Challenge> =
            response.header_all(header::WWW_AUTHENTICATE).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let value = match bearer.or(challenges.first()) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                self.token(&request.subject, realm, service.as_deref(), scope.as_deref())?
            }
            Some(Challenge::Basic) => match self.credentials(&request.subject)?.and_then(|c| c.basic()) {
                Some(value) => value,
                None => return Ok(None),
            },
            None => return Err(RegistryError::Challenge { subject: request.subject.clone() }),
        };
        let fresh = Authorization { origin: self.origin(&request.subject)?, value };
        *current = Some(fresh.clone());
        Ok(Some(fresh))
    }

    /// The user's credentials for this registry, looked for when they are first needed.
    fn credentials(&self, subject: &Arc<Subject>) -> Result<Option<Credentials>> {
        let mut found = lock(&self.found);
        if found.is_none() {
            let looked = self.keyring.find(&self.endpoint).map_err(|source| RegistryError::Credentials {
                subject: subject.clone(),
                source: Box::new(source),
            })?;
            *found = Some(looked);
        }
        Ok(match &*found {
            Some(Found::Credentials(credentials)) => Some(credentials.clone()),
            _ => None,
        })
    }

    fn token(
        &self,
        subject: &Arc<Subject>,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
    ) -> Result<String> {
        let given = self.credentials(subject)?;
        if let Some(Credentials { secret: Secret::Registry(token), .. }) = &given {
            return bearer(subject, token);
        }
        let origin = self.origin(subject)?;
        let url =
            Url::parse(realm).map_err(|source| RegistryError::Url { subject: subject.clone(), source })?;
        if !self.may_be_told(&origin, &url.origin) {
            return Err(RegistryError::Realm { subject: subject.clone(), realm: url.origin });
        }
        let subject = self.subject(Object::Token { realm: url.shown() });
        // To another origin credentials go encrypted or not at all: anybody on this machine can open a port.
        let credentials = given.filter(|_| url.origin.is_encrypted() || url.origin == origin);
        let default_scope = format!("repository:{}:pull", self.endpoint.repository);
        let scopes: Vec<&str> = match scope {
            Some(scope) => scope.split_ascii_whitespace().collect(),
            // A login asks for nothing but the token.
            None if self.endpoint.repository.is_empty() => Vec::new(),
            None => vec![&default_scope],
        };
        let response = match &credentials {
            Some(Credentials { secret: Secret::Identity(token), .. }) => {
                self.exchange_identity(&subject, url, service, &scopes, token)?
            }
            _ => {
                let mut query: Vec<_> = scopes.iter().map(|scope| ("scope", *scope)).collect();
                query.extend(service.map(|service| ("service", service)));
                let basic = credentials.as_ref().and_then(Credentials::basic);
                let authorization = basic.map(|value| Authorization { origin: url.origin.clone(), value });
                let request = Request::get(subject.clone(), url.with_query(&query));
                self.transport.send(&request, authorization.as_ref())?
            }
        };
        read_token(&subject, self.check(&subject, response)?)
    }

    /// OAuth 2 (RFC 6749, section 6): what `docker login` got from such a service in place of the password.
    fn exchange_identity(
        &self,
        subject: &Arc<Subject>,
        url: Url,
        service: Option<&str>,
        scopes: &[&str],
        token: &str,
    ) -> Result<Response> {
        let scope = scopes.join(" ");
        let mut form = vec![("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("scope", &scope)];
        form.extend(service.map(|service| ("service", service)));
        form.push(("refresh_token", token));
        let form = Url::form(&form);
        let mut request = Request::new(Method::POST, subject.clone(), url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let source = form.as_bytes();
        request.body = Some(Part { source: &source, from: 0, length: form.len() as u64, sent: &|_| {} });
        self.transport.send_here(&request)
    }

    /// Whether `to` may learn what the registry at `from` is told: it is encrypted, or both are this machine, or
    /// the user wants this registry to be spoken to in the clear.
    pub(super) fn may_be_told(&self, from: &Origin, to: &Origin) -> bool {
        to.is_encrypted()
            || to.is_loopback() && from.is_loopback()
            || !from.is_encrypted() && to.host() == from.host()
    }
}

fn read_token(subject: &Arc<Subject>, mut response: Response) -> Result<String> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
    }
    let bytes = response.body.read_all(TOKEN_MAX)?;
    let answer: Answer = serde_json::from_slice(&bytes)
        .map_err(|source| RegistryError::Token { subject: subject.clone(), source })?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
    bearer(subject, &token)
}

fn bearer(subject: &Arc<Subject>, token: &str) -> Result<String> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(RegistryError::TokenCharacters { subject: subject.clone() });
    }
    Ok(format!("Bearer {token}"))
}
