//! Images: pull, push, load, save, import, list, inspect, remove, tag, history, prune, commit; and what a container
//! needs of one.

use std::path::PathBuf;
use std::sync::Arc;

use hull_docker_api::{
    AuthConfig, CommitResponse, DistributionInspect, Filters, HistoryItem, ImageDeleted, ImageInspect,
    ImageSummary, ImagesPruned,
};
use hull_model::ImageConfig;

use crate::bytestream::ByteStream;
use crate::{Config, Engine, Error, Result};

mod actions;

pub use actions::{
    CommitRequest, ImportRequest, ImportSource, ListOptions, Progress, PullRequest, PushRequest,
};

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

/// Actions of clients. `name` is a reference, an id or a unique beginning of an id.
impl Engine {
    /// Images that pass the filters, newest first.
    pub async fn image_list(&self, _options: ListOptions) -> Result<Vec<ImageSummary>> {
        Err(Error::not_implemented("image list"))
    }

    /// Everything about one image.
    pub async fn image_inspect(
        &self,
        _name: &str,
        _manifests: bool,
        _platform: Option<String>,
    ) -> Result<ImageInspect> {
        Err(Error::not_implemented("image inspect"))
    }

    /// The steps an image was made in, newest first.
    pub async fn image_history(&self, _name: &str, _platform: Option<String>) -> Result<Vec<HistoryItem>> {
        Err(Error::not_implemented("image history"))
    }

    /// Fetches an image from its registry. Clients that pull the same reference follow one pull.
    pub async fn image_pull(&self, _request: PullRequest) -> Result<Progress> {
        Err(Error::not_implemented("image pull"))
    }

    /// Sends an image to its registry.
    pub async fn image_push(&self, _request: PushRequest) -> Result<Progress> {
        Err(Error::not_implemented("image push"))
    }

    /// Makes an image of one layer out of a root file system.
    pub async fn image_import(&self, _request: ImportRequest) -> Result<Progress> {
        Err(Error::not_implemented("image import"))
    }

    /// Takes in the images of an archive that `docker save` wrote, or of an OCI layout.
    pub async fn image_load(
        &self,
        _archive: ByteStream,
        _quiet: bool,
        _platform: Option<String>,
    ) -> Result<Progress> {
        Err(Error::not_implemented("image load"))
    }

    /// Writes images as an archive for `docker load`.
    pub async fn image_save(&self, _names: Vec<String>, _platform: Option<String>) -> Result<ByteStream> {
        Err(Error::not_implemented("image save"))
    }

    /// Gives an image another name.
    pub async fn image_tag(&self, _name: &str, _repository: &str, _tag: Option<&str>) -> Result<()> {
        Err(Error::not_implemented("image tag"))
    }

    /// Removes a name of an image, and the image with its last name.
    pub async fn image_remove(&self, _name: &str, _force: bool, _noprune: bool) -> Result<Vec<ImageDeleted>> {
        Err(Error::not_implemented("image remove"))
    }

    /// Removes images that no container uses: those without a name, or all (`dangling=false`).
    pub async fn image_prune(&self, _filters: &Filters) -> Result<ImagesPruned> {
        Err(Error::not_implemented("image prune"))
    }

    /// Makes an image out of a container.
    pub async fn image_commit(&self, _request: CommitRequest) -> Result<CommitResponse> {
        Err(Error::not_implemented("commit"))
    }

    /// What a registry has under a name.
    pub async fn distribution_inspect(
        &self,
        _name: &str,
        _auth: Option<AuthConfig>,
    ) -> Result<DistributionInspect> {
        Err(Error::not_implemented("inspecting images in a registry"))
    }
}

impl Engine {
    /// All images with the bytes they share, and the bytes of all layers, for `system df`.
    ///
    /// # Errors
    /// When images cannot be listed.
    pub async fn images_usage(&self) -> Result<(Vec<ImageSummary>, i64)> {
        Err(Error::not_implemented("image disk usage"))
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
