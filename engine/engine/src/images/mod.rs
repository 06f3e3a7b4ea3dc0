//! Images: pull, push, load, save, import, list, inspect, remove, tag, history, prune, commit; and what a container
//! needs of one.

use crate::{Config, Result};

/// The images of an engine.
#[derive(Debug)]
pub struct Images {}

impl Images {
    /// Loads the records of images.
    pub(crate) fn open(_config: &Config, _store: &hull_meta::Store) -> Result<Images> {
        Ok(Images {})
    }
}
