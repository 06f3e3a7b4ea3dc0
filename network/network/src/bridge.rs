//! The bridge driver: bridges, veth pairs and the firewall's elements.

use std::os::fd::BorrowedFd;

use crate::record::{AttachRequest, BridgeNetwork, Endpoint, PortMapping};
use crate::subnet::Ipv4Net;

/// Bridge networks of one engine in the network namespace of the calling thread. Holds no kernel state.
#[derive(Debug, Clone)]
pub struct Bridges {
    engine: String,
}

/// What a reconciliation changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Links removed because no record names them.
    pub removed: Vec<String>,
    /// Bridges built again because they were missing.
    pub created: Vec<String>,
}

/// Why a network step failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A step of the driver that does not exist yet.
    #[error("{step} is not implemented")]
    NotImplemented {
        /// The step.
        step: &'static str,
    },
}

type Result<T> = std::result::Result<T, NetworkError>;

impl Bridges {
    /// `engine` is the engine's short id; it becomes part of names and aliases in the kernel.
    pub fn new(engine: &str) -> Self {
        Self { engine: engine.to_owned() }
    }

    /// Name for the bridge of this engine's default network: `hull0`, or another if a different engine has that one.
    pub fn default_bridge_name(&self) -> Result<String> {
        Err(NetworkError::NotImplemented { step: "default bridge name" })
    }

    /// Networks the host has addresses in or routes to, for [`Ipam::create`](crate::Ipam::create).
    pub fn host_networks(&self) -> Result<Vec<Ipv4Net>> {
        Err(NetworkError::NotImplemented { step: "host networks" })
    }

    /// Builds a network's bridge and firewall entries, or what is missing of them. Idempotent, undone on failure.
    pub fn ensure(&self, _network: &BridgeNetwork) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "ensure" })
    }

    /// Removes a network's bridge and firewall entries. What is not there is no error.
    pub fn remove(&self, _network: &BridgeNetwork) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "remove" })
    }

    /// Brings up the loopback interface of a network namespace: all that `--network none` needs.
    pub fn attach_loopback(&self, _netns: BorrowedFd<'_>) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "attach loopback" })
    }

    /// Gives a network namespace an interface on a network: veth, address, routes, everything up, loopback too.
    /// Undone on failure.
    pub fn attach(
        &self,
        _netns: BorrowedFd<'_>,
        _network: &BridgeNetwork,
        _request: &AttachRequest,
    ) -> Result<Endpoint> {
        Err(NetworkError::NotImplemented { step: "attach" })
    }

    /// Takes an interface away from a running container. Not needed when a container ends: its namespace takes the
    /// interface along. Takes some 20 ms; what is not there is no error.
    pub fn detach(&self, _endpoint: &Endpoint) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "detach" })
    }

    /// Sends traffic of the ports to the containers, all or none. The ports must be held by the caller, see
    /// [`PortAllocator`](crate::PortAllocator).
    pub fn publish(&self, _ports: &[PortMapping]) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "publish" })
    }

    /// Ends what [`Self::publish`] began. What is not there is no error.
    pub fn unpublish(&self, _ports: &[PortMapping]) -> Result<()> {
        Err(NetworkError::NotImplemented { step: "unpublish" })
    }

    /// Makes the kernel agree with the records, at the start of an engine: links of this engine that no record names
    /// are removed, missing bridges built, the firewall table replaced in one transaction. Nothing of others is touched.
    pub fn reconcile(&self, _networks: &[BridgeNetwork], _endpoints: &[Endpoint]) -> Result<Reconciled> {
        let _ = &self.engine;
        Err(NetworkError::NotImplemented { step: "reconcile" })
    }
}
