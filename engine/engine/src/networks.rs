//! Networks: create, list, inspect, remove, connect, disconnect, prune; and attaching containers.

use crate::{Config, EngineId, Result};

/// The networks of an engine.
#[derive(Debug)]
pub struct Networks {}

impl Networks {
    /// Loads the records of networks.
    pub(crate) fn open(_config: &Config, _id: &EngineId, _store: &hull_meta::Store) -> Result<Networks> {
        Ok(Networks {})
    }
}
