//! Attaching containers: address, interface, published ports; every step with its undo.

use std::net::Ipv4Addr;
use std::sync::Arc;

use hull_docker_api::{EndpointSettings, PortBinding, PortMap, nat};
use hull_meta::Durability;
use hull_network::{
    BridgeNetwork, Endpoint, PoolRequest, PortMapping, PortRequest, PortReservation, Protocol,
};

use super::{BridgeRecord, Driver, ENDPOINTS, Live, Record, TABLE, invalid, new_id};
use crate::{Engine, Error, Kind, Result};

/// A container that is to be attached to a network. Its network namespace exists, its process has not started.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct AttachRequest<'a> {
    /// Container id.
    pub(crate) container: &'a str,
    /// A process in the network namespace (`/proc/<pid>/ns/net`).
    pub(crate) pid: i32,
    /// Name or id of the network.
    pub(crate) network: &'a str,
    /// What was asked for (addresses, MAC, aliases).
    pub(crate) settings: &'a EndpointSettings,
    /// Ports to publish; only for the network that has the default route, else empty.
    pub(crate) ports: &'a PortMap,
    /// Which interface this is: 0 for `eth0`.
    pub(crate) index: usize,
}

/// An attached container.
#[derive(Debug, Default)]
#[allow(dead_code)]
pub(crate) struct Attached {
    /// The endpoint with everything filled in.
    pub(crate) settings: EndpointSettings,
    /// The ports with the host ports that were chosen.
    pub(crate) ports: PortMap,
}

#[allow(dead_code)]
impl Engine {
    /// Gives the container an interface in the network (driver bridge), or sets `lo` up (driver none; host needs
    /// nothing). Undoes itself when it fails.
    ///
    /// # Errors
    /// An address or port that is taken, and what the kernel refuses.
    pub(crate) async fn network_attach(&self, request: AttachRequest<'_>) -> Result<Attached> {
        let record = self.0.networks.state().find(request.network)?;
        match record.driver {
            Driver::Host => Ok(plain(&record, &request)),
            Driver::Null => {
                let (bridges, pid) = (self.0.networks.bridges.clone(), request.pid);
                tokio::task::spawn_blocking(move || {
                    let netns = open_netns(pid)?;
                    bridges
                        .attach_loopback(std::os::fd::AsFd::as_fd(&netns))
                        .map_err(|error| Error::system("set up the loopback interface", error))
                })
                .await??;
                Ok(plain(&record, &request))
            }
            Driver::Bridge => self.bridge_attach(record, request).await,
        }
    }

    async fn bridge_attach(&self, record: Arc<Record>, request: AttachRequest<'_>) -> Result<Attached> {
        let network = self.bridge_ready(&record).await?;
        let address = self.address_for(&record, request.settings)?;
        let wanted = hull_network::AttachRequest {
            endpoint_id: new_id(),
            container_id: request.container.to_owned(),
            address,
            mac: match parse_mac(&request.settings.mac_address) {
                Ok(mac) => mac,
                Err(error) => {
                    self.0.networks.state().ipam.release(&record.id, address);
                    return Err(error);
                }
            },
            interface: format!("eth{}", request.index),
            default_route: request.index == 0 && !network.internal,
        };
        let (engine, pid, ports) = (self.clone(), request.pid, request.ports.clone());
        let driver = network.clone();
        let built =
            tokio::task::spawn_blocking(move || engine.build_endpoint(pid, &driver, &wanted, &ports)).await?;
        let live = match built {
            Ok(live) => live,
            Err(error) => {
                self.0.networks.state().ipam.release(&record.id, address);
                return Err(error);
            }
        };
        let attached = Attached {
            settings: endpoint_settings(request.settings, &record, &live.endpoint, network.internal),
            ports: published(request.ports, &live.endpoint.ports),
        };
        // Only an engine that comes back reads it: the order of writes is enough.
        let mut batch = hull_meta::Batch::new();
        batch.put(ENDPOINTS, &live.endpoint.id, &live.endpoint)?;
        self.store().write(batch, Durability::Process).detach();
        let key = (request.container.to_owned(), record.id.clone());
        self.0.networks.state().endpoints.insert(key, live);
        self.network_event("connect", &record, Some(request.container));
        Ok(attached)
    }

