//! The task that owns a container.
//!
//! ```text
//!             start                exit, policy says again           delay over
//!  created ─────────▶ running ─────────────────────────▶ restarting ───────────▶ running
//!     │               │  ▲  │                                 │
//!     │          pause│  │unpause                             │ stop, or the start failed
//!     │               ▼  │  │ exit                            ▼
//!     │              paused └──────────────────────────▶ exited ──start──▶ running
//!     │                                                      │
//!     └──────────────────── remove ──────────▶ removing ◀────┘──(failed)──▶ dead
//! ```
//!
//! Everything that changes a container is a [`Command`] to its task, an event of its monitor, or one of its own
//! timers, handled one after another. A start runs its steps to the end before the next command is looked at; a stop
//! does not block: the exit answers it. What others may know is in the published [`Snapshot`].

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hull_docker_api::{ContainerUpdateRequest, EndpointSettings, Health};
use hull_monitor::config::ConsoleSize;
use hull_monitor::protocol::{self, Action, AttachEnd, Event, Failure};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::exec::ExecRecord;
use super::health::Probe;
use super::link::Link;
use super::reconcile::First;
use super::record::{Definition, RunState, Snapshot, Status};
use super::{RemoveOptions, StopOptions, signal};
use crate::{Engine, Error, Kind, Result};

/// Answer to a command.
pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// What can be asked of a container's task.
#[derive(Debug)]
pub(crate) enum Command {
    Start {
        reply: Reply<()>,
    },
    Stop {
        options: StopOptions,
        reply: Reply<()>,
    },
    Restart {
        options: StopOptions,
        reply: Reply<()>,
    },
    Kill {
        signal: i32,
        reply: Reply<()>,
    },
    Pause {
        reply: Reply<()>,
    },
    Unpause {
        reply: Reply<()>,
    },
    Rename {
        name: String,
        reply: Reply<()>,
    },
    Update {
        request: Box<ContainerUpdateRequest>,
        reply: Reply<()>,
    },
    Remove {
        options: RemoveOptions,
        reply: Reply<()>,
    },
    Attach {
        attach: protocol::Attach,
        client: OwnedFd,
        reply: Reply<()>,
    },
    AttachLater {
        attach: protocol::Attach,
        client: oneshot::Receiver<OwnedFd>,
        reply: Reply<bool>,
    },
    Resize {
        exec_id: Option<String>,
        size: ConsoleSize,
        reply: Reply<()>,
    },
    Exec {
        exec: Arc<ExecRecord>,
        client: Option<OwnedFd>,
        reply: Reply<()>,
    },
    Connect {
        network: String,
        settings: Box<EndpointSettings>,
        reply: Reply<()>,
    },
    Disconnect {
        network: String,
        force: bool,
        reply: Reply<()>,
    },
    /// Answered when everything that the monitor has told so far is taken in.
    CatchUp {
        reply: Reply<()>,
    },
}

/// A client that attaches before the container runs; its connection comes when it was answered.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) attach: protocol::Attach,
    pub(super) client: oneshot::Receiver<OwnedFd>,
}

/// What an answer of the monitor settles.
#[derive(Debug)]
pub(super) enum Asked {
    /// An exec to be started.
    Exec { exec: Arc<ExecRecord>, reply: Reply<()> },
    /// Anything that is just done or not.
    Plain(Reply<()>),
}

/// A stop under way.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When SIGKILL follows; none once it was sent or never.
    pub(super) kill_at: Option<Instant>,
}

/// A container's task.
pub(crate) struct Actor {
    pub(super) engine: Engine,
    pub(super) def: Arc<Definition>,
    pub(super) state: RunState,
    pub(super) health: Option<Arc<Health>>,
    pub(super) publish: watch::Sender<Arc<Snapshot>>,
    pub(super) link: Option<Link>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) asked: HashMap<u64, Asked>,
    pub(super) execs: HashMap<String, Arc<ExecRecord>>,
    pub(super) next_attach: u64,
    pub(super) stopping: Option<Stopping>,
    /// Answered at the exit.
    pub(super) on_exit: Vec<(Reply<()>, Option<&'static str>)>,
    /// Restarts by hand to be done at the exit.
    pub(super) then_restart: Vec<Reply<()>>,
    /// Removals to be done at the exit.
    pub(super) then_remove: Vec<(RemoveOptions, Reply<()>)>,
    pub(super) restart_at: Option<Instant>,
    pub(super) backoff: Duration,
    pub(super) probe: Option<Probe>,
    /// The container is removed: the task ends.
    pub(super) gone: bool,
}

/// Delay before the first restart by policy.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);

