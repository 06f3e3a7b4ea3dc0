//! What clients do with networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_docker_api::{
    EndpointResource, EndpointSettings, Filters, NetworkConnectRequest, NetworkCreateRequest,
    NetworkCreateResponse, NetworkDisconnectRequest, NetworkInspect, NetworksPruned, rfc3339_nano,
};
use hull_meta::Durability;
use hull_network::{BridgeNetwork, PoolRequest};

use super::{BridgeRecord, Driver, PREDEFINED, Record, TABLE, invalid, new_id};
use crate::volumes::{boolean, check_filters, has_any_label, matches_part};
use crate::{Engine, Error, Kind, Result};

/// `name` is a name, an id or a unique beginning of an id.
impl Engine {
    /// Networks that pass the filters `driver`, `id`, `label`, `name`, `scope`, `type` and `dangling`, by name.
    ///
    /// # Errors
    /// An unknown filter or value.
    pub async fn network_list(&self, filters: &Filters) -> Result<Vec<NetworkInspect>> {
        check_filters(filters, &["driver", "id", "label", "name", "scope", "type", "dangling"])?;
        let dangling = boolean(filters, "dangling")?;
        let kind = NetworkType::parse(filters)?;
        let mut records: Vec<Arc<Record>> = self.0.networks.state().records.values().cloned().collect();
        records.sort_by(|a, b| a.name.cmp(&b.name));
        let chosen = records.iter().filter(|record| {
            let ids = filters.values("id");
            filters.matches_exact("driver", record.driver.as_str())
                && filters.matches_exact("scope", "local")
                && filters.matches_labels("label", &record.labels)
                && matches_part(filters, "name", &record.name)
                && (ids.is_empty() || ids.iter().any(|id| record.id.starts_with(id.as_str())))
                && kind.is_none_or(|kind| (kind == NetworkType::Builtin) == record.is_predefined())
                && dangling.is_none_or(|wanted| {
                    wanted == (!record.is_predefined() && self.containers_of_network(&record.id).is_empty())
                })
        });
        // Docker leaves the containers out of a list.
        Ok(chosen.map(|record| document(record, BTreeMap::new())).collect())
    }

    /// Makes a network. Its bridge is built when the first container joins.
    ///
    /// # Errors
    /// A taken or predefined name, an unknown driver, addresses that overlap or make no sense.
    pub async fn network_create(&self, request: NetworkCreateRequest) -> Result<NetworkCreateResponse> {
        check_create(&request)?;
        let _changing = self.0.networks.changing.lock().await;
        if self.0.networks.state().records.values().any(|record| record.name == request.name) {
            return Err(Error::conflict(format!("network with name {} already exists", request.name)));
        }
        let bridges = self.0.networks.bridges.clone();
        let host = tokio::task::spawn_blocking(move || bridges.host_networks().unwrap_or_default()).await?;
        let id = new_id();
        let pool_request = pool_request(&request)?;
        let pool = self.0.networks.state().ipam.create(&id, &pool_request, &host).map_err(invalid)?;
        let recorded = self.network_record(&id, request, pool, pool_request.subnet.is_some()).await;
        match recorded {
            Ok(record) => {
                self.network_event("create", &record, None);
                Ok(NetworkCreateResponse { id, warning: String::new() })
            }
            Err(error) => {
                self.0.networks.state().ipam.remove(&id);
                Err(error)
            }
        }
    }

    /// One network with its running containers; `scope` empty for any.
    ///
    /// # Errors
    /// When there is none, or the beginning of an id fits several.
    pub async fn network_inspect(&self, name: &str, scope: &str) -> Result<NetworkInspect> {
        let record = self.0.networks.state().find(name)?;
        if !matches!(scope, "" | "local") {
            return Err(Error::not_found(format!("network {name} not found")));
        }
        let endpoints = self.containers_of_network(&record.id).into_iter();
        let containers = endpoints.map(|(id, name, settings)| (id, endpoint_document(name, &settings)));
        Ok(document(&record, containers.collect()))
    }

    /// Removes a network that no container is in.
    ///
    /// # Errors
    /// A predefined network or one with endpoints (forbidden), or none of this name.
    pub async fn network_remove(&self, name: &str) -> Result<()> {
        let _changing = self.0.networks.changing.lock().await;
        let record = self.0.networks.state().find(name)?;
        if record.is_predefined() {
            let message = format!("{} is a pre-defined network and cannot be removed", record.name);
            return Err(Error::new(Kind::Forbidden, message));
        }
        let users = self.containers_of_network(&record.id);
        if !users.is_empty() {
            let users: Vec<String> = users
                .iter()
                .map(|(_, name, endpoint)| format!("name:{name:?} id:{:?}", short(&endpoint.endpoint_id)))
                .collect();
            return Err(Error::new(
                Kind::Forbidden,
                format!(
                    "error while removing network: network {} has active endpoints ({})",
                    record.name,
                    users.join(", ")
                ),
            ));
        }
        self.network_destroy(&record).await
    }

