//! The nftables table of an engine: what is in it, and how networks and ports become elements of its sets.
//!
//! ```text
//! raw_prerouting  -300  packets from containers to 127.0.0.0/8 are dropped (the bridges have route_localnet)
//! prerouting      -100  to an address of the host: jump publish; 127.0.0.0/8 from outside never
//! output          -100  to an address of the host, 127.0.0.1 included: jump publish
//! publish               host address . protocol . port → container, then protocol . port → container
//! forward            0  answers and published ports in; containers of one network if icc; nothing else in;
//!                       out unless internal
//! postrouting      100  from 127.0.0.0/8 or from a container to a published port: the bridge's address;
//!                       from a network with masquerade to anywhere else: the host's address
//! ```
//!
//! A network or a port costs elements, never rules: a thousand published ports are looked up like one. An accept
//! only ends this table's chain; a host firewall of its own that drops forwarded packets still decides, as nftables
//! intends: this table makes no holes in it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use hull_netlink::NetlinkError;
use hull_netlink::conntrack::{self, UdpFlow};
use hull_netlink::nft::{
    ChainType, Connection, CtKey, DataType, Element, Expression as E, Family, Hook, MetaKey, Set,
    Transaction, Verdict, concat, interface_name, is_missing,
};

use crate::record::{BridgeNetwork, PortMapping};
use crate::subnet::Ipv4Net;

const PORTS: &str = "ports";
const PORTS_ANY: &str = "ports_any";
const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const ICC: &str = "icc";
const SUBNETS: &str = "subnets";
const OUTBOUND: &str = "outbound";

const RAW: i32 = -300;
const DESTINATION_NAT: i32 = -100;
const FILTER: i32 = 0;
const SOURCE_NAT: i32 = 100;

/// `RTN_LOCAL` of linux/rtnetlink.h.
const LOCAL: [u8; 4] = 2u32.to_ne_bytes();
/// Established and related; `NF_CT_STATE_BIT` of linux/netfilter/nf_conntrack_common.h.
const ANSWERS: [u8; 4] = 6u32.to_ne_bytes();
/// `IPS_DST_NAT`.
const TRANSLATED: [u8; 4] = 32u32.to_ne_bytes();
const NOTHING: [u8; 4] = [0; 4];

/// The table of one engine.
#[derive(Debug, Clone)]
pub(crate) struct Firewall {
    table: String,
    /// Opened by the first transaction and kept, because closing it would wait for a grace period.
    connection: Arc<Mutex<Option<Connection>>>,
}

