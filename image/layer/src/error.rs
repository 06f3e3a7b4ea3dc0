use std::io;
use std::path::PathBuf;

use hull_model::Digest;

use crate::tar::TarError;

/// Why an operation on layers failed.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream is no good tar.
    #[error("layer is not a valid archive")]
    Tar(#[from] TarError),
    /// The compressed stream is damaged or cut.
    #[error("layer cannot be decompressed ({compression})")]
    Decompress {
        /// How it is compressed.
        compression: &'static str,
        /// What the decoder says.
        source: io::Error,
    },
    /// A compression that is recognised but not supported.
    #[error("layer is compressed with {0}, which is not supported")]
    UnsupportedCompression(&'static str),
    /// The source of the bytes failed.
    #[error("layer cannot be read")]
    Source(#[source] io::Error),
    /// An entry names a place outside of the layer.
    #[error("archive entry {entry:?} would be outside of the layer: {name:?}")]
    Climbs {
        /// The entry.
        entry: String,
        /// The name or link target that climbs out.
        name: String,
    },
    /// An entry cannot be written.
    #[error("archive entry {entry:?}: {step}")]
    Entry {
        /// The entry.
        entry: String,
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// More than anything sensible.
    #[error("layer has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: u64,
    },
    /// The uncompressed bytes are other than the image's configuration says.
    #[error("layer does not match its diff id: expected {expected}, got {actual}")]
    DiffId {
        /// As in the configuration.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// No such layer.
    #[error("layer {0} is not in the store")]
    NotFound(Digest),
    /// A layer's own record is damaged.
    #[error("record of layer {chain_id} is not valid")]
    Record {
        /// Which layer.
        chain_id: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A thread of the pipeline died.
    #[error("unpacking stopped unexpectedly")]
    Thread,
    /// The driver asked for cannot work here.
    #[error("storage driver {driver} does not work with this kernel or on the file system of {path}")]
    Driver {
        /// Which.
        driver: crate::DriverName,
        /// The store.
        path: PathBuf,
    },
    /// The merged tree cannot be mounted.
    #[error("mount the snapshot")]
    Mount(#[from] hull_mount::Error),
    /// The file system refused.
    #[error("{step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl LayerError {
    pub(crate) fn io<E: Into<io::Error>>(
        step: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source: source.into() }
    }
}
