//! Types of the requests and answers of container actions that docker-api has no struct for.

use std::os::fd::OwnedFd;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use hull_docker_api::{ContainerWait, Filters, StatsResponse};

use crate::Result;
use crate::bytestream::ByteStream;

/// What `GET /containers/json` asks for.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Also containers that do not run.
    pub all: bool,
    /// At most so many, newest first; implies `all`.
    pub limit: Option<usize>,
    /// Compute sizes of the writable layers.
    pub size: bool,
    /// Docker's container filters.
    pub filters: Filters,
}

/// What `POST /containers/{id}/stop` and `/restart` ask for.
#[derive(Debug, Clone, Default)]
pub struct StopOptions {
    /// Signal instead of the container's stop signal.
    pub signal: Option<String>,
    /// Seconds before SIGKILL; negative waits for ever. None: the container's own, else 10.
    pub timeout: Option<i64>,
}

/// What `DELETE /containers/{id}` asks for.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveOptions {
    /// Kill it when it runs.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
    /// Remove only the link (not implemented by Hull).
    pub link: bool,
}

/// What `POST /containers/{id}/wait` waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run (now or later).
    #[default]
    NotRunning,
    /// Its next exit.
    NextExit,
    /// It is gone.
    Removed,
}

/// A wait that is armed: whatever happens from now on is seen. The headers of the response go out before it is awaited.
pub type Wait = Pin<Box<dyn Future<Output = Result<ContainerWait>> + Send>>;

/// What `GET /containers/{id}/logs` asks for.
#[derive(Debug, Clone, Default)]
pub struct LogsOptions {
    /// Go on with lines as they come, until the container stops.
    pub follow: bool,
    /// Lines of standard output.
    pub stdout: bool,
    /// Lines of standard error.
    pub stderr: bool,
    /// Not before this instant (nanoseconds since 1970).
    pub since: Option<i64>,
    /// Not after this instant (nanoseconds since 1970).
    pub until: Option<i64>,
    /// Put each line's time before it.
    pub timestamps: bool,
    /// Only the last lines; none for all.
    pub tail: Option<usize>,
}

/// Logs on their way: ready-made bytes, framed unless the container has a terminal.
pub struct Logs {
    /// Whether the container has a terminal, so that the bytes are not framed.
    pub tty: bool,
    /// The bytes.
    pub body: ByteStream,
}

/// What `POST /containers/{id}/attach` asks for.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// First send what is in the log.
    pub logs: bool,
    /// Stay attached.
    pub stream: bool,
    /// Give the client's bytes to the process.
    pub stdin: bool,
    /// Send standard output.
    pub stdout: bool,
    /// Send standard error.
    pub stderr: bool,
    /// Keys that detach, docker's notation (`ctrl-p,ctrl-q`); none for the default.
    pub detach_keys: Option<String>,
}

/// Samples of a container's use of resources.
pub type Stats = Pin<Box<dyn Stream<Item = Result<StatsResponse>> + Send>>;

/// A client's connection after its HTTP upgrade: the bytes that HTTP had already read, and the socket.
#[derive(Debug)]
pub struct ClientStream {
    /// What the client sent right behind its request.
    pub early: Bytes,
    /// The connection itself. The engine (or the monitor it is handed to) owns it and closes it at the end.
    pub socket: OwnedFd,
}

/// What `PUT /containers/{id}/archive` asks for.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// Directory inside the container.
    pub path: String,
    /// Refuse to replace a directory by something else and the other way round.
    pub no_overwrite_dir_non_dir: bool,
    /// Keep owner and group of the archive's entries as the container's user sees them.
    pub copy_uid_gid: bool,
}