    /// Interface, then ports: blocks for a few milliseconds.
    fn build_endpoint(
        &self,
        pid: i32,
        network: &BridgeNetwork,
        wanted: &hull_network::AttachRequest,
        ports: &PortMap,
    ) -> Result<Live> {
        let networks = &self.0.networks;
        let reservations = self.reserve_ports(network, wanted.address, ports)?;
        let mappings: Vec<PortMapping> = reservations.iter().map(|held| held.mapping().clone()).collect();
        let netns = open_netns(pid)?;
        let mut endpoint = networks
            .bridges
            .attach(std::os::fd::AsFd::as_fd(&netns), network, wanted)
            .map_err(|error| Error::system("attach to the network", error))?;
        if !mappings.is_empty()
            && let Err(error) = networks.bridges.publish(&mappings)
        {
            // The interface goes with the namespace of the container, which does not start now.
            return Err(Error::system("publish ports", error));
        }
        endpoint.ports = mappings;
        Ok(Live { endpoint, reservations, pid })
    }

    fn reserve_ports(
        &self,
        network: &BridgeNetwork,
        container_ip: Ipv4Addr,
        ports: &PortMap,
    ) -> Result<Vec<PortReservation>> {
        let mut held = Vec::new();
        for (port, bindings) in ports {
            for binding in bindings.iter().flatten() {
                let request = port_request(network, container_ip, port, binding)?;
                let reservation = self.0.networks.ports.reserve(&request).map_err(|error| {
                    Error::internal(format!(
                        "failed to set up container networking: driver failed programming external connectivity on \
                         endpoint: {error}"
                    ))
                    .because(error)
                })?;
                held.push(reservation);
            }
        }
        Ok(held)
    }

    /// Takes back the container's interface, addresses and published ports; what is not there is no error. The
    /// interface of a container that ended goes with its namespace.
    ///
    /// # Errors
    /// When the kernel refuses; address and ports are given back all the same.
    pub(crate) async fn network_detach(&self, container: &str, network: &str) -> Result<()> {
        let Ok(record) = self.0.networks.state().find(network) else { return Ok(()) };
        let key = (container.to_owned(), record.id.clone());
        let Some(live) = self.0.networks.state().endpoints.remove(&key) else { return Ok(()) };
        let mut batch = hull_meta::Batch::new();
        batch.delete(ENDPOINTS, &live.endpoint.id);
        self.store().write(batch, Durability::Process).detach();
        let bridges = self.0.networks.bridges.clone();
        let address = live.endpoint.address;
        let undone = tokio::task::spawn_blocking(move || {
            let unpublished =
                if live.endpoint.ports.is_empty() { Ok(()) } else { bridges.unpublish(&live.endpoint.ports) };
            let detached = if is_alive(live.pid) { bridges.detach(&live.endpoint) } else { Ok(()) };
            drop(live.reservations);
            unpublished.and(detached)
        })
        .await;
        self.0.networks.state().ipam.release(&record.id, address);
        self.network_event("disconnect", &record, Some(container));
        undone?.map_err(|error| Error::system("detach from the network", error))
    }

