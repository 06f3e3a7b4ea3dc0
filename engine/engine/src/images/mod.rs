//! Images: pull, push, load, save, import, list, inspect, remove, tag, history, prune, commit; and what a container
//! needs of one.

use std::path::PathBuf;
use std::sync::Arc;

use hull_model::ImageConfig;

use crate::{Config, Engine, Error, Result};

/// The images of an engine.
#[derive(Debug)]
pub struct Images {}

impl Images {
    /// Loads the records of images.
    pub(crate) fn open(_config: &Config, _store: &hull_meta::Store) -> Result<Images> {
        Ok(Images {})
    }
}

/// What a container is made from.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub(crate) struct RunImage {
    /// `sha256:…` of the configuration (docker's image id).
    pub(crate) id: String,
    /// The image's configuration document.
    pub(crate) config: Arc<ImageConfig>,
    /// Unpacked layers (`…/diff`), topmost first: the lower directories of the container's overlay.
    pub(crate) layers: Vec<PathBuf>,
    /// Bytes of all layers.
    pub(crate) size: u64,
}

impl Engine {
    /// The image a container is made from, by name, digest or (short) id. An image that is not there is
    /// [`crate::Kind::NotFound`] with docker's text `No such image: busybox:latest`. Must not touch the disk when the
    /// image was used before.
    #[allow(dead_code)]
    pub(crate) async fn image_for_run(&self, name: &str, _platform: &str) -> Result<RunImage> {
        Err(Error::not_found(format!("No such image: {name}")))
    }
}