    /// Puts a container into a network.
    ///
    /// # Errors
    /// When either is not there, or the container cannot be in it.
    pub async fn network_connect(&self, name: &str, request: NetworkConnectRequest) -> Result<()> {
        let record = self.0.networks.state().find(name)?;
        if record.driver == Driver::Host {
            return Err(Error::new(
                Kind::Forbidden,
                "container cannot be connected to host network - must be connected to host network when created",
            ));
        }
        let settings = request.endpoint_config.unwrap_or_default();
        self.container_connect(&request.container, &record.id, settings).await
    }

    /// Takes a container out of a network.
    ///
    /// # Errors
    /// When either is not there, or the container is not in it.
    pub async fn network_disconnect(&self, name: &str, request: NetworkDisconnectRequest) -> Result<()> {
        let record = self.0.networks.state().find(name)?;
        self.container_disconnect(&request.container, &record.id, request.force).await
    }

    /// Removes all networks that no container is in, predefined ones excepted.
    ///
    /// # Errors
    /// An unknown filter, or a network that cannot be removed.
    pub async fn network_prune(&self, filters: &Filters) -> Result<NetworksPruned> {
        check_filters(filters, &["until", "label", "label!"])?;
        let until = crate::images::until(filters)?;
        let _changing = self.0.networks.changing.lock().await;
        let records: Vec<Arc<Record>> = self.0.networks.state().records.values().cloned().collect();
        let mut pruned = NetworksPruned { networks_deleted: None };
        for record in records {
            let young = until.is_some_and(|until| {
                record.created.parse::<jiff::Timestamp>().is_ok_and(|created| created > until)
            });
            if record.is_predefined()
                || young
                || !filters.matches_labels("label", &record.labels)
                || has_any_label(filters, "label!", &record.labels)
                || !self.containers_of_network(&record.id).is_empty()
            {
                continue;
            }
            self.network_destroy(&record).await?;
            pruned.networks_deleted.get_or_insert_default().push(record.name.clone());
        }
        self.events().emit("network", "prune", "", [("reclaimed".to_owned(), "0".to_owned())].into());
        Ok(pruned)
    }

    async fn network_record(
        &self,
        id: &str,
        request: NetworkCreateRequest,
        pool: hull_network::Pool,
        own_subnet: bool,
    ) -> Result<Arc<Record>> {
        let options = request.options.unwrap_or_default();
        let mut network = BridgeNetwork::new(id, pool.subnet, pool.gateway);
        network.internal = request.internal;
        network.masquerade = self.config().ip_masq;
        if let std::net::IpAddr::V4(address) = self.config().default_publish_address {
            network.host_binding = address;
        }
        network.apply_options(&options).map_err(|error| match error {
            hull_network::OptionError::NotImplemented { .. } => Error::not_implemented(error.to_string()),
            error => invalid(error),
        })?;
        let record = Arc::new(Record {
            id: id.to_owned(),
            name: request.name,
            driver: Driver::Bridge,
            created: rfc3339_nano(jiff::Timestamp::now()),
            internal: request.internal,
            attachable: request.attachable,
            options,
            labels: request.labels.unwrap_or_default(),
            own_subnet,
            bridge: Some(BridgeRecord { pool, network, built: false }),
        });
        self.store().put(TABLE, id, &*record, Durability::Disk).await?;
        self.0.networks.state().records.insert(id.to_owned(), Arc::clone(&record));
        Ok(record)
    }

    /// Kernel first, then the record. The caller holds `changing`.
    async fn network_destroy(&self, record: &Arc<Record>) -> Result<()> {
        if let Some(bridge) = record.bridge.clone().filter(|bridge| bridge.built) {
            let bridges = self.0.networks.bridges.clone();
            tokio::task::spawn_blocking(move || bridges.remove(&bridge.network))
                .await?
                .map_err(|error| Error::system(format_args!("remove network {}", record.name), error))?;
        }
        self.store().delete(TABLE, &record.id, Durability::Disk).await?;
        let mut state = self.0.networks.state();
        state.records.remove(&record.id);
        state.ready.remove(&record.id);
        state.ipam.remove(&record.id);
        drop(state);
        self.network_event("destroy", record, None);
        Ok(())
    }

    pub(super) fn network_event(&self, action: &str, record: &Record, container: Option<&str>) {
        let mut attributes: BTreeMap<String, String> = [
            ("name".to_owned(), record.name.clone()),
            ("type".to_owned(), record.driver.as_str().to_owned()),
        ]
        .into();
        if let Some(container) = container {
            attributes.insert("container".to_owned(), container.to_owned());
        }
        self.events().emit("network", action, &record.id, attributes);
    }
}

