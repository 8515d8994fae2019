//! Certificates: the host's authorities, those of one registry, and what this host shows to a registry
//! (containers-certs.d(5), and Docker's directory of the same form).
use super::RegistryError;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

type Result<T> = std::result::Result<T, RegistryError>;

/// The largest file of certificates, in bytes; Debian's has 220 KiB.
const FILE_MAX: u64 = 4 << 20;

/// Where the certificates of registries are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates {
    /// The user's choice for the registry that is asked, in place of all others.
    pub chosen: Option<PathBuf>,
    /// Directories with one directory `HOST[:PORT]` for each registry; the first that has it is taken.
    pub directories: Vec<PathBuf>,
}

impl Default for Certificates {
    fn default() -> Certificates {
        let user = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let user = user.map(|home| home.join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        Certificates { chosen: None, directories: user.into_iter().chain(system).collect() }
    }
}

impl Certificates {
    /// Whether there are any for a registry, `host[:port]`.
    pub fn has(&self, registry: &str) -> bool {
        self.chosen.is_some() || self.directory(registry).is_some()
    }

    /// The directory of a registry.
    pub fn directory(&self, registry: &str) -> Option<PathBuf> {
        self.directories.iter().map(|directory| directory.join(registry)).find(|path| path.is_dir())
    }
}

/// What a directory has for one registry.
#[derive(Debug, Clone, Default)]
pub struct Pinned {
    /// Of `*.crt`; trusted beside the host's.
    pub authorities: Vec<Certificate<'static>>,
    /// Of `*.cert` and `*.key`.
    pub client: Option<ClientCert>,
}

impl Pinned {
    /// Reads a directory.
    ///
    /// # Errors
    /// A file cannot be read, or a certificate has no key, or one that is another's.
    pub fn read(directory: &Path) -> Result<Pinned> {
        let fail = |source| RegistryError::Authorities { path: directory.to_owned(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(directory).map_err(fail)? {
            names.push(entry.map_err(fail)?.path());
        }
        names.sort();
        let mut pinned = Pinned::default();
        for path in &names {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => pinned.authorities.extend(certificates(path)?),
                Some("cert") if pinned.client.is_none() => pinned.client = Some(client(path)?),
                _ => {}
            }
        }
        Ok(pinned)
    }
}

/// What a connection trusts and shows.
pub fn config(host: &[Certificate<'static>], pinned: &Pinned) -> TlsConfig {
    let roots = match (host, pinned.authorities.as_slice()) {
        // The host has none: Mozilla's, which are built in.
        ([], []) => RootCerts::WebPki,
        _ => RootCerts::Specific(Arc::new([host, &pinned.authorities].concat())),
    };
    TlsConfig::builder().root_certs(roots).client_cert(pinned.client.clone()).build()
}

/// The host's certificate authorities; none if the host has none.
pub fn host_authorities() -> Result<Vec<Certificate<'static>>> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = chosen {
        return certificates(&path);
    }
    for path in [
        "/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Arch, Gentoo
        "/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, RHEL
        "/etc/ssl/ca-bundle.pem",             // openSUSE
        "/etc/ssl/cert.pem",                  // Alpine
    ] {
        let path = Path::new(path);
        if path.exists() {
            return certificates(path);
        }
    }
    Ok(Vec::new())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let certificates: Vec<_> = items(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(RegistryError::NoAuthority { path: path.to_owned() });
    }
    Ok(certificates)
}

/// What the host shows: `path` is the certificate with its chain, and the key is beside it.
fn client(path: &Path) -> Result<ClientCert> {
    let chain = certificates(path)?;
    let beside = path.with_extension("key");
    let key = items(&beside)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    let key = key.ok_or_else(|| RegistryError::NoKey { path: beside.clone() })?;
    check_key(&chain, &key).map_err(|source| RegistryError::ClientKey { path: beside, source })?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

/// The HTTP library takes for granted that a key can be used with its certificate, and panics otherwise.
fn check_key(
    chain: &[Certificate<'static>],
    key: &PrivateKey<'static>,
) -> std::result::Result<(), rustls::Error> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
    let key = PrivateKeyDer::try_from(key.der().to_vec())
        .map_err(|text| rustls::Error::General(text.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(chain, key)
        .map(drop)
}

/// What a PEM file has that can be read.
fn items(path: &Path) -> Result<Vec<PemItem<'static>>> {
    let fail = |source| RegistryError::Authorities { path: path.to_owned(), source };
    let mut pem = Vec::new();
    File::open(path).map_err(fail)?.take(FILE_MAX + 1).read_to_end(&mut pem).map_err(fail)?;
    if pem.len() as u64 > FILE_MAX {
        return Err(fail(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(parse_pem(&pem).filter_map(std::result::Result::ok).collect())
}
