//! The bridge driver: bridges, veth pairs and the firewall's elements.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hull_netlink::conntrack::UdpFlow;
use hull_netlink::route::{Link, LinkChange, LinkRef, Requests, Route, Veth};
use hull_netlink::{NamespaceError, NetlinkError, in_namespace, nft};
use rustix::io::Errno;

use crate::firewall::Firewall;
use crate::record::{AttachRequest, BridgeNetwork, Endpoint, PortMapping, Protocol, short};
use crate::subnet::Ipv4Net;

mod reconcile;

pub use reconcile::Reconciled;

/// Name of the bridge of the first engine's default network.
const DEFAULT_BRIDGE: &str = "hull0";

/// Bridge networks of one engine. All calls must come from threads of one network namespace, the engine's. Holds no
/// state but a socket; clones share it, and threads may call at the same time.
#[derive(Debug, Clone)]
pub struct Bridges {
    engine: String,
    firewall: Firewall,
    /// Held while bridges are built or removed: two that build the same one would trip over each other.
    building: Arc<Mutex<()>>,
}

/// Why a network step failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A link could not be made, changed or looked up.
    #[error("network {}: {step}", short(network))]
    Link {
        /// Network id.
        network: String,
        /// What was under way.
        step: &'static str,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// The host's links, addresses or routes could not be read.
    #[error("read the host's {what}")]
    Host {
        /// What was to be read.
        what: &'static str,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// The firewall refused a transaction; nothing of it is in force.
    #[error("{step} in the firewall")]
    Firewall {
        /// What was under way.
        step: &'static str,
        /// The kernel's answer.
        source: NetlinkError,
    },
    /// Somebody removed the engine's table, for example by flushing all rules. [`Bridges::reconcile`] builds it again.
    #[error("firewall table {table} is gone")]
    FirewallGone {
        /// The table's name.
        table: String,
    },
    /// A kernel setting could not be written.
    #[error("write {value} to {path}")]
    Sysctl {
        /// File under /proc/sys.
        path: String,
        /// The value.
        value: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The container's network namespace could not be entered.
    #[error("network {}: container's network namespace", short(network))]
    Namespace {
        /// Network id.
        network: String,
        /// The cause.
        source: NamespaceError,
    },
    /// An interface has the bridge's name and is not this network's.
    #[error("network {}: interface {bridge} exists and belongs to another owner", short(network))]
    BridgeTaken {
        /// Network id.
        network: String,
        /// Name of the interface.
        bridge: String,
    },
    /// The network's bridge is not there; [`Bridges::ensure`] builds it.
    #[error("network {}: bridge {bridge} does not exist", short(network))]
    BridgeMissing {
        /// Network id.
        network: String,
        /// Name of the bridge.
        bridge: String,
    },
}

type Result<T> = std::result::Result<T, NetworkError>;

impl Bridges {
    /// `engine` is the engine's short id (letters and digits); it becomes part of names and aliases in the kernel.
    pub fn new(engine: &str) -> Self {
        Self { engine: engine.to_owned(), firewall: Firewall::new(engine), building: Arc::default() }
    }

    /// Name for the bridge of this engine's default network: `hull0`, or another if a different engine has that one.
    /// To be recorded: who comes first may change later. Two engines that start at once may both be told `hull0`;
    /// [`Self::ensure`] then fails for one with [`NetworkError::BridgeTaken`], who asks again.
    ///
    /// # Errors
    /// The host's links cannot be read.
    pub fn default_bridge_name(&self) -> Result<String> {
        let route = open_route()?;
        let link =
            route.link(DEFAULT_BRIDGE).map_err(|source| NetworkError::Host { what: "links", source })?;
        let ours = format!("hull:{}:", self.engine);
        match link {
            Some(link) if !link.alias.as_ref().is_some_and(|alias| alias.starts_with(&ours)) => {
                let engine = self.engine.get(..8).unwrap_or(&self.engine);
                Ok(format!("{DEFAULT_BRIDGE}-{engine}"))
            }
            _ => Ok(DEFAULT_BRIDGE.to_owned()),
        }
    }

    /// Networks the host has addresses in or routes to, for [`Ipam::create`](crate::Ipam::create). Routes for
    /// half of all addresses, as VPNs set them, are left out like the default route.
    ///
    /// # Errors
    /// The host's addresses or routes cannot be read.
    pub fn host_networks(&self) -> Result<Vec<Ipv4Net>> {
        let route = open_route()?;
        let addresses =
            route.addresses().map_err(|source| NetworkError::Host { what: "addresses", source })?;
        let routes = route.routes().map_err(|source| NetworkError::Host { what: "routes", source })?;
        let mut networks: Vec<Ipv4Net> = addresses
            .into_iter()
            .chain(routes)
            .filter(|prefix| prefix.length >= 8)
            .filter_map(|prefix| Ipv4Net::containing(prefix.address, prefix.length))
            .collect();
        networks.sort();
        networks.dedup();
        Ok(networks)
    }

    /// Builds a network's bridge and firewall entries, or what is missing of them. Idempotent, undone on failure.
    ///
    /// # Errors
    /// A step is refused, or the bridge's name is taken.
    pub fn ensure(&self, network: &BridgeNetwork) -> Result<()> {
        let _alone = self.build_alone();
        let route = open_route()?;
        let created = self.ensure_bridge(&route, network)?;
        self.ensure_firewall(network).inspect_err(|_| {
            if created {
                warn_on_error("undo bridge", delete_link(&route, &network.bridge));
            }
        })
    }

    /// Removes a network's bridge and firewall entries. What is not there is no error.
    ///
    /// # Errors
    /// A step is refused. An interface of another owner is left alone.
    pub fn remove(&self, network: &BridgeNetwork) -> Result<()> {
        let _alone = self.build_alone();
        let route = open_route()?;
        if let Some(link) = find_link(&route, network)?
            && self.owns_bridge(&link, network)
        {
            delete_link(&route, &network.bridge).map_err(|e| link_error(network, "delete bridge", e))?;
        }
        let removed = self.firewall.remove_network(network);
        removed.map_err(|source| NetworkError::Firewall { step: "remove a network", source })
    }

    /// Brings up the loopback interface of a network namespace: all that `--network none` needs.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refuses.
    pub fn attach_loopback(&self, netns: BorrowedFd<'_>) -> Result<()> {
        let up = || -> std::result::Result<(), NetlinkError> {
            let mut requests = Requests::new();
            requests.change_link(LinkRef::Name("lo"), &LinkChange { up: true, ..LinkChange::default() });
            Route::open()?.send(&requests)
        };
        let none = || "none".to_owned();
        in_namespace(netns, up)
            .map_err(|source| NetworkError::Namespace { network: none(), source })?
            .map_err(|source| NetworkError::Link { network: none(), step: "bring up loopback", source })
    }

    /// Gives a network namespace an interface on a network: veth, address, routes, everything up, loopback too.
    /// Undone on failure.
    ///
    /// # Errors
    /// The bridge is missing, the namespace cannot be entered, or the kernel refuses a step.
    pub fn attach(
        &self,
        netns: BorrowedFd<'_>,
        network: &BridgeNetwork,
        request: &AttachRequest,
    ) -> Result<Endpoint> {
        let host = open_route()?;
        let bridge = self.own_bridge(&host, network)?;
        let endpoint = endpoint(network, request);
        self.create_veth(&host, netns, network, &bridge, &endpoint, mac_of(request))?;
        let configured = in_namespace(netns, || configure_interface(network, request))
            .map_err(|source| NetworkError::Namespace { network: network.id.clone(), source })
            .flatten();
        match configured.and_then(|()| open_port(&host, network, &endpoint, mac_of(request))) {
            Ok(()) => Ok(endpoint),
            Err(error) => {
                warn_on_error("undo veth", delete_link(&host, &endpoint.host_interface));
                Err(error)
            }
        }
    }

    /// Takes an interface away from a running container. Not needed when a container ends: its namespace takes the
    /// interface along. Takes some 20 ms; what is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&self, endpoint: &Endpoint) -> Result<()> {
        let route = open_route()?;
        let error = |step, source| NetworkError::Link { network: endpoint.network_id.clone(), step, source };
        let link = route.link(&endpoint.host_interface).map_err(|e| error("look up veth", e))?;
        let alias = self.veth_alias(&endpoint.network_id, &endpoint.id);
        if link.is_some_and(|link| link.alias.as_ref() == Some(&alias)) {
            delete_link(&route, &endpoint.host_interface).map_err(|e| error("delete veth", e))?;
        }
        Ok(())
    }

    /// Sends traffic of the ports to the containers, all or none. The ports must be held by the caller, see
    /// [`PortAllocator`](crate::PortAllocator).
    ///
    /// # Errors
    /// The kernel refuses, or [`NetworkError::FirewallGone`].
    pub fn publish(&self, ports: &[PortMapping]) -> Result<()> {
        self.firewall.publish(ports).map_err(|source| match source {
            source if nft::is_missing(&source) => {
                NetworkError::FirewallGone { table: self.firewall.table().to_owned() }
            }
            source => NetworkError::Firewall { step: "publish ports", source },
        })?;
        self.forget_udp(ports, |flow, port| {
            flow.destination.1 == port.host_port && flow.answered_by == flow.destination
        });
        Ok(())
    }

    /// Ends what [`Self::publish`] began. What is not there is no error.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn unpublish(&self, ports: &[PortMapping]) -> Result<()> {
        let removed = self.firewall.unpublish(ports);
        removed.map_err(|source| NetworkError::Firewall { step: "unpublish ports", source })?;
        self.forget_udp(ports, |flow, port| {
            flow.destination.1 == port.host_port
                && flow.answered_by == (port.container_ip, port.container_port)
        });
        Ok(())
    }

    /// Lets UDP senders that do not pause notice a change. Without it everything but them works, so a failure is
    /// only logged.
    fn forget_udp(&self, ports: &[PortMapping], stale: impl Fn(&UdpFlow, &PortMapping) -> bool) {
        let udp: Vec<&PortMapping> = ports.iter().filter(|port| port.protocol == Protocol::Udp).collect();
        if udp.is_empty() {
            return;
        }
        let forgotten = self.firewall.forget_udp(|flow| udp.iter().any(|port| stale(flow, port)));
        warn_on_error("forget UDP conversations", forgotten);
    }

    fn build_alone(&self) -> MutexGuard<'_, ()> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bridge_alias(&self, network: &str) -> String {
        format!("hull:{}:{network}", self.engine)
    }

    fn veth_alias(&self, network: &str, endpoint: &str) -> String {
        format!("hull:{}:{network}:{endpoint}", self.engine)
    }

    fn owns_bridge(&self, link: &Link, network: &BridgeNetwork) -> bool {
        link.alias.as_deref() == Some(&self.bridge_alias(&network.id))
    }

    fn own_bridge(&self, route: &Route, network: &BridgeNetwork) -> Result<Link> {
        let (id, bridge) = (network.id.clone(), network.bridge.clone());
        match find_link(route, network)? {
            Some(link) if self.owns_bridge(&link, network) => Ok(link),
            Some(_) => Err(NetworkError::BridgeTaken { network: id, bridge }),
            None => Err(NetworkError::BridgeMissing { network: id, bridge }),
        }
    }

    /// Makes the bridge unless it is there; says whether it did.
    fn ensure_bridge(&self, route: &Route, network: &BridgeNetwork) -> Result<bool> {
        write_sysctl("net/ipv4/ip_forward", "1")?;
        let (link, created) = match self.own_bridge(route, network) {
            Ok(link) => (link, false),
            Err(NetworkError::BridgeMissing { .. }) => (self.create_bridge(route, network)?, true),
            Err(error) => return Err(error),
        };
        let configured = configure_bridge(route, network, &link);
        configured.inspect_err(|_| {
            if created {
                warn_on_error("undo bridge", delete_link(route, &network.bridge));
            }
        })?;
        Ok(created)
    }

    /// The bridge gets its owner under a name nobody else uses, then its final name in one step: no moment shows an
    /// interface of that name without an owner.
    fn create_bridge(&self, route: &Route, network: &BridgeNetwork) -> Result<Link> {
        let error = |source| link_error(network, "create bridge", source);
        let temporary = format!("hx-{}", short(&network.id));
        let mut requests = Requests::new();
        // What a killed engine left half done has this name too, and is ours by its name.
        requests.delete_link(LinkRef::Name(&temporary)).tolerate(Errno::NODEV);
        requests.create_bridge(&temporary);
        let alias = self.bridge_alias(&network.id);
        let owner = LinkChange { alias: Some(&alias), ..LinkChange::default() };
        requests.change_link(LinkRef::Name(&temporary), &owner);
        route.send(&requests).map_err(error)?;
        let link = route.link(&temporary).map_err(error)?;
        let index = link.map(|link| link.index).unwrap_or_default();

        let mut requests = Requests::new();
        let name = LinkChange { name: Some(&network.bridge), ..LinkChange::default() };
        requests.change_link(LinkRef::Index(index), &name);
        route.send(&requests).map_err(|source| {
            warn_on_error("undo bridge", delete_link(route, &temporary));
            match source.errno() {
                Some(Errno::EXIST) => {
                    NetworkError::BridgeTaken { network: network.id.clone(), bridge: network.bridge.clone() }
                }
                _ => error(source),
            }
        })?;
        self.own_bridge(route, network)
    }

    fn ensure_firewall(&self, network: &BridgeNetwork) -> Result<()> {
        let error = |source| NetworkError::Firewall { step: "add a network", source };
        match self.firewall.add_network(network) {
            Err(source) if nft::is_missing(&source) => {
                self.firewall.replace(std::slice::from_ref(network), &[]).map_err(error)
            }
            result => result.map_err(error),
        }
    }

    fn create_veth(
        &self,
        host: &Route,
        netns: BorrowedFd<'_>,
        network: &BridgeNetwork,
        bridge: &Link,
        endpoint: &Endpoint,
        mac: [u8; 6],
    ) -> Result<()> {
        let alias = self.veth_alias(&network.id, &endpoint.id);
        let name = endpoint.host_interface.as_str();
        let mut create = Requests::new();
        create.create_veth(&Veth {
            name,
            master: bridge.index,
            peer_name: &endpoint.interface,
            peer_mac: mac,
            peer_netns: netns,
            mtu: network.mtu,
        });
        create.change_link(
            LinkRef::Name(name),
            &LinkChange {
                alias: Some(&alias),
                up: true,
                no_ipv6_autoconf: has_ipv6(),
                ..port_settings(network)
            },
        );
        host.send(&create).map_err(|source| {
            // Both requests were handled: if only the second was refused, the link is there.
            if source.errno() != Some(Errno::EXIST) {
                warn_on_error("undo veth", delete_link(host, name));
            }
            link_error(network, "create veth", source)
        })
    }
}

