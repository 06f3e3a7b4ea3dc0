use std::io;

use hull_content::ContentError;
use hull_distribution::DistributionError;
use hull_layer::LayerError;
use hull_model::{Digest, DocumentError, Platform};

use crate::ArchiveError;

/// Why an operation on an image failed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry, or the way to it.
    #[error(transparent)]
    Distribution(#[from] DistributionError),
    /// The content store.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// A manifest, index or configuration is of no use.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A layer cannot be unpacked.
    #[error("failed to register layer {digest}")]
    Layer {
        /// Its blob or chain id.
        digest: String,
        /// Why.
        source: LayerError,
    },
    /// An archive is no image.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// None of an index's images runs here.
    #[error("no matching manifest for {0} in the manifest list entries")]
    NoPlatform(Platform),
    /// The one image there is runs elsewhere.
    #[error(
        "image with reference {reference} was found but does not match the specified platform: wanted {wanted}, actual: {actual}"
    )]
    WrongPlatform {
        /// Familiar form.
        reference: String,
        /// As asked for.
        wanted: Box<Platform>,
        /// The image's.
        actual: Box<Platform>,
    },
    /// An index within an index within an index.
    #[error("image index is nested too deeply")]
    Nested,
    /// Something other than an image to run.
    #[error("encountered remote {0:?}(unknown) when fetching: it is not an image")]
    NotAnImage(String),
    /// An index where one artifact was asked for.
    #[error("{0:?} is not an artifact")]
    NotAnArtifact(String),
    /// A manifest where an index was asked for.
    #[error("{0} is not an image index")]
    NotAnIndex(Digest),
    /// More layers than a file system can stack.
    #[error("image has {0} layers, more than {max}", max = crate::store::MAX_LAYERS)]
    TooManyLayers(usize),
    /// Flushing to disk failed.
    #[error("store {0}")]
    Stored(&'static str, #[source] io::Error),
    /// A worker thread died.
    #[error("{0} stopped unexpectedly")]
    Thread(&'static str),
    /// A document of our own could not be written as JSON.
    #[error("write {0}")]
    Write(&'static str, #[source] serde_json::Error),
    /// Something referenced is missing.
    #[error("content {0} of the image is missing")]
    Missing(Digest),
}

impl ImageError {
    /// Whether bytes are not what they should be.
    pub(crate) fn is_content(&self) -> bool {
        matches!(
            self,
            Self::Content(ContentError::DigestMismatch { .. })
                | Self::Layer {
                    source: LayerError::Tar(_) | LayerError::Decompress { .. } | LayerError::DiffId { .. },
                    ..
                }
        )
    }

    pub(crate) fn layer(digest: &Digest) -> impl FnOnce(LayerError) -> Self {
        let digest = digest.to_string();
        move |source| Self::Layer { digest, source }
    }
}