/// The `type` filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NetworkType {
    Builtin,
    Custom,
}

impl NetworkType {
    fn parse(filters: &Filters) -> Result<Option<NetworkType>> {
        match filters.values("type") {
            [] => Ok(None),
            [kind] if kind == "builtin" => Ok(Some(NetworkType::Builtin)),
            [kind] if kind == "custom" => Ok(Some(NetworkType::Custom)),
            other => Err(Error::invalid(format!("invalid filter: 'type'='{}'", other.join(",")))),
        }
    }
}

fn check_create(request: &NetworkCreateRequest) -> Result<()> {
    let name = request.name.as_str();
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid network name: name is empty"));
    }
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if !name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) || !name.bytes().all(valid) {
        return Err(Error::invalid(format!(
            "invalid network name {name:?}: only \"[a-zA-Z0-9][a-zA-Z0-9_.-]*\" is allowed"
        )));
    }
    if PREDEFINED.iter().any(|(predefined, _)| *predefined == name) || name == "default" {
        let message = format!("operation is not permitted on predefined {name} network");
        return Err(Error::new(Kind::Forbidden, message));
    }
    match request.driver.as_str() {
        "" | "default" | "bridge" => {}
        "host" | "null" => {
            let message = format!("only one instance of {:?} network is allowed", request.driver);
            return Err(Error::new(Kind::Forbidden, message));
        }
        "overlay" => return Err(Error::unavailable("This node is not a swarm manager")),
        "macvlan" | "ipvlan" => {
            return Err(Error::not_implemented(format!("network driver {}", request.driver)));
        }
        driver => return Err(Error::not_found(format!("plugin {driver:?} not found"))),
    }
    if request.enable_ipv6 == Some(true) {
        return Err(Error::not_implemented("IPv6 in networks"));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(Error::not_implemented("networks without IPv4"));
    }
    if request.ingress
        || request.config_only
        || request.config_from.as_ref().is_some_and(|c| !c.network.is_empty())
    {
        return Err(Error::not_implemented("ingress and config-only networks"));
    }
    if !matches!(request.scope.as_str(), "" | "local") {
        return Err(Error::not_implemented(format!("networks of scope {}", request.scope)));
    }
    Ok(())
}

fn pool_request(request: &NetworkCreateRequest) -> Result<PoolRequest> {
    let Some(ipam) = &request.ipam else { return Ok(PoolRequest::default()) };
    if !matches!(ipam.driver.as_str(), "" | "default") {
        return Err(Error::not_found(format!("IPAM plugin {:?} not found", ipam.driver)));
    }
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    match ipam.config.as_deref() {
        None | Some([]) => Ok(PoolRequest::default()),
        Some([config]) => Ok(PoolRequest {
            subnet: given(&config.subnet),
            ip_range: given(&config.ip_range),
            gateway: given(&config.gateway),
            aux_addresses: config.auxiliary_addresses.clone(),
        }),
        Some(_) => Err(Error::not_implemented("several subnets in one network")),
    }
}

fn document(record: &Record, containers: BTreeMap<String, EndpointResource>) -> NetworkInspect {
    NetworkInspect {
        name: record.name.clone(),
        id: record.id.clone(),
        created: record.created.clone(),
        scope: "local".to_owned(),
        driver: record.driver.as_str().to_owned(),
        enable_ipv4: true,
        ipam: record.ipam(),
        internal: record.internal,
        attachable: record.attachable,
        containers,
        options: record.options.clone(),
        labels: record.labels.clone(),
        ..NetworkInspect::default()
    }
}