    /// After a restart of the engine: these endpoints are alive, everything else of this engine is removed from the
    /// kernel and from address management. Elements: container id, network id, endpoint, published ports.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) async fn network_reconcile(&self, live: Vec<(String, String, Attached)>) -> Result<()> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || engine.reconcile_endpoints(&live)).await?
    }

    fn reconcile_endpoints(&self, live: &[(String, String, Attached)]) -> Result<()> {
        let networks = &self.0.networks;
        let mut gone = hull_meta::Batch::new();
        for (id, endpoint) in self.store().load::<Endpoint>(ENDPOINTS)? {
            let is_live = live.iter().any(|(container, network, _)| {
                *container == endpoint.container_id && *network == endpoint.network_id
            });
            if is_live {
                self.adopt(endpoint);
            } else {
                gone.delete(ENDPOINTS, &id);
            }
        }
        if !gone.is_empty() {
            self.store().write(gone, Durability::Process).detach();
        }
        let (bridges, endpoints) = {
            let state = networks.state();
            let built =
                state.records.values().filter_map(|record| record.bridge.as_ref()).filter(|b| b.built);
            let bridges: Vec<BridgeNetwork> = built.map(|bridge| bridge.network.clone()).collect();
            (bridges, state.endpoints.values().map(|live| live.endpoint.clone()).collect::<Vec<Endpoint>>())
        };
        let changed = networks
            .bridges
            .reconcile(&bridges, &endpoints)
            .map_err(|error| Error::system("reconcile networks", error))?;
        tracing::debug!(removed = ?changed.removed, created = ?changed.created, "networks reconciled");
        networks.state().ready.extend(bridges.into_iter().map(|network| network.id));
        Ok(())
    }

    /// Takes up the endpoint of a container that went on without the engine.
    fn adopt(&self, endpoint: Endpoint) {
        let networks = &self.0.networks;
        if let Err(error) = networks.state().ipam.claim(&endpoint.network_id, endpoint.address) {
            tracing::warn!(container = endpoint.container_id, %error, "address of a live container");
        }
        let mut reservations = Vec::new();
        for mapping in &endpoint.ports {
            match networks.ports.reserve(&PortRequest::from(mapping)) {
                Ok(reservation) => reservations.push(reservation),
                Err(error) => {
                    tracing::warn!(container = endpoint.container_id, %error, "port of a live container")
                }
            }
        }
        let key = (endpoint.container_id.clone(), endpoint.network_id.clone());
        // The process is not known here; a disconnect looks for the interface itself.
        networks
            .state()
            .endpoints
            .insert(key, Live { endpoint, reservations, pid: std::process::id() as i32 });
    }

    /// The network with its bridge in the kernel.
    async fn bridge_ready(&self, record: &Arc<Record>) -> Result<BridgeNetwork> {
        let Some(bridge) = record.bridge.clone() else {
            return Err(Error::internal(format!("network {} has no bridge", record.name)));
        };
        if self.0.networks.state().ready.contains(&record.id) {
            return Ok(bridge.network);
        }
        let _changing = self.0.networks.changing.lock().await;
        if self.0.networks.state().ready.contains(&record.id) {
            let current = self.0.networks.state().records.get(&record.id).and_then(|r| r.bridge.clone());
            return Ok(current.unwrap_or(bridge).network);
        }
        let (engine, mut next) = (self.clone(), Record::clone(record));
        let next = tokio::task::spawn_blocking(move || {
            engine.build_bridge(&mut next)?;
            Ok::<Record, Error>(next)
        })
        .await??;
        let network = next.bridge.as_ref().map_or(bridge.network, |bridge| bridge.network.clone());
        self.store().put(TABLE, &next.id, &next, Durability::Process).await?;
        let mut state = self.0.networks.state();
        state.ready.insert(next.id.clone());
        state.records.insert(next.id.clone(), Arc::new(next));
        Ok(network)
    }

    fn build_bridge(&self, record: &mut Record) -> Result<()> {
        let predefined = record.is_predefined();
        let failed = |error| Error::system(format_args!("set up network {}", record.name), error);
        let bridges = &self.0.networks.bridges;
        let Some(bridge) = &mut record.bridge else { return Ok(()) };
        if predefined && !bridge.built && self.config().bridge.bip.is_none() {
            self.choose_again(&record.id, bridge)?;
            record.options.insert("com.docker.network.bridge.name".to_owned(), bridge.network.bridge.clone());
        }
        bridges.ensure(&bridge.network).map_err(failed)?;
        bridge.built = true;
        Ok(())
    }

    /// The default network's addresses and name were chosen when the engine was first opened; another engine may have
    /// built a bridge with them since.
    fn choose_again(&self, id: &str, bridge: &mut BridgeRecord) -> Result<()> {
        let networks = &self.0.networks;
        let host = networks.bridges.host_networks().map_err(|error| Error::system("host networks", error))?;
        if host.iter().any(|net| net.overlaps(bridge.pool.subnet)) {
            let mut state = networks.state();
            state.ipam.remove(id);
            bridge.pool = state.ipam.create(id, &PoolRequest::default(), &host).map_err(invalid)?;
            (bridge.network.subnet, bridge.network.gateway) = (bridge.pool.subnet, bridge.pool.gateway);
        }
        if self.config().bridge.name.is_none() {
            let name = networks.bridges.default_bridge_name();
            bridge.network.bridge = name.map_err(|error| Error::system("name the default bridge", error))?;
        }
        Ok(())
    }

    /// The address a container gets: the one it asks for, else the next free one.
    fn address_for(&self, record: &Record, settings: &EndpointSettings) -> Result<Ipv4Addr> {
        let wanted = settings.ipam_config.as_ref().map_or("", |ipam| ipam.ipv4_address.as_str());
        if settings.ipam_config.as_ref().is_some_and(|ipam| !ipam.ipv6_address.is_empty()) {
            return Err(Error::not_implemented("IPv6 addresses of containers"));
        }
        let mut state = self.0.networks.state();
        if wanted.is_empty() {
            return state.ipam.allocate(&record.id).map_err(|error| Error::unavailable(error.to_string()));
        }
        if record.is_predefined() {
            return Err(Error::invalid(
                "user specified IP address is supported on user defined networks only",
            ));
        }
        if !record.own_subnet {
            return Err(Error::invalid(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ));
        }
        let address: Ipv4Addr =
            wanted.parse().map_err(|_| Error::invalid(format!("invalid IPv4 address: {wanted}")))?;
        state.ipam.claim(&record.id, address).map_err(|error| match error {
            hull_network::IpamError::InUse { .. } => Error::new(Kind::Forbidden, error.to_string()),
            error => invalid(error),
        })?;
        Ok(address)
    }
}

