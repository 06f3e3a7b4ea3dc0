//! Images that come and go: pull, push, load, save.

use hull_docker_api::{AuthConfig, DistributionInspect};

use super::{Progress, PullRequest, PushRequest};
use crate::bytestream::ByteStream;
use crate::{Engine, Error, Result};

impl Engine {
    /// Fetches an image from its registry. Clients that pull the same reference follow one pull.
    pub async fn image_pull(&self, _request: PullRequest) -> Result<Progress> {
        Err(Error::not_implemented("image pull"))
    }

    /// Sends an image to its registry.
    pub async fn image_push(&self, _request: PushRequest) -> Result<Progress> {
        Err(Error::not_implemented("image push"))
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

    /// What a registry has under a name.
    pub async fn distribution_inspect(
        &self,
        _name: &str,
        _auth: Option<AuthConfig>,
    ) -> Result<DistributionInspect> {
        Err(Error::not_implemented("inspecting images in a registry"))
    }
}
