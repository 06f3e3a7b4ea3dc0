//! The error every action of the engine returns.

use std::error::Error as StdError;

/// What kind of failure it is; a protocol turns it into its own codes (HTTP status, gRPC code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The thing asked about does not exist (404).
    NotFound,
    /// The state of something, or a name that is taken, forbids it (409).
    Conflict,
    /// The request itself is wrong (400).
    InvalidParameter,
    /// Nothing had to be done: already started, already stopped (304).
    NotModified,
    /// Policy forbids it (403).
    Forbidden,
    /// Credentials are missing or wrong (401).
    Unauthorized,
    /// Hull does not do this yet (501).
    NotImplemented,
    /// Something needed is not reachable now (503).
    Unavailable,
    /// The machine or the engine failed (500).
    System,
}

/// A failed action: its kind, the sentence a docker client prints, and the cause.
///
/// The message stands alone (it goes over the wire); the source is for logs.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// Result of an engine action.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` saying `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), source: None }
    }

    /// The thing asked about does not exist.
    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(Kind::NotFound, message)
    }

    /// The state of something forbids it.
    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(Kind::Conflict, message)
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Kind::InvalidParameter, message)
    }

    /// Nothing had to be done.
    pub fn not_modified(message: impl Into<String>) -> Error {
        Error::new(Kind::NotModified, message)
    }

    /// Hull does not do `what` yet.
    pub fn not_implemented(what: impl std::fmt::Display) -> Error {
        Error::new(Kind::NotImplemented, format!("not implemented: {what}"))
    }

    /// Something needed is not reachable.
    pub fn unavailable(message: impl Into<String>) -> Error {
        Error::new(Kind::Unavailable, message)
    }

    /// The machine failed while doing `step`; the message is `step: cause: cause of the cause`.
    pub fn system(step: impl std::fmt::Display, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let source = source.into();
        Error { kind: Kind::System, message: format!("{step}: {}", chain(&*source)), source: Some(source) }
    }

    /// A failure of the engine itself that has no cause beneath it.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Kind::System, message)
    }

    /// Keeps `source` for the log.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The sentence a client prints.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// An error and its causes as one line: `a: b: c`.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

impl From<hull_meta::Error> for Error {
    fn from(error: hull_meta::Error) -> Error {
        match error {
            hull_meta::Error::Closed => Error::unavailable("the engine is shutting down"),
            error => Error::system("record", error),
        }
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Error {
        Error::system("internal task", error)
    }
}
