//! Subnets and addresses: pure bookkeeping, rebuilt from the engine's records.
//!
//! Addresses are handed out in a circle, so that a released one comes again only after all others: neighbours
//! that still have the old owner's MAC in their ARP tables do not reach the new one by mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::record::short;
use crate::subnet::{Ipv4Net, parse_cidr};

/// What a user asked for when creating a network, as in `IPAMConfig` of the Docker API. Empty is unset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolRequest {
    /// Subnet in CIDR notation.
    pub subnet: Option<String>,
    /// Part of the subnet addresses are taken from, in CIDR notation.
    pub ip_range: Option<String>,
    /// Gateway address.
    pub gateway: Option<String>,
    /// Addresses never handed out, by name.
    pub aux_addresses: BTreeMap<String, String>,
}

/// Addresses of one network. The engine records it with the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// The network's subnet.
    pub subnet: Ipv4Net,
    /// Part of the subnet addresses are taken from.
    #[serde(default)]
    pub ip_range: Option<Ipv4Net>,
    /// Gateway, the bridge's address.
    pub gateway: Ipv4Addr,
    /// Addresses never handed out, by name.
    #[serde(default)]
    pub aux_addresses: BTreeMap<String, Ipv4Addr>,
}

/// Why a subnet or an address could not be had. Texts as Docker's where clients show them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// A part of the request makes no sense.
    #[error("invalid network config:\ninvalid {what} {value}: {reason}")]
    Invalid {
        /// `subnet`, `ip-range`, `gateway`, `auxiliary address`.
        what: &'static str,
        /// The text given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The request names addresses of an unknown subnet.
    #[error("invalid network config:\n{what} given without a subnet")]
    SubnetMissing {
        /// `ip-range`, `gateway` or `auxiliary address`.
        what: &'static str,
    },
    /// IPv6 is not there yet.
    #[error("IPv6 subnet {subnet} is not implemented")]
    Ipv6 {
        /// The subnet asked for.
        subnet: String,
    },
    /// Another network of this engine has addresses of this subnet.
    #[error("invalid pool request: Pool overlaps with other one on this address space")]
    Overlap {
        /// The subnet asked for.
        subnet: Ipv4Net,
    },
    /// Every default subnet is in use by a network or by the host.
    #[error("all predefined address pools have been fully subnetted")]
    NoSubnet,
    /// The network has no pool.
    #[error("network {} has no address pool", short(network))]
    UnknownNetwork {
        /// Network id.
        network: String,
    },
    /// The network already has a pool.
    #[error("network {} already has an address pool", short(network))]
    KnownNetwork {
        /// Network id.
        network: String,
    },
    /// Every address is taken.
    #[error("no available IPv4 addresses on this network's address pools: {}", short(network))]
    NoAddress {
        /// Network id.
        network: String,
    },
    /// The address asked for is taken.
    #[error("Address already in use")]
    InUse {
        /// The address asked for.
        address: Ipv4Addr,
    },
    /// The address asked for is not one of the network's.
    #[error("invalid address {address}: It does not belong to any of this network's subnets")]
    Outside {
        /// The address asked for.
        address: Ipv4Addr,
    },
}

/// Address bookkeeping of all networks of an engine.
#[derive(Debug, Clone, Default)]
pub struct Ipam {
    networks: BTreeMap<String, Addresses>,
}

