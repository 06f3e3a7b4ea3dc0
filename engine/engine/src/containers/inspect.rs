//! Everything about one container, in docker's fields.

use std::collections::BTreeMap;

use hull_docker_api::{
    ContainerInspect, ContainerState, EndpointSettings, GraphDriver, MountPoint, NetworkSettings, ZERO_TIME,
    rfc3339_nano,
};
use hull_layer::DriverName;
use jiff::Timestamp;

use super::logs;
use super::record::{Definition, MountKind, RunState, Snapshot, Status};
use crate::{Engine, Result};

impl Engine {
    /// Everything about one container; `size` computes its sizes.
    pub async fn container_inspect(&self, id: &str, size: bool) -> Result<ContainerInspect> {
        let handle = self.0.containers.registry.find(id)?;
        let now = handle.now();
        let mut inspect = self.inspect(&now);
        if size {
            let upper = i64::try_from(self.upper_size(&handle.id).await).unwrap_or(i64::MAX);
            inspect.size_rw = Some(upper);
            inspect.size_root_fs =
                Some(upper.saturating_add(i64::try_from(now.def.image_size).unwrap_or(i64::MAX)));
        }
        Ok(inspect)
    }

    fn inspect(&self, now: &Snapshot) -> ContainerInspect {
        let def = &now.def;
        let directory = self.config().container_dir(&def.id);
        let inside = |name: &str| directory.join(name).to_string_lossy().into_owned();
        let driver = self.layers().container_driver(&directory);
        let (path, args) = def.command();
        let execs = self.0.containers.execs.of_container(&def.id);
        let logged = def.host.log_config.kind == "json-file";
        ContainerInspect {
            id: def.id.clone(),
            created: rfc3339_nano(def.created),
            path,
            args,
            state: state(now),
            image: def.image_id.clone(),
            resolv_conf_path: inside("resolv.conf"),
            hostname_path: inside("hostname"),
            hosts_path: inside("hosts"),
            log_path: if logged { inside(logs::FILE) } else { String::new() },
            name: format!("/{}", def.name),
            restart_count: now.state.restart_count,
            driver: driver.to_string(),
            platform: if def.os.is_empty() { "linux".to_owned() } else { def.os.clone() },
            exec_ids: (!execs.is_empty()).then_some(execs),
            host_config: def.host.clone(),
            graph_driver: graph_driver(def, &directory, driver),
            mounts: mount_points(def),
            config: def.config.clone(),
            network_settings: network_settings(def, &now.state),
            ..ContainerInspect::default()
        }
    }

    /// Bytes of a container's writable layer.
    pub(super) async fn upper_size(&self, id: &str) -> u64 {
        let (engine, own) = (self.clone(), self.config().container_dir(id));
        let size = tokio::task::spawn_blocking(move || engine.layers().container_size(&own)).await;
        // Files of a container that runs come and go.
        size.ok().and_then(std::result::Result::ok).unwrap_or_default()
    }
}

fn state(now: &Snapshot) -> ContainerState {
    let state = &now.state;
    let time = |at: Option<Timestamp>| at.map_or_else(|| ZERO_TIME.to_owned(), rfc3339_nano);
    ContainerState {
        status: state.status.as_str().to_owned(),
        running: state.status.is_up(),
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.oom_killed,
        dead: state.status == Status::Dead,
        pid: i64::from(state.pid),
        exit_code: state.exit_code,
        error: state.error.clone(),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        health: now.health.as_deref().cloned(),
    }
}

fn graph_driver(def: &Definition, directory: &std::path::Path, driver: DriverName) -> GraphDriver {
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    if driver == DriverName::Vfs {
        return GraphDriver { data: Some(BTreeMap::new()), name: driver.to_string() };
    }
    let lower = def.layers.iter().map(|layer| text(layer)).collect::<Vec<_>>().join(":");
    let data = BTreeMap::from([
        ("LowerDir".to_owned(), lower),
        ("UpperDir".to_owned(), text(&directory.join("upper"))),
        ("WorkDir".to_owned(), text(&directory.join("work"))),
    ]);
    GraphDriver { data: Some(data), name: driver.to_string() }
}

/// The mounts as docker shows them; a tmpfs of `--tmpfs` is not among them.
pub(super) fn mount_points(def: &Definition) -> Vec<MountPoint> {
    let from_tmpfs_option =
        |destination: &str| def.host.tmpfs.keys().any(|path| super::mounts::clean(path) == destination);
    let shown = def
        .mounts
        .iter()
        .filter(|mount| mount.kind != MountKind::Tmpfs || !from_tmpfs_option(&mount.destination));
    shown
        .map(|mount| MountPoint {
            kind: mount.kind.as_str().to_owned(),
            name: mount.name.clone(),
            source: mount.source.clone(),
            destination: mount.destination.clone(),
            driver: if mount.kind == MountKind::Volume && mount.driver.is_empty() {
                "local".to_owned()
            } else {
                mount.driver.clone()
            },
            mode: mount.mode.clone(),
            rw: mount.rw,
            propagation: mount.propagation.clone(),
        })
        .collect()
}

/// What it has while it runs, what it asks for while it does not.
pub(super) fn endpoints(def: &Definition, state: &RunState) -> BTreeMap<String, EndpointSettings> {
    let mut endpoints = def.networks.clone();
    for (name, endpoint) in &state.endpoints {
        endpoints.insert(name.clone(), endpoint.clone());
    }
    endpoints
}

fn network_settings(def: &Definition, state: &RunState) -> NetworkSettings {
    let mut settings = NetworkSettings { networks: endpoints(def, state), ..NetworkSettings::default() };
    if state.status.has_processes() {
        settings.sandbox_key = format!("/proc/{}/ns/net", state.pid);
        settings.sandbox_id = def.id.clone();
        settings.ports = state.ports.clone();
        for port in def.config.exposed_ports.keys() {
            settings.ports.entry(port.clone()).or_insert(None);
        }
    }
    // The default network's addresses stand at the top level too, for old clients.
    if let Some(bridge) = state.endpoints.get("bridge") {
        settings.endpoint_id = bridge.endpoint_id.clone();
        settings.gateway = bridge.gateway.clone();
        settings.ip_address = bridge.ip_address.clone();
        settings.ip_prefix_len = bridge.ip_prefix_len;
        settings.mac_address = bridge.mac_address.clone();
    }
    settings
}