/// Makes the bridge deliver to the container from its first packet on.
///
/// A port forwards once the bridge has seen its carrier, which the kernel notices in a work item of its own; asking
/// for the link does that work at once (Linux 6.8). And an address used before comes with the MAC it had: the bridge
/// may still send that one to the port of the container before, until that is taken down. Either would lose the first
/// packet, and with TCP a second.
fn open_port(host: &Route, network: &BridgeNetwork, endpoint: &Endpoint, mac: [u8; 6]) -> Result<()> {
    let error = |source| link_error(network, "open the bridge's port", source);
    let Some(port) = host.link(&endpoint.host_interface).map_err(error)? else { return Ok(()) };
    let mut requests = Requests::new();
    // Older kernels may not be ready to learn yet.
    requests.learn_mac(port.index, mac).tolerate(Errno::PERM);
    host.send(&requests).map_err(error)
}

/// Runs in the container's network namespace.
fn configure_interface(network: &BridgeNetwork, request: &AttachRequest) -> Result<()> {
    let error = |source| link_error(network, "configure the container's interface", source);
    let route = Route::open().map_err(error)?;
    let link = route.link(&request.interface).map_err(error)?.unwrap_or_default();
    let index = link.index;
    if has_ipv6() {
        write_sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", request.interface), "1")?;
    }
    let up = LinkChange { up: true, ..LinkChange::default() };
    let mut requests = Requests::new();
    requests.change_link(LinkRef::Name("lo"), &up);
    requests.change_link(LinkRef::Index(index), &up);
    requests.add_address(index, request.address, network.subnet.prefix());
    if request.default_route && !network.internal {
        requests.add_default_route(index, network.gateway);
    }
    route.send(&requests).map_err(error)
}

