//! Networks: create, list, inspect, remove, connect, disconnect, prune; and attaching containers.

use hull_docker_api::{
    EndpointSettings, Filters, NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse,
    NetworkDisconnectRequest, NetworkInspect, NetworksPruned, PortMap,
};

use crate::{Config, Engine, EngineId, Error, Result};

/// The networks of an engine.
#[derive(Debug)]
pub struct Networks {}

impl Networks {
    /// Loads the records of networks.
    pub(crate) fn open(_config: &Config, _id: &EngineId, _store: &hull_meta::Store) -> Result<Networks> {
        Ok(Networks {})
    }
}

/// Names of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(dead_code)]
pub(crate) struct NetworkName {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) driver: String,
}

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

impl Engine {
    /// The network of a name, an id or a unique beginning of an id.
    #[allow(dead_code)]
    pub(crate) fn network_lookup(&self, network: &str) -> Result<NetworkName> {
        Err(Error::not_found(format!("network {network} not found")))
    }

    /// Gives the container an interface in the network (driver bridge), or sets `lo` up (drivers none and host need
    /// nothing else). Undoes itself when it fails.
    #[allow(dead_code)]
    pub(crate) async fn network_attach(&self, _request: AttachRequest<'_>) -> Result<Attached> {
        Err(Error::not_implemented("networks"))
    }

    /// Takes back the container's interface, addresses and published ports; what is not there is no error.
    #[allow(dead_code)]
    pub(crate) async fn network_detach(&self, _container: &str, _network: &str) -> Result<()> {
        Ok(())
    }

    /// After a restart of the engine: these endpoints are alive, everything else of this engine is removed from the
    /// kernel and from address management. Elements: container id, network id, endpoint, published ports.
    #[allow(dead_code)]
    pub(crate) async fn network_reconcile(&self, _live: Vec<(String, String, Attached)>) -> Result<()> {
        Ok(())
    }
}

/// Actions of clients. `name` is a name, an id or a unique beginning of an id.
impl Engine {
    /// Networks that pass the filters.
    pub async fn network_list(&self, _filters: &Filters) -> Result<Vec<NetworkInspect>> {
        Err(Error::not_implemented("network list"))
    }

    /// Makes a network.
    pub async fn network_create(&self, _request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        Err(Error::not_implemented("network create"))
    }

    /// One network with its containers; `scope` empty for any.
    pub async fn network_inspect(&self, _name: &str, _scope: &str) -> Result<NetworkInspect> {
        Err(Error::not_implemented("network inspect"))
    }

    /// Removes a network that no container is in.
    pub async fn network_remove(&self, _name: &str) -> Result<()> {
        Err(Error::not_implemented("network remove"))
    }

    /// Puts a container into a network.
    pub async fn network_connect(&self, _name: &str, _request: NetworkConnectRequest) -> Result<()> {
        Err(Error::not_implemented("network connect"))
    }

    /// Takes a container out of a network.
    pub async fn network_disconnect(&self, _name: &str, _request: NetworkDisconnectRequest) -> Result<()> {
        Err(Error::not_implemented("network disconnect"))
    }

    /// Removes all networks that no container is in.
    pub async fn network_prune(&self, _filters: &Filters) -> Result<NetworksPruned> {
        Err(Error::not_implemented("network prune"))
    }
}
