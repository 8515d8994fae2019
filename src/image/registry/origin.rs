//! Origins and URLs: what decides where credentials may go and what may be spoken in the clear.
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use ureq::http::Uri;

/// The host of Docker Hub's API; `docker.io` itself serves a web site.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// The longest URL that is followed, in bytes; object stores sign theirs with 1-2 KiB.
const URL_MAX: usize = 16 << 10;

/// Why a URL from a registry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    #[error("URL of {length} bytes is too long")]
    TooLong { length: usize },
    #[error("{text:?} is no valid URL")]
    Malformed { text: String },
    #[error("URL {text:?} has neither the scheme http nor https")]
    Scheme { text: String },
    #[error("URL {text:?} carries credentials")]
    UserInfo { text: String },
}

/// How an origin is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

/// Scheme, host and port: credentials for one are never sent to another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub scheme: Scheme,
    /// Lower case; an IPv6 address is in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// The API of a registry, `host[:port]` as a reference names it.
    ///
    /// `registry` comes from a parsed reference, whose port is a number.
    pub fn of_registry(registry: &str, scheme: Scheme) -> Origin {
        let registry = if registry == "docker.io" { DOCKER_HUB_API } else { registry };
        let (host, port) = split_port(registry);
        Origin { scheme, host: host.to_ascii_lowercase(), port: port.unwrap_or(default_port(scheme)) }
    }

    /// Whether nobody on the way can read what is said.
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// `host[:port]`, as directories of certificates are called.
    pub fn authority(&self) -> String {
        if self.port == default_port(self.scheme) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it names this machine, so that nobody else can read what is said in the clear.
    pub fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// The port, also where it is the scheme's own.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port == default_port(self.scheme) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

fn default_port(scheme: Scheme) -> u16 {
    match scheme {
        Scheme::Http => 80,
        Scheme::Https => 443,
    }
}

fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, None),
    }
}

/// Whether a registry, `host[:port]`, is on this machine by its name.
pub fn is_here(registry: &str) -> bool {
    is_loopback(split_port(registry).0)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
        || bare.and_then(|host| host.parse::<Ipv6Addr>().ok()).is_some_and(|address| address.is_loopback())
}

/// An absolute HTTP URL without a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub origin: Origin,
    /// Path and query; starts with a slash.
    target: String,
}

impl Url {
    /// `target` is a path and query of ours.
    pub fn new(origin: &Origin, target: String) -> Url {
        Url { origin: origin.clone(), target }
    }

    /// Reads a URL that a registry sent.
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        if text.len() > URL_MAX {
            return Err(UrlError::TooLong { length: text.len() });
        }
        let shown = || text.chars().take(200).collect::<String>();
        let malformed = || UrlError::Malformed { text: shown() };
        let without_fragment = text.split_once('#').map_or(text, |(url, _)| url);
        let uri: Uri = without_fragment.parse().map_err(|_| malformed())?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err(UrlError::Scheme { text: shown() }),
        };
        let authority = uri.authority().ok_or_else(malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo { text: shown() });
        }
        let port = match split_port(authority.as_str()) {
            (_, Some(port)) => port,
            _ if authority.as_str().len() == authority.host().len() => default_port(scheme),
            _ => return Err(malformed()),
        };
        if authority.host().is_empty() {
            return Err(malformed());
        }
        let origin = Origin { scheme, host: authority.host().to_ascii_lowercase(), port };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Url { origin, target: format!("{slash}{target}") })
    }

    /// Where a `Location` header leads from here (RFC 9110, section 10.2.2).
    pub fn join(&self, location: &str) -> Result<Url, UrlError> {
        if location.starts_with("//") {
            let scheme = if self.origin.scheme == Scheme::Http { "http" } else { "https" };
            Url::parse(&format!("{scheme}:{location}"))
        } else if location.starts_with('/') {
            Url::parse(&format!("{}{location}", self.origin))
        } else if location.contains("://") {
            Url::parse(location)
        } else {
            let path = self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path);
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            Url::parse(&format!("{}{directory}/{location}", self.origin))
        }
    }

    /// The same URL with more in its query; `pairs` are encoded here.
    pub fn with_query(mut self, pairs: &[(&str, &str)]) -> Url {
        for pair in pairs {
            self.target.push(if self.target.contains('?') { '&' } else { '?' });
            encode(&mut self.target, pair);
        }
        self
    }

    /// The same encoding for a body (`application/x-www-form-urlencoded`).
    pub fn form(pairs: &[(&str, &str)]) -> String {
        let mut form = String::new();
        for pair in pairs {
            if !form.is_empty() {
                form.push('&');
            }
            encode(&mut form, pair);
        }
        form
    }

    /// For an error: without the query, where object stores put signatures.
    pub fn shown(&self) -> String {
        let path = self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path);
        format!("{}{path}", self.origin)
    }
}

fn encode(text: &mut String, (name, value): &(&str, &str)) {
    text.push_str(name);
    text.push('=');
    for byte in value.bytes() {
        // RFC 3986's unreserved characters, and the ones that token services print in scopes.
        if byte.is_ascii_alphanumeric() || b"-._~:/,".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for (registry, want) in [
            ("docker.io", "https://registry-1.docker.io"),
            ("ghcr.io", "https://ghcr.io"),
            ("Host.example:5000", "https://host.example:5000"),
            ("[::2]", "https://[::2]"),
            ("10.0.0.1:80", "https://10.0.0.1:80"),
        ] {
            assert_eq!(Origin::of_registry(registry, Scheme::Https).to_string(), want);
            assert!(!is_here(registry));
        }
        for registry in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.9.10", "[::1]:5000", "[::1]"]
        {
            assert!(is_here(registry), "{registry}");
        }
        for registry in ["localhost.example.com", "127.0.0.1.example.com"] {
            assert!(!is_here(registry), "{registry}");
        }
    }

    #[test]
    fn urls() {
        for (text, want) in [
            ("https://a.example", "https://a.example/"),
            ("https://A.example:443/x?y=z#f", "https://a.example/x?y=z"),
            ("http://[::1]:80/x", "http://[::1]/x"),
            ("https://a?x=1", "https://a/?x=1"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), want);
        }
        for text in [
            "",
            "x",
            "/x",
            "ftp://a/",
            "file:///etc/passwd",
            "http://",
            "http://u:p@a/",
            "http://a:99999/",
            "http://a:x/",
            "http://a b/",
            "http://a/\r\nX: y",
        ] {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
        assert!(matches!(
            Url::parse(&format!("http://a/{}", "x".repeat(URL_MAX))),
            Err(UrlError::TooLong { .. })
        ));
    }

    #[test]
    fn locations() {
        let base = Url::parse("https://a.example:5000/v2/x/blobs/y?q").unwrap();
        for (location, want) in [
            ("https://b.example/z", "https://b.example/z"),
            ("//b.example/z", "https://b.example/z"),
            ("/z?q=1", "https://a.example:5000/z?q=1"),
            ("z", "https://a.example:5000/v2/x/blobs/z"),
        ] {
            assert_eq!(base.join(location).unwrap().to_string(), want);
        }
    }

    #[test]
    fn queries_are_encoded() {
        let url = Url::parse("https://a/t?x=1").unwrap();
        let url = url.with_query(&[("service", "a b&c"), ("scope", "repository:a/b:pull")]);
        assert_eq!(url.to_string(), "https://a/t?x=1&service=a%20b%26c&scope=repository:a/b:pull");
    }
}
