//! The flags of `run` and `create` that connect a container.
use crate::engine::EngineError;
use crate::engine::options::{Connection, Network, network};
use clap::Args;

/// Addresses, ports and names.
#[derive(Debug, Args)]
pub struct ConnectionArgs {
    /// `none`: loopback alone; `host`: the host's network; `bridge`: an address of its own behind the host's
    #[arg(
        long,
        visible_alias = "net",
        value_name = "none|host|bridge[:link=NAME,subnet=NET,subnet6=NET]",
        default_value = "none"
    )]
    network: String,
    /// Let a port of the host lead to one of the container, on a bridge; a free one if the host's is left out
    #[arg(short, long, value_name = "[[ADDRESS:]HOSTPORT:]PORT[/udp]")]
    publish: Vec<String>,
    /// Let free ports of the host lead to all ports that the image exposes, on a bridge
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Name server [default: the host's]
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of the resolver, as ndots:2
    #[arg(long, value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a line to /etc/hosts; the address `host-gateway` is the host's on the bridge
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
}

impl ConnectionArgs {
    /// Checks every flag.
    pub fn parse(&self) -> Result<(Network, Connection), EngineError> {
        let (kind, bridge) = network::network(&self.network)?;
        let mut connection = Connection { bridge, publish_all: self.publish_all, ..Connection::default() };
        for text in &self.publish {
            connection.ports.extend(network::publish(text)?);
        }
        for text in &self.dns {
            connection.dns.servers.push(network::dns_server(text)?);
        }
        connection.dns.searches.clone_from(&self.dns_search);
        connection.dns.options.clone_from(&self.dns_option);
        for text in &self.add_host {
            connection.hosts.push(network::add_host(text)?);
        }
        network::check(kind, &connection)?;
        Ok((kind, connection))
    }
}