#[derive(Debug, Clone)]
struct Addresses {
    pool: Pool,
    /// Addresses of endpoints; gateway and auxiliary ones are in `pool`.
    used: BTreeSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Ipam {
    /// No networks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a new network its addresses: the ones asked for, else the first default subnet that overlaps neither
    /// another network nor one of `host` (see [`Bridges::host_networks`](crate::Bridges::host_networks)).
    ///
    /// # Errors
    /// The request is invalid or overlaps another network's subnet, or no default subnet is left.
    pub fn create(
        &mut self,
        network: &str,
        request: &PoolRequest,
        host: &[Ipv4Net],
    ) -> Result<Pool, IpamError> {
        let pool = match given(request.subnet.as_deref()) {
            Some(subnet) => self.requested_pool(subnet, request)?,
            None => self.default_pool(request, host)?,
        };
        self.restore(network, &pool)?;
        Ok(pool)
    }

    /// Takes up a recorded network again, without endpoints.
    ///
    /// # Errors
    /// The network is known already, or its subnet overlaps another's.
    pub fn restore(&mut self, network: &str, pool: &Pool) -> Result<(), IpamError> {
        if self.networks.contains_key(network) {
            return Err(IpamError::KnownNetwork { network: network.to_owned() });
        }
        if self.taken(pool.subnet) {
            return Err(IpamError::Overlap { subnet: pool.subnet });
        }
        let addresses = Addresses { pool: pool.clone(), used: BTreeSet::new(), last: None };
        self.networks.insert(network.to_owned(), addresses);
        Ok(())
    }

    /// Forgets a network and all its addresses.
    pub fn remove(&mut self, network: &str) {
        self.networks.remove(network);
    }

    /// The next free address of a network.
    ///
    /// # Errors
    /// The network is unknown or full.
    pub fn allocate(&mut self, network: &str) -> Result<Ipv4Addr, IpamError> {
        let addresses = self.addresses(network)?;
        let free = addresses.next_free();
        let address = free.ok_or_else(|| IpamError::NoAddress { network: network.to_owned() })?;
        addresses.used.insert(address);
        addresses.last = Some(address);
        Ok(address)
    }

    /// Takes exactly this address, asked for by a user or found in a record.
    ///
    /// # Errors
    /// The network is unknown, the address is none of it, or taken.
    pub fn claim(&mut self, network: &str, address: Ipv4Addr) -> Result<(), IpamError> {
        let addresses = self.addresses(network)?;
        let (first, last) = addresses.pool.host_addresses(addresses.pool.subnet);
        if !(first..=last).contains(&address) {
            return Err(IpamError::Outside { address });
        }
        if addresses.pool.reserves(address) || !addresses.used.insert(address) {
            return Err(IpamError::InUse { address });
        }
        Ok(())
    }

    /// Gives an address back. Unknown networks and addresses are ignored: releasing twice does no harm.
    pub fn release(&mut self, network: &str, address: Ipv4Addr) {
        if let Some(addresses) = self.networks.get_mut(network) {
            addresses.used.remove(&address);
        }
    }

    fn addresses(&mut self, network: &str) -> Result<&mut Addresses, IpamError> {
        let unknown = || IpamError::UnknownNetwork { network: network.to_owned() };
        self.networks.get_mut(network).ok_or_else(unknown)
    }

    fn taken(&self, subnet: Ipv4Net) -> bool {
        self.networks.values().any(|other| other.pool.subnet.overlaps(subnet))
    }

    fn requested_pool(&self, subnet: &str, request: &PoolRequest) -> Result<Pool, IpamError> {
        if subnet.contains(':') {
            return Err(IpamError::Ipv6 { subnet: subnet.to_owned() });
        }
        let subnet = parse_network("subnet", subnet)?;
        if self.taken(subnet) {
            return Err(IpamError::Overlap { subnet });
        }
        let ip_range = match given(request.ip_range.as_deref()) {
            Some(text) => Some(parse_part("ip-range", text, subnet)?),
            None => None,
        };
        let mut aux_addresses = BTreeMap::new();
        for (name, text) in &request.aux_addresses {
            aux_addresses.insert(name.clone(), parse_address("auxiliary address", text, subnet)?);
        }
        let mut pool = Pool { subnet, ip_range, gateway: subnet.network(), aux_addresses };
        pool.gateway = match given(request.gateway.as_deref()) {
            Some(text) => parse_address("gateway", text, subnet)?,
            None => pool.first_free_for_gateway().ok_or(IpamError::NoSubnet)?,
        };
        Ok(pool)
    }

    fn default_pool(&self, request: &PoolRequest, host: &[Ipv4Net]) -> Result<Pool, IpamError> {
        let parts = [
            ("ip-range", given(request.ip_range.as_deref()).is_some()),
            ("gateway", given(request.gateway.as_deref()).is_some()),
            ("auxiliary address", !request.aux_addresses.is_empty()),
        ];
        if let Some((what, _)) = parts.into_iter().find(|(_, given)| *given) {
            return Err(IpamError::SubnetMissing { what });
        }
        let free = |net: &Ipv4Net| !self.taken(*net) && !host.iter().any(|other| other.overlaps(*net));
        let subnet = default_subnets().find(free).ok_or(IpamError::NoSubnet)?;
        let gateway = Ipv4Addr::from_bits(subnet.network().to_bits() + 1);
        Ok(Pool { subnet, ip_range: None, gateway, aux_addresses: BTreeMap::new() })
    }
}

impl Addresses {
    fn next_free(&self) -> Option<Ipv4Addr> {
        let (first, last) = self.pool.host_addresses(self.pool.ip_range.unwrap_or(self.pool.subnet));
        let (first, last) = (u64::from(first.to_bits()), u64::from(last.to_bits()));
        if first > last {
            return None;
        }
        let start = match self.last.map(|address| u64::from(address.to_bits()) + 1) {
            Some(next) if (first..=last).contains(&next) => next,
            _ => first,
        };
        (start..=last)
            .chain(first..start)
            .filter_map(|bits| u32::try_from(bits).ok().map(Ipv4Addr::from_bits))
            .find(|address| !self.used.contains(address) && !self.pool.reserves(*address))
    }
}

impl Pool {
    fn reserves(&self, address: Ipv4Addr) -> bool {
        self.gateway == address || self.aux_addresses.values().any(|aux| *aux == address)
    }