impl Actor {
    /// A task for a container that has no processes.
    pub(crate) fn new(
        engine: Engine,
        def: Arc<Definition>,
        state: RunState,
        publish: watch::Sender<Arc<Snapshot>>,
    ) -> Actor {
        Actor {
            engine,
            def,
            state,
            health: None,
            publish,
            link: None,
            waiting: Vec::new(),
            asked: HashMap::new(),
            execs: HashMap::new(),
            next_attach: 0,
            stopping: None,
            on_exit: Vec::new(),
            then_restart: Vec::new(),
            then_remove: Vec::new(),
            restart_at: None,
            backoff: FIRST_BACKOFF,
            probe: None,
            gone: false,
        }
    }

    /// Runs until the container is removed or the engine drops it.
    pub(super) async fn run(mut self, first: First, mut commands: mpsc::Receiver<Command>) {
        Box::pin(self.begin(first)).await;
        while !self.gone {
            tokio::select! {
                event = next_event(&self.link) => self.event(event).await,
                command = commands.recv() => match command {
                    Some(command) => self.command(command).await,
                    None => return,
                },
                () = until(self.next_timer()) => self.timer().await,
            }
        }
        commands.close();
        while let Some(command) = commands.recv().await {
            drop(command);
        }
    }

    /// What was left to do when the engine started.
    async fn begin(&mut self, first: First) {
        match first {
            First::Rest => {}
            First::Adopt(link) => {
                self.link = Some(*link);
                self.begin_health();
                if let Err(error) = self.save().await {
                    tracing::error!(container = self.def.short(), %error, "record adopted container");
                }
            }
            First::Settle { status, oom_killed, at } => {
                self.settle_exit(status, oom_killed, at).await;
                self.after_exit().await;
            }
            First::Start => self.restart_by_policy().await,
            First::Remove { volumes } => {
                if let Err(error) = self.remove_now(volumes || self.def.host.auto_remove).await {
                    tracing::error!(container = self.def.short(), %error, "finish removal");
                }
            }
        }
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Start { reply } => {
                let result = Box::pin(self.start_by_hand()).await;
                let _ = reply.send(result);
            }
            Command::Stop { options, reply } => self.stop(options, reply).await,
            Command::Restart { options, reply } => self.restart(options, reply).await,
            Command::Kill { signal, reply } => self.kill(signal, reply).await,
            Command::Pause { reply } => {
                let _ = reply.send(self.pause().await);
            }
            Command::Unpause { reply } => {
                let _ = reply.send(self.unpause().await);
            }
            Command::Rename { name, reply } => {
                let _ = reply.send(self.rename(&name).await);
            }
            Command::Update { request, reply } => {
                let _ = reply.send(self.update(*request).await);
            }
            Command::Remove { options, reply } => Box::pin(self.remove(options, reply)).await,
            Command::Attach { attach, client, reply } => {
                let _ = reply.send(self.attach(attach, client));
            }
            Command::AttachLater { attach, client, reply } => {
                let _ = reply.send(Ok(self.attach_later(attach, client)));
            }
            Command::Resize { exec_id, size, reply } => self.resize(exec_id, size, reply),
            Command::Exec { exec, client, reply } => Box::pin(self.exec(exec, client, reply)).await,
            Command::Connect { network, settings, reply } => {
                let _ = reply.send(Box::pin(self.connect(&network, *settings)).await);
            }
            Command::Disconnect { network, force, reply } => {
                let _ = reply.send(Box::pin(self.disconnect(&network, force)).await);
            }
            Command::CatchUp { reply } => {
                self.catch_up().await;
                let _ = reply.send(Ok(()));
            }
        }
    }

    async fn catch_up(&mut self) {
        loop {
            let Some(link) = &self.link else { return };
            match link.try_next() {
                Ok(None) => return,
                Ok(Some(event)) => self.event(Ok(event)).await,
                Err(error) => return self.event(Err(error)).await,
            }
        }
    }

    async fn event(&mut self, event: std::result::Result<Event, hull_monitor::client::ConnectionError>) {
        match event {
            Ok(Event::Exited(exit)) => Box::pin(self.exited(exit)).await,
            Ok(Event::ExecStarted { tag, exec_id, pid }) => self.exec_started(tag, &exec_id, pid),
            Ok(Event::ExecExited { exec_id, status, .. }) => self.exec_exited(&exec_id, status).await,
            Ok(Event::ExecDetached { exec_id }) => self.exec_detached(&exec_id),
            Ok(Event::AttachEnded { end: AttachEnd::Keys, .. }) => self.emit("detach", &[]),
            Ok(Event::Done { tag }) => self.answered(tag, Ok(())),
            Ok(Event::Failed { tag, failure }) => self.answered(tag, Err(failure)),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(container = self.def.short(), %error, "connection to the monitor ended");
                Box::pin(self.monitor_lost()).await;
            }
        }
    }

    /// Settles a request that the monitor has answered.
    fn answered(&mut self, tag: u64, result: std::result::Result<(), Failure>) {
        match self.asked.remove(&tag) {
            Some(Asked::Plain(reply)) => {
                let _ = reply.send(result.map_err(|failure| Error::internal(failure.message)));
            }
            Some(Asked::Exec { exec, reply }) => {
                if let Err(failure) = result {
                    self.execs.remove(&exec.id);
                    let _ = reply.send(Err(exec.failed(&failure)));
                }
            }
            None => {}
        }
    }

    fn next_timer(&self) -> Option<Instant> {
        let stop = self.stopping.as_ref().and_then(|stopping| stopping.kill_at);
        let probe = self.probe.as_ref().and_then(Probe::next_at);
        [stop, self.restart_at, probe].into_iter().flatten().min()
    }

    async fn timer(&mut self) {
        let now = Instant::now();
        if let Some(stopping) = &mut self.stopping
            && stopping.kill_at.is_some_and(|at| at <= now)
        {
            stopping.kill_at = None;
            self.escalate();
        }
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            Box::pin(self.restart_by_policy()).await;
        }
        if self.probe.as_ref().is_some_and(|probe| probe.next_at().is_some_and(|at| at <= now)) {
            self.start_probe().await;
        }
    }

    /// The patience of a stop is over: SIGKILL.
    fn escalate(&mut self) {
        self.emit("kill", &[("signal", "9")]);
        if let Err(error) = self.send_signal(signal::KILL) {
            tracing::warn!(container = self.def.short(), %error, "kill after stop timeout");
        }
        self.thaw_if_paused();
    }

    pub(super) fn send_signal(&mut self, signal: i32) -> Result<()> {
        let link = self.link.as_mut().ok_or_else(|| Error::internal("container has no monitor"))?;
        link.request(Action::Signal { exec_id: None, signal }, &[]).map(|_| ())
    }

    async fn stop(&mut self, options: StopOptions, reply: Reply<()>) {
        if self.state.status == Status::Restarting && self.link.is_none() {
            self.restart_at = None;
            self.state.stopped_by_hand = true;
            self.state.status = Status::Exited;
            let _ = self.save().await;
            self.emit("stop", &[]);
            let _ = reply.send(Ok(()));
            return;
        }
        if !self.state.status.has_processes() {
            let _ = reply.send(Err(Error::new(Kind::NotModified, "container already stopped")));
            return;
        }
        if let Err(error) = self.remember_the_hand().await {
            let _ = reply.send(Err(error));
            return;
        }
        match self.begin_stop(&options) {
            Ok(()) => self.on_exit.push((reply, Some("stop"))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Records that a person ends the container, before it is ended: an engine that dies in between must not restart it.
    async fn remember_the_hand(&mut self) -> Result<()> {
        let remembered = std::mem::replace(&mut self.state.stopped_by_hand, true);
        let restarts = !matches!(self.def.host.restart_policy.name.as_str(), "" | "no");
        if restarts && !remembered { self.save().await } else { Ok(()) }
    }

    /// Sends the stop signal and sets the time of the SIGKILL.
    fn begin_stop(&mut self, options: &StopOptions) -> Result<()> {
        let name = options.signal.as_deref().filter(|name| !name.is_empty());
        let name = name.unwrap_or(match self.def.config.stop_signal.as_str() {
            "" => "TERM",
            own => own,
        });
        let number = signal::parse(name)?;
        let seconds = options.timeout.or(self.def.config.stop_timeout).unwrap_or(10);
        self.state.stopped_by_hand = true;
        self.emit("kill", &[("signal", &number.to_string())]);
        self.send_signal(number)?;
        self.thaw_if_paused();
        let kill_at =
            u64::try_from(seconds).ok().map(|seconds| Instant::now() + Duration::from_secs(seconds));
        self.stopping = Some(Stopping { kill_at });
        Ok(())
    }

    async fn restart(&mut self, options: StopOptions, reply: Reply<()>) {
        if !self.state.status.has_processes() {
            self.restart_at = None;
            let result = Box::pin(self.start_by_hand()).await;
            if result.is_ok() {
                self.emit("restart", &[]);
            }
            let _ = reply.send(result);
            return;
        }
        match self.begin_stop(&options) {
            Ok(()) => self.then_restart.push(reply),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    async fn kill(&mut self, number: i32, reply: Reply<()>) {
        if !self.state.status.has_processes() {
            let error = Error::conflict(format!("container {} is not running", self.def.id));
            let _ = reply.send(Err(error));
            return;
        }
        let stop_signal = signal::parse(&self.def.config.stop_signal).unwrap_or(signal::TERM);
        let ends = number == signal::KILL || number == stop_signal;
        if ends && let Err(error) = self.remember_the_hand().await {
            let _ = reply.send(Err(error));
            return;
        }
        self.emit("kill", &[("signal", &number.to_string())]);
        match self.send_signal(number) {
            Ok(()) if number == signal::KILL => {
                self.thaw_if_paused();
                self.on_exit.push((reply, None));
            }
            result => drop(reply.send(result)),
        }
    }

    async fn pause(&mut self) -> Result<()> {
        match self.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!("container {} is already paused", self.def.id)));
            }
            Status::Restarting => {
                return Err(Error::conflict(format!(
                    "Container {} is restarting, wait until the container is running",
                    self.def.id
                )));
            }
            _ => return Err(Error::conflict(format!("container {} is not running", self.def.id))),
        }
        let cgroup = self.engine.cgroup_of(&self.def);
        blocking(move || cgroup.freeze().map_err(|error| Error::system("pause container", error))).await?;
        self.state.status = Status::Paused;
        self.save().await?;
        self.emit("pause", &[]);
        Ok(())
    }

    async fn unpause(&mut self) -> Result<()> {
        if self.state.status != Status::Paused {
            return Err(Error::conflict(format!("Container {} is not paused", self.def.id)));
        }
        let cgroup = self.engine.cgroup_of(&self.def);
        blocking(move || cgroup.thaw().map_err(|error| Error::system("unpause container", error))).await?;
        self.state.status = Status::Running;
        self.save().await?;
        self.emit("unpause", &[]);
        Ok(())
    }

    /// A frozen process does not die of a signal.
    pub(super) fn thaw_if_paused(&mut self) {
        if self.state.status == Status::Paused {
            if let Err(error) = self.engine.cgroup_of(&self.def).thaw() {
                tracing::warn!(container = self.def.short(), %error, "thaw");
            }
            self.state.status = Status::Running;
            self.publish();
        }
    }

    async fn rename(&mut self, name: &str) -> Result<()> {
        let name = super::names::parse(name)?;
        if name == self.def.name {
            return Err(Error::invalid("Renaming a container with the same name as its current name"));
        }
        self.engine.0.containers.registry.claim(name, &self.def.id)?;
        let old = self.def.name.clone();
        let mut def = (*self.def).clone();
        name.clone_into(&mut def.name);
        if let Err(error) = self.redefine(def).await {
            self.engine.0.containers.registry.release(name);
            return Err(error);
        }
        self.engine.0.containers.registry.release(&old);
        self.emit("rename", &[("oldName", &format!("/{old}"))]);
        Ok(())
    }

    /// Records another definition and publishes it.
    pub(super) async fn redefine(&mut self, def: Definition) -> Result<()> {
        self.engine.store().put(super::record::DEFINITIONS, &def.id, &def, def.durability()).await?;
        self.def = Arc::new(def);
        self.publish();
        Ok(())
    }

    fn resize(&mut self, exec_id: Option<String>, size: ConsoleSize, reply: Reply<()>) {
        let Some(link) = &mut self.link else {
            let _ = reply.send(Err(Error::conflict(format!("container {} is not running", self.def.id))));
            return;
        };
        match link.request(Action::Resize { exec_id, size }, &[]) {
            Ok(tag) => drop(self.asked.insert(tag, Asked::Plain(reply))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// Records the state and publishes it. Awaits the disk only for containers that outlive a power cut.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.publish();
        let mut batch = hull_meta::Batch::new();
        batch.put(super::record::STATES, &self.def.id, &self.state)?;
        let durability = self.def.durability();
        let pending = self.engine.store().write(batch, durability);
        if durability == hull_meta::Durability::Disk {
            pending.await?;
        } else {
            pending.detach();
        }
        Ok(())
    }

    /// Makes the present state visible to readers and waiters.
    pub(super) fn publish(&self) {
        self.publish.send_replace(Arc::new(Snapshot {
            def: Arc::clone(&self.def),
            state: Arc::new(self.state.clone()),
            health: self.health.clone(),
            removed: self.gone,
            entry: OnceLock::new(),
        }));
    }

    /// Publishes an event about this container.
    pub(super) fn emit(&self, action: &str, more: &[(&str, &str)]) {
        let mut attributes: BTreeMap<String, String> = self.def.event_attributes();
        attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.engine.events().emit("container", action, &self.def.id, attributes);
    }
}

/// Runs a short blocking piece of work away from the event loop.
pub(super) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await?
}

async fn next_event(
    link: &Option<Link>,
) -> std::result::Result<Event, hull_monitor::client::ConnectionError> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