fn configure_bridge(route: &Route, network: &BridgeNetwork, link: &Link) -> Result<()> {
    // Without IPv6 of its own a bridge would still get link-local addresses, a way from containers to the host.
    if has_ipv6() {
        write_sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", network.bridge), "1")?;
    }
    let mut requests = Requests::new();
    let change = LinkChange {
        // A bridge without an address of its own takes that of a port, and changes it with the ports.
        mac: Some(mac_for(network.gateway)),
        mtu: network.mtu,
        up: true,
        ..LinkChange::default()
    };
    requests.add_address(link.index, network.gateway, network.subnet.prefix()).tolerate(Errno::EXIST);
    requests.change_link(LinkRef::Index(link.index), &change);
    route.send(&requests).map_err(|source| link_error(network, "configure bridge", source))?;
    // Answers to packets of 127.0.0.1 come in here; the firewall drops everything else to 127.0.0.0/8.
    write_sysctl(&format!("net/ipv4/conf/{}/route_localnet", network.bridge), "1")
}

/// Settings a bridge's port keeps only as long as it is one.
///
/// With br_netfilter, packets between ports are filtered and translated on the bridge itself. A container that reaches
/// itself through a published port then needs its packets back through the port they came from, and one without icc
/// that reaches its neighbour's published port must be let through to that neighbour's: the firewall keeps them apart.
/// Without it no rule sees packets between ports, and the bridge has to keep them apart.
fn port_settings(network: &BridgeNetwork) -> LinkChange<'static> {
    let filtered = bridged_packets_are_filtered();
    LinkChange {
        isolated: (!network.icc && !filtered).then_some(true),
        hairpin: filtered.then_some(true),
        ..LinkChange::default()
    }
}

