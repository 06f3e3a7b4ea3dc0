//! Starting a container: named steps, each with its undo.
//!
//! 1. look up what the definition leaves to the moment of the start: shared namespaces, user, devices, name files;
//! 2. spawn the monitor with the OCI configuration; it creates the container, whose first process waits;
//! 3. hand over the clients that attached before;
//! 4. attach the networks to the new network namespace, publish ports and record the endpoints, which an engine that
//!    finds the container running has to know (nothing to do for `none`, `host` and `container:`, where the start is
//!    asked for together with the creation);
//! 5. let the process execute its command;
//! 6. record it.
//!
//! A failure ends the monitor, which takes the container with it, and detaches the networks in reverse order.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use hull_docker_api::{EndpointSettings, PortMap};
use hull_monitor::config::{ConsoleSize, JsonFileConfig, LogConfig, MonitorConfig, Rootfs};
use hull_monitor::protocol::{Action, Event, Failure, FailureKind};
use jiff::Timestamp;
use rustix::mount::MountAttrFlags;
use tracing::{Instrument, debug_span};

use super::actor::{Actor, FIRST_BACKOFF, blocking};
use super::link::{Link, Spawned};
use super::record::{Definition, MountKind, RunState, STATES, Status};
use super::spec::{self, HostDevices, Inputs, NameFiles, Security, SharedPids};
use super::{layered, logs, name_files};
use crate::networks::AttachRequest;
use crate::{Engine, Error, Kind, Result};

/// Why a start failed, with the exit code docker shows for it.
#[derive(Debug)]
pub(super) struct StartError {
    pub(super) error: Error,
    pub(super) exit_code: i64,
}

impl From<Error> for StartError {
    fn from(error: Error) -> StartError {
        StartError { error, exit_code: 128 }
    }
}

/// What the undo of a half-made start has to know.
#[derive(Default)]
struct Made {
    link: Option<Link>,
    networks: Vec<String>,
}

/// A start that went through.
struct Running {
    link: Link,
    pid: i32,
    at: Timestamp,
    endpoints: BTreeMap<String, EndpointSettings>,
    ports: PortMap,
}

