use std::io;

use rustix::io::Errno;

/// Why something cannot be put in an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tree does not allow it; the number is the one a file system would answer with.
    #[error("{step}")]
    Refused {
        /// What was tried.
        step: &'static str,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The image's file cannot be written.
    #[error("write image")]
    Write(#[source] io::Error),
    /// More than an image, or the memory for its names, may hold.
    #[error("image has more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: u64,
    },
}

pub(crate) fn refused(step: &'static str, source: Errno) -> Error {
    Error::Refused { step, source }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;
