//! The end of a run: what is recorded, who is told, and what comes next (nothing, restart, removal).

use std::path::Path;
use std::time::Duration;

use hull_monitor::protocol::Exit;
use jiff::Timestamp;
use tokio::time::Instant;

use super::RemoveOptions;
use super::actor::{Actor, Asked, FIRST_BACKOFF, Reply, Stopping, blocking};
use super::record::{DEFINITIONS, Definition, MountKind, RunState, STATES, Status};
use super::{removal, signal};
use crate::{Error, Result};

/// Longest delay before a restart by policy.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// A run this long makes the delays begin anew.
const STEADY_RUN: Duration = Duration::from_secs(10);

impl Actor {
    /// The monitor says that the container has ended.
    pub(super) async fn exited(&mut self, exit: Exit) {
        let finished = exit.at.parse().unwrap_or_else(|_| Timestamp::now());
        if let Some(link) = self.link.take() {
            link.release();
        }
        self.settle_exit(i64::from(exit.status), exit.oom_killed, finished).await;
        self.after_exit().await;
    }

    /// The monitor is gone without a word: its exit record, if there is one, tells the end, else the kernel killed
    /// the container with it.
    pub(super) async fn monitor_lost(&mut self) {
        self.link = None;
        let path = self.engine.config().container_dir(&self.def.id).join("exit.json");
        let exit = read_exit(&path);
        let status = exit.as_ref().map_or(137, |exit| i64::from(exit.status));
        let finished = exit.as_ref().and_then(|exit| exit.at.parse().ok()).unwrap_or_else(Timestamp::now);
        self.settle_exit(status, exit.is_some_and(|exit| exit.oom_killed), finished).await;
        self.after_exit().await;
    }

    /// Records the end and tells everybody who waits for it.
    pub(super) async fn settle_exit(&mut self, status: i64, oom_killed: bool, finished: Timestamp) {
        self.end_health();
        self.fail_asked();
        let ran = self.state.started_at.map_or(0, |started| finished.duration_since(started).as_secs());
        self.state.status = Status::Exited;
        self.state.pid = 0;
        self.state.exit_code = status;
        self.state.oom_killed = oom_killed;
        self.state.finished_at = Some(finished);
        self.state.exits += 1;
        self.stopping = None;
        if oom_killed {
            self.emit("oom", &[]);
        }
        let (code, seconds) = (status.to_string(), ran.max(0).to_string());
        self.emit("die", &[("exitCode", &code), ("execDuration", &seconds)]);
        self.detach_networks().await;
    }

    /// Removal, restart by hand, restart by policy, or rest: in this order.
    pub(super) async fn after_exit(&mut self) {
        let remove_itself = self.def.host.auto_remove && self.then_restart.is_empty();
        let restarts = !self.then_restart.is_empty();
        let removals = std::mem::take(&mut self.then_remove);
        let by_policy = !restarts
            && removals.is_empty()
            && should_restart(&self.def, &self.state, !self.state.stopped_by_hand);
        if by_policy {
            self.schedule_restart();
        }
        if let Err(error) = self.save().await {
            tracing::error!(container = self.def.short(), %error, "record exit");
        }
        for (reply, event) in std::mem::take(&mut self.on_exit) {
            if let Some(event) = event {
                self.emit(event, &[]);
            }
            let _ = reply.send(Ok(()));
        }
        if let Some((options, reply)) = removals.into_iter().next() {
            self.remove_and_answer(options, reply).await;
        } else if remove_itself {
            self.remove_itself().await;
        } else if restarts {
            self.restart_now().await;
        }
    }