impl Actor {
    /// A start asked for by a client: counts and memories of earlier stops begin anew.
    pub(super) async fn start_by_hand(&mut self) -> Result<()> {
        match self.state.status {
            Status::Paused => {
                return Err(Error::conflict("cannot start a paused container, try unpause instead"));
            }
            Status::Running => return Err(Error::new(Kind::NotModified, "container already started")),
            Status::Removing | Status::Dead => {
                return Err(Error::conflict("container is marked for removal and cannot be started"));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        self.restart_at = None;
        self.backoff = FIRST_BACKOFF;
        self.state.restart_count = 0;
        self.state.stopped_by_hand = false;
        let result = self.start().await;
        if result.is_err() && self.def.host.auto_remove {
            self.remove_itself().await;
        }
        result
    }

    /// Starts it and records how that went.
    pub(super) async fn start(&mut self) -> Result<()> {
        let span = debug_span!("start", container = self.def.short());
        let mut made = Made::default();
        match self.start_steps(&mut made).instrument(span).await {
            Ok(running) => self.started(running).await,
            Err(failed) => {
                self.undo(made).await;
                self.start_failed(failed).await
            }
        }
    }

    async fn start_steps(&mut self, made: &mut Made) -> Result<Running, StartError> {
        let shared = self.engine.shared_pids(&self.def)?;
        let (engine, def) = (self.engine.clone(), Arc::clone(&self.def));
        let spawned = blocking(move || {
            let _span = debug_span!("prepare and spawn").entered();
            prepare(&engine, &def, shared)
        })
        .await?;
        made.link = Some(Link::from_spawned(spawned)?);
        self.hand_over_clients(made).await?;
        let plain = !has_own_network(&self.def);
        if plain {
            ask_start(made)?;
        }
        let pid = self.until_created(made).instrument(debug_span!("created")).await?;
        let (mut endpoints, mut ports) = (BTreeMap::new(), PortMap::new());
        if plain {
            endpoints = plain_endpoints(&self.engine, &self.def);
        } else {
            let attach = self.attach_networks(pid, made, &mut endpoints, &mut ports);
            attach.instrument(debug_span!("networks")).await?;
            ask_start(made)?;
        }
        let at = self.until_started(made).instrument(debug_span!("started")).await?;
        let link = made.link.take().ok_or_else(monitor_gone)?;
        Ok(Running { link, pid, at, endpoints, ports })
    }

    async fn hand_over_clients(&mut self, made: &mut Made) -> Result<()> {
        let link = made.link.as_mut().ok_or_else(monitor_gone)?;
        for (attach, client) in self.arrivals().await {
            link.request(Action::Attach(attach), &[client.as_fd()])?;
        }
        Ok(())
    }

    async fn until_created(&self, made: &Made) -> Result<i32, StartError> {
        let link = made.link.as_ref().ok_or_else(monitor_gone)?;
        loop {
            match link.next().await {
                Ok(Event::Created { pid }) => return Ok(pid),
                Ok(Event::CreateFailed(failure)) => return Err(start_error(&failure)),
                Ok(_) => {}
                Err(error) => return Err(Error::system("create container", error).into()),
            }
        }
    }

    async fn until_started(&self, made: &Made) -> Result<Timestamp, StartError> {
        let link = made.link.as_ref().ok_or_else(monitor_gone)?;
        loop {
            match link.next().await {
                Ok(Event::Started { at }) => return Ok(at.parse().unwrap_or_else(|_| Timestamp::now())),
                Ok(Event::StartFailed(failure) | Event::CreateFailed(failure)) => {
                    return Err(start_error(&failure));
                }
                Ok(_) => {}
                Err(error) => return Err(Error::system("start container", error).into()),
            }
        }
    }

    async fn attach_networks(
        &self,
        pid: i32,
        made: &mut Made,
        endpoints: &mut BTreeMap<String, EndpointSettings>,
        ports: &mut PortMap,
    ) -> Result<()> {
        let wanted = published_ports(&self.def);
        let nothing = PortMap::new();
        for (index, (name, settings)) in in_order(&self.def).into_iter().enumerate() {
            let request = AttachRequest {
                container: &self.def.id,
                pid,
                network: name,
                settings,
                ports: if index == 0 { &wanted } else { &nothing },
                index,
            };
            let attached = self.engine.network_attach(request).await?;
            made.networks.push(name.clone());
            endpoints.insert(name.clone(), attached.settings);
            ports.extend(attached.ports);
        }
        let recorded = self.record_endpoints(endpoints, ports)?;
        let (engine, def, endpoints) = (self.engine.clone(), Arc::clone(&self.def), endpoints.clone());
        blocking(move || name_files::write(&engine, &def, &endpoints)).await?;
        Ok(recorded.await?)
    }

    /// Only an engine that comes back reads it, so the disk need not have it.
    fn record_endpoints(
        &self,
        endpoints: &BTreeMap<String, EndpointSettings>,
        ports: &PortMap,
    ) -> Result<hull_meta::Pending> {
        let state = RunState { endpoints: endpoints.clone(), ports: ports.clone(), ..self.state.clone() };
        let mut batch = hull_meta::Batch::new();
        batch.put(STATES, &self.def.id, &state)?;
        Ok(self.engine.store().write(batch, hull_meta::Durability::Process))
    }

    async fn started(&mut self, running: Running) -> Result<()> {
        self.link = Some(running.link);
        self.state.status = Status::Running;
        self.state.pid = running.pid;
        self.state.exit_code = 0;
        self.state.error.clear();
        self.state.oom_killed = false;
        self.state.started_at = Some(running.at);
        self.state.endpoints = running.endpoints;
        self.state.ports = running.ports;
        self.begin_health();
        self.save().await?;
        self.emit("start", &[]);
        Ok(())
    }

    async fn undo(&mut self, made: Made) {
        for network in made.networks.iter().rev() {
            if let Err(error) = self.engine.network_detach(&self.def.id, network).await {
                tracing::warn!(container = self.def.short(), %error, "undo of network");
            }
        }
        if let Some(link) = made.link {
            link.kill().await;
        }
        let cgroup = self.engine.cgroup_of(&self.def);
        let exec_dir = self.engine.config().container_exec_dir(&self.def.id);
        let _ = blocking(move || {
            // The monitor removes both when it ends by itself; here it was killed.
            let _ = cgroup.remove();
            let _ = std::fs::remove_dir_all(exec_dir);
            Ok(())
        })
        .await;
    }

    async fn start_failed(&mut self, failed: StartError) -> Result<()> {
        self.state.status = if self.state.started_at.is_some() { Status::Exited } else { Status::Created };
        self.state.pid = 0;
        self.state.exit_code = failed.exit_code;
        failed.error.message().clone_into(&mut self.state.error);
        self.state.exits += 1;
        self.waiting.clear();
        self.save().await?;
        Err(failed.error)
    }
}

fn monitor_gone() -> Error {
    Error::internal("the container's monitor is gone")
}

fn ask_start(made: &mut Made) -> Result<()> {
    made.link.as_mut().ok_or_else(monitor_gone)?.request(Action::Start, &[]).map(|_| ())
}

/// docker's words for a failed start, by which its clients choose exit codes.
fn start_error(failure: &Failure) -> StartError {
    let message = format!(
        "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start \
         container process: {}: unknown",
        failure.message
    );
    let kind = match failure.kind {
        FailureKind::CommandNotFound | FailureKind::NotExecutable => Kind::InvalidParameter,
        FailureKind::InvalidSpec => Kind::InvalidParameter,
        FailureKind::NotImplemented => Kind::NotImplemented,
        FailureKind::Conflict | FailureKind::Other => Kind::System,
    };
    StartError { error: Error::new(kind, message), exit_code: i64::from(failure.kind.exit_status()) }
}

/// Whether the engine has work to do in the container's network namespace.
pub(super) fn has_own_network(def: &Definition) -> bool {
    let mode = def.host.network_mode.as_str();
    !def.networks.is_empty() && mode != "none" && mode != "host" && !mode.starts_with("container:")
}

/// The network of `NetworkMode` first: it has the default route.
fn in_order(def: &Definition) -> Vec<(&String, &EndpointSettings)> {
    let mut networks: Vec<_> = def.networks.iter().collect();
    networks.sort_by_key(|(name, settings)| {
        (**name != def.host.network_mode, -settings.gw_priority, name.as_str())
    });
    networks
}

/// `none` and `host` show an endpoint without addresses.
pub(super) fn plain_endpoints(engine: &Engine, def: &Definition) -> BTreeMap<String, EndpointSettings> {
    let mode = def.host.network_mode.as_str();
    if !matches!(mode, "none" | "host") {
        return BTreeMap::new();
    }
    let mut settings = def.networks.get(mode).cloned().unwrap_or_default();
    if let Ok(network) = engine.network_lookup(mode) {
        settings.network_id = network.id;
    }
    BTreeMap::from([(mode.to_owned(), settings)])
}

/// `PortBindings`, and with `PublishAllPorts` every exposed port on a port the engine chooses.
fn published_ports(def: &Definition) -> PortMap {
    let mut ports = def.host.port_bindings.clone().unwrap_or_default();
    ports.retain(|_, bindings| bindings.as_ref().is_some_and(|bindings| !bindings.is_empty()));
    if def.host.publish_all_ports {
        for port in def.config.exposed_ports.keys() {
            let any = hull_docker_api::PortBinding::default();
            ports.entry(port.clone()).or_insert_with(|| Some(vec![any]));
        }
    }
    ports
}

/// Everything up to the running monitor. Blocks for a few milliseconds.
fn prepare(engine: &Engine, def: &Definition, shared: SharedPids) -> Result<Spawned> {
    check_mount_sources(def)?;
    let directory = engine.config().container_dir(&def.id);
    let exec_dir = engine.config().container_exec_dir(&def.id);
    make_directory(&exec_dir)?;
    let names = name_files::prepare(engine, def)?;
    let spec = build_spec(engine, def, shared, names)?;
    let exit_path = directory.join("exit.json");
    remove_file(&exit_path)?;
    let config = MonitorConfig {
        id: def.id.clone(),
        engine_id: engine.id().short.clone(),
        bundle: directory.clone(),
        spec,
        rootfs: Rootfs::Sent,
        open_stdin: def.config.open_stdin,
        stdin_once: def.config.stdin_once,
        console_size: console_size(def),
        log: log_config(def, &directory)?,
        exit_path,
        durable: !def.host.auto_remove,
        socket: exec_dir.join("monitor.sock"),
        runtime: foreign_runtime(engine, def),
        engine_command: engine_command(engine, def),
    };
    let path = directory.join("monitor.json");
    config.write(&path).map_err(|error| Error::system("write monitor configuration", error))?;
    let runtime = engine.runtime_executable()?;
    let root = engine.container_root(def, MountAttrFlags::empty())?;
    Spawned::new(runtime.as_fd(), &path, root.as_fd())
}

fn build_spec(
    engine: &Engine,
    def: &Definition,
    shared: SharedPids,
    names: Option<NameFiles>,
) -> Result<oci_spec::runtime::Spec> {
    let groups = def.host.group_add.clone().unwrap_or_default();
    let inputs = Inputs {
        def,
        user: layered::user(engine.layers(), &engine.container_trees(def)?, &def.config.user, &groups)?,
        security: Security::new(&def.host, engine.config())?,
        devices: HostDevices::gather(&def.host)?,
        cgroup: engine.cgroup_path(def),
        shared,
        name_files: names,
        init: init_executable(engine, def),
        ulimits: default_ulimits(engine),
    };
    spec::build(inputs)
}

/// The runtime's own program is the init too. It is mounted read-only from its file: the sealed copy in memory, being on no
/// mount, cannot be.
fn init_executable(engine: &Engine, def: &Definition) -> Option<PathBuf> {
    def.host.init.unwrap_or(engine.config().init).then(|| engine.config().runtime.clone())
}

fn default_ulimits(engine: &Engine) -> Vec<hull_docker_api::Ulimit> {
    let limits = engine.config().default_ulimits.iter();
    limits
        .map(|(name, (soft, hard))| hull_docker_api::Ulimit { name: name.clone(), soft: *soft, hard: *hard })
        .collect()
}

fn console_size(def: &Definition) -> Option<ConsoleSize> {
    let [rows, cols] = def.host.console_size;
    let size = ConsoleSize { rows: u16::try_from(rows).ok()?, cols: u16::try_from(cols).ok()? };
    (def.config.tty && rows > 0 && cols > 0).then_some(size)
}

fn log_config(def: &Definition, directory: &std::path::Path) -> Result<LogConfig> {
    if def.host.log_config.kind == "none" {
        return Ok(LogConfig::None);
    }
    let rotation = logs::rotation(&def.host.log_config)?;
    Ok(LogConfig::JsonFile(JsonFileConfig {
        path: directory.join(logs::FILE),
        max_size: rotation.max_size,
        max_file: rotation.max_file,
        attrs: logs::attributes(def),
    }))
}

fn foreign_runtime(engine: &Engine, def: &Definition) -> Option<PathBuf> {
    engine.config().runtimes.get(&def.host.runtime).cloned()
}

/// Only a container that starts again needs an engine at its end.
fn engine_command(engine: &Engine, def: &Definition) -> Option<Vec<String>> {
    let restarts = !matches!(def.host.restart_policy.name.as_str(), "" | "no");
    let command = &engine.config().engine_command;
    (restarts && !command.is_empty()).then(|| command.clone())
}

/// A bind source may have vanished since the creation; those of `-v` are made, those of `--mount` are not.
fn check_mount_sources(def: &Definition) -> Result<()> {
    for mount in def.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        let source = std::path::Path::new(&mount.source);
        if source.exists() {
            continue;
        }
        if !mount.create_source {
            return Err(Error::invalid(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {}",
                mount.source
            )));
        }
        std::fs::create_dir_all(source).map_err(|error| {
            Error::internal(format!("error while creating mount source path '{}': {error}", mount.source))
        })?;
    }
    Ok(())
}

fn make_directory(path: &std::path::Path) -> Result<()> {
    match std::fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::system(format!("create {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
