//! Making a container: check everything, resolve image and volumes, then record it.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use hull_docker_api::{ContainerConfig, ContainerCreateRequest, ContainerCreateResponse, HostConfig};
use hull_model::Id;
use jiff::Timestamp;

use super::actor::blocking;
use super::exit::remove_tree;
use super::mounts::{self, Wanted};
use super::reconcile::First;
use super::record::{DEFINITIONS, Definition, MountKind, MountRecord, RunState, STATES};
use super::spec::Security;
use super::{copy_up, merge, names, validate};
use crate::volumes::Unrecorded;
use crate::{Engine, Error, Result};

impl Engine {
    /// Makes a container. `name` and `platform` as in the query (`os/arch[/variant]`), empty for none.
    pub async fn container_create(
        &self,
        name: &str,
        platform: &str,
        request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        let ContainerCreateRequest { mut config, host_config, networking_config } = request;
        let mut host = host_config.unwrap_or_default();
        if config.image.is_empty() {
            return Err(Error::invalid("invalid reference format"));
        }
        validate::config(&config)?;
        let image = self.image_for_run(&config.image, platform).await?;
        merge::merge(&mut config, &image.config.config)?;
        validate::config(&config)?;
        validate::fill_host(&mut host, self.config());
        validate::host(&host, self.config())?;
        Security::new(&host, self.config())?;
        self.check_shared(&mut host)?;
        let id = Id::random().to_string();
        fill_hostname(&mut config, &host, &id)?;
        let wanted = mounts::wanted(&config, &host, self.inherited_mounts(&host)?)?;
        check_bind_sources(&wanted)?;
        let name = self.claim_name(name, &id)?;
        let networks = networks(&host, networking_config.and_then(|config| config.endpoints_config));
        let def = Definition {
            id,
            name,
            created: Timestamp::now(),
            image_id: image.id,
            layers: image.layers,
            image_size: image.size,
            config,
            host,
            mounts: Vec::new(),
            networks,
            os: image.config.os.clone(),
        };
        let (id, name) = (def.id.clone(), def.name.clone());
        match Box::pin(self.make(def, wanted)).await {
            Ok(()) => Ok(ContainerCreateResponse { id, warnings: Vec::new() }),
            Err(error) => {
                self.0.containers.registry.release(&name);
                let directory = self.config().container_dir(&id);
                let _ = blocking(move || remove_tree(&directory)).await;
                Err(error)
            }
        }
    }

