//! The messages between engine and monitor.
//!
//! One message is one SOCK_SEQPACKET record: JSON, with descriptors beside it (SCM_RIGHTS). Every [`Request`] has
//! a `tag` the engine chooses; the monitor answers each with exactly one [`Event::Done`], [`Event::Failed`] or the
//! event named at the request, carrying that tag. Other events come when they happen, to every connection.

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::config::ConsoleSize;

/// What an engine asks of a monitor.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Request {
    /// Repeated in the answer.
    pub tag: u64,
    /// What to do.
    pub action: Action,
}

/// The actions of a [`Request`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Executes the container's process. May be sent at once, without waiting for [`Event::Created`].
    /// Answer: [`Event::Done`] after [`Event::Started`], or [`Event::Failed`] after [`Event::StartFailed`].
    Start,
    /// Connects a client's stream socket, the one descriptor of the message, to the container's stdio.
    /// Output from this moment on is sent; [`Event::AttachEnded`] follows at its end.
    Attach(Attach),
    /// Runs a further process in the container. With a descriptor, the client's stream socket is connected to its
    /// stdio; without, its stdio is `/dev/null`. Answer: [`Event::ExecStarted`] or [`Event::Failed`].
    Exec(Box<Exec>),
    /// Sets the size of the terminal of the container or of an exec.
    Resize {
        /// The exec, or the container if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec_id: Option<String>,
        /// The new size.
        size: ConsoleSize,
    },
    /// Sends a signal to the container's first process or to an exec's.
    Signal {
        /// The exec, or the container if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exec_id: Option<String>,
        /// Signal number.
        signal: i32,
    },
    /// Answer: [`Event::State`]. Exec results that were never delivered are in it and are then forgotten.
    Inspect,
    /// The engine has recorded the end of the container: the monitor may go when its clients are served.
    Acknowledge,
}

/// How a client is connected.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Attach {
    /// The engine's name for the attachment, repeated in [`Event::AttachEnded`].
    pub attach_id: u64,
    /// Whether what the client sends goes to the process.
    #[serde(default)]
    pub stdin: bool,
    /// Whether the client gets standard output (all output, when there is a terminal).
    #[serde(default)]
    pub stdout: bool,
    /// Whether the client gets standard error.
    #[serde(default)]
    pub stderr: bool,
    /// Whether output is sent in docker's 8-byte-header frames. Never for a terminal.
    #[serde(default)]
    pub framed: bool,
    /// Keys that detach the client, as bytes (see [`crate::detach_keys`]); empty for none. Terminals only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detach_keys: Vec<u8>,
}

/// A further process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exec {
    /// The engine's name for it.
    pub exec_id: String,
    /// The process; `process.terminal` decides whether there is a terminal.
    pub process: Process,
    /// First size of the terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// How the client is connected, if its socket comes with the request. `attach_id` is not used.
    #[serde(default)]
    pub attach: Attach,
}

/// Why a process could not be run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The command does not exist; docker's exit code 127.
    CommandNotFound,
    /// The command is there and cannot be executed; docker's exit code 126.
    NotExecutable,
    /// The configuration cannot be right.
    InvalidSpec,
    /// The request does not fit the state (no such exec, not running, already started).
    Conflict,
    /// Not there.
    NotImplemented,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// The exit status docker reports for a container that failed so.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::CommandNotFound => 127,
            Self::NotExecutable => 126,
            _ => 128,
        }
    }
}

/// Why something failed, to be shown to the user.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What sort of failure.
    pub kind: FailureKind,
    /// One sentence with the whole chain of causes.
    pub message: String,
}

/// Why an attachment ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachEnd {
    /// The client typed its detach keys.
    Keys,
    /// The client closed its side of a session that ends with its input.
    InputEnded,
    /// The client's connection is gone.
    Gone,
    /// The process's output ended.
    Finished,
}

/// What a monitor tells the engine. Times are RFC 3339 in UTC with nanoseconds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The container exists and waits for [`Action::Start`]; its namespaces can be reached through `/proc/<pid>`.
    Created {
        /// Pid of the container's first process.
        pid: i32,
    },
    /// The container could not be created. Nothing of it is left; the monitor exits when acknowledged.
    CreateFailed(Failure),
    /// The container's process runs.
    Started {
        /// When.
        at: String,
    },
    /// The container's process could not be executed. The container is gone; the monitor exits when acknowledged.
    StartFailed(Failure),
    /// The container has ended; its output is in the log and the record is on disk.
    Exited(Exit),
    /// Answer to [`Action::Exec`]: the process runs.
    ExecStarted {
        /// Of the request.
        tag: u64,
        /// The exec.
        exec_id: String,
        /// Its pid on the host.
        pid: i32,
    },
    /// An exec's process has ended and its output is drained. The client's connection is closed right after.
    ExecExited {
        /// The exec.
        exec_id: String,
        /// 0 to 255; 128 + n for a process killed by signal n.
        status: u8,
        /// Whether the client left by its detach keys before.
        detached: bool,
    },
    /// An exec's client left by its detach keys; the process goes on.
    ExecDetached {
        /// The exec.
        exec_id: String,
    },
    /// A client's connection to the container was closed.
    AttachEnded {
        /// Of [`Attach`].
        attach_id: u64,
        /// Why.
        end: AttachEnd,
    },
    /// Answer to [`Action::Inspect`].
    State {
        /// Of the request.
        tag: u64,
        /// The state.
        state: State,
    },
    /// The request was done.
    Done {
        /// Of the request.
        tag: u64,
    },
    /// The request failed.
    Failed {
        /// Of the request.
        tag: u64,
        /// Why.
        failure: Failure,
    },
}

/// The end of a container, also the content of its exit record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Exit {
    /// 0 to 255; 128 + n for a process killed by signal n.
    pub status: u8,
    /// Whether the kernel killed a process of the container for lack of memory.
    pub oom_killed: bool,
    /// When the first process ended.
    pub at: String,
    /// When it was started; absent if it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Why it never ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// Where a container stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not created yet.
    Creating,
    /// Waiting for [`Action::Start`].
    Created,
    /// Running.
    Running,
    /// Ended, or failed.
    Exited,
}

/// What a monitor knows of its container.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// Pid of the first process, 0 if there is none.
    pub pid: i32,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// Its end, in [`Phase::Exited`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Running execs and those whose end no engine was told yet.
    #[serde(default)]
    pub execs: Vec<ExecState>,
    /// Clients attached to the container.
    #[serde(default)]
    pub attached: usize,
}

/// An exec in [`State`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ExecState {
    /// The exec.
    pub exec_id: String,
    /// Its pid on the host.
    pub pid: i32,
    /// Its exit status, if it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
}
