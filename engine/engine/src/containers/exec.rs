//! Further processes in a running container.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use hull_docker_api::{
    ExecCreateRequest, ExecCreateResponse, ExecInspect, ExecProcessConfig, ExecStartRequest, FrameHeader,
    StreamKind,
};
use hull_monitor::config::ConsoleSize;
use hull_monitor::protocol::{self, Action, Failure, FailureKind};
use oci_spec::runtime::Process;

use super::ClientStream;
use super::actor::{Actor, Asked, Command, Reply, blocking};
use super::attach::{keys_of, relay_early};
use super::merge::overlay_env;
use super::record::{Definition, Status};
use super::spec::{self, Security};
use crate::{Engine, Error, Kind, Result};

/// Execs that ended and are still answered for, per engine; the oldest go first.
const KEPT: usize = 512;

/// All execs of an engine by id.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    by_id: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    execs: HashMap<String, Arc<ExecRecord>>,
    order: std::collections::VecDeque<String>,
}

/// An exec: what it runs, and how it went.
#[derive(Debug)]
pub(crate) struct ExecRecord {
    pub(crate) id: String,
    pub(crate) container: String,
    request: ExecCreateRequest,
    /// Size of the terminal, from the start request.
    console: Mutex<Option<ConsoleSize>>,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    started: bool,
    running: bool,
    exit_code: Option<i64>,
    pid: i32,
}

impl ExecRecord {
    /// Makes a record; health probes use it without an API request.
    pub(crate) fn new(container: &str, request: ExecCreateRequest) -> ExecRecord {
        ExecRecord {
            id: hull_model::Id::random().to_string(),
            container: container.to_owned(),
            request,
            console: Mutex::default(),
            progress: Mutex::default(),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn words(&self) -> &[String] {
        self.request.cmd.as_deref().unwrap_or_default()
    }

    pub(super) fn started(&self, pid: i32) {
        let mut progress = self.progress();
        (progress.running, progress.pid) = (true, pid);
    }

    pub(super) fn ended(&self, status: i64) {
        let mut progress = self.progress();
        (progress.running, progress.pid, progress.exit_code) = (false, 0, Some(status));
    }

    /// The command could not be run: docker's words and code.
    pub(super) fn failed(&self, failure: &Failure) -> Error {
        self.ended(i64::from(failure.kind.exit_status()));
        let message = format!(
            "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            failure.message
        );
        let kind = match failure.kind {
            FailureKind::CommandNotFound | FailureKind::NotExecutable | FailureKind::InvalidSpec => {
                Kind::InvalidParameter
            }
            FailureKind::Conflict => Kind::Conflict,
            FailureKind::NotImplemented => Kind::NotImplemented,
            FailureKind::Other => Kind::System,
        };
        Error::new(kind, message)
    }
}

impl Execs {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.by_id.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn add(&self, exec: Arc<ExecRecord>) {
        let mut known = self.known();
        known.order.push_back(exec.id.clone());
        known.execs.insert(exec.id.clone(), exec);
        while known.order.len() > KEPT {
            let Some(oldest) = known.order.pop_front() else { break };
            if known.execs.get(&oldest).is_some_and(|exec| exec.progress().running) {
                known.order.push_back(oldest);
                break;
            }
            known.execs.remove(&oldest);
        }
    }

    fn find(&self, id: &str) -> Result<Arc<ExecRecord>> {
        let found = self.known().execs.get(id).cloned();
        found.ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// Ids of a container's execs that run or may still be started.
    pub(crate) fn of_container(&self, container: &str) -> Vec<String> {
        let known = self.known();
        let alive = known.execs.values().filter(|exec| {
            exec.container == container && exec.progress().exit_code.is_none() && exec.progress().started
        });
        alive.map(|exec| exec.id.clone()).collect()
    }
}

/// A validated exec start: run it with or without the upgraded connection.
#[derive(Debug)]
pub struct ExecSession {
    /// Whether the exec has a terminal: decides the media type.
    pub tty: bool,
    engine: Engine,
    exec: Arc<ExecRecord>,
}

impl ExecSession {
    /// Starts the process with the client attached; returns once the stream is handed over. Errors are written to the
    /// client's stream.
    pub async fn run(self, client: ClientStream) {
        let spare = client.socket.try_clone();
        let socket = match relay_early(client) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(exec = self.exec.id, %error, "relay of early bytes");
                return;
            }
        };
        if let Err(error) = self.start(Some(socket)).await
            && let Ok(client) = spare
        {
            write_error(client, self.tty, &error).await;
        }
    }

    /// Starts the process without a client.
    pub async fn detached(self) -> Result<()> {
        self.start(None).await
    }

    async fn start(&self, client: Option<OwnedFd>) -> Result<()> {
        let handle = self.engine.0.containers.registry.find(&self.exec.container)?;
        let exec = Arc::clone(&self.exec);
        handle.ask(|reply| Command::Exec { exec, client, reply }).await
    }
}

/// docker tells an attached client in the stream itself why nothing runs.
async fn write_error(client: OwnedFd, tty: bool, error: &Error) {
    let text = format!("{}\r\n", error.message());
    let mut bytes = Vec::new();
    if !tty {
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        bytes.extend(FrameHeader { kind: StreamKind::Stdout, len }.encode());
    }
    bytes.extend(text.as_bytes());
    let _ = blocking(move || {
        use std::io::Write;
        let mut stream = std::os::unix::net::UnixStream::from(client);
        let _ = stream.set_nonblocking(false);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Both);
        Ok(())
    })
    .await;
}