fn endpoint(network: &BridgeNetwork, request: &AttachRequest) -> Endpoint {
    let octets = mac_of(request).map(|octet| format!("{octet:02x}"));
    Endpoint {
        id: request.endpoint_id.clone(),
        container_id: request.container_id.clone(),
        network_id: network.id.clone(),
        address: request.address,
        prefix: network.subnet.prefix(),
        gateway: network.gateway,
        mac: octets.join(":"),
        interface: request.interface.clone(),
        host_interface: format!("hv-{}", short(&request.endpoint_id)),
        ports: Vec::new(),
    }
}

fn mac_of(request: &AttachRequest) -> [u8; 6] {
    request.mac.unwrap_or_else(|| mac_for(request.address))
}

/// A locally administered address that follows from the IP address, so that a reused address keeps its MAC.
fn mac_for(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn open_route() -> Result<Route> {
    Route::open().map_err(|source| NetworkError::Host { what: "links", source })
}

fn find_link(route: &Route, network: &BridgeNetwork) -> Result<Option<Link>> {
    route.link(&network.bridge).map_err(|source| link_error(network, "look up bridge", source))
}

fn delete_link(route: &Route, name: &str) -> std::result::Result<(), NetlinkError> {
    let mut requests = Requests::new();
    requests.delete_link(LinkRef::Name(name)).tolerate(Errno::NODEV);
    route.send(&requests)
}

fn link_error(network: &BridgeNetwork, step: &'static str, source: NetlinkError) -> NetworkError {
    NetworkError::Link { network: network.id.clone(), step, source }
}

fn warn_on_error(step: &str, result: std::result::Result<(), NetlinkError>) {
    if let Err(error) = result {
        tracing::warn!(step, error = &error as &dyn std::error::Error, "clean-up failed");
    }
}

fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn bridged_packets_are_filtered() -> bool {
    std::fs::read("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|text| text.starts_with(b"1"))
}

/// Writes a setting of the calling thread's network namespace unless it has the value. Reading first makes read-only
/// /proc/sys work where an administrator has set what is needed.
fn write_sysctl(name: &str, value: &'static str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    if std::fs::read(&path).is_ok_and(|text| text.trim_ascii() == value.as_bytes()) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| NetworkError::Sysctl { path, value, source })
}
