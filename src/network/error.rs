//! What can go wrong with networks.
use super::Protocol;
use crate::error::{ErrorKind, Kind};
use crate::sys::SysError;
use crate::sys::program::ProgramError;
use std::net::IpAddr;
use std::path::PathBuf;

/// An error of a network; its fields name the link, address, port or plugin.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// A value of a request or of the configuration.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// Which field.
        what: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A host name or address of /etc/hosts or /etc/resolv.conf would end its line or field.
    #[error("{what} {value:?} cannot be written to {file}")]
    Unwritable {
        /// What it is.
        what: &'static str,
        /// What was given.
        value: String,
        /// Where it was to go.
        file: &'static str,
    },
    /// Another process has the lock of the networks' state.
    #[error("{path} has been locked for {seconds} s by another process")]
    Locked {
        /// The file.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A record of what was attached.
    #[error("cannot read {path}")]
    Record {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The id has a record already.
    #[error("{id} is attached to a network already")]
    AlreadyAttached {
        /// Task or container.
        id: String,
    },
    /// The subnet of a bridge is somebody else's.
    #[error(
        "subnet {subnet} of bridge {link} overlaps the route to {route} by {by}: choose another subnet for it"
    )]
    Overlap {
        /// The bridge.
        link: String,
        /// Its subnet.
        subnet: String,
        /// The other.
        route: String,
        /// The other's link.
        by: String,
    },
    /// A link of the bridge's name is none of ours.
    #[error("link {link} exists and is not a {kind}")]
    OtherKind {
        /// Name.
        link: String,
        /// What it should be.
        kind: &'static str,
    },
    /// The bridge was made with another subnet and is in use.
    #[error("bridge {link} has subnet {there} and is in use; {given} was asked for")]
    BridgeDiffers {
        /// Name.
        link: String,
        /// What it has.
        there: String,
        /// What was asked for.
        given: String,
    },
    /// No address is left.
    #[error("subnet {subnet} of bridge {link} has no free address")]
    Exhausted {
        /// The bridge.
        link: String,
        /// Its subnet.
        subnet: String,
    },
    /// Somebody else has a port of the host.
    #[error("port {port}/{} of {} is taken by {by}", protocol.name(), host_name(*host_ip))]
    PortTaken {
        /// On which address of the host; all if absent.
        host_ip: Option<IpAddr>,
        /// The port.
        port: u16,
        /// Of which protocol.
        protocol: Protocol,
        /// Who has it.
        by: String,
    },
    /// The bridge cannot publish this.
    #[error("port {port}/{} cannot be published: {reason}", protocol.name())]
    PortUnsupported {
        /// The container's port.
        port: u16,
        /// Of which protocol.
        protocol: Protocol,
        /// Why.
        reason: &'static str,
    },
    /// A program that the host lacks.
    #[error("{program} is not on this host: install the package {package}")]
    NoProgram {
        /// Its name.
        program: &'static str,
        /// Debian's package.
        package: &'static str,
    },
    /// The nft program refused what it was given.
    #[error("nft refused the rules of {table} ({status}): {message}")]
    Nft {
        /// The table.
        table: String,
        /// How it ended.
        status: String,
        /// What it said.
        message: String,
    },
    /// A program gave no answer.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The folder of CNI configurations has none.
    #[error("no CNI configuration (*.conflist, *.conf, *.json) in {directory}")]
    NoConfiguration {
        /// The folder.
        directory: PathBuf,
    },
    /// A CNI configuration that is not JSON of the right shape.
    #[error("CNI configuration {path}")]
    Configuration {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A CNI configuration that cannot be used.
    #[error("CNI configuration {path}: {what} {value:?} {reason}")]
    BadConfiguration {
        /// The file.
        path: PathBuf,
        /// Which field.
        what: &'static str,
        /// What it is.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// No folder has the plugin.
    #[error("CNI plugin {plugin} is in none of {}", folders.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "))]
    NoPlugin {
        /// Its type.
        plugin: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// A plugin reported an error.
    #[error("CNI plugin {plugin} failed to {command} (code {code}): {message}")]
    Plugin {
        /// Its type.
        plugin: String,
        /// `ADD` or `DEL`.
        command: &'static str,
        /// The CNI specification's, or the plugin's own from 100.
        code: u64,
        /// What it said.
        message: String,
    },
    /// A plugin's result.
    #[error("CNI plugin {plugin} gave no valid result")]
    PluginResult {
        /// Its type.
        plugin: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Kind for NetworkError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Sys(error) => error.kind(),
            Self::Invalid { .. }
            | Self::Unwritable { .. }
            | Self::Configuration { .. }
            | Self::BadConfiguration { .. } => ErrorKind::InvalidInput,
            Self::Program(error) => error.kind(),
            Self::Locked { .. } => ErrorKind::TimedOut,
            Self::Record { .. } => ErrorKind::Corrupt,
            Self::AlreadyAttached { .. } | Self::PortTaken { .. } => ErrorKind::AlreadyExists,
            Self::Overlap { .. } | Self::OtherKind { .. } | Self::BridgeDiffers { .. } => {
                ErrorKind::WrongState
            }
            Self::Exhausted { .. } => ErrorKind::Exhausted,
            Self::PortUnsupported { .. } => ErrorKind::Unsupported,
            Self::NoProgram { .. } | Self::NoPlugin { .. } | Self::NoConfiguration { .. } => {
                ErrorKind::NotFound
            }
            Self::Nft { .. } | Self::Plugin { .. } | Self::PluginResult { .. } => ErrorKind::System,
        }
    }
}

fn host_name(host_ip: Option<IpAddr>) -> String {
    host_ip.map_or_else(|| "the host".to_owned(), |address| address.to_string())
}
