//! The record against the kernel, when an engine starts.
//!
//! A container whose monitor answers is adopted as it is. One that was recorded as running and has no monitor ended
//! meanwhile: its exit record tells how, and without one it died with its monitor. A start that was under way when
//! the engine died is undone: its client was never told that it succeeded. A record whose directory is gone or marked
//! belongs to a removal that is finished now. Directories, monitors and cgroups that no record names are removed, then
//! restart policies are applied.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hull_monitor::protocol::{Action, Event, Exit, Phase, State};
use jiff::Timestamp;

use super::actor::blocking;
use super::exit::{read_exit, remove_tree, should_restart};
use super::link::Link;
use super::record::{DEFINITIONS, Definition, RunState, STATES, Status};
use super::removal;
use super::start::{has_own_network, plain_endpoints};
use crate::networks::Attached;
use crate::{Engine, Error, Result};

/// How long a monitor may take to say how its container is.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a container's task does first.
#[derive(Debug)]
pub(super) enum First {
    /// Waits for commands.
    Rest,
    /// Goes on with a live container.
    Adopt(Box<Link>),
    /// Settles an end nobody has seen.
    Settle { status: i64, oom_killed: bool, at: Timestamp },
    /// Starts as its policy wants.
    Start,
    /// Finishes a removal that was cut off, or was promised for the exit.
    Remove { volumes: bool },
}

impl Engine {
    /// Compares the record with what the kernel holds: adopts live containers, settles dead ones, removes what
    /// belongs to nobody, and applies restart policies. Call it once, before clients are served.
    pub async fn reconcile(&self) -> Result<()> {
        let engine = self.clone();
        let records = blocking(move || engine.load_records()).await?;
        let config = self.config().clone();
        let monitors = blocking(move || Ok(monitors(&config.data_root))).await?;
        let mut plans = Vec::with_capacity(records.len());
        for (def, state) in records {
            if let Err(error) = self.0.containers.registry.claim(&def.name, &def.id) {
                tracing::error!(container = def.short(), %error, "two containers of one name");
            }
            let monitor = monitors.get(&def.id).copied();
            let (state, first) = self.plan(&def, state, monitor).await;
            plans.push((def, state, first));
        }
        self.remove_strangers(&plans, &monitors).await?;
        self.network_reconcile(live_endpoints(&plans)).await?;
        for (def, state, first) in plans {
            self.begin_task(def, state, first);
        }
        let engine = self.clone();
        tokio::spawn(async move {
            if let Err(error) = engine.images_settle().await {
                tracing::warn!(%error, "sweep images");
            }
        });
        Ok(())
    }

    fn load_records(&self) -> Result<Vec<(Definition, RunState)>> {
        let mut states: BTreeMap<String, RunState> = self.store().load(STATES)?.into_iter().collect();
        let definitions = self.store().load::<Definition>(DEFINITIONS)?;
        Ok(definitions.into_iter().map(|(id, def)| (def, states.remove(&id).unwrap_or_default())).collect())
    }

    /// What is to be done with one container.
    async fn plan(&self, def: &Definition, mut state: RunState, monitor: Option<i32>) -> (RunState, First) {
        let answer = self.ask_monitor(def).await;
        if let Some((link, answer)) = answer {
            match answer.phase {
                Phase::Running => {
                    state.status = self.running_or_paused(def);
                    state.pid = answer.pid;
                    state.started_at = answer.started_at.and_then(|at| at.parse().ok()).or(state.started_at);
                    if !has_own_network(def) {
                        state.endpoints = plain_endpoints(self, def);
                    }
                    return (state, First::Adopt(Box::new(link)));
                }
                Phase::Exited => {
                    link.release();
                    return settle(def, state, answer.exit);
                }
                Phase::Creating | Phase::Created => {}
            }
        }
        if let Some(pid) = monitor {
            end_process(pid);
        }
        if let Some(volumes) = removal::begun(&self.config().container_dir(""), &def.id) {
            return (state, First::Remove { volumes });
        }
        let exit = read_exit(&self.config().container_dir(&def.id).join("exit.json"));
        settle(def, state, exit)
    }