/// An endpoint without an interface of its own.
fn plain(record: &Record, request: &AttachRequest<'_>) -> Attached {
    Attached {
        settings: EndpointSettings {
            network_id: record.id.clone(),
            endpoint_id: new_id(),
            ..request.settings.clone()
        },
        ports: PortMap::new(),
    }
}

fn endpoint_settings(
    asked: &EndpointSettings,
    record: &Record,
    endpoint: &Endpoint,
    internal: bool,
) -> EndpointSettings {
    EndpointSettings {
        network_id: record.id.clone(),
        endpoint_id: endpoint.id.clone(),
        gateway: if internal { String::new() } else { endpoint.gateway.to_string() },
        ip_address: endpoint.address.to_string(),
        ip_prefix_len: endpoint.prefix.into(),
        mac_address: endpoint.mac.clone(),
        ..asked.clone()
    }
}

fn open_netns(pid: i32) -> Result<std::fs::File> {
    let path = format!("/proc/{pid}/ns/net");
    std::fs::File::open(&path).map_err(|error| Error::system(format_args!("open {path}"), error))
}

fn is_alive(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// `02:42:ac:11:00:02`, or empty for one derived from the address.
fn parse_mac(text: &str) -> Result<Option<[u8; 6]>> {
    if text.is_empty() {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid MAC address: {text}"));
    let mut mac = [0; 6];
    let parts: Vec<&str> = text.split([':', '-']).collect();
    if parts.len() != mac.len() {
        return Err(invalid());
    }
    for (byte, part) in mac.iter_mut().zip(parts) {
        *byte = u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2).ok_or_else(invalid)?;
    }
    Ok(Some(mac))
}

fn port_request(
    network: &BridgeNetwork,
    container_ip: Ipv4Addr,
    port: &str,
    binding: &PortBinding,
) -> Result<PortRequest> {
    let (number, protocol) = nat::split_proto(port);
    let invalid = |what: &str| Error::invalid(format!("invalid port specification: {what:?}"));
    let host_ports = match binding.host_port.as_str() {
        "" | "0" => None,
        range => {
            nat::parse_range(range).map(|(first, last)| Some(first..=last)).ok_or_else(|| invalid(range))?
        }
    };
    let host_ip = match binding.host_ip.as_str() {
        "" => network.host_binding,
        ip => match ip.parse() {
            Ok(std::net::IpAddr::V4(ip)) => ip,
            Ok(std::net::IpAddr::V6(_)) => {
                return Err(Error::not_implemented("publishing ports on IPv6 addresses"));
            }
            Err(_) => return Err(Error::invalid(format!("invalid host IP address {ip:?}"))),
        },
    };
    Ok(PortRequest {
        protocol: Protocol::from_name(protocol).ok_or_else(|| invalid(port))?,
        host_ip,
        host_ports,
        container_ip,
        container_port: number.parse().map_err(|_| invalid(port))?,
    })
}

/// The asked-for ports with the host ports that were given; ports that are only exposed stay as they are.
fn published(asked: &PortMap, given: &[PortMapping]) -> PortMap {
    let mut ports: PortMap = asked.keys().map(|port| (port.clone(), None)).collect();
    for mapping in given {
        let port = format!("{}/{}", mapping.container_port, mapping.protocol);
        let binding =
            PortBinding { host_ip: mapping.host_ip.to_string(), host_port: mapping.host_port.to_string() };
        ports.entry(port).or_default().get_or_insert_default().push(binding);
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> BridgeNetwork {
        let subnet = "172.30.0.0/16".parse().expect("subnet");
        BridgeNetwork::new(&"ab".repeat(32), subnet, Ipv4Addr::new(172, 30, 0, 1))
    }

    #[test]
    fn mac_addresses_are_checked() {
        assert_eq!(parse_mac("02:42:ac:11:00:02").expect("mac"), Some([2, 0x42, 0xac, 0x11, 0, 2]));
        assert_eq!(parse_mac("").expect("none"), None);
        for bad in ["02:42", "02:42:ac:11:00:zz", "02:42:ac:11:00:02:03", "2:42:ac:11:0:2"] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bindings_become_port_requests() {
        let binding =
            |ip: &str, port: &str| PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() };
        let ip = Ipv4Addr::new(172, 30, 0, 2);
        let request = port_request(&network(), ip, "80/tcp", &binding("", "8080-8090")).expect("request");
        assert_eq!((request.host_ports, request.container_port), (Some(8080..=8090), 80));
        assert_eq!(request.host_ip, Ipv4Addr::UNSPECIFIED);
        let any = port_request(&network(), ip, "53/udp", &binding("127.0.0.1", "")).expect("request");
        assert_eq!((any.host_ports, any.protocol, any.host_ip), (None, Protocol::Udp, Ipv4Addr::LOCALHOST));
        let v6 = port_request(&network(), ip, "80/tcp", &binding("::1", "1")).expect_err("IPv6");
        assert_eq!(v6.kind(), Kind::NotImplemented);
        assert!(port_request(&network(), ip, "80/tcp", &binding("", "x")).is_err());
    }

    #[test]
    fn published_ports_show_what_was_given() {
        let asked: PortMap =
            [("80/tcp".to_owned(), Some(vec![PortBinding::default()])), ("9/udp".to_owned(), None)].into();
        let given = PortMapping {
            protocol: Protocol::Tcp,
            host_ip: Ipv4Addr::UNSPECIFIED,
            host_port: 32768,
            container_ip: Ipv4Addr::new(172, 30, 0, 2),
            container_port: 80,
        };
        let ports = published(&asked, &[given]);
        assert_eq!(ports["80/tcp"].as_ref().expect("bound")[0].host_port, "32768");
        assert_eq!(ports["9/udp"], None);
    }
}