    async fn restart_now(&mut self) {
        let replies = std::mem::take(&mut self.then_restart);
        let result = Box::pin(self.start_by_hand()).await;
        if result.is_ok() {
            self.emit("restart", &[]);
        }
        for reply in replies {
            let answer = match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(Error::new(error.kind(), error.message())),
            };
            let _ = reply.send(answer);
        }
    }

    /// docker's restart manager: 100 ms, doubled each time, at most a minute; anew after a run of ten seconds.
    fn schedule_restart(&mut self) {
        let ran = self.state.finished_at.zip(self.state.started_at);
        let ran = ran.map_or(Duration::ZERO, |(end, start)| end.duration_since(start).unsigned_abs());
        if ran >= STEADY_RUN {
            self.backoff = FIRST_BACKOFF;
        }
        self.state.status = Status::Restarting;
        self.state.restart_count += 1;
        self.restart_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    /// The delay is over.
    pub(super) async fn restart_by_policy(&mut self) {
        if let Err(error) = self.start().await {
            tracing::warn!(container = self.def.short(), %error, "restart by policy");
            if should_restart(&self.def, &self.state, true) {
                self.schedule_restart();
                let _ = self.save().await;
            }
        }
    }

    /// Requests the monitor will never answer.
    fn fail_asked(&mut self) {
        for (_, asked) in self.asked.drain() {
            let error = || Error::conflict(format!("container {} is not running", self.def.id));
            match asked {
                Asked::Plain(reply) | Asked::Exec { reply, .. } => drop(reply.send(Err(error()))),
            }
        }
        for (_, exec) in self.execs.drain() {
            exec.ended(137);
        }
    }

    async fn detach_networks(&mut self) {
        let endpoints = std::mem::take(&mut self.state.endpoints);
        self.state.ports.clear();
        if matches!(self.def.host.network_mode.as_str(), "none" | "host") {
            return;
        }
        for network in endpoints.keys() {
            if let Err(error) = self.engine.network_detach(&self.def.id, network).await {
                tracing::warn!(container = self.def.short(), %error, "detach network");
            }
        }
    }

    /// `rm`: at once, or after a kill.
    pub(super) async fn remove(&mut self, options: RemoveOptions, reply: Reply<()>) {
        if options.link {
            let _ = reply.send(Err(Error::not_implemented("links between containers")));
            return;
        }
        if self.state.status.has_processes() {
            if !options.force {
                let state = match self.state.status {
                    Status::Paused => "paused and must be unpaused first",
                    _ => "running: stop the container before removing or force remove",
                };
                let name = &self.def.name;
                let text = format!("cannot remove container \"/{name}\": container is {state}");
                let _ = reply.send(Err(Error::conflict(text)));
                return;
            }
            self.state.stopped_by_hand = true;
            self.emit("kill", &[("signal", "9")]);
            match self.send_signal(signal::KILL) {
                Ok(()) => {
                    self.thaw_if_paused();
                    self.stopping = Some(Stopping { kill_at: None });
                    self.then_remove.push((options, reply));
                }
                Err(error) => drop(reply.send(Err(error))),
            }
            return;
        }
        self.restart_at = None;
        self.remove_and_answer(options, reply).await;
    }

    async fn remove_and_answer(&mut self, options: RemoveOptions, reply: Reply<()>) {
        let result = self.remove_now(options.volumes || self.def.host.auto_remove).await;
        let _ = reply.send(result);
    }

    /// Takes the container away and ends the task: mark, volumes, files, record. Whatever cuts it off, the next engine
    /// finds the mark and does the whole again.
    pub(super) async fn remove_now(&mut self, volumes: bool) -> Result<()> {
        let before = std::mem::replace(&mut self.state.status, Status::Removing);
        self.publish();
        let (containers, id) = (self.engine.config().container_dir(""), self.def.id.clone());
        if let Err(error) = blocking(move || removal::begin(&containers, &id, volumes)).await {
            self.state.status = before;
            self.publish();
            return Err(error);
        }
        if volumes {
            self.discard_volumes().await;
        }
        if let Err(error) = self.remove_files().await {
            self.state.status = Status::Dead;
            let _ = self.save().await;
            return Err(error);
        }
        let mut batch = hull_meta::Batch::new();
        batch.delete(DEFINITIONS, &self.def.id).delete(STATES, &self.def.id);
        self.engine.store().write(batch, self.def.durability()).await?;
        self.engine.0.containers.forget(&self.def.id, &self.def.name);
        self.gone = true;
        self.emit("destroy", &[]);
        self.publish();
        if let Err(error) = self.engine.image_released(&self.def.image_id).await {
            tracing::warn!(container = self.def.short(), %error, "remove the image that waited for this container");
        }
        Ok(())
    }

    async fn remove_files(&self) -> Result<()> {
        let (containers, id) = (self.engine.config().container_dir(""), self.def.id.clone());
        let exec_dir = self.engine.config().container_exec_dir(&self.def.id);
        let cgroup = self.engine.cgroup_of(&self.def);
        blocking(move || {
            let _ = cgroup.remove();
            remove_tree(&exec_dir)?;
            removal::finish(&containers, &id)
        })
        .await
    }

    /// `--rm`: nobody waits for the result.
    pub(super) async fn remove_itself(&mut self) {
        if let Err(error) = self.remove_now(true).await {
            tracing::error!(container = self.def.short(), %error, "remove container at its end");
        }
    }

    async fn discard_volumes(&self) {
        let anonymous =
            self.def.mounts.iter().filter(|mount| mount.kind == MountKind::Volume && mount.anonymous);
        for mount in anonymous {
            if let Err(error) = self.engine.volume_discard(&mount.name).await {
                tracing::warn!(container = self.def.short(), volume = mount.name, %error, "discard volume");
            }
        }
    }
}

/// Whether the policy starts a container again after this exit.
pub(super) fn should_restart(def: &Definition, state: &RunState, not_by_hand: bool) -> bool {
    let policy = &def.host.restart_policy;
    if !not_by_hand {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => {
            state.exit_code != 0
                && (policy.maximum_retry_count == 0 || state.restart_count < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// The exit record a monitor left.
pub(super) fn read_exit(path: &Path) -> Option<Exit> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Removes a directory with everything in it. Missing is fine.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
