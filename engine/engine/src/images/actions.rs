//! Types of the requests of image actions that docker-api has no struct for.

use std::fmt;
use std::pin::Pin;

use futures_util::Stream;
use hull_docker_api::{AuthConfig, ContainerConfig, Filters, JsonMessage};

use crate::Result;
use crate::bytestream::ByteStream;

/// Messages of an action under way. An error ends the stream. Dropping the stream gives the action up, unless
/// another client follows the same one.
pub type Progress = Pin<Box<dyn Stream<Item = Result<JsonMessage>> + Send>>;

/// What `GET /images/json` asks for.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also images without a name that another image was made from.
    pub all: bool,
    /// Compute the bytes each image shares with others.
    pub shared_size: bool,
    /// Describe the manifests of each image.
    pub manifests: bool,
    /// Docker's image filters.
    pub filters: Filters,
}

/// What `POST /images/create?fromImage=` asks for.
pub struct PullRequest {
    /// Name, maybe with tag or digest.
    pub image: String,
    /// Tag or digest, when the name has none.
    pub tag: Option<String>,
    /// `os/arch[/variant]`, or `all`; none for the host's.
    pub platform: Option<String>,
    /// Fetch what refers to the image as well.
    pub referrers: bool,
    /// Credentials for the registry.
    pub auth: Option<AuthConfig>,
}

/// What `POST /images/{name}/push` asks for.
pub struct PushRequest {
    /// Name, maybe with a tag.
    pub image: String,
    /// Tag, when the name has none; neither pushes all tags.
    pub tag: Option<String>,
    /// One platform of an image that has several.
    pub platform: Option<String>,
    /// Send what refers to the image as well.
    pub referrers: bool,
    /// Credentials for the registry.
    pub auth: Option<AuthConfig>,
}

// Written by hand so that credentials can never reach a log.
impl fmt::Debug for PullRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullRequest")
            .field("image", &self.image)
            .field("tag", &self.tag)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for PushRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushRequest")
            .field("image", &self.image)
            .field("tag", &self.tag)
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

/// Where an imported root file system comes from.
pub enum ImportSource {
    /// The request's body: a tar archive, plain or compressed.
    Stream(ByteStream),
    /// An address to fetch it from.
    Url(String),
}

/// What `POST /images/create?fromSrc=` asks for.
pub struct ImportRequest {
    /// The archive.
    pub source: ImportSource,
    /// Repository to name the image, maybe with a tag.
    pub repository: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Comment of the one layer; none for docker's `Imported from -`.
    pub message: Option<String>,
    /// Dockerfile instructions for the configuration, `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// `os/arch[/variant]`; none for the host's.
    pub platform: Option<String>,
}

/// What `POST /commit` asks for.
#[derive(Debug, Clone, Default)]
pub struct CommitRequest {
    /// Name or id of the container.
    pub container: String,
    /// Repository to name the image, maybe with a tag.
    pub repository: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Comment of the new layer.
    pub comment: String,
    /// Author of the image.
    pub author: String,
    /// Pause the container meanwhile.
    pub pause: bool,
    /// Dockerfile instructions for the configuration.
    pub changes: Vec<String>,
    /// Configuration over the container's.
    pub config: Option<ContainerConfig>,
}