impl Engine {
    /// Prepares a process to be run in a running container.
    pub async fn exec_create(&self, id: &str, request: ExecCreateRequest) -> Result<ExecCreateResponse> {
        let handle = self.0.containers.registry.find(id)?;
        let now = handle.now();
        running(&now.def, now.state.status)?;
        if request.cmd.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("No exec command specified"));
        }
        keys_of(Some(&request.detach_keys))?;
        let exec = Arc::new(ExecRecord::new(&handle.id, request));
        let mut attributes = now.def.event_attributes();
        attributes.insert("execID".to_owned(), exec.id.clone());
        let action = format!("exec_create: {}", exec.words().join(" "));
        self.events().emit("container", &action, &handle.id, attributes);
        let id = exec.id.clone();
        self.0.containers.execs.add(exec);
        Ok(ExecCreateResponse { id })
    }

    /// Checks that the exec can start. Attached: upgrade the connection, then [`ExecSession::run`]; else
    /// [`ExecSession::detached`].
    pub async fn exec_start(&self, exec_id: &str, request: ExecStartRequest) -> Result<ExecSession> {
        let exec = self.0.containers.execs.find(exec_id)?;
        let handle = self.0.containers.registry.find(&exec.container)?;
        let now = handle.now();
        running(&now.def, now.state.status)?;
        {
            let mut progress = exec.progress();
            if progress.exit_code.is_some() {
                return Err(Error::conflict(format!("exec command {exec_id} has already run")));
            }
            if progress.started {
                return Err(Error::conflict(format!("exec command {exec_id} is already running")));
            }
            progress.started = true;
        }
        if let Some([rows, cols]) = request.console_size.or(exec.request.console_size) {
            let size = u16::try_from(rows).ok().zip(u16::try_from(cols).ok());
            *exec.console.lock().unwrap_or_else(|e| e.into_inner()) =
                size.map(|(rows, cols)| ConsoleSize { rows, cols });
        }
        Ok(ExecSession { tty: exec.request.tty, engine: self.clone(), exec })
    }

    /// What an exec runs and how it ended.
    pub async fn exec_inspect(&self, exec_id: &str) -> Result<ExecInspect> {
        let exec = self.0.containers.execs.find(exec_id)?;
        let now = *exec.progress();
        if now.started && now.exit_code.is_none() {
            // The monitor tells how an exec ended before it closes the client's streams: a client that asks now because
            // they ended must be told.
            if let Ok(handle) = self.0.containers.registry.find(&exec.container) {
                let _ = handle.ask(|reply| Command::CatchUp { reply }).await;
            }
        }
        let progress = *exec.progress();
        let request = &exec.request;
        let (entrypoint, arguments) = match exec.words() {
            [] => (String::new(), Vec::new()),
            [first, rest @ ..] => (first.clone(), rest.to_vec()),
        };
        Ok(ExecInspect {
            id: exec.id.clone(),
            running: progress.running,
            exit_code: progress.exit_code,
            process_config: ExecProcessConfig {
                tty: request.tty,
                entrypoint,
                arguments,
                privileged: Some(request.privileged),
                user: request.user.clone(),
            },
            open_stdin: request.attach_stdin,
            open_stderr: request.attach_stderr,
            open_stdout: request.attach_stdout,
            can_remove: progress.exit_code.is_some(),
            container_id: exec.container.clone(),
            detach_keys: request.detach_keys.clone(),
            pid: i64::from(progress.pid),
        })
    }

    /// Sets the size of an exec's terminal.
    pub async fn exec_resize(&self, exec_id: &str, height: u16, width: u16) -> Result<()> {
        let exec = self.0.containers.execs.find(exec_id)?;
        if !exec.progress().running {
            return Err(Error::conflict(format!("exec {exec_id} is not running")));
        }
        let handle = self.0.containers.registry.find(&exec.container)?;
        let (exec_id, size) = (Some(exec.id.clone()), ConsoleSize { rows: height, cols: width });
        handle.ask(|reply| Command::Resize { exec_id, size, reply }).await
    }
}