    /// Directory, volumes, record, task, event: in this order, so that a record is never without its directory.
    async fn make(&self, mut def: Definition, wanted: Vec<Wanted>) -> Result<()> {
        let directory = self.config().container_dir(&def.id);
        let (engine, layers) = (self.clone(), def.layers.clone());
        blocking(move || make_directories(&engine, &directory, &layers)).await?;
        let mut volumes = Vec::new();
        let recorded = match self.make_volumes(&def, wanted, &mut volumes).await {
            Ok(mounts) => {
                def.mounts = mounts;
                self.record_new(&def, &volumes).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = recorded {
            self.volumes_abandoned(volumes).await;
            return Err(error);
        }
        self.volumes_recorded(volumes).await;
        let (state, attributes) = (RunState::default(), def.event_attributes());
        let id = def.id.clone();
        self.begin_task(def, state, First::Rest);
        self.events().emit("container", "create", &id, attributes);
        Ok(())
    }

    /// The container and its own volumes, together: neither is there without the other.
    async fn record_new(&self, def: &Definition, volumes: &[Unrecorded]) -> Result<()> {
        let mut batch = hull_meta::Batch::new();
        Engine::volumes_record(volumes, &mut batch)?;
        batch.put(DEFINITIONS, &def.id, def)?.put(STATES, &def.id, &RunState::default())?;
        Ok(self.store().write(batch, def.durability()).await?)
    }

    /// The wanted name, or a random one that is free.
    fn claim_name(&self, name: &str, id: &str) -> Result<String> {
        let registry = &self.0.containers.registry;
        if !name.is_empty() {
            let name = names::parse(name)?;
            registry.claim(name, id)?;
            return Ok(name.to_owned());
        }
        for attempt in 0..8 {
            let name = names::random(attempt);
            if registry.claim(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        registry.claim(&name, id)?;
        Ok(name)
    }

    /// `container:<name>` modes name a container that exists; from then on by id, which a rename does not change.
    fn check_shared(&self, host: &mut HostConfig) -> Result<()> {
        for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(other) = mode.strip_prefix("container:") {
                let handle = self.0.containers.registry.find(other)?;
                *mode = format!("container:{}", handle.id);
            }
        }
        Ok(())
    }

    /// The mounts of `VolumesFrom`.
    fn inherited_mounts(&self, host: &HostConfig) -> Result<Vec<MountRecord>> {
        let mut inherited = Vec::new();
        for entry in host.volumes_from.iter().flatten() {
            let (name, mode) = entry.split_once(':').unwrap_or((entry, ""));
            let other = self.0.containers.registry.find(name)?.now();
            inherited.extend(mounts::from_container(&other.def.mounts, mode)?);
        }
        Ok(inherited)
    }

    /// Makes the volumes that are not there and fills new ones with what the image has at their place. Those that
    /// have to be recorded with the container are added to `unrecorded`.
    async fn make_volumes(
        &self,
        def: &Definition,
        wanted: Vec<Wanted>,
        unrecorded: &mut Vec<Unrecorded>,
    ) -> Result<Vec<MountRecord>> {
        let mut records = Vec::with_capacity(wanted.len());
        for Wanted { mut record, volume_options, volume_labels } in wanted {
            if record.kind == MountKind::Volume && record.source.is_empty() {
                let name = (!record.name.is_empty()).then_some(record.name.as_str());
                let volume =
                    self.volume_for_container(name, &record.driver, &volume_options, &volume_labels).await?;
                unrecorded.extend(volume.unrecorded);
                record.name = volume.name;
                record.driver = volume.driver;
                record.source = volume.mountpoint.to_string_lossy().into_owned();
                if record.copy_up {
                    let (layers, destination) = (def.layers.clone(), record.destination.clone());
                    let target = volume.mountpoint;
                    let engine = self.clone();
                    let fill = move || copy_up::fill(engine.layers(), &layers, &destination, &target);
                    blocking(fill).await?;
                }
            }
            records.push(record);
        }
        Ok(records)
    }
}

fn make_directories(engine: &Engine, directory: &Path, layers: &[PathBuf]) -> Result<()> {
    std::fs::DirBuilder::new()
        .mode(0o710)
        .create(directory)
        .map_err(|error| Error::system(format!("create {}", directory.display()), error))?;
    engine
        .layers()
        .prepare(directory, layers)
        .map_err(|error| Error::system("make the container's own layer", error))
}

/// The short id, the host's name with the host's network, nothing with another container's.
fn fill_hostname(config: &mut ContainerConfig, host: &HostConfig, id: &str) -> Result<()> {
    let shared_network = host.network_mode.starts_with("container:");
    if shared_network && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the network mode"));
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    if !config.hostname.is_empty() {
        return Ok(());
    }
    config.hostname = if host.network_mode == "host" || host.uts_mode == "host" {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    } else {
        id[..12].to_owned()
    };
    Ok(())
}

/// The endpoints to make at the start, by the network's name as it was given.
fn networks(
    host: &HostConfig,
    endpoints: Option<BTreeMap<String, hull_docker_api::EndpointSettings>>,
) -> BTreeMap<String, hull_docker_api::EndpointSettings> {
    let mut networks = endpoints.unwrap_or_default();
    let mode = host.network_mode.as_str();
    if mode.starts_with("container:") {
        return BTreeMap::new();
    }
    // Clients name the default network `default` or `bridge`.
    if let Some(settings) = networks.remove("default") {
        networks.entry("bridge".to_owned()).or_insert(settings);
    }
    networks.entry(mode.to_owned()).or_default();
    networks
}

/// `--mount` wants its source to be there already at the creation.
fn check_bind_sources(wanted: &[Wanted]) -> Result<()> {
    for record in wanted.iter().map(|wanted| &wanted.record) {
        if record.kind == MountKind::Bind && !record.create_source && !PathBuf::from(&record.source).exists()
        {
            return Err(Error::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                record.source
            )));
        }
    }
    Ok(())
}
