//! Volumes: create, list, inspect, remove, prune; and what containers mount of them.

use crate::{Config, Result};

/// The volumes of an engine.
#[derive(Debug)]
pub struct Volumes {}

impl Volumes {
    /// Loads the records of volumes.
    pub(crate) fn open(_config: &Config, _store: &hull_meta::Store) -> Result<Volumes> {
        Ok(Volumes {})
    }
}
