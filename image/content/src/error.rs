use std::io;
use std::path::PathBuf;

use hull_model::Digest;

/// Why an operation on blobs failed.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The store has no such blob.
    #[error("content {0} is not in the store")]
    NotFound(Digest),
    /// What was written is something else than was announced.
    #[error("content does not match its digest: expected {expected}, got {actual}")]
    DigestMismatch {
        /// As announced.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// Too many or too few bytes.
    #[error("content {digest} has {actual} bytes, expected {expected}")]
    SizeMismatch {
        /// Whose.
        digest: Digest,
        /// As announced.
        expected: u64,
        /// As counted (at the moment it was too many).
        actual: u64,
    },
    /// A document larger than anything sensible.
    #[error("content {digest} of {size} bytes is larger than {limit} bytes")]
    TooLarge {
        /// Which.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The most accepted.
        limit: u64,
    },
    /// The file system refused.
    #[error("{step} {path}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ContentError {
    pub(crate) fn io(step: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { step, path, source }
    }
}
