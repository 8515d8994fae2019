//! Whether values of the configuration can be used; what lies behind a path is looked at, nothing is changed.
use super::{Config, ConfigError};
use crate::image::registry::Mirror;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

type Checked = Result<(), ConfigError>;

/// Bytes of ExecSync's outputs: a gRPC message of a client is at most 16 MiB.
const EXEC_SYNC: RangeInclusive<u64> = 1024..=16 * 1024 * 1024;
/// A URL of a stream is used at once or never.
const TOKEN_SECONDS: RangeInclusive<u64> = 1..=3600;
/// Records of stopped tasks are kept for so long at most: a week.
const STOPPED_TASK_SECONDS: RangeInclusive<u64> = 0..=7 * 24 * 3600;
/// IFNAMSIZ without the end.
const LINK_LENGTH: usize = 15;
/// A path of a unix socket, without the end (unix(7)).
const SOCKET_PATH: usize = 107;

impl Config {
    /// Checks every value.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn check(&self) -> Checked {
        self.check_doors()?;
        self.check_ecs()?;
        self.check_network()?;
        if let Some(folder) = &self.manifests.folder {
            directory("manifests.folder", folder)?;
        }
        if let Some(name) = &self.manifests.node_name {
            ensure("manifests.node_name", name, is_host_name(name), "is no host name")?;
        }
        if let Some(ip) = &self.manifests.host_ip {
            ensure("manifests.host_ip", ip, ip.parse::<IpAddr>().is_ok(), "is no IP address")?;
        }
        for (registry, url) in &self.registries.mirrors {
            let key = format!("registries.mirrors.{registry}");
            ensure(
                &key,
                url,
                Mirror::parse(url).is_ok(),
                "is not http://HOST[:PORT] or https://HOST[:PORT]",
            )?;
        }
        if let Some(path) = &self.registries.auth_file {
            file("registries.auth_file", path)?;
        }
        Ok(())
    }

    fn check_doors(&self) -> Checked {
        if let Some(path) = &self.cri.socket {
            absolute("cri.socket", path)?;
            let shown = path.display().to_string();
            ensure("cri.socket", &shown, shown.len() <= SOCKET_PATH, "is longer than 107 bytes")?;
            let parent = path.parent().is_some_and(Path::is_dir);
            ensure("cri.socket", &shown, parent, "is in a directory that does not exist")?;
        }
        within(
            "cri.exec_sync_limit",
            self.cri.exec_sync_limit,
            EXEC_SYNC,
            "is not within 1024 and 16777216",
        )?;
        listen("streaming.listen", &self.streaming.listen)?;
        within(
            "streaming.token_seconds",
            self.streaming.token_seconds,
            TOKEN_SECONDS,
            "is not within 1 and 3600",
        )?;
        self.metrics.listen.as_ref().map_or(Ok(()), |address| listen("metrics.listen", address))
    }

    fn check_ecs(&self) -> Checked {
        let ecs = &self.ecs;
        listen("ecs.listen", &ecs.listen)?;
        listen("ecs.metadata_listen", &ecs.metadata_listen)?;
        let region = (1..=32).contains(&ecs.region.len())
            && ecs.region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        ensure("ecs.region", &ecs.region, region, "is not 1 to 32 lower-case letters, digits and dashes")?;
        let account = ecs.account.len() == 12 && ecs.account.bytes().all(|b| b.is_ascii_digit());
        ensure("ecs.account", &ecs.account, account, "is not 12 digits")?;
        let cluster = (1..=255).contains(&ecs.cluster.len())
            && ecs.cluster.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        ensure(
            "ecs.cluster",
            &ecs.cluster,
            cluster,
            "is not 1 to 255 letters, digits, dashes and underscores",
        )?;
        for (role, path) in &ecs.task_roles {
            file(&format!("ecs.task_roles.{role}"), path)?;
        }
        if let Some(path) = &ecs.secrets {
            directory("ecs.secrets", path)?;
        }
        within(
            "ecs.stopped_task_seconds",
            ecs.stopped_task_seconds,
            STOPPED_TASK_SECONDS,
            "is more than 604800",
        )
    }

    fn check_network(&self) -> Checked {
        let network = &self.network;
        if let Some(link) = &network.bridge {
            let valid = (1..=LINK_LENGTH).contains(&link.len())
                && link.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                && !matches!(link.as_str(), "." | "..");
            ensure(
                "network.bridge",
                link,
                valid,
                "is no name of a link: 1 to 15 letters, digits, '-', '_', '.'",
            )?;
        }
        if let Some(subnet) = &network.subnet {
            let valid = prefix::<Ipv4Addr>(subnet, 8..=29);
            ensure("network.subnet", subnet, valid, "is no IPv4 subnet of /8 to /29 such as 10.99.0.0/16")?;
        }
        if let Some(subnet) = &network.subnet6 {
            let valid = prefix::<Ipv6Addr>(subnet, 48..=120);
            ensure(
                "network.subnet6",
                subnet,
                valid,
                "is no IPv6 subnet of /48 to /120 such as fd00:99::/64",
            )?;
        }
        if let Some(path) = &network.cni_configuration {
            directory("network.cni_configuration", path)?;
            let shown = path.display().to_string();
            let plugins = !network.cni_plugins.is_empty();
            ensure("network.cni_configuration", &shown, plugins, "needs network.cni_plugins")?;
        }
        network.cni_plugins.iter().try_for_each(|path| directory("network.cni_plugins", path))
    }
}

fn ensure(key: &str, value: &str, holds: bool, reason: &'static str) -> Checked {
    if holds {
        return Ok(());
    }
    Err(ConfigError::Value { key: key.to_owned(), value: value.to_owned(), reason })
}

fn within(key: &str, value: u64, range: RangeInclusive<u64>, reason: &'static str) -> Checked {
    ensure(key, &value.to_string(), range.contains(&value), reason)
}

fn listen(key: &str, value: &str) -> Checked {
    ensure(
        key,
        value,
        value.parse::<SocketAddr>().is_ok(),
        "is no IP address with a port such as 127.0.0.1:9100",
    )
}

fn absolute(key: &str, path: &Path) -> Checked {
    ensure(key, &path.display().to_string(), path.is_absolute(), "is not absolute")
}

fn directory(key: &str, path: &Path) -> Checked {
    absolute(key, path)?;
    ensure(key, &path.display().to_string(), path.is_dir(), "is no directory")
}

fn file(key: &str, path: &Path) -> Checked {
    absolute(key, path)?;
    ensure(key, &path.display().to_string(), path.is_file(), "is no file")
}

fn prefix<A: std::str::FromStr>(subnet: &str, lengths: RangeInclusive<u8>) -> bool {
    subnet.split_once('/').is_some_and(|(address, length)| {
        address.parse::<A>().is_ok() && length.parse().is_ok_and(|length: u8| lengths.contains(&length))
    })
}

/// RFC 1123.
fn is_host_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}
