use std::collections::BTreeMap;
use std::io;

use hull_layer::tar::TarError;
use hull_model::{Descriptor, Digest, ReferenceError};
use serde::{Deserialize, Serialize};

/// Largest document of an archive kept in memory, in bytes.
pub(crate) const MAX_INDEX: u64 = 16 << 20;

/// Why an archive is no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not a tar.
    #[error("image archive is not valid")]
    Tar(#[from] TarError),
    /// Damaged or unknown compression.
    #[error("image archive cannot be decompressed")]
    Decompress(#[source] hull_layer::LayerError),
    /// Neither of the two tables of contents.
    #[error("archive holds no image: neither manifest.json nor index.json is in it")]
    NoImage,
    /// A document does not parse.
    #[error("{name} in the archive is not valid")]
    Json {
        /// Which.
        name: &'static str,
        /// Where.
        source: serde_json::Error,
    },
    /// A document is too large.
    #[error("{name} in the archive has {size} bytes")]
    TooLarge {
        /// Which.
        name: String,
        /// Its size.
        size: u64,
    },
    /// Something listed is not there.
    #[error("archive names {0:?} but does not hold it")]
    MissingFile(String),
    /// A blob's name is no digest.
    #[error("archive holds {0:?}, whose name is not a digest")]
    BlobName(String),
    /// A name that is none.
    #[error("archive names an image {name:?}")]
    Name {
        /// As in the archive.
        name: String,
        /// Why not.
        source: ReferenceError,
    },
    /// Writing the archive failed.
    #[error("write image archive")]
    Write(#[source] io::Error),
    /// A blob to be written is damaged.
    #[error("content {expected} is damaged: its digest is {actual}")]
    Damaged {
        /// Its name.
        expected: Digest,
        /// What the bytes say.
        actual: Digest,
    },
}

/// News of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadEvent {
    /// A layer (by diff id) of so many bytes is being unpacked.
    Layer(Digest, u64),
}

/// One image in Docker's `manifest.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ArchiveItem {
    pub(crate) config: String,
    #[serde(default)]
    pub(crate) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) layers: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) layer_sources: BTreeMap<String, Descriptor>,
}

/// Annotation of an index entry with the image's full name (containerd's).
pub(crate) const NAME_ANNOTATION: &str = "io.containerd.image.name";
/// Annotation of an index entry with its tag or name (image-spec annotations.md).
pub(crate) const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";