    /// First and last address of `part` that a host may have: not the subnet's own, not its broadcast address.
    fn host_addresses(&self, part: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
        let (mut first, mut last) = (part.network(), part.last());
        if self.subnet.prefix() < 31 {
            first = first.max(Ipv4Addr::from_bits(self.subnet.network().to_bits() + 1));
            last = last.min(Ipv4Addr::from_bits(self.subnet.last().to_bits() - 1));
        }
        (first, last)
    }

    fn first_free_for_gateway(&self) -> Option<Ipv4Addr> {
        let (first, last) = self.host_addresses(self.ip_range.unwrap_or(self.subnet));
        (first.to_bits()..=last.to_bits())
            .map(Ipv4Addr::from_bits)
            .find(|address| !self.aux_addresses.values().any(|aux| aux == address))
    }
}

/// Docker's default pools: 172.17.0.0/16 to 172.31.0.0/16, then 192.168.0.0/16 in steps of /20.
fn default_subnets() -> impl Iterator<Item = Ipv4Net> {
    let large = (17..=31).filter_map(|n| Ipv4Net::containing(Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..16).filter_map(|n| Ipv4Net::containing(Ipv4Addr::new(192, 168, n * 16, 0), 20));
    large.chain(small)
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn parse_network(what: &'static str, text: &str) -> Result<Ipv4Net, IpamError> {
    let invalid = |reason: String| IpamError::Invalid { what, value: text.to_owned(), reason };
    let (address, prefix) =
        parse_cidr(text).map_err(|_| invalid("invalid CIDR block notation".to_owned()))?;
    match Ipv4Net::containing(address, prefix) {
        Some(net) if net.network() == address => Ok(net),
        Some(net) => Err(invalid(format!("it should be {net}"))),
        None => Err(invalid("invalid CIDR block notation".to_owned())),
    }
}

fn parse_part(what: &'static str, text: &str, subnet: Ipv4Net) -> Result<Ipv4Net, IpamError> {
    let part = parse_network(what, text)?;
    if subnet.covers(part) {
        return Ok(part);
    }
    let reason = format!("parent subnet {subnet} doesn't contain ip-range");
    Err(IpamError::Invalid { what, value: text.to_owned(), reason })
}

fn parse_address(what: &'static str, text: &str, subnet: Ipv4Net) -> Result<Ipv4Addr, IpamError> {
    let invalid = |reason: String| IpamError::Invalid { what, value: text.to_owned(), reason };
    let address: Ipv4Addr = text.parse().map_err(|_| invalid("invalid address".to_owned()))?;
    if !subnet.contains(address) {
        return Err(invalid(format!("parent subnet {subnet} doesn't contain this address")));
    }
    if subnet.prefix() < 31 && (address == subnet.network() || address == subnet.last()) {
        return Err(invalid("it is the subnet's network or broadcast address".to_owned()));
    }
    Ok(address)
}

#[cfg(test)]
#[path = "ipam_tests.rs"]
mod tests;
