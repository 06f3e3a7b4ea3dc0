//! Changing limits and restart policy of a container, running or not; connecting it to networks.

use hull_docker_api::{ContainerUpdateRequest, EndpointSettings, HostConfig, PortMap};

use super::actor::{Actor, blocking};
use super::spec::{HostDevices, resources};
use super::{name_files, validate};
use crate::networks::AttachRequest;
use crate::{Error, Result};

impl Actor {
    pub(super) async fn update(&mut self, request: ContainerUpdateRequest) -> Result<()> {
        let mut host = self.def.host.clone();
        apply(&mut host, request)?;
        validate::resources(&host).map_err(|error| cannot(&self.def.id, &error))?;
        if self.state.status.has_processes() {
            let limits = resources::from_host(&host, &HostDevices::default())?;
            let cgroup = self.engine.cgroup_of(&self.def);
            blocking(move || {
                cgroup
                    .of()
                    .and_then(|cgroup| cgroup.apply(&limits))
                    .map_err(|error| Error::system("set limits", error))
            })
            .await
            .map_err(|error| cannot(&self.def.id, &error))?;
        }
        let mut def = (*self.def).clone();
        def.host = host;
        self.redefine(def).await?;
        self.emit("update", &[]);
        Ok(())
    }

    /// `network connect`.
    pub(super) async fn connect(&mut self, network: &str, settings: EndpointSettings) -> Result<()> {
        let mode = self.def.host.network_mode.as_str();
        if mode == "host" || mode.starts_with("container:") {
            return Err(Error::invalid(format!(
                "container sharing network namespace with another container or host cannot be connected to any other \
                 network: {mode}"
            )));
        }
        if self.def.networks.contains_key(network) {
            return Err(Error::new(
                crate::Kind::Forbidden,
                format!("endpoint with name {} already exists in network {network}", self.def.name),
            ));
        }
        if self.state.status.has_processes() {
            let request = AttachRequest {
                container: &self.def.id,
                pid: self.state.pid,
                network,
                settings: &settings,
                ports: &PortMap::new(),
                index: self.state.endpoints.len(),
            };
            let attached = self.engine.network_attach(request).await?;
            self.state.endpoints.insert(network.to_owned(), attached.settings);
            self.rewrite_hosts().await?;
        }
        let mut def = (*self.def).clone();
        def.networks.insert(network.to_owned(), settings);
        self.redefine(def).await?;
        self.save().await
    }

    /// `network disconnect`.
    pub(super) async fn disconnect(&mut self, network: &str, _force: bool) -> Result<()> {
        if !self.def.networks.contains_key(network) {
            return Err(Error::new(
                crate::Kind::Forbidden,
                format!("container {} is not connected to network {network}", self.def.id),
            ));
        }
        if self.state.endpoints.remove(network).is_some() {
            self.engine.network_detach(&self.def.id, network).await?;
            self.rewrite_hosts().await?;
        }
        let mut def = (*self.def).clone();
        def.networks.remove(network);
        self.redefine(def).await?;
        self.save().await
    }

    async fn rewrite_hosts(&self) -> Result<()> {
        let (engine, def, endpoints) =
            (self.engine.clone(), std::sync::Arc::clone(&self.def), self.state.endpoints.clone());
        blocking(move || name_files::write(&engine, &def, &endpoints)).await
    }
}

fn cannot(id: &str, error: &Error) -> Error {
    Error::new(error.kind(), format!("Cannot update container {id}: {}", error.message()))
}

/// What the request names; 0 and nothing leave things as they are.
fn apply(host: &mut HostConfig, request: ContainerUpdateRequest) -> Result<()> {
    let number = |own: &mut i64, wanted: i64| {
        if wanted != 0 {
            *own = wanted;
        }
    };
    number(&mut host.cpu_shares, request.cpu_shares);
    number(&mut host.cpu_period, request.cpu_period);
    number(&mut host.cpu_quota, request.cpu_quota);
    number(&mut host.nano_cpus, request.nano_cpus);
    number(&mut host.memory_reservation, request.memory_reservation);
    if request.memory > 0 {
        // A limit above the present sum with swap needs a new sum too.
        if host.memory_swap > 0 && request.memory > host.memory_swap && request.memory_swap == 0 {
            return Err(Error::invalid(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same \
                 time",
            ));
        }
        host.memory = request.memory;
        if host.memory_swap == 0 && request.memory_swap == 0 {
            host.memory_swap = request.memory.saturating_mul(2);
        }
    }
    number(&mut host.memory_swap, request.memory_swap);
    let text = |own: &mut String, wanted: String| {
        if !wanted.is_empty() {
            *own = wanted;
        }
    };
    text(&mut host.cpuset_cpus, request.cpuset_cpus);
    text(&mut host.cpuset_mems, request.cpuset_mems);
    if request.blkio_weight != 0 {
        host.blkio_weight = request.blkio_weight;
    }
    if request.pids_limit.is_some() {
        host.pids_limit = request.pids_limit;
    }
    if !request.restart_policy.name.is_empty() {
        validate::restart_policy(&request.restart_policy)?;
        if host.auto_remove && request.restart_policy.name != "no" {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = request.restart_policy;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_changes() {
        let mut host = HostConfig { memory: 100, memory_swap: 200, cpu_shares: 5, ..HostConfig::default() };
        apply(&mut host, ContainerUpdateRequest { memory: 150, ..Default::default() }).expect("update");
        assert_eq!((host.memory, host.memory_swap, host.cpu_shares), (150, 200, 5));
        let error =
            apply(&mut host, ContainerUpdateRequest { memory: 300, ..Default::default() }).expect_err("swap");
        assert!(error.message().starts_with("Memory limit should be smaller"));
        let request = ContainerUpdateRequest { memory: 300, memory_swap: -1, ..Default::default() };
        apply(&mut host, request).expect("update");
        assert_eq!((host.memory, host.memory_swap), (300, -1));
    }
}
