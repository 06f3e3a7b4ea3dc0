//! What can go wrong, and what it means to the caller.

use std::path::PathBuf;

/// What a failure means for exit codes and for the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The command is not in the container (exit code 127).
    CommandNotFound,
    /// The command is there but cannot be executed (exit code 126).
    NotExecutable,
    /// The configuration asks for something impossible; nothing was created.
    InvalidSpec,
    /// The container is not in a state that allows the operation.
    State,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// The exit code docker gives for it.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::CommandNotFound => 127,
            Self::NotExecutable => 126,
            Self::InvalidSpec | Self::State | Self::Other => 125,
        }
    }

    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Self::CommandNotFound => 1,
            Self::NotExecutable => 2,
            Self::InvalidSpec => 3,
            Self::State => 4,
            Self::Other => 5,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::CommandNotFound,
            2 => Self::NotExecutable,
            3 => Self::InvalidSpec,
            4 => Self::State,
            _ => Self::Other,
        }
    }
}

/// A failed operation of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is impossible.
    #[error("invalid configuration: {field}: {reason}")]
    InvalidSpec {
        /// The field, as a path: `process.args`, `linux.namespaces[2].path`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration asks for something this runtime does not do.
    #[error("not implemented: {0}")]
    NotImplemented(&'static str),
    /// A step in the caller's process failed.
    #[error("{step}")]
    Step {
        /// What was being done, on what.
        step: String,
        /// Why it failed.
        #[source]
        source: rustix::io::Errno,
    },
    /// A step inside the container failed; its whole chain of causes is in the text.
    #[error("{message}")]
    Inside {
        /// What it means.
        kind: ErrorKind,
        /// What failed, on what, why.
        message: String,
    },
    /// The container's first process ended without saying why.
    #[error("the container's process ended while it was {0}")]
    Vanished(&'static str),
    /// A cgroup operation failed.
    #[error(transparent)]
    Cgroup(#[from] hull_cgroup::Error),
    /// A mount operation failed.
    #[error(transparent)]
    Mount(#[from] hull_mount::Error),
    /// A seccomp policy cannot be compiled.
    #[error("invalid configuration: linux.seccomp: {0}")]
    Seccomp(String),
    /// A path inside the root file system could not be used.
    #[error(transparent)]
    Path(#[from] hull_fsroot::Error),
    /// A network interface could not be moved.
    #[error(transparent)]
    Network(hull_netlink::NetlinkError),
    /// A hook failed.
    #[error("error running {kind} hook #{index}: {} {reason}", path.display())]
    Hook {
        /// Which of the six lists.
        kind: &'static str,
        /// Its place in that list, from 0.
        index: usize,
        /// Its program.
        path: PathBuf,
        /// Exit status, time-out or why it could not run.
        reason: String,
    },
    /// The user or group named does not exist in the root file system.
    #[error(transparent)]
    User(#[from] crate::user::UserError),
}

impl Error {
    /// What the failure means.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidSpec { .. } | Self::Seccomp(_) | Self::User(_) => ErrorKind::InvalidSpec,
            Self::Cgroup(hull_cgroup::Error::Invalid { .. }) => ErrorKind::InvalidSpec,
            Self::Inside { kind, .. } => *kind,
            _ => ErrorKind::Other,
        }
    }

    /// The text with the whole chain of causes, joined by `: `.
    pub fn chain(&self) -> String {
        chain(self)
    }

    pub(crate) fn spec(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::InvalidSpec { field: field.into(), reason: reason.into() }
    }
}

/// Failure of [`crate::create()`].
pub type CreateError = Error;
/// Failure of [`crate::Created::start`].
pub type StartError = Error;
/// Failure of [`crate::exec()`].
pub type ExecError = Error;

/// An error's text followed by those of its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = match inner.downcast_ref::<rustix::io::Errno>() {
            Some(errno) => errno_text(*errno),
            None => inner.to_string(),
        };
        text.push_str(": ");
        text.push_str(&inner_text);
        cause = inner.source();
    }
    text
}

/// `strerror` in the words Go and runc use (lower case), without the number Rust appends.
pub(crate) fn errno_text(errno: rustix::io::Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// Attaches the name of a step to a failed system call.
pub(crate) trait StepExt<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> StepExt<T> for Result<T, rustix::io::Errno> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Step { step: step(), source })
    }
}
