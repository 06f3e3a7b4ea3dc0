//! Containers: their actions, and one task per container that owns its state machine.

use hull_docker_api::{
    ContainerCreateRequest, ContainerCreateResponse, ContainerInspect, ContainerPathStat, ContainerSummary,
    ContainerTop, ContainerUpdateRequest, ContainerUpdateResponse, ContainersPruned, ExecCreateRequest,
    ExecCreateResponse, ExecInspect, ExecStartRequest, FilesystemChange, Filters,
};

use crate::bytestream::ByteStream;
use crate::{Config, Engine, EngineId, Error, Result};

mod actions;

pub use actions::{
    AttachOptions, ClientStream, ExtractOptions, ListOptions, Logs, LogsOptions, RemoveOptions, Stats,
    StopOptions, Wait, WaitCondition,
};

/// The containers of an engine.
#[derive(Debug)]
pub struct Containers {}

impl Containers {
    /// Loads the records of containers.
    pub(crate) fn open(_config: &Config, _id: &EngineId, _store: &hull_meta::Store) -> Result<Containers> {
        Ok(Containers {})
    }
}

/// A validated attach: give it the upgraded connection.
#[derive(Debug)]
pub struct Attach {
    /// Whether the container has a terminal: decides the media type.
    pub tty: bool,
}

impl Attach {
    /// Serves the client until it or the container is done, or the stream is handed over to the monitor. Errors are
    /// written to the client's stream.
    pub async fn run(self, _client: ClientStream) {}
}

/// A validated exec start: run it with or without the upgraded connection.
#[derive(Debug)]
pub struct ExecSession {
    /// Whether the exec has a terminal: decides the media type.
    pub tty: bool,
}

impl ExecSession {
    /// Starts the process with the client attached; returns once the stream is handed over. Errors are written to the
    /// client's stream.
    pub async fn run(self, _client: ClientStream) {}

    /// Starts the process without a client.
    pub async fn detached(self) -> Result<()> {
        Err(Error::not_implemented("exec"))
    }
}

/// Container actions. `id` is always a name, an id or a unique beginning of an id.
impl Engine {
    /// Compares the record with what the kernel holds: adopts live containers, settles dead ones, removes what
    /// belongs to nobody, and applies restart policies. Call it once, before clients are served.
    pub async fn reconcile(&self) -> Result<()> {
        Ok(())
    }

    /// Makes a container. `name` and `platform` as in the query (`os/arch[/variant]`), empty for none.
    pub async fn container_create(
        &self,
        _name: &str,
        _platform: &str,
        _request: ContainerCreateRequest,
    ) -> Result<ContainerCreateResponse> {
        Err(Error::not_implemented("container create"))
    }

    /// Containers that pass the filters, newest first.
    pub async fn container_list(&self, _options: ListOptions) -> Result<Vec<ContainerSummary>> {
        Err(Error::not_implemented("container list"))
    }

    /// Everything about one container; `size` computes its sizes.
    pub async fn container_inspect(&self, _id: &str, _size: bool) -> Result<ContainerInspect> {
        Err(Error::not_implemented("container inspect"))
    }

    /// Starts it. [`crate::Kind::NotModified`] when it runs.
    pub async fn container_start(&self, _id: &str) -> Result<()> {
        Err(Error::not_implemented("container start"))
    }

    /// Stops it. [`crate::Kind::NotModified`] when it does not run.
    pub async fn container_stop(&self, _id: &str, _options: StopOptions) -> Result<()> {
        Err(Error::not_implemented("container stop"))
    }

    /// Stops it if it runs, and starts it.
    pub async fn container_restart(&self, _id: &str, _options: StopOptions) -> Result<()> {
        Err(Error::not_implemented("container restart"))
    }

    /// Sends a signal (name with or without SIG, or number; empty for KILL).
    pub async fn container_kill(&self, _id: &str, _signal: &str) -> Result<()> {
        Err(Error::not_implemented("container kill"))
    }

    /// Freezes its processes.
    pub async fn container_pause(&self, _id: &str) -> Result<()> {
        Err(Error::not_implemented("container pause"))
    }

    /// Thaws its processes.
    pub async fn container_unpause(&self, _id: &str) -> Result<()> {
        Err(Error::not_implemented("container unpause"))
    }

    /// Gives it another name.
    pub async fn container_rename(&self, _id: &str, _name: &str) -> Result<()> {
        Err(Error::not_implemented("container rename"))
    }

    /// Changes limits and restart policy.
    pub async fn container_update(
        &self,
        _id: &str,
        _request: ContainerUpdateRequest,
    ) -> Result<ContainerUpdateResponse> {
        Err(Error::not_implemented("container update"))
    }

    /// Arms a wait. Send the response's headers, then await what it returns.
    pub async fn container_wait(&self, _id: &str, _condition: WaitCondition) -> Result<Wait> {
        Err(Error::not_implemented("container wait"))
    }

    /// Removes it.
    pub async fn container_remove(&self, _id: &str, _options: RemoveOptions) -> Result<()> {
        Err(Error::not_implemented("container remove"))
    }

    /// Removes all stopped containers that pass the filters (`until`, `label`, `label!`).
    pub async fn container_prune(&self, _filters: &Filters) -> Result<ContainersPruned> {
        Err(Error::not_implemented("container prune"))
    }

