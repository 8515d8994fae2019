//! Proxies, as the environment names them.
use super::error::RegistryError;
use super::origin::{Origin, Scheme};
use std::net::IpAddr;

/// The proxies of one process.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    http: Option<ureq::Proxy>,
    https: Option<ureq::Proxy>,
    exceptions: Vec<Exception>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// The host itself and every host below it; with a leading dot only those below.
    Domain {
        name: String,
        below: bool,
        port: Option<u16>,
    },
    Network {
        address: IpAddr,
        length: u8,
    },
}

impl Proxies {
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the same in lower case, which come first.
    ///
    /// # Errors
    /// [`RegistryError::Proxy`] if a value is no URL: nothing may go out past a proxy that was asked for.
    pub fn of_process() -> Result<Proxies, RegistryError> {
        Proxies::from(|name| std::env::var(name).ok())
    }

    fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Proxies, RegistryError> {
        let value = |name: &'static str| {
            let found = variable(&name.to_ascii_lowercase()).or_else(|| variable(name));
            found.filter(|value| !value.is_empty())
        };
        let proxy = |name: &'static str| match value(name) {
            Some(text) => match ureq::Proxy::new(&text) {
                Ok(proxy) => Ok(Some(proxy)),
                // The value may carry a password.
                Err(_) => Err(RegistryError::Proxy { variable: name }),
            },
            None => Ok(None),
        };
        let all = proxy("ALL_PROXY")?;
        let exceptions = value("NO_PROXY").unwrap_or_default();
        Ok(Proxies {
            http: proxy("HTTP_PROXY")?.or_else(|| all.clone()),
            https: proxy("HTTPS_PROXY")?.or(all),
            exceptions: exceptions.split(',').filter_map(|text| Exception::parse(text.trim())).collect(),
        })
    }

    /// The proxy through which an origin is reached; never for this machine itself.
    pub fn of(&self, origin: &Origin) -> Option<&ureq::Proxy> {
        if origin.is_loopback() || self.exceptions.iter().any(|exception| exception.covers(origin)) {
            return None;
        }
        match origin.scheme {
            Scheme::Http => self.http.as_ref(),
            Scheme::Https => self.https.as_ref(),
        }
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Exception::All);
        }
        if let Some((address, length)) = text.split_once('/') {
            let (address, length) = (address.parse().ok()?, length.parse().ok()?);
            return Some(Exception::Network { address, length });
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Exception::Network { address, length: 128 });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let name = name.trim_start_matches('*').to_ascii_lowercase();
        let below = name.starts_with('.');
        Some(Exception::Domain { name: name.trim_start_matches('.').to_owned(), below, port })
    }

    fn covers(&self, origin: &Origin) -> bool {
        let host = origin.host();
        match self {
            Exception::All => true,
            Exception::Domain { name, below, port } => {
                let under = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                (under || host == name && !below) && port.is_none_or(|port| port == origin.port())
            }
            Exception::Network { address, length } => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                bare.parse().is_ok_and(|host: IpAddr| in_network(host, *address, *length))
            }
        }
    }
}

fn in_network(host: IpAddr, network: IpAddr, length: u8) -> bool {
    let (host, network, size) = match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => {
            (u128::from(host.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(host), IpAddr::V6(network)) => (host.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let ignored = size - u32::from(length).min(size);
    // A shift by the whole width is none in Rust.
    host.checked_shr(ignored) == network.checked_shr(ignored)
}

#[cfg(test)]
mod tests {
    use super::super::origin::Url;
    use super::*;

    fn through(pairs: &[(&str, &str)], url: &str) -> Option<String> {
        let variable =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let proxies = Proxies::from(variable).unwrap();
        proxies.of(&Url::parse(url).unwrap().origin).map(|proxy| proxy.host().to_owned())
    }

    #[test]
    fn the_scheme_chooses_the_proxy() {
        let pairs = [("HTTPS_PROXY", "http://s:1"), ("http_proxy", "p:2"), ("HTTP_PROXY", "other")];
        assert_eq!(through(&pairs, "https://a.example/").as_deref(), Some("s"));
        assert_eq!(through(&pairs, "http://a.example/").as_deref(), Some("p"));
        assert_eq!(through(&[("ALL_PROXY", "http://all")], "https://a.example/").as_deref(), Some("all"));
        assert_eq!(through(&[], "https://a.example/"), None);
        for here in ["http://localhost/", "https://127.0.0.1:5000/", "http://[::1]/"] {
            assert_eq!(through(&pairs, here), None, "{here}");
        }
        let bad = Proxies::from(|name| (name == "HTTPS_PROXY").then(|| "ftp://x".to_owned()));
        assert!(matches!(bad, Err(RegistryError::Proxy { variable: "HTTPS_PROXY" })));
    }

    #[test]
    fn exceptions() {
        let list = "a.example, .b.example,*.c.example,d.example:5000,10.0.0.0/8,192.0.2.7,[2001:db8::]/32,2001:db8::/32";
        let pairs = [("HTTPS_PROXY", "http://s:1"), ("NO_PROXY", list)];
        for (url, direct) in [
            ("https://a.example/", true),
            ("https://x.a.example/", true),
            ("https://xa.example/", false),
            ("https://b.example/", false),
            ("https://x.b.example/", true),
            ("https://x.c.example/", true),
            ("https://d.example:5000/", true),
            ("https://d.example/", false),
            ("https://10.1.2.3/", true),
            ("https://11.1.2.3/", false),
            ("https://192.0.2.7/", true),
            ("https://192.0.2.8/", false),
            ("https://[2001:db8::1]/", true),
            ("https://[2001:db9::1]/", false),
        ] {
            assert_eq!(through(&pairs, url).is_none(), direct, "{url}");
        }
        assert_eq!(through(&[("ALL_PROXY", "http://s"), ("NO_PROXY", "*")], "https://a.example/"), None);
    }
}
