//! Networks: create, list, inspect, remove, connect, disconnect, prune; and attaching containers.
//!
//! A record in the table `networks` says that a network exists; its bridge is built when the first container needs it
//! (and again after a reboot). A record in the table `endpoints` says what was built for one container, so that an
//! engine that comes back knows which veth, address and ports are whose. Address pools are rebuilt from both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use hull_docker_api::{Ipam as IpamDocument, IpamConfig};
use hull_network::{
    BridgeNetwork, Bridges, Endpoint, Ipam, Pool, PoolRequest, PortAllocator, PortReservation,
};
use serde::{Deserialize, Serialize};

use crate::{Config, Engine, EngineId, Error, Result};

mod actions;
mod attach;

#[allow(unused_imports)]
pub(crate) use attach::{AttachRequest, Attached};

const TABLE: &str = "networks";
const ENDPOINTS: &str = "endpoints";

/// What is recorded of a network.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    id: String,
    name: String,
    driver: Driver,
    /// RFC 3339.
    created: String,
    #[serde(default)]
    internal: bool,
    #[serde(default)]
    attachable: bool,
    #[serde(default)]
    options: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Whether the user chose the subnet, without which no address can be asked for.
    #[serde(default)]
    own_subnet: bool,
    /// Driver bridge: addresses and bridge.
    #[serde(default)]
    bridge: Option<BridgeRecord>,
}

/// The part of a record that only bridge networks have.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct BridgeRecord {
    pool: Pool,
    network: BridgeNetwork,
    /// Whether the bridge was ever built. Until then the engine is free to choose other addresses and another name.
    #[serde(default)]
    built: bool,
}

/// How a network works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Driver {
    Bridge,
    Host,
    /// Only a loopback interface; docker calls the driver `null` and the network `none`.
    Null,
}

impl Driver {
    fn as_str(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }
}

/// The networks every engine has.
const PREDEFINED: [(&str, Driver); 3] =
    [("bridge", Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)];

impl Record {
    fn is_predefined(&self) -> bool {
        PREDEFINED.iter().any(|(name, _)| *name == self.name)
    }

    /// The `IPAM` part of an inspect.
    fn ipam(&self) -> IpamDocument {
        let config = self.bridge.as_ref().map(|bridge| {
            let pool = &bridge.pool;
            vec![IpamConfig {
                subnet: pool.subnet.to_string(),
                ip_range: pool.ip_range.map(|range| range.to_string()).unwrap_or_default(),
                gateway: pool.gateway.to_string(),
                auxiliary_addresses: pool
                    .aux_addresses
                    .iter()
                    .map(|(name, address)| (name.clone(), address.to_string()))
                    .collect(),
            }]
        });
        let options = (!self.is_predefined()).then(BTreeMap::new);
        IpamDocument { driver: "default".to_owned(), options, config }
    }
}

/// The networks of an engine.
#[derive(Debug)]
pub struct Networks {
    bridges: Bridges,
    ports: PortAllocator,
    /// Held over a change of record and kernel together.
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: BTreeMap<String, Arc<Record>>,
    ipam: Ipam,
    /// What was built for containers: by container and network id.
    endpoints: BTreeMap<(String, String), Live>,
    /// Networks whose bridge was built or checked by this process.
    ready: BTreeSet<String>,
}

/// A container's endpoint and the host ports held for it.
#[derive(Debug)]
struct Live {
    endpoint: Endpoint,
    reservations: Vec<PortReservation>,
    /// The process whose network namespace has the interface.
    pid: i32,
}

/// Names of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) struct NetworkName {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
}

