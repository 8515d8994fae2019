//! Connections to a registry and to where it sends us: who is trusted, and through which proxy.
use super::endpoint::{Endpoint, Security};
use super::error::RegistryError;
use super::http::{
    Authorization, Body, Exactly, LookupError, Part, Patience, REDIRECTS_MAX, Request, Response, Source,
    failure,
};
use super::meter::Metering;
use super::origin::{Origin, Scheme, Url};
use super::proxy::Proxies;
use super::tls::{self, Certificates, Pinned};
use super::{Result, lock};
use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use ureq::http::{self, Method, header};
use ureq::tls::{Certificate, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, DefaultConnector, NextTimeout};
use ureq::{Agent, SendBody};

/// Host names by `/etc/hosts` and DNS alone, with the failure kept apart from other I/O errors.
#[derive(Debug, Default)]
struct HostResolver(DefaultResolver);

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

/// The body of a request that has to have one.
const NOTHING: &[u8] = &[];

/// Connections that trust the same and go the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Plain,
    /// The authorities of the host and of the registry.
    Verified,
    /// What a directory of its own says.
    Pinned(String),
    Unverified,
}

/// Connections to a registry and to where it sends us.
pub struct Transport {
    patience: Patience,
    certificates: Certificates,
    /// `host[:port]` of the registry itself.
    registry: String,
    security: Security,
    /// The second part of a key: whether it goes through a proxy.
    agents: Mutex<HashMap<(Kind, bool), Agent>>,
    /// Read when they are needed first.
    proxies: Mutex<Option<Proxies>>,
    host: Mutex<Option<Vec<Certificate<'static>>>>,
}

impl Transport {
    pub fn new(patience: Patience, certificates: Certificates, endpoint: &Endpoint) -> Transport {
        Transport {
            patience,
            certificates,
            registry: endpoint.registry.to_ascii_lowercase(),
            security: endpoint.security,
            agents: Mutex::default(),
            proxies: Mutex::default(),
            host: Mutex::default(),
        }
    }

    /// Closes every connection; what is being read fails.
    pub fn shutdown(&self) {
        for agent in lock(&self.agents).values() {
            agent.clone().shutdown();
        }
    }

    fn agent(&self, origin: &Origin) -> Result<Agent> {
        let proxy = self.proxy(origin)?;
        let own = self.is_registry(origin);
        let kind = match origin.scheme {
            Scheme::Http => Kind::Plain,
            // No other host is trusted blindly because this one is.
            Scheme::Https if own && self.security == Security::Any => Kind::Unverified,
            Scheme::Https => match self.certificates.directory(&origin.authority()) {
                Some(_) => Kind::Pinned(origin.authority()),
                None if own => Kind::Pinned(self.registry.clone()),
                None => Kind::Verified,
            },
        };
        let key = (kind, proxy.is_some());
        if let Some(agent) = lock(&self.agents).get(&key) {
            return Ok(agent.clone());
        }
        let tls = match &key.0 {
            Kind::Plain => TlsConfig::default(),
            Kind::Unverified => {
                let pinned = self.pinned(&self.registry, true)?;
                TlsConfig::builder().disable_verification(true).client_cert(pinned.client).build()
            }
            Kind::Pinned(authority) => tls::config(&self.host()?, &self.pinned(authority, own)?),
            Kind::Verified => {
                // Who signs for a private registry signs for its token service too, but that is not shown who we are.
                let authorities = self.pinned(&self.registry, true)?.authorities;
                tls::config(&self.host()?, &Pinned { authorities, client: None })
            }
        };
        let made = agent(&self.patience, tls, proxy);
        // Another thread may have been faster; then its agent is used.
        Ok(lock(&self.agents).entry(key).or_insert(made).clone())
    }

    fn is_registry(&self, origin: &Origin) -> bool {
        Origin::of_registry(&self.registry, origin.scheme) == *origin
    }

