//! Making the kernel agree with the records.

use std::collections::HashMap;

use hull_netlink::route::{Link, LinkChange, LinkRef, Requests, Route};

use super::{Bridges, NetworkError, Result, delete_link, open_route};
use crate::record::{BridgeNetwork, Endpoint};

/// What a reconciliation changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Links removed because no record names them.
    pub removed: Vec<String>,
    /// Bridges built again because they were missing.
    pub created: Vec<String>,
}

impl Bridges {
    /// Makes the kernel agree with the records, at the start of an engine: links of this engine that no record names
    /// are removed, missing bridges built, ports put back on their bridges, the firewall table replaced in one
    /// transaction. Connections go on. Nothing of others is touched. `endpoints` are those of running containers.
    ///
    /// # Errors
    /// A step is refused; calling again goes on where it stopped.
    pub fn reconcile(&self, networks: &[BridgeNetwork], endpoints: &[Endpoint]) -> Result<Reconciled> {
        let _alone = self.build_alone();
        let route = open_route()?;
        let links = list(&route)?;
        let mut done = Reconciled {
            removed: self.remove_strays(&route, &links, networks, endpoints)?,
            ..Default::default()
        };
        for network in networks {
            if self.ensure_bridge(&route, network)? {
                done.created.push(network.bridge.clone());
            }
        }
        if !done.created.is_empty() {
            self.reconnect(&route, networks, endpoints)?;
        }
        let ports: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.ports.iter().cloned()).collect();
        let replaced = self.firewall.replace(networks, &ports);
        replaced.map_err(|source| NetworkError::Firewall { step: "replace the table", source })?;
        Ok(done)
    }

    /// Removes everything of this engine from the kernel: its links and its firewall table.
    ///
    /// # Errors
    /// A step is refused.
    pub fn purge(&self) -> Result<()> {
        let _alone = self.build_alone();
        let route = open_route()?;
        self.remove_strays(&route, &list(&route)?, &[], &[])?;
        self.firewall.delete().map_err(|source| NetworkError::Firewall { step: "delete the table", source })
    }

    fn remove_strays(
        &self,
        route: &Route,
        links: &[Link],
        networks: &[BridgeNetwork],
        endpoints: &[Endpoint],
    ) -> Result<Vec<String>> {
        let bridges = networks.iter().map(|n| (self.bridge_alias(&n.id), n.bridge.as_str()));
        let veths =
            endpoints.iter().map(|e| (self.veth_alias(&e.network_id, &e.id), e.host_interface.as_str()));
        let known: HashMap<String, &str> = bridges.chain(veths).collect();
        let ours = format!("hull:{}:", self.engine);
        let mut removed = Vec::new();
        for link in links {
            let Some(alias) = link.alias.as_ref().filter(|alias| alias.starts_with(&ours)) else { continue };
            if known.get(alias) == Some(&link.name.as_str()) {
                continue;
            }
            delete_link(route, &link.name)
                .map_err(|source| NetworkError::Host { what: "stray links", source })?;
            removed.push(link.name.clone());
        }
        Ok(removed)
    }

    /// A bridge that vanished let go of its ports; they come back to the new one.
    fn reconnect(&self, route: &Route, networks: &[BridgeNetwork], endpoints: &[Endpoint]) -> Result<()> {
        let links = list(route)?;
        let by_name: HashMap<&str, &Link> = links.iter().map(|link| (link.name.as_str(), link)).collect();
        for endpoint in endpoints {
            let Some(network) = networks.iter().find(|network| network.id == endpoint.network_id) else {
                continue;
            };
            let (Some(port), Some(bridge)) =
                (by_name.get(endpoint.host_interface.as_str()), by_name.get(network.bridge.as_str()))
            else {
                continue;
            };
            if port.master == Some(bridge.index) {
                continue;
            }
            let master = LinkChange { master: Some(bridge.index), ..LinkChange::default() };
            let mut requests = Requests::new();
            requests.change_link(LinkRef::Index(port.index), &master);
            requests.change_link(LinkRef::Index(port.index), &super::port_settings(network));
            route
                .send(&requests)
                .map_err(|source| NetworkError::Host { what: "ports without a bridge", source })?;
        }
        Ok(())
    }
}

fn list(route: &Route) -> Result<Vec<Link>> {
    route.links().map_err(|source| NetworkError::Host { what: "links", source })
}
