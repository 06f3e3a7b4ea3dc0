//! What the engine records of networks, endpoints and published ports.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::subnet::Ipv4Net;

/// A bridge network as it stands in the kernel. The engine records it and hands it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeNetwork {
    /// Network id, 64 hex digits.
    pub id: String,
    /// Name of the bridge interface, at most 15 bytes.
    pub bridge: String,
    /// Addresses of the network.
    pub subnet: Ipv4Net,
    /// Address of the bridge, the containers' default route.
    pub gateway: Ipv4Addr,
    /// No way out: no masquerade, no default route, traffic to and from outside dropped.
    #[serde(default)]
    pub internal: bool,
    /// Containers of the network may talk to each other.
    #[serde(default = "yes")]
    pub icc: bool,
    /// Source addresses are replaced by the host's on the way out.
    #[serde(default = "yes")]
    pub masquerade: bool,
    /// MTU of bridge and containers in bytes; the kernel's default (1500) when absent.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Host address used for published ports that name none.
    #[serde(default = "any_address")]
    pub host_binding: Ipv4Addr,
}

fn yes() -> bool {
    true
}

fn any_address() -> Ipv4Addr {
    Ipv4Addr::UNSPECIFIED
}

/// A driver option that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The value does not parse.
    #[error("invalid value {value:?} for network option {key}")]
    Invalid {
        /// Option name.
        key: String,
        /// The value given.
        value: String,
    },
    /// The option exists in Docker and would change behaviour, but is not there yet.
    #[error("network option {key} is not implemented")]
    NotImplemented {
        /// Option name.
        key: String,
    },
}

impl BridgeNetwork {
    /// A network with Docker's defaults. The bridge is named `hl-` and the first 12 digits of the id.
    pub fn new(id: &str, subnet: Ipv4Net, gateway: Ipv4Addr) -> Self {
        Self {
            id: id.to_owned(),
            bridge: format!("hl-{}", short(id)),
            subnet,
            gateway,
            internal: false,
            icc: true,
            masquerade: true,
            mtu: None,
            host_binding: Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Applies driver options (`com.docker.network.*`). Options of other drivers and labels are ignored.
    ///
    /// # Errors
    /// A value that does not parse, or an option that would change what the network does and is not implemented.
    pub fn apply_options(&mut self, options: &BTreeMap<String, String>) -> Result<(), OptionError> {
        for (key, value) in options {
            let invalid = || OptionError::Invalid { key: key.clone(), value: value.clone() };
            match key.as_str() {
                "com.docker.network.bridge.name" => {
                    if !valid_interface_name(value) {
                        return Err(invalid());
                    }
                    value.clone_into(&mut self.bridge);
                }
                "com.docker.network.bridge.enable_icc" => {
                    self.icc = parse_bool(value).ok_or_else(invalid)?;
                }
                "com.docker.network.bridge.enable_ip_masquerade" => {
                    self.masquerade = parse_bool(value).ok_or_else(invalid)?;
                }
                "com.docker.network.bridge.host_binding_ipv4" => {
                    self.host_binding = value.parse().map_err(|_| invalid())?;
                }
                "com.docker.network.driver.mtu" | "mtu" => {
                    self.mtu = match value.parse::<u32>().map_err(|_| invalid())? {
                        0 => None,
                        mtu @ 68..=65535 => Some(mtu),
                        _ => return Err(invalid()),
                    };
                }
                "com.docker.network.container_iface_prefix"
                | "com.docker.network.bridge.inhibit_ipv4"
                | "com.docker.network.bridge.gateway_mode_ipv4"
                | "com.docker.network.host_ipv4" => {
                    return Err(OptionError::NotImplemented { key: key.clone() });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Go's `strconv.ParseBool`.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The kernel's `dev_valid_name`, and printable ASCII only.
fn valid_interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

/// The first 12 digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// What a container wants when it joins a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    /// Endpoint id, 64 hex digits, random for each attachment.
    pub endpoint_id: String,
    /// Container the endpoint belongs to.
    pub container_id: String,
    /// Address from [`Ipam::allocate`](crate::Ipam::allocate) or [`Ipam::claim`](crate::Ipam::claim).
    pub address: Ipv4Addr,
    /// MAC address; derived from the address when absent.
    pub mac: Option<[u8; 6]>,
    /// Interface name inside the container, `eth0` for the first network.
    pub interface: String,
    /// Whether the container's default route goes through this network. Never set for internal networks.
    pub default_route: bool,
}

/// A container's interface on a network, as recorded by the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Endpoint id, 64 hex digits.
    pub id: String,
    /// Container the endpoint belongs to.
    pub container_id: String,
    /// Network the endpoint is on.
    pub network_id: String,
    /// Address in the network.
    pub address: Ipv4Addr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// Gateway of the network.
    pub gateway: Ipv4Addr,
    /// MAC address, `02:42:ac:11:00:02`.
    pub mac: String,
    /// Interface name inside the container.
    pub interface: String,
    /// The veth's end on the host.
    pub host_interface: String,
    /// Published ports in force. Filled by the engine after
    /// [`Bridges::publish`](crate::Bridges::publish), emptied after [`Bridges::unpublish`](crate::Bridges::unpublish).
    #[serde(default)]
    pub ports: Vec<PortMapping>,
}

/// Transport protocol of a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP, protocol 6.
    Tcp,
    /// UDP, protocol 17.
    Udp,
    /// SCTP, protocol 132.
    Sctp,
}

impl Protocol {
    /// Reads `tcp`, `udp` or `sctp`, as in `80/tcp`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }

    /// Number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A published port: traffic to the host's address and port goes to the container's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMapping {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Host address; `0.0.0.0` for every address of the host.
    pub host_ip: Ipv4Addr,
    /// Port on the host, never 0.
    pub host_port: u16,
    /// The container's address.
    pub container_ip: Ipv4Addr,
    /// Port in the container.
    pub container_port: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> BridgeNetwork {
        let id = "0123456789abcdef".repeat(4);
        BridgeNetwork::new(&id, "172.18.0.0/16".parse().unwrap(), Ipv4Addr::new(172, 18, 0, 1))
    }

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn options_set_what_they_name() {
        let mut net = network();
        assert_eq!(net.bridge, "hl-0123456789ab");
        net.apply_options(&options(&[
            ("com.docker.network.bridge.enable_icc", "false"),
            ("com.docker.network.bridge.enable_ip_masquerade", "0"),
            ("com.docker.network.bridge.host_binding_ipv4", "127.0.0.1"),
            ("com.docker.network.bridge.name", "mybr"),
            ("com.docker.network.driver.mtu", "1400"),
            ("org.example.label", "x"),
        ]))
        .unwrap();
        assert!(!net.icc && !net.masquerade);
        assert_eq!((net.bridge.as_str(), net.mtu), ("mybr", Some(1400)));
        assert_eq!(net.host_binding, Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn bad_options_are_refused() {
        for (key, value) in [
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("com.docker.network.bridge.name", "a/b"),
            ("com.docker.network.bridge.name", "sixteen-bytes-xx"),
            ("com.docker.network.driver.mtu", "12"),
            ("com.docker.network.bridge.host_binding_ipv4", "::1"),
        ] {
            let error = network().apply_options(&options(&[(key, value)])).unwrap_err();
            assert!(matches!(error, OptionError::Invalid { .. }), "{key}={value}");
        }
    }
}