    fn pinned(&self, authority: &str, own: bool) -> Result<Pinned> {
        let chosen = self.certificates.chosen.clone().filter(|_| own);
        match chosen.or_else(|| self.certificates.directory(authority)) {
            Some(directory) => Pinned::read(&directory),
            None => Ok(Pinned::default()),
        }
    }

    fn proxy(&self, origin: &Origin) -> Result<Option<ureq::Proxy>> {
        let mut proxies = lock(&self.proxies);
        if proxies.is_none() {
            *proxies = Some(Proxies::of_process()?);
        }
        Ok(proxies.as_ref().and_then(|proxies| proxies.of(origin)).cloned())
    }

    fn host(&self) -> Result<Vec<Certificate<'static>>> {
        let mut host = lock(&self.host);
        if host.is_none() {
            *host = Some(tls::host_authorities()?);
        }
        Ok(host.clone().unwrap_or_default())
    }

    /// Sends a request, and again where the answer redirects to. `authorization` stays with its origin.
    pub fn send(&self, request: &Request<'_>, authorization: Option<&Authorization>) -> Result<Response> {
        let mut url = request.url.clone();
        let mut authorization = authorization;
        for _ in 0..=REDIRECTS_MAX {
            // Once another origin had a say, it must not choose a path on the first either.
            authorization = authorization.filter(|authorization| authorization.origin == url.origin);
            let response = self.exchange(request, &url, authorization.map(|a| a.value.as_str()))?;
            let reads = matches!(request.method, Method::GET | Method::HEAD);
            // The other three turn what is sent into a GET (RFC 9110, section 15.4).
            if !matches!((response.status, reads), (301..=303, true) | (307 | 308, _)) {
                return Ok(response);
            }
            let subject = || request.subject.clone();
            let location = response.header(header::LOCATION).unwrap_or("");
            let next =
                url.join(location).map_err(|source| RegistryError::Url { subject: subject(), source })?;
            // A registry that is spoken to in the clear by the user's wish may name itself so.
            let itself = self.security == Security::Any && self.is_registry(&next.origin);
            let plain_is_safe = url.origin.scheme == Scheme::Http && (next.origin.is_loopback() || itself);
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

    /// Sends a request with a secret in its body, which no redirect may lead away.
    pub fn send_here(&self, request: &Request<'_>) -> Result<Response> {
        self.exchange(request, &request.url, None)
    }

    fn exchange(&self, request: &Request<'_>, url: &Url, authorization: Option<&str>) -> Result<Response> {
        let agent = self.agent(&url.origin)?;
        let mut builder = http::Request::builder().method(request.method.clone()).uri(url.to_string());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let fail = |error| failure(&request.subject, &url.origin, &self.patience, error);
        let reads = matches!(request.method, Method::GET | Method::HEAD | Method::DELETE);
        let answer = if reads {
            builder.body(()).map_err(ureq::Error::from).and_then(|request| agent.run(request))
        } else {
            let nothing: &dyn Source = &NOTHING;
            let nothing = Part { source: nothing, from: 0, length: 0, sent: &|_| {} };
            let part = request.body.unwrap_or(nothing);
            let opened = part.source.open(part.from);
            let failed = |source| RegistryError::Source { subject: request.subject.clone(), source };
            let mut reader = Exactly { reader: opened.map_err(failed)?, left: part.length, sent: part.sent };
            builder
                .header(header::CONTENT_LENGTH, part.length)
                .body(SendBody::from_reader(&mut reader))
                .map_err(ureq::Error::from)
                .and_then(|request| agent.run(request))
        };
        let (parts, body) = answer.map_err(fail)?.into_parts();
        let length = body.content_length();
        let reader = body.into_with_config().limit(u64::MAX).reader();
        let body = Body::new(reader, request.subject.clone(), url.origin.clone(), self.patience);
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
        .timeout_per_write(Some(patience.stall))
        .user_agent(concat!("corten/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, DefaultConnector::default().chain(Metering), HostResolver::default())
}