    /// Connects to the monitor and asks how its container is. Nothing when there is none.
    async fn ask_monitor(&self, def: &Definition) -> Option<(Link, State)> {
        let socket = self.config().container_exec_dir(&def.id).join("monitor.sock");
        let mut link = Link::connect(&socket).ok()?;
        link.request(Action::Inspect, &[]).ok()?;
        let state = tokio::time::timeout(PATIENCE, async {
            loop {
                match link.next().await {
                    Ok(Event::State { state, .. }) => return Some(state),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        });
        let state = state.await.ok()??;
        Some((link, state))
    }

    fn running_or_paused(&self, def: &Definition) -> Status {
        let cgroup = self.cgroup_of(def);
        let frozen = cgroup.of().and_then(hull_cgroup::Cgroup::frozen).unwrap_or(false);
        if frozen { Status::Paused } else { Status::Running }
    }

    /// Removes monitors, directories and cgroups of containers that have no record or do not run.
    async fn remove_strangers(
        &self,
        plans: &[(Definition, RunState, First)],
        monitors: &HashMap<String, i32>,
    ) -> Result<()> {
        let known: HashSet<String> = plans.iter().map(|(def, _, _)| def.id.clone()).collect();
        let live: HashSet<String> = plans
            .iter()
            .filter(|(_, _, first)| matches!(first, First::Adopt(_)))
            .map(|(def, _, _)| def.id.clone())
            .collect();
        for (id, pid) in monitors {
            if !known.contains(id) {
                end_process(*pid);
            }
        }
        let elsewhere: Vec<_> = plans
            .iter()
            .filter(|(def, _, _)| !live.contains(&def.id) && !def.host.cgroup_parent.is_empty())
            .filter_map(|(def, _, _)| self.cgroup_of(def).0)
            .collect();
        let (config, engine) = (self.config().clone(), self.clone());
        blocking(move || {
            remove_unknown(&config.data_root.join("containers"), &known)?;
            remove_unknown(&config.exec_root.join("containers"), &live)?;
            engine.remove_cgroups(&live);
            elsewhere.iter().for_each(end_cgroup);
            engine.0.containers.remove_cgroup_root();
            Ok(())
        })
        .await
    }

    fn remove_cgroups(&self, live: &HashSet<String>) {
        let Some(cgroups) = &self.0.containers.cgroups else { return };
        let root = self.0.containers.cgroup_root.trim_start_matches('/');
        let mut found = HashSet::new();
        for directory in cgroup_mounts().into_iter().map(|mount| mount.join(root)) {
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let names = entries.flatten().filter(|entry| entry.path().is_dir());
            found.extend(names.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        for id in found.difference(live) {
            end_cgroup(&cgroups.open(&format!("{}/{id}", self.0.containers.cgroup_root)));
        }
    }
}

/// The state of a container without processes, and what follows from its policy.
fn settle(def: &Definition, mut state: RunState, exit: Option<Exit>) -> (RunState, First) {
    // Also the endpoints of a start that was cut off, which went with its monitor.
    state.endpoints.clear();
    state.ports.clear();
    let ended = exit.as_ref().and_then(|exit| exit.at.parse::<Timestamp>().ok());
    // An exit record newer than the state tells of an end, and perhaps of a start, that was never recorded.
    let unseen = exit.is_some() && ended.is_some() && ended > state.finished_at;
    if state.status.has_processes() || unseen {
        if let Some(started) = exit.as_ref().and_then(|exit| exit.started_at.as_ref()) {
            state.started_at = started.parse().ok().or(state.started_at);
        }
        let never_ran = exit.as_ref().is_some_and(|exit| exit.failure.is_some());
        if never_ran {
            if state.status.has_processes() {
                state.status = Status::Exited;
                state.pid = 0;
            }
            let again = state.status == Status::Restarting;
            return (state, if again { First::Start } else { rest_or_start(def) });
        }
        let first = First::Settle {
            status: exit.as_ref().map_or(137, |exit| i64::from(exit.status)),
            oom_killed: exit.is_some_and(|exit| exit.oom_killed),
            at: ended.unwrap_or_else(Timestamp::now),
        };
        return (state, first);
    }
    let first = match state.status {
        Status::Removing => First::Remove { volumes: false },
        Status::Exited if def.host.auto_remove => First::Remove { volumes: true },
        Status::Restarting => First::Start,
        // As after a boot: `always` comes back even after a stop by hand.
        Status::Exited if def.host.restart_policy.name == "always" => First::Start,
        Status::Exited
            if state.started_at.is_some() && should_restart(def, &state, !state.stopped_by_hand) =>
        {
            First::Start
        }
        _ => First::Rest,
    };
    (state, first)
}

fn rest_or_start(def: &Definition) -> First {
    match def.host.restart_policy.name.as_str() {
        "always" | "unless-stopped" => First::Start,
        _ => First::Rest,
    }
}

fn live_endpoints(plans: &[(Definition, RunState, First)]) -> Vec<(String, String, Attached)> {
    let mut live = Vec::new();
    for (def, state, first) in plans {
        if !matches!(first, First::Adopt(_)) {
            continue;
        }
        for endpoint in state.endpoints.values() {
            let attached = Attached { settings: endpoint.clone(), ports: state.ports.clone() };
            live.push((def.id.clone(), endpoint.network_id.clone(), attached));
        }
    }
    live
}

/// Monitors of containers of this data root, found by the configuration they were started with.
fn monitors(data_root: &Path) -> HashMap<String, i32> {
    let containers = data_root.join("containers");
    let mut found = HashMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if let Some(id) = monitor_of(&line, &containers) {
            found.insert(id, pid);
        }
    }
    found
}

/// The container id in a command line `hull-runtime monitor --config <containers>/<id>/monitor.json`.
fn monitor_of(line: &[u8], containers: &Path) -> Option<String> {
    let mut words = line.split(|byte| *byte == 0);
    let (_, monitor, flag, path) = (words.next()?, words.next()?, words.next()?, words.next()?);
    if monitor != b"monitor" || flag != b"--config" {
        return None;
    }
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    let id = path.strip_prefix(containers).ok()?.parent()?.to_str()?;
    Some(id.to_owned())
}

fn end_cgroup(cgroup: &hull_cgroup::Cgroup) {
    if let Err(error) = cgroup.kill().and_then(|()| cgroup.remove()) {
        tracing::warn!(cgroup = cgroup.path(), %error, "remove a cgroup nobody owns");
    }
}

fn end_process(pid: i32) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Where the cgroup hierarchies are mounted.
pub(super) fn cgroup_mounts() -> Vec<PathBuf> {
    let mounts = hull_mount::mountinfo().unwrap_or_default();
    let cgroups = mounts.into_iter().filter(|mount| matches!(mount.kind.as_str(), "cgroup" | "cgroup2"));
    cgroups.map(|mount| mount.mount_point).collect()
}

/// Removes the directories in `parent` whose names are not in `keep`.
fn remove_unknown(parent: &Path, keep: &HashSet<String>) -> Result<()> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::system(format!("read {}", parent.display()), error)),
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| keep.contains(removal::owner(name))) {
            // One directory that cannot go is no reason not to serve the others.
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::warn!(directory = %entry.path().display(), %error, "remove what nobody owns");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_told_by_their_command_line() {
        let line = b"hull-runtime\0monitor\0--config\0/data/containers/abc/monitor.json\0";
        assert_eq!(monitor_of(line, Path::new("/data/containers")), Some("abc".to_owned()));
        assert_eq!(monitor_of(line, Path::new("/other/containers")), None);
        assert_eq!(
            monitor_of(b"vi\0monitor\0/data/containers/abc/monitor.json\0", Path::new("/data/containers")),
            None
        );
    }

    #[test]
    fn strangers_are_removed_and_known_ones_stay() {
        let dir = tempfile::tempdir().expect("temp dir");
        for name in ["known", "stranger"] {
            std::fs::create_dir_all(dir.path().join(name).join("upper/x")).expect("dirs");
        }
        remove_unknown(dir.path(), &HashSet::from(["known".to_owned()])).expect("remove");
        assert!(dir.path().join("known").exists() && !dir.path().join("stranger").exists());
        remove_unknown(&dir.path().join("missing"), &HashSet::new()).expect("missing is fine");
    }
}
