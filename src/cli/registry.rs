//! What every command that speaks to a registry takes.
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;

use crate::image::reference;
use crate::image::registry::credentials::{Environment, Keyring};
use crate::image::registry::registries::Files;
use crate::image::registry::{Access, Certificates, Credentials, Registries, TlsVerify};
use crate::image::store::{Image, Store, StoreError};

/// What every command that speaks to a registry takes.
#[derive(Debug, Clone, Default, Args)]
pub struct RegistryArgs {
    /// Credentials for the registry, instead of stored ones
    #[arg(long, value_name = "USER:PASSWORD")]
    pub creds: Option<String>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
}

/// How a registry is reached, and where its credentials are.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionArgs {
    /// Keep and read credentials in this file alone [default: $REGISTRY_AUTH_FILE, else podman's auth.json and
    /// Docker's config.json]
    #[arg(long, value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Directory with the authorities (*.crt) and the client certificate (*.cert, *.key) for this registry
    /// [default: HOST[:PORT] in /etc/containers/certs.d and /etc/docker/certs.d]
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Whether the registry must prove who it is; with "false" also plain HTTP is spoken
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
}

impl RegistryArgs {
    /// How registries are reached.
    pub fn access(&self) -> anyhow::Result<Access> {
        let mut access = self.connection.access()?;
        if let Some(text) = &self.creds {
            access.keyring = match text.split_once(':') {
                Some((user, password)) if !user.is_empty() => {
                    Keyring::Given(Credentials::new(user, password))
                }
                _ => bail!("invalid --creds: want USER:PASSWORD"),
            };
        }
        Ok(access)
    }
}

impl ConnectionArgs {
    /// Where credentials are looked for and kept.
    pub fn environment(&self) -> Environment {
        let mut environment = Environment::of_process();
        environment.auth_file = self.authfile.clone().or(environment.auth_file);
        environment
    }

    /// How registries are reached, with stored credentials.
    pub fn access(&self) -> anyhow::Result<Access> {
        if let Some(directory) = &self.cert_dir {
            std::fs::read_dir(directory).with_context(|| format!("--cert-dir {}", directory.display()))?;
        }
        Ok(Access {
            registries: Arc::new(Registries::read(&Files::of_process())?),
            keyring: Keyring::Files(self.environment()),
            certificates: Certificates { chosen: self.cert_dir.clone(), ..Certificates::default() },
            verify: match self.tls_verify {
                None => TlsVerify::Configured,
                Some(true) => TlsVerify::Always,
                Some(false) => TlsVerify::Never,
            },
            ..Access::default()
        })
    }
}

/// The image that a user's name or ID means; nothing if it is not in the store. A short name is first what it is
/// in every store, then what registries.conf makes of it.
pub fn find(store: &Store, name: &str) -> anyhow::Result<Option<Image>> {
    match store.resolve(name) {
        Err(StoreError::NoImage { .. }) if reference::is_short(name) => {}
        Err(StoreError::NoImage { .. }) => return Ok(None),
        found => return Ok(Some(found?)),
    }
    let candidates = match Registries::read(&Files::of_process())?.candidates(name) {
        Ok(candidates) => candidates,
        // An ID; or a name that the pull refuses with its reason.
        Err(_) => return Ok(None),
    };
    for candidate in candidates {
        match store.resolve(&candidate.to_string()) {
            Err(StoreError::NoImage { .. }) => {}
            found => return Ok(Some(found?)),
        }
    }
    Ok(None)
}
