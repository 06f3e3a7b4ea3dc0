//! What a monitor is told once: `monitor.json`.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

/// Everything a monitor needs to run its container; written by the engine as `monitor.json` before the spawn.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct MonitorConfig {
    /// Container id.
    pub id: String,
    /// The engine's short id, which names kernel objects.
    pub engine_id: String,
    /// The container's directory: base of a relative `root.path`, working directory of a foreign runtime.
    pub bundle: PathBuf,
    /// The OCI configuration, `process.terminal` and `linux.cgroupsPath` included.
    pub spec: Spec,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// Whether the process gets a standard input that clients can write to; else it is `/dev/null`.
    #[serde(default)]
    pub open_stdin: bool,
    /// Close the process's standard input when the first attached client ends its own.
    #[serde(default)]
    pub stdin_once: bool,
    /// First size of the terminal, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Where output is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// Path of the exit record, `containers/<id>/exit.json`.
    pub exit_path: PathBuf,
    /// Whether the exit record is flushed to disk; a container that is removed at its end need not be.
    #[serde(default)]
    pub durable: bool,
    /// Path of the listening socket (SOCK_SEQPACKET).
    pub socket: PathBuf,
    /// Another OCI runtime's executable to drive instead of Hull's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<PathBuf>,
    /// Command that starts an engine if none is connected when the container ends, for restart policies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine_command: Option<Vec<String>>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ConsoleSize {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

/// The root file system.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rootfs {
    /// `root.path` of the spec.
    #[default]
    Path,
    /// A detached mount that the engine sends as the first message on standard input ([`crate::client::spawn`]).
    Sent,
}

/// Where the container's output is kept.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum LogConfig {
    /// Nowhere.
    #[default]
    None,
    /// Docker's `json-file`: one JSON object a line.
    JsonFile(JsonFileConfig),
}

/// Options of `json-file`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct JsonFileConfig {
    /// The current file; older ones are `<path>.1`, `<path>.2`, ...
    pub path: PathBuf,
    /// Start a new file when the current one has this many bytes; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Files kept, the current one included; 0 counts as 1.
    #[serde(default)]
    pub max_file: u32,
    /// `attrs` of every line (labels and environment that the container's log options select).
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub attrs: serde_json::Map<String, serde_json::Value>,
}

/// A `monitor.json` or an exit record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file could not be read.
    #[error("read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not what it should be.
    #[error("parse {}", .0.display())]
    Parse(PathBuf, #[source] serde_json::Error),
    /// The file could not be written.
    #[error("write {}", .0.display())]
    Write(PathBuf, #[source] std::io::Error),
    /// The value could not be put in JSON.
    #[error("encode {}", .0.display())]
    Encode(PathBuf, #[source] serde_json::Error),
}

impl MonitorConfig {
    /// Reads a configuration from `path`.
    ///
    /// # Errors
    /// [`RecordError::Read`], [`RecordError::Parse`].
    pub fn read(path: &Path) -> Result<Self, RecordError> {
        let text = std::fs::read(path).map_err(|source| RecordError::Read(path.into(), source))?;
        serde_json::from_slice(&text).map_err(|source| RecordError::Parse(path.into(), source))
    }

    /// Writes the configuration to `path`, readable by its owner only (it holds the container's environment).
    /// Not flushed to disk: a container does not survive what loses it.
    ///
    /// # Errors
    /// [`RecordError::Encode`], [`RecordError::Write`].
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let text = serde_json::to_vec(self).map_err(|source| RecordError::Encode(path.into(), source))?;
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(&text))
            .map_err(|source| RecordError::Write(path.into(), source))
    }

    /// Whether the container's process has a terminal.
    pub fn tty(&self) -> bool {
        self.spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
    }
}