fn running(def: &Definition, status: Status) -> Result<()> {
    match status {
        Status::Running => Ok(()),
        Status::Paused => {
            Err(Error::conflict(format!("Container {} is paused, unpause the container before exec", def.id)))
        }
        Status::Restarting => Err(Error::conflict(format!(
            "Container {} is restarting, wait until the container is running",
            def.id
        ))),
        _ => Err(Error::conflict(format!("container {} is not running", def.id))),
    }
}

impl Actor {
    /// Asks the monitor to run it; the answer settles the reply.
    pub(super) async fn exec(&mut self, exec: Arc<ExecRecord>, client: Option<OwnedFd>, reply: Reply<()>) {
        match self.ask_exec(&exec, client).await {
            Ok(tag) => {
                let action = format!("exec_start: {}", exec.words().join(" "));
                self.emit(&action, &[("execID", &exec.id)]);
                self.execs.insert(exec.id.clone(), Arc::clone(&exec));
                self.asked.insert(tag, Asked::Exec { exec, reply });
            }
            Err(error) => {
                exec.ended(126);
                let _ = reply.send(Err(error));
            }
        }
    }

    async fn ask_exec(&mut self, exec: &Arc<ExecRecord>, client: Option<OwnedFd>) -> Result<u64> {
        running(&self.def, self.state.status)?;
        let (engine, def, record, pid) =
            (self.engine.clone(), Arc::clone(&self.def), Arc::clone(exec), self.state.pid);
        let process = blocking(move || process(&engine, &def, &record.request, pid)).await?;
        let request = &exec.request;
        let attach = protocol::Attach {
            stdin: request.attach_stdin,
            stdout: request.attach_stdout,
            stderr: request.attach_stderr,
            framed: !request.tty,
            detach_keys: keys_of(Some(&request.detach_keys))?,
            ..protocol::Attach::default()
        };
        let action = Action::Exec(Box::new(protocol::Exec {
            exec_id: exec.id.clone(),
            process,
            console_size: *exec.console.lock().unwrap_or_else(|e| e.into_inner()),
            attach,
        }));
        let link = self
            .link
            .as_mut()
            .ok_or_else(|| Error::conflict(format!("container {} is not running", self.def.id)))?;
        let fds: Vec<_> = client.iter().map(AsFd::as_fd).collect();
        link.request(action, &fds)
    }

    pub(super) fn exec_started(&mut self, tag: u64, exec_id: &str, pid: i32) {
        if let Some(exec) = self.execs.get(exec_id) {
            exec.started(pid);
        }
        if let Some(Asked::Exec { reply, .. }) = self.asked.remove(&tag) {
            let _ = reply.send(Ok(()));
        }
    }

    pub(super) async fn exec_exited(&mut self, exec_id: &str, status: u8) {
        let Some(exec) = self.execs.remove(exec_id) else { return };
        exec.ended(i64::from(status));
        let code = status.to_string();
        self.emit("exec_die", &[("execID", exec_id), ("exitCode", &code)]);
        Box::pin(self.probe_exited(exec_id, status)).await;
    }

    pub(super) fn exec_detached(&mut self, exec_id: &str) {
        self.emit("exec_detach", &[("execID", exec_id)]);
    }
}

/// The process of an exec: the container's user, environment and privileges, with what the request changes.
fn process(engine: &Engine, def: &Definition, request: &ExecCreateRequest, pid: i32) -> Result<Process> {
    let root = std::fs::File::open(format!("/proc/{pid}/root"))
        .map_err(|error| Error::system("open the container's root", error))?;
    let user = if request.user.is_empty() { &def.config.user } else { &request.user };
    let groups = def.host.group_add.clone().unwrap_or_default();
    let user = hull_oci::user::resolve(root.as_fd(), user, &groups)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let mut security = Security::new(&def.host, engine.config())?;
    if request.privileged {
        security = security.all_capabilities();
    }
    let mut process = spec::base_process(&user, &security, def)?;
    let base = spec::environment(def, &user, request.tty || def.config.tty);
    process
        .set_args(request.cmd.clone())
        .set_terminal(Some(request.tty))
        .set_env(Some(overlay_env(base, request.env.as_deref().unwrap_or_default())));
    if !request.working_dir.is_empty() {
        process.set_cwd(request.working_dir.clone().into());
    }
    Ok(process)
}
