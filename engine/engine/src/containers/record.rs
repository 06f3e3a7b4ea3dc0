//! What is recorded of a container: the definition it was made with and the state it is in.
//!
//! They are two documents, because the state changes often and is small. The definition is shared by reference.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use hull_docker_api::{ContainerConfig, EndpointSettings, Health, HostConfig, PortMap};
use hull_meta::Durability;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Table of [`Definition`]s.
pub(crate) const DEFINITIONS: &str = "containers";
/// Table of [`RunState`]s.
pub(crate) const STATES: &str = "container_states";

/// What a container was made with. Changes only by rename, update and network connect/disconnect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// 64 hex digits.
    pub(crate) id: String,
    /// Without leading slash.
    pub(crate) name: String,
    #[serde(with = "super::instant")]
    pub(crate) created: Timestamp,
    /// `sha256:…` of the image.
    pub(crate) image_id: String,
    /// Unpacked layers of the image, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// Bytes of the image's layers.
    pub(crate) image_size: u64,
    /// Configuration merged with the image's.
    pub(crate) config: ContainerConfig,
    pub(crate) host: HostConfig,
    pub(crate) mounts: Vec<MountRecord>,
    /// Networks it joins when it starts, by name, with what was asked for.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// Image's `os`.
    #[serde(default)]
    pub(crate) os: String,
}

/// A mount of a container, beyond the ones every container has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountRecord {
    pub(crate) kind: MountKind,
    /// Volume name.
    #[serde(default)]
    pub(crate) name: String,
    /// Path on the host.
    #[serde(default)]
    pub(crate) source: String,
    pub(crate) destination: String,
    #[serde(default)]
    pub(crate) driver: String,
    /// Docker's mode text (`z`, `ro`…).
    #[serde(default)]
    pub(crate) mode: String,
    pub(crate) rw: bool,
    #[serde(default)]
    pub(crate) propagation: String,
    /// Made for this container without a name: removed with it (`rm -v`, `--rm`).
    #[serde(default)]
    pub(crate) anonymous: bool,
    /// Made from HostConfig.Mounts (then it is shown there and not in Binds).
    #[serde(default)]
    pub(crate) non_recursive: bool,
    /// Read-only applies to this mount only, not to those below it.
    #[serde(default)]
    pub(crate) read_only_non_recursive: bool,
    /// Make a missing bind source as a directory.
    #[serde(default)]
    pub(crate) create_source: bool,
    /// Copy what the image has at the destination into an empty volume.
    #[serde(default)]
    pub(crate) copy_up: bool,
    /// Path inside the volume.
    #[serde(default)]
    pub(crate) subpath: String,
    /// Options of a tmpfs, as mount(8) takes them.
    #[serde(default)]
    pub(crate) tmpfs_options: Vec<String>,
}

/// What a mount is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Volume,
    Tmpfs,
}

impl MountKind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Volume => "volume",
            MountKind::Tmpfs => "tmpfs",
        }
    }
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Whether it has processes.
    pub(crate) fn has_processes(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }

    /// Docker's `Running`, which a restarting container also is.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Status::Running | Status::Paused | Status::Restarting)
    }
}

/// The state of a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunState {
    pub(crate) status: Status,
    /// Pid of the first process, 0 for none.
    pub(crate) pid: i32,
    pub(crate) exit_code: i64,
    #[serde(default)]
    pub(crate) error: String,
    #[serde(default)]
    pub(crate) oom_killed: bool,
    #[serde(default, with = "super::instant::option")]
    pub(crate) started_at: Option<Timestamp>,
    #[serde(default, with = "super::instant::option")]
    pub(crate) finished_at: Option<Timestamp>,
    /// Restarts by policy since the last start by hand.
    #[serde(default)]
    pub(crate) restart_count: i64,
    /// Stopped by `stop` or `kill`: `unless-stopped` then leaves it.
    #[serde(default)]
    pub(crate) stopped_by_hand: bool,
    /// Endpoints it has now, by network name.
    #[serde(default)]
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    /// Ports as published now.
    #[serde(default)]
    pub(crate) ports: PortMap,
    /// Exits seen in the life of this engine; waits count on it.
    #[serde(skip)]
    pub(crate) exits: u64,
}

/// A container at one instant. Readers get it without asking the container's task.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) def: Arc<Definition>,
    pub(crate) state: Arc<RunState>,
    pub(crate) health: Option<Arc<Health>>,
    /// It is gone: the last snapshot there is.
    pub(crate) removed: bool,
    /// Its entry of the list as JSON, made when somebody lists containers in this state.
    pub(crate) entry: OnceLock<ListEntry>,
}

/// A container's entry of the list as JSON, in two parts: between them belongs the sentence about its state, which
/// changes with the time alone.
#[derive(Debug, Clone)]
pub(crate) struct ListEntry {
    pub(crate) head: Box<str>,
    pub(crate) tail: Box<str>,
}

impl Definition {
    /// First 12 digits of the id.
    pub(crate) fn short(&self) -> &str {
        &self.id[..12.min(self.id.len())]
    }

    /// What its records must survive: a container that is removed at its exit is not there after a power cut anyway.
    pub(crate) fn durability(&self) -> Durability {
        if self.host.auto_remove { Durability::Process } else { Durability::Disk }
    }

    /// Program and arguments.
    pub(crate) fn command(&self) -> (String, Vec<String>) {
        let mut words = self
            .config
            .entrypoint
            .iter()
            .flat_map(|words| words.iter())
            .chain(self.config.cmd.iter().flat_map(|words| words.iter()))
            .cloned();
        (words.next().unwrap_or_default(), words.collect())
    }

    /// Every path something is mounted on that the image need not have.
    pub(crate) fn mount_points(&self) -> Vec<String> {
        let own = self.mounts.iter().map(|mount| mount.destination.clone());
        let always =
            ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", super::spec::INIT, "/proc", "/sys", "/dev"];
        let below_dev = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console"];
        own.chain(always.into_iter().chain(below_dev).map(str::to_owned)).collect()
    }

    /// Attributes of its events: labels, image, name.
    pub(crate) fn event_attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.config.labels.clone().unwrap_or_default();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }
}