fn endpoint_document(name: String, settings: &EndpointSettings) -> EndpointResource {
    let with_prefix = |address: &str, prefix: i64| match address {
        "" => String::new(),
        address => format!("{address}/{prefix}"),
    };
    EndpointResource {
        name: name.trim_start_matches('/').to_owned(),
        endpoint_id: settings.endpoint_id.clone(),
        mac_address: settings.mac_address.clone(),
        ipv4_address: with_prefix(&settings.ip_address, settings.ip_prefix_len),
        ipv6_address: with_prefix(&settings.global_ipv6_address, settings.global_ipv6_prefix_len),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    async fn engine() -> (tempfile::TempDir, Engine) {
        let dir = tempfile::tempdir().expect("temp dir");
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let engine = tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open");
        (dir, engine)
    }

    fn named(name: &str) -> NetworkCreateRequest {
        NetworkCreateRequest { name: name.to_owned(), ..NetworkCreateRequest::default() }
    }

    fn filters(json: &str) -> Filters {
        Filters::parse(json).expect("filters")
    }

    #[tokio::test]
    async fn every_engine_has_three_networks() {
        let (_dir, engine) = engine().await;
        let list = engine.network_list(&filters("")).await.expect("list");
        let names: Vec<(&str, &str)> = list.iter().map(|n| (n.name.as_str(), n.driver.as_str())).collect();
        assert_eq!(names, [("bridge", "bridge"), ("host", "host"), ("none", "null")]);
        let error = engine.network_remove("bridge").await.expect_err("predefined");
        assert_eq!(error.kind(), Kind::Forbidden);
        assert_eq!(error.message(), "bridge is a pre-defined network and cannot be removed");
        let error = engine.network_create(named("host")).await.expect_err("predefined");
        assert_eq!(error.message(), "operation is not permitted on predefined host network");
    }

    #[tokio::test]
    async fn networks_are_found_by_name_and_id_and_survive() {
        let (dir, engine) = engine().await;
        let id = engine.network_create(named("front")).await.expect("create").id;
        for name in ["front", id.as_str(), &id[..10]] {
            assert_eq!(engine.network_inspect(name, "").await.expect(name).id, id);
        }
        let taken = engine.network_create(named("front")).await.expect_err("taken");
        assert_eq!(
            (taken.kind(), taken.message()),
            (Kind::Conflict, "network with name front already exists")
        );
        let subnet = engine.network_inspect("front", "").await.expect("inspect").ipam.config;
        drop(engine);
        let config = Config::new(dir.path().join("data"), dir.path().join("run"), "/nonexistent".into());
        let engine = tokio::task::spawn_blocking(|| Engine::open(config)).await.expect("join").expect("open");
        assert_eq!(engine.network_inspect("front", "").await.expect("inspect").ipam.config, subnet);
        engine.network_remove(&id[..12]).await.expect("remove");
        let gone = engine.network_inspect("front", "").await.expect_err("removed");
        assert_eq!((gone.kind(), gone.message()), (Kind::NotFound, "network front not found"));
    }

    #[tokio::test]
    async fn addresses_can_be_chosen_and_overlaps_are_refused() {
        let (_dir, engine) = engine().await;
        let mut request = named("mine");
        request.ipam =
            serde_json::from_str(r#"{"Config":[{"Subnet":"10.99.0.0/24","Gateway":"10.99.0.9"}]}"#).ok();
        engine.network_create(request.clone()).await.expect("create");
        let config = engine.network_inspect("mine", "").await.expect("inspect").ipam.config.expect("config");
        assert_eq!((config[0].subnet.as_str(), config[0].gateway.as_str()), ("10.99.0.0/24", "10.99.0.9"));
        request.name = "other".to_owned();
        let overlap = engine.network_create(request).await.expect_err("overlap");
        assert_eq!(overlap.kind(), Kind::InvalidParameter);
        assert!(overlap.message().contains("Pool overlaps with other one"), "{overlap}");
        assert!(engine.network_inspect("other", "").await.is_err());
    }

    #[tokio::test]
    async fn lists_and_prunes_are_filtered() {
        let (_dir, engine) = engine().await;
        let mut labelled = named("labelled");
        labelled.labels = Some([("keep".to_owned(), "yes".to_owned())].into());
        engine.network_create(labelled).await.expect("create");
        engine.network_create(named("plain")).await.expect("create");
        for (filter, names) in [
            (r#"{"type":["custom"]}"#, vec!["labelled", "plain"]),
            (r#"{"label":["keep"]}"#, vec!["labelled"]),
            (r#"{"name":["lai"]}"#, vec!["plain"]),
            (r#"{"driver":["null"]}"#, vec!["none"]),
            (r#"{"dangling":["1"]}"#, vec!["labelled", "plain"]),
        ] {
            let list = engine.network_list(&filters(filter)).await.expect("list");
            assert_eq!(list.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), names, "{filter}");
        }
        assert!(engine.network_list(&filters(r#"{"type":["x"]}"#)).await.is_err());
        let pruned = engine.network_prune(&filters(r#"{"label!":["keep"]}"#)).await.expect("prune");
        assert_eq!(pruned.networks_deleted, Some(vec!["plain".to_owned()]));
    }

    #[tokio::test]
    async fn unknown_drivers_are_named() {
        let (_dir, engine) = engine().await;
        for (driver, kind) in
            [("weave", Kind::NotFound), ("macvlan", Kind::NotImplemented), ("host", Kind::Forbidden)]
        {
            let request = NetworkCreateRequest { driver: driver.to_owned(), ..named("n") };
            assert_eq!(engine.network_create(request).await.expect_err(driver).kind(), kind);
        }
    }
}