impl Networks {
    /// Loads the records of networks, and makes the predefined ones of a new engine.
    pub(crate) fn open(config: &Config, id: &EngineId, store: &hull_meta::Store) -> Result<Networks> {
        let bridges = Bridges::new(&id.short);
        let mut state = State::default();
        for (id, record) in store.load::<Record>(TABLE)? {
            if let Some(bridge) = &record.bridge {
                state
                    .ipam
                    .restore(&id, &bridge.pool)
                    .map_err(|error| Error::system("address pools", error))?;
            }
            state.records.insert(id, Arc::new(record));
        }
        let mut batch = hull_meta::Batch::new();
        for (name, driver) in PREDEFINED {
            if config.bridge.name.as_deref() == Some("none") && driver == Driver::Bridge {
                continue;
            }
            if !state.records.values().any(|record| record.name == name) {
                let record = predefined(name, driver, config, &bridges, &mut state.ipam)?;
                batch.put(TABLE, &record.id, &record)?;
                state.records.insert(record.id.clone(), Arc::new(record));
            }
        }
        if !batch.is_empty() {
            store.write(batch, hull_meta::Durability::Process).detach();
        }
        Ok(Networks {
            bridges,
            ports: PortAllocator::new(),
            changing: Default::default(),
            state: Mutex::new(state),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl State {
    /// A network by name, id or unique beginning of an id.
    fn find(&self, network: &str) -> Result<Arc<Record>> {
        if let Some(record) = self.records.get(network) {
            return Ok(Arc::clone(record));
        }
        // Clients since 1.24 call the default network by its mode.
        let name = if network == "default" { "bridge" } else { network };
        if let Some(record) = self.records.values().find(|record| record.name == name) {
            return Ok(Arc::clone(record));
        }
        let mut matching =
            self.records.values().filter(|record| !name.is_empty() && record.id.starts_with(name));
        match (matching.next(), matching.count()) {
            (Some(record), 0) => Ok(Arc::clone(record)),
            (Some(_), more) => Err(Error::invalid(format!(
                "network {network} is ambiguous ({} matches found based on ID prefix)",
                more + 1
            ))),
            (None, _) => Err(Error::not_found(format!("network {network} not found"))),
        }
    }
}

impl Engine {
    /// The network of a name, an id or a unique beginning of an id.
    #[allow(dead_code)]
    pub(crate) fn network_lookup(&self, network: &str) -> Result<NetworkName> {
        let record = self.0.networks.state().find(network)?;
        Ok(NetworkName {
            id: record.id.clone(),
            name: record.name.clone(),
            driver: record.driver.as_str().to_owned(),
        })
    }
}

fn predefined(
    name: &str,
    driver: Driver,
    config: &Config,
    bridges: &Bridges,
    ipam: &mut Ipam,
) -> Result<Record> {
    let mut record = Record {
        id: new_id(),
        name: name.to_owned(),
        driver,
        created: hull_docker_api::rfc3339_nano(jiff::Timestamp::now()),
        internal: false,
        attachable: false,
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
        own_subnet: false,
        bridge: None,
    };
    if driver == Driver::Bridge {
        record.bridge = Some(default_bridge(&record.id, config, bridges, ipam)?);
        record.options = default_bridge_options(config, &record);
    }
    Ok(record)
}

/// Addresses and bridge of the default network, from the engine's settings or free ones.
fn default_bridge(id: &str, config: &Config, bridges: &Bridges, ipam: &mut Ipam) -> Result<BridgeRecord> {
    let settings = &config.bridge;
    let (subnet, gateway) = match settings.bip.as_deref() {
        None => (None, settings.default_gateway.clone()),
        Some(bip) => {
            let net: hull_network::Ipv4Net =
                bip.parse().map_err(|error| Error::invalid(format!("invalid bip {bip}: {error}")))?;
            let address = bip.split('/').next().unwrap_or_default().to_owned();
            (Some(net.to_string()), Some(address))
        }
    };
    let request = PoolRequest {
        subnet,
        gateway,
        ip_range: settings.fixed_cidr.clone(),
        aux_addresses: BTreeMap::new(),
    };
    // What the host has is advice only: without it the first free subnet is taken.
    let host = bridges.host_networks().unwrap_or_default();
    let pool = ipam.create(id, &request, &host).map_err(invalid)?;
    let mut network = BridgeNetwork::new(id, pool.subnet, pool.gateway);
    network.icc = settings.icc;
    network.masquerade = config.ip_masq;
    network.mtu = settings.mtu;
    if let std::net::IpAddr::V4(address) = config.default_publish_address {
        network.host_binding = address;
    }
    if let Some(name) = settings.name.clone().or_else(|| bridges.default_bridge_name().ok()) {
        network.bridge = name;
    }
    Ok(BridgeRecord { pool, network, built: false })
}

fn default_bridge_options(config: &Config, record: &Record) -> BTreeMap<String, String> {
    let Some(bridge) = &record.bridge else { return BTreeMap::new() };
    [
        ("com.docker.network.bridge.default_bridge", "true".to_owned()),
        ("com.docker.network.bridge.enable_icc", config.bridge.icc.to_string()),
        ("com.docker.network.bridge.enable_ip_masquerade", config.ip_masq.to_string()),
        ("com.docker.network.bridge.host_binding_ipv4", config.default_publish_address.to_string()),
        ("com.docker.network.bridge.name", bridge.network.bridge.clone()),
        ("com.docker.network.driver.mtu", config.bridge.mtu.unwrap_or(1500).to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// 64 random hexadecimal digits.
fn new_id() -> String {
    let mut bytes = [0; 32];
    crate::open::random(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An error of the network crate that lies in the request.
fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::invalid(crate::chain(&error)).because(error)
}
