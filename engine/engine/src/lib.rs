//! The engine's actions, container state machines, reconciliation and events.
//!
//! [`Engine`] is a handle to one engine on one data root; clones share it. Each group of actions is an `impl Engine`
//! in a module of its own and returns docker-api types or an [`Error`] whose message a docker client prints as it is:
//!
//! | module | actions |
//! |---|---|
//! | [`containers`] | create, start, stop, exec, logs, attach, copy, wait, … ; one task per container |
//! | [`images`] | pull, push, load, save, import, list, inspect, remove, tag, history, prune, commit |
//! | [`networks`] | create, list, inspect, remove, connect, disconnect, prune; attach for containers |
//! | [`volumes`] | create, list, inspect, remove, prune; mounts for containers |
//! | [`system`] | info, version, disk usage |
//!
//! Protocols (REST, CRI) turn requests into these calls and keep no state of their own.

use std::sync::Arc;

pub mod bytestream;
pub mod config;
pub mod containers;
mod error;
pub mod events;
pub mod images;
pub mod networks;
pub mod system;
pub mod volumes;

pub use config::Config;
pub use error::{Error, Kind, Result, chain};

/// One engine on one data root. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_root", &self.0.config.data_root).finish_non_exhaustive()
    }
}

/// What all actions share. Fields are private to the crate; modules own their part.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) id: EngineId,
    pub(crate) started: jiff::Timestamp,
    pub(crate) store: hull_meta::Store,
    pub(crate) events: events::Bus,
    #[allow(dead_code)]
    pub(crate) containers: containers::Containers,
    #[allow(dead_code)]
    pub(crate) images: images::Images,
    #[allow(dead_code)]
    pub(crate) networks: networks::Networks,
    #[allow(dead_code)]
    pub(crate) volumes: volumes::Volumes,
    /// Held for the life of the engine: one per data root.
    _lock: std::fs::File,
}

/// The names of an engine: `id` is what `docker info` shows, `short` is in the names of its kernel objects.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct EngineId {
    /// A UUID.
    pub id: String,
    /// Eight hex digits.
    pub short: String,
}

impl Engine {
    /// The settings it was opened with.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Its event bus.
    pub fn events(&self) -> &events::Bus {
        &self.0.events
    }

    /// Its names.
    pub fn id(&self) -> &EngineId {
        &self.0.id
    }

    /// When this process opened it.
    pub fn started(&self) -> jiff::Timestamp {
        self.0.started
    }

    /// Writes what is queued and closes the record. Containers go on; actions fail from now on. Without containers
    /// nothing of this engine stays in the cgroups.
    pub fn close(&self) {
        self.0.store.close();
        self.0.containers.remove_cgroup_root();
    }

    /// The record of truth.
    #[allow(dead_code)]
    pub(crate) fn store(&self) -> &hull_meta::Store {
        &self.0.store
    }
}

mod open;

pub use open::OpenError;
