//! Images: pull, push, load, save, import, list, inspect, remove, tag, history, prune, commit; and what a container
//! needs of one.
//!
//! An image's id is the digest of its configuration. Its record (table `images`) names the blobs and unpacked layers it
//! is made of; names (table `references`) are full references, with tag or digest, that point to ids. Blobs and layers
//! are written before the record that uses them and removed after it; what a cut in between leaves behind belongs to
//! no record and is swept. Whoever makes an image holds a lease on its parts until the record is written, so that
//! removal never takes what is about to be used.

// Errors of the image store carry descriptors; they are turned into the engine's own where they arise.
#![allow(clippy::result_large_err)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use hull_content::Store;
use hull_docker_api::Filters;
use hull_images::ImageStore;
use hull_layer::Layers;
use hull_model::{Digest, ImageConfig};

use crate::{Config, Engine, Error, Result};

mod actions;
mod archive;
mod artifacts;
mod changes;
mod check;
mod hello;
mod layers;
mod make;
mod manifests;
mod progress;
mod pull;
mod push;
mod query;
mod record;
mod registry;
mod remove;

pub use actions::{
    CommitRequest, ImportRequest, ImportSource, ListOptions, Progress, PullRequest, PushRequest,
};
pub use archive::Compression;
use record::Known;

/// The images of an engine.
#[derive(Debug)]
pub struct Images {
    store: ImageStore,
    known: Mutex<Known>,
    registries: registry::Registries,
    pulls: pull::Pulls,
}

impl Images {
    /// Loads the records of images.
    pub(crate) fn open(config: &Config, store: &hull_meta::Store) -> Result<Images> {
        let failed = |error: &(dyn std::error::Error + 'static)| Error::internal(crate::chain(error));
        let content = Store::open(config.data_root.join("content")).map_err(|error| failed(&error))?;
        let options = hull_layer::Options { driver: config.storage_driver, ..hull_layer::Options::default() };
        let layers = Layers::open_with(config.data_root.join("layers"), options);
        let layers = layers.map_err(|error| failed(&error))?;
        let images = ImageStore::new(content, layers);
        let known = Known::load(store, &images)?;
        Ok(Images {
            store: images,
            known: Mutex::new(known),
            registries: registry::Registries::new(config),
            pulls: pull::Pulls::default(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
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
    /// Places of the unpacked layers, topmost first.
    pub(crate) layers: Vec<PathBuf>,
    /// Bytes of all layers.
    pub(crate) size: u64,
}

impl Engine {
    /// The image a container is made from, by name, digest or (short) id. An image that is not there is
    /// [`crate::Kind::NotFound`] with docker's text `No such image: busybox:latest`. Touches no disk.
    #[allow(dead_code)]
    pub(crate) async fn image_for_run(&self, name: &str, platform: &str) -> Result<RunImage> {
        // Found before it is looked at: the lock must be given back before another kind of thing is looked for.
        let found = self.0.images.known().find_for_run(name);
        let image = found.map_err(|error| self.not_an_image(name).unwrap_or(error))?;
        let image = record::select_platform(&image, name, platform)?;
        Ok(RunImage {
            id: image.id().to_string(),
            config: Arc::clone(&image.config),
            layers: image.chain().rev().map(|id| self.layers().place(id)).collect(),
            size: image.record.image.size,
        })
    }

    /// The unpacked layers.
    pub(crate) fn layers(&self) -> &Layers {
        self.0.images.store.layers()
    }

    /// A container of this image is gone: an image that was removed while the container was there goes too.
    pub(crate) async fn image_released(&self, id: &str) -> Result<()> {
        let Ok(id) = id.parse::<Digest>() else { return Ok(()) };
        let image = self.0.images.known().main_of(&id).cloned();
        match image {
            Some(image) if image.record.removed && self.users_of(image.id()).is_empty() => {
                self.image_forget(&image).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// After a restart, when containers are known: finishes removals that were cut off or waited for containers that
    /// are gone by now. Downloads that were begun stay for the next attempt.
    pub(crate) async fn images_settle(&self) -> Result<()> {
        let removed: Vec<String> = {
            let known = self.0.images.known();
            known
                .images
                .values()
                .filter(|image| image.record.removed)
                .map(|image| image.id().to_string())
                .collect()
        };
        for id in removed {
            self.image_released(&id).await?;
        }
        let engine = self.clone();
        let freed = tokio::task::spawn_blocking(move || {
            let images = &engine.0.images;
            images.store.collect(&|part| images.known().needs(part))
        })
        .await?
        .map_err(|error| Error::system("sweep images", error))?;
        if freed != hull_images::Freed::default() {
            tracing::info!(?freed, "removed what belonged to no image");
        }
        Ok(())
    }

    fn image_event(&self, action: &str, id: &Digest, name: &str) {
        let mut attributes: BTreeMap<String, String> = [("name".to_owned(), name.to_owned())].into();
        if let Some(image) = self.0.images.known().images.get(id) {
            attributes.extend(image.config.config.labels.clone());
        }
        self.events().emit("image", action, if action == "pull" { name } else { id.as_str() }, attributes);
    }
}

/// The instant of an `until` filter: seconds since 1970, RFC 3339, or a duration before now (`10m`, `24h`).
pub(crate) fn until(filters: &Filters) -> Result<Option<jiff::Timestamp>> {
    let text = match filters.values("until") {
        [] => return Ok(None),
        [one] => one.as_str(),
        _ => return Err(Error::invalid("more than one until filter specified")),
    };
    let invalid = || Error::invalid(format!("invalid filter 'until={text}'"));
    if let Ok(seconds) = text.split('.').next().unwrap_or(text).parse::<i64>() {
        return jiff::Timestamp::from_second(seconds).map(Some).map_err(|_| invalid());
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Some(at));
    }
    let span: jiff::SignedDuration = text.parse().map_err(|_| invalid())?;
    jiff::Timestamp::now().checked_sub(span).map(Some).map_err(|_| invalid())
}

#[cfg(test)]
mod tests;
