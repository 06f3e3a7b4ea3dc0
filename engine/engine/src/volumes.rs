//! Volumes: create, list, inspect, remove, prune; and what containers mount of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::{Config, Engine, Error, Result};

/// The volumes of an engine.
#[derive(Debug)]
pub struct Volumes {}

impl Volumes {
    /// Loads the records of volumes.
    pub(crate) fn open(_config: &Config, _store: &hull_meta::Store) -> Result<Volumes> {
        Ok(Volumes {})
    }
}

/// A volume as a container mounts it.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct MountableVolume {
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Directory with its content.
    pub(crate) mountpoint: PathBuf,
    /// Whether this call made it.
    pub(crate) created: bool,
}

impl Engine {
    /// The volume of that name, made if it is not there; no name makes an anonymous one (64 hex digits, label
    /// `com.docker.volume.anonymous`). Driver empty: `local`.
    #[allow(dead_code)]
    pub(crate) async fn volume_for_container(
        &self,
        _name: Option<&str>,
        _driver: &str,
        _options: &BTreeMap<String, String>,
        _labels: &BTreeMap<String, String>,
    ) -> Result<MountableVolume> {
        Err(Error::not_implemented("volumes"))
    }

    /// Removes an anonymous volume whose container goes away, unless another container uses it.
    #[allow(dead_code)]
    pub(crate) async fn volume_discard(&self, _name: &str) -> Result<()> {
        Ok(())
    }
}