    /// Its processes as `ps` shows them; `ps_args` empty for `-ef`.
    pub async fn container_top(&self, _id: &str, _ps_args: &str) -> Result<ContainerTop> {
        Err(Error::not_implemented("container top"))
    }

    /// Samples of its use of resources: one, or one per second with `stream`; `one_shot` does not wait for a second
    /// sample to fill `precpu_stats`.
    pub async fn container_stats(&self, _id: &str, _stream: bool, _one_shot: bool) -> Result<Stats> {
        Err(Error::not_implemented("container stats"))
    }

    /// Its log.
    pub async fn container_logs(&self, _id: &str, _options: LogsOptions) -> Result<Logs> {
        Err(Error::not_implemented("container logs"))
    }

    /// Checks that a client may attach. Upgrade the connection, then call [`Attach::run`].
    pub async fn container_attach(&self, _id: &str, _options: AttachOptions) -> Result<Attach> {
        Err(Error::not_implemented("container attach"))
    }

    /// Sets the size of its terminal.
    pub async fn container_resize(&self, _id: &str, _height: u16, _width: u16) -> Result<()> {
        Err(Error::not_implemented("container resize"))
    }

    /// Prepares a process to be run in a running container.
    pub async fn exec_create(&self, _id: &str, _request: ExecCreateRequest) -> Result<ExecCreateResponse> {
        Err(Error::not_implemented("exec"))
    }

    /// Checks that the exec can start. Attached: upgrade the connection, then [`ExecSession::run`]; else
    /// [`ExecSession::detached`].
    pub async fn exec_start(&self, _exec_id: &str, _request: ExecStartRequest) -> Result<ExecSession> {
        Err(Error::not_implemented("exec"))
    }

    /// What an exec runs and how it ended.
    pub async fn exec_inspect(&self, _exec_id: &str) -> Result<ExecInspect> {
        Err(Error::not_implemented("exec"))
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, _exec_id: &str, _height: u16, _width: u16) -> Result<()> {
        Err(Error::not_implemented("exec"))
    }

    /// What a path inside the container is.
    pub async fn container_stat_path(&self, _id: &str, _path: &str) -> Result<ContainerPathStat> {
        Err(Error::not_implemented("container copy"))
    }

    /// A path inside the container as a tar archive.
    pub async fn container_archive(&self, _id: &str, _path: &str) -> Result<(ContainerPathStat, ByteStream)> {
        Err(Error::not_implemented("container copy"))
    }

    /// Unpacks a tar archive (plain, gzip, zstd) into a directory of the container.
    pub async fn container_extract(
        &self,
        _id: &str,
        _options: ExtractOptions,
        _archive: ByteStream,
    ) -> Result<()> {
        Err(Error::not_implemented("container copy"))
    }

    /// The whole root file system as a tar archive.
    pub async fn container_export(&self, _id: &str) -> Result<ByteStream> {
        Err(Error::not_implemented("container export"))
    }

    /// What differs from the image.
    pub async fn container_changes(&self, _id: &str) -> Result<Vec<FilesystemChange>> {
        Err(Error::not_implemented("container diff"))
    }
}

/// What images, networks and volumes ask about containers.
#[allow(dead_code)]
impl Engine {
    /// Ids of containers made from an image (`sha256:…`), with whether each runs.
    pub(crate) fn containers_of_image(&self, _image: &str) -> Vec<(String, bool)> {
        Vec::new()
    }

    /// Ids of containers that mount a volume.
    pub(crate) fn containers_of_volume(&self, _volume: &str) -> Vec<String> {
        Vec::new()
    }

    /// Containers with an endpoint in a network: id, name, endpoint; running ones only.
    pub(crate) fn containers_of_network(
        &self,
        _network: &str,
    ) -> Vec<(String, String, hull_docker_api::EndpointSettings)> {
        Vec::new()
    }

    /// Puts a container (running or not) into a network: `docker network connect`.
    pub(crate) async fn container_connect(
        &self,
        _id: &str,
        _network: &str,
        _settings: hull_docker_api::EndpointSettings,
    ) -> Result<()> {
        Err(Error::not_implemented("network connect"))
    }

    /// Takes a container out of a network: `docker network disconnect`.
    pub(crate) async fn container_disconnect(&self, _id: &str, _network: &str, _force: bool) -> Result<()> {
        Err(Error::not_implemented("network disconnect"))
    }

    /// For commit: the container's image, configuration and writable layer, with its processes paused meanwhile if
    /// `pause`.
    pub(crate) async fn container_for_commit(&self, _id: &str, _pause: bool) -> Result<CommitSource> {
        Err(Error::not_implemented("commit"))
    }
}

/// What commit reads of a container.
#[allow(dead_code)]
#[derive(Debug)]
pub(crate) struct CommitSource {
    /// Full id.
    pub(crate) id: String,
    /// `sha256:…` of its image, empty for none.
    pub(crate) image: String,
    /// Its configuration.
    pub(crate) config: hull_docker_api::ContainerConfig,
    /// The upper directory of its overlay.
    pub(crate) upper: std::path::PathBuf,
    /// Lower directories, topmost first.
    pub(crate) layers: Vec<std::path::PathBuf>,
    /// Paths inside that are mounts and don't belong to the layer.
    pub(crate) mounts: Vec<String>,
}