impl Firewall {
    pub(crate) fn new(engine: &str) -> Self {
        Self { table: format!("hull-{engine}"), connection: Arc::default() }
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    fn transaction(&self) -> Transaction {
        Transaction::new(Family::Inet, &self.table)
    }

    fn connected<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, NetlinkError>,
    ) -> Result<T, NetlinkError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match &*connection {
            Some(open) => work(open),
            None => work(connection.insert(Connection::open()?)),
        }
    }

    fn commit(&self, transaction: Transaction) -> Result<(), NetlinkError> {
        self.connected(|connection| transaction.commit(connection))
    }

    /// Deletes the tracked UDP conversations `stale` says yes to.
    pub(crate) fn forget_udp(&self, stale: impl Fn(&UdpFlow) -> bool) -> Result<(), NetlinkError> {
        self.connected(|connection| {
            for flow in conntrack::udp_flows(connection)?.iter().filter(|flow| stale(flow)) {
                conntrack::delete_udp_flow(connection, flow)?;
            }
            Ok(())
        })
    }

    /// The whole table, in one transaction: packets see the old one or the new one.
    pub(crate) fn replace(
        &self,
        networks: &[BridgeNetwork],
        ports: &[PortMapping],
    ) -> Result<(), NetlinkError> {
        let mut transaction = self.transaction();
        transaction.replace_table();
        add_sets(&mut transaction);
        add_chains(&mut transaction);
        add_rules(&mut transaction);
        // One request per set, not per network: each answer takes its share of the socket's receive buffer.
        let mut all: BTreeMap<&str, Vec<Element>> = BTreeMap::new();
        for (set, elements) in networks.iter().flat_map(network_elements).chain(port_elements(ports)) {
            all.entry(set).or_default().extend(elements);
        }
        for (set, elements) in &all {
            transaction.add_elements(set, elements);
        }
        self.commit(transaction)
    }

    /// Removes the table; not being there is no error.
    pub(crate) fn delete(&self) -> Result<(), NetlinkError> {
        let mut transaction = self.transaction();
        transaction.add_table();
        transaction.delete_table();
        self.commit(transaction)
    }

    pub(crate) fn add_network(&self, network: &BridgeNetwork) -> Result<(), NetlinkError> {
        self.add(&network_elements(network))
    }

    pub(crate) fn remove_network(&self, network: &BridgeNetwork) -> Result<(), NetlinkError> {
        self.remove(network_elements(network))
    }

    pub(crate) fn publish(&self, ports: &[PortMapping]) -> Result<(), NetlinkError> {
        self.add(&port_elements(ports))
    }

    pub(crate) fn unpublish(&self, ports: &[PortMapping]) -> Result<(), NetlinkError> {
        self.remove(port_elements(ports))
    }

    fn add(&self, elements: &[(&'static str, Vec<Element>)]) -> Result<(), NetlinkError> {
        let mut transaction = self.transaction();
        for (set, elements) in elements {
            transaction.add_elements(set, elements);
        }
        self.commit(transaction)
    }

    /// Deletes elements, also where some or all of them are not there.
    fn remove(&self, elements: Vec<(&'static str, Vec<Element>)>) -> Result<(), NetlinkError> {
        let mut transaction = self.transaction();
        for (set, elements) in &elements {
            transaction.delete_elements(set, elements);
        }
        match self.commit(transaction) {
            Err(error) if is_missing(&error) => self.remove_one_by_one(elements),
            result => result,
        }
    }

    fn remove_one_by_one(&self, elements: Vec<(&'static str, Vec<Element>)>) -> Result<(), NetlinkError> {
        for (set, elements) in elements {
            for element in elements {
                let mut transaction = self.transaction();
                transaction.delete_elements(set, &[element]);
                match self.commit(transaction) {
                    Err(error) if !is_missing(&error) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn network_elements(network: &BridgeNetwork) -> Vec<(&'static str, Vec<Element>)> {
    let name = interface_name(&network.bridge);
    let mut elements =
        vec![(BRIDGES, vec![Element::key(name.to_vec())]), (SUBNETS, interval(network.subnet))];
    if network.icc {
        elements.push((ICC, vec![Element::key(concat(&[&name, &name]))]));
    }
    if network.internal {
        elements.push((INTERNAL, vec![Element::key(name.to_vec())]));
    } else if network.masquerade {
        elements.push((OUTBOUND, interval(network.subnet)));
    }
    elements
}

fn interval(net: Ipv4Net) -> Vec<Element> {
    let first = Element::key(net.network().octets().to_vec());
    let after = net.last().to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec());
    std::iter::once(first).chain(after.map(Element::interval_end)).collect()
}

/// Without duplicates: the same address published twice is one element.
fn port_elements(ports: &[PortMapping]) -> Vec<(&'static str, Vec<Element>)> {
    let (mut any, mut bound) = (Vec::new(), Vec::new());
    for port in ports.iter().collect::<BTreeSet<_>>() {
        let protocol = [port.protocol.number()];
        let host_port = port.host_port.to_be_bytes();
        let target = concat(&[&port.container_ip.octets(), &port.container_port.to_be_bytes()]);
        if port.host_ip == Ipv4Addr::UNSPECIFIED {
            any.push(Element::pair(concat(&[&protocol, &host_port]), target));
        } else {
            let key = concat(&[&port.host_ip.octets(), &protocol, &host_port]);
            bound.push(Element::pair(key, target));
        }
    }
    [(PORTS, bound), (PORTS_ANY, any)].into_iter().filter(|(_, elements)| !elements.is_empty()).collect()
}

fn add_sets(transaction: &mut Transaction) {
    use DataType::{InterfaceName, Ipv4Address, Protocol, Service};
    let set = |name, key, data, interval| Set { name, key, data, interval };
    transaction.add_set(&set(PORTS, &[Ipv4Address, Protocol, Service], &[Ipv4Address, Service], false));
    transaction.add_set(&set(PORTS_ANY, &[Protocol, Service], &[Ipv4Address, Service], false));
    transaction.add_set(&set(BRIDGES, &[InterfaceName], &[], false));
    transaction.add_set(&set(INTERNAL, &[InterfaceName], &[], false));
    transaction.add_set(&set(ICC, &[InterfaceName, InterfaceName], &[], false));
    transaction.add_set(&set(SUBNETS, &[Ipv4Address], &[], true));
    transaction.add_set(&set(OUTBOUND, &[Ipv4Address], &[], true));
}

fn add_chains(transaction: &mut Transaction) {
    transaction.add_chain("publish");
    transaction.add_base_chain("raw_prerouting", ChainType::Filter, Hook::Prerouting, RAW);
    transaction.add_base_chain("prerouting", ChainType::Nat, Hook::Prerouting, DESTINATION_NAT);
    transaction.add_base_chain("output", ChainType::Nat, Hook::Output, DESTINATION_NAT);
    transaction.add_base_chain("forward", ChainType::Filter, Hook::Forward, FILTER);
    transaction.add_base_chain("postrouting", ChainType::Nat, Hook::Postrouting, SOURCE_NAT);
}

fn add_rules(transaction: &mut Transaction) {
    add_publish_rules(transaction);
    add_forward_rules(transaction);
    add_postrouting_rules(transaction);
}

fn add_publish_rules(transaction: &mut Transaction) {
    let from_bridge = interface_in(MetaKey::InputName, BRIDGES);
    let [load, equal] = E::is_ipv4();
    let destination = E::ipv4_destination(0);
    let [mask, loopback] = in_loopback();
    let rule =
        [&from_bridge[..], &[load, equal, destination, mask, loopback, E::Verdict(Verdict::Drop)]].concat();
    transaction.add_rule("raw_prerouting", "containers do not reach the host's loopback", &rule);

    // The destination is translated before routing could refuse it, so outsiders must be kept from 127.0.0.1 here.
    let rule = [load, equal, destination, mask, loopback, E::Verdict(Verdict::Return)];
    transaction.add_rule("prerouting", "ports of 127.0.0.1 are for this host only", &rule);

    let to_host = [
        E::FibDestinationType { register: 0 },
        E::Equal { register: 0, value: &LOCAL },
        E::Verdict(Verdict::Jump("publish")),
    ];
    transaction.add_rule("prerouting", "published ports, from elsewhere", &to_host);
    transaction.add_rule("output", "published ports, from this host", &to_host);

    let protocol = |register| E::Meta { key: MetaKey::TransportProtocol, register };
    let translate = E::DestinationNat { address: 0, port: 1 };
    let bound = [
        load,
        equal,
        E::ipv4_destination(0),
        protocol(1),
        E::destination_port(2),
        E::Map { map: PORTS, register: 0, to: 0 },
        translate,
    ];
    transaction.add_rule("publish", "ports of one host address", &bound);
    let any = [
        load,
        equal,
        protocol(0),
        E::destination_port(1),
        E::Map { map: PORTS_ANY, register: 0, to: 0 },
        translate,
    ];
    transaction.add_rule("publish", "ports of every host address", &any);
}

fn add_forward_rules(transaction: &mut Transaction) {
    let accept = E::Verdict(Verdict::Accept);
    let drop = E::Verdict(Verdict::Drop);
    let answers = [
        E::Ct { key: CtKey::State, register: 0 },
        E::And { register: 0, mask: &ANSWERS },
        E::Different { register: 0, value: &NOTHING },
        accept,
    ];
    transaction.add_rule("forward", "answers", &answers);

    let to_bridge = interface_in(MetaKey::OutputName, BRIDGES);
    let published = [&to_bridge[..], &translated(), &[accept]].concat();
    transaction.add_rule("forward", "published ports", &published);

    let same_network = [
        E::Meta { key: MetaKey::InputName, register: 0 },
        E::Meta { key: MetaKey::OutputName, register: 4 },
        E::InSet { set: ICC, register: 0, inverted: false },
        accept,
    ];
    transaction.add_rule("forward", "within a network", &same_network);
    transaction.add_rule("forward", "nothing else to containers", &[&to_bridge[..], &[drop]].concat());

    let from_internal = interface_in(MetaKey::InputName, INTERNAL);
    transaction.add_rule("forward", "internal networks end here", &[&from_internal[..], &[drop]].concat());
    let from_bridge = interface_in(MetaKey::InputName, BRIDGES);
    transaction.add_rule("forward", "from containers", &[&from_bridge[..], &[accept]].concat());
}

fn add_postrouting_rules(transaction: &mut Transaction) {
    let [load, equal] = E::is_ipv4();
    let [mask, loopback] = in_loopback();
    let source = E::ipv4_source(0);
    let to_bridge = interface_in(MetaKey::OutputName, BRIDGES);

    let own = [&[load, equal, source, mask, loopback], &to_bridge[..], &[E::Masquerade]].concat();
    transaction.add_rule("postrouting", "from 127.0.0.1 to a published port", &own);

    // Without it the other container would answer directly, past the translation.
    let from_container = [source, E::InSet { set: SUBNETS, register: 0, inverted: false }, E::Masquerade];
    let hairpin = [&[load, equal], &translated()[..], &to_bridge, &from_container].concat();
    transaction.add_rule("postrouting", "from a container to a published port", &hairpin);

    let outward = [
        load,
        equal,
        source,
        E::InSet { set: OUTBOUND, register: 0, inverted: false },
        E::Meta { key: MetaKey::OutputName, register: 0 },
        E::InSet { set: BRIDGES, register: 0, inverted: true },
        E::Masquerade,
    ];
    transaction.add_rule("postrouting", "from containers to elsewhere", &outward);
}

fn interface_in(key: MetaKey, set: &'static str) -> [E<'static>; 2] {
    [E::Meta { key, register: 0 }, E::InSet { set, register: 0, inverted: false }]
}

/// The address in register 0 is one of 127.0.0.0/8.
fn in_loopback() -> [E<'static>; 2] {
    [E::And { register: 0, mask: &[255, 0, 0, 0] }, E::Equal { register: 0, value: &[127, 0, 0, 0] }]
}

/// The connection's destination was translated.
fn translated() -> [E<'static>; 3] {
    [
        E::Ct { key: CtKey::Status, register: 0 },
        E::And { register: 0, mask: &TRANSLATED },
        E::Different { register: 0, value: &NOTHING },
    ]
}
