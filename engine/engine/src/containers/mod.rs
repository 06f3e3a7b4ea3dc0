//! Containers: their actions, and one task per container that owns its state machine (drawn in `actor`).
//!
//! | module | what |
//! |---|---|
//! | `create`, `validate`, `merge`, `mounts`, `names`, `copy_up` | from a request to a [`record`](self) |
//! | `actor`, `start`, `exit`, `health`, `link` | the state machine, its steps, its monitor |
//! | `spec`, `layered`, `name_files` | the OCI configuration and what it needs |
//! | `attach`, `exec`, `logs` | streams |
//! | `list`, `inspect`, `stats`, `top` | what is told about containers |
//! | `archive`, `changes`, `rootfs` | their files |
//! | `reconcile` | the record against the kernel after a restart |

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use hull_cgroup::{Cgroup, Cgroups};
use tokio::sync::{mpsc, watch};

use crate::{Config, Engine, EngineId, Error, Result};

mod actions;
mod actor;
mod archive;
mod attach;
mod copy_up;
mod create;
mod exec;
mod exit;
mod health;
mod inspect;
mod instant;
mod layered;
mod lifecycle;
mod link;
mod list;
mod logs;
#[cfg(test)]
mod machine_tests;
mod merge;
mod mounts;
mod name_files;
mod names;
mod neighbours;
mod reconcile;
mod record;
mod registry;
mod removal;
mod rootfs;
mod signal;
mod spec;
mod start;
mod stats;
mod top;
mod update;
mod validate;

pub use actions::{
    AttachOptions, ClientStream, ExtractOptions, ListOptions, Logs, LogsOptions, RemoveOptions, Stats,
    StopOptions, Wait, WaitCondition,
};
pub use attach::Attach;
pub use exec::ExecSession;
pub(crate) use neighbours::CommitSource;

use actor::Actor;
use reconcile::First;
use record::{Definition, RunState, Snapshot};
use registry::{Handle, Registry};
use spec::SharedPids;

/// Commands that wait for a container's task.
const QUEUE: usize = 16;

/// The containers of an engine.
#[derive(Debug)]
pub struct Containers {
    registry: Registry,
    execs: exec::Execs,
    cgroups: Option<Cgroups>,
    cgroup_root: String,
    /// A sealed copy in memory of the `hull-runtime` executable, made for the first start.
    runtime: OnceLock<OwnedFd>,
}

impl Containers {
    /// Finds what containers need of this machine. Their records are loaded by [`Engine::reconcile`].
    pub(crate) fn open(config: &Config, id: &EngineId, _store: &hull_meta::Store) -> Result<Containers> {
        let cgroups = match Cgroups::detect() {
            Ok(cgroups) => Some(cgroups),
            Err(error) => {
                tracing::warn!(%error, "no cgroups: containers cannot be limited or paused");
                None
            }
        };
        let cgroup_root = match &config.cgroup_parent {
            Some(parent) => format!("/{}/hull-{}", parent.trim_matches('/'), id.short),
            None => format!("/hull-{}", id.short),
        };
        Ok(Containers {
            registry: Registry::default(),
            execs: exec::Execs::default(),
            cgroups,
            cgroup_root,
            runtime: OnceLock::new(),
        })
    }

    /// Removes the cgroup that containers' cgroups lie in from every hierarchy, unless one is left. The next container
    /// makes it again.
    pub(crate) fn remove_cgroup_root(&self) {
        let root = self.cgroup_root.trim_start_matches('/');
        for directory in reconcile::cgroup_mounts().into_iter().map(|mount| mount.join(root)) {
            // The kernel refuses while something is in it.
            let _ = std::fs::remove_dir(directory);
        }
    }

    /// Forgets a removed container.
    fn forget(&self, id: &str, name: &str) {
        self.registry.remove(id, name);
    }
}

impl Engine {
    /// Starts the task of a container and makes it known.
    fn begin_task(&self, def: Definition, state: RunState, first: First) -> Handle {
        let def = Arc::new(def);
        let now = Snapshot {
            def: Arc::clone(&def),
            state: Arc::new(state.clone()),
            health: None,
            removed: false,
            entry: OnceLock::new(),
        };
        let (publish, snapshots) = watch::channel(Arc::new(now));
        let (commands, queue) = mpsc::channel(QUEUE);
        let handle = Handle { id: def.id.as_str().into(), snapshots, commands };
        let actor = Actor::new(self.clone(), def, state, publish);
        self.0.containers.registry.insert(handle.clone());
        tokio::spawn(actor.run(first, queue));
        handle
    }

    /// The cgroup of a container, from the roots of the hierarchies.
    fn cgroup_path(&self, def: &Definition) -> String {
        let own = def.host.cgroup_parent.trim_matches('/');
        if own.is_empty() {
            format!("{}/{}", self.0.containers.cgroup_root, def.id)
        } else {
            format!("/{own}/{}", def.id)
        }
    }

    fn cgroup_of(&self, def: &Definition) -> ContainerCgroup {
        let path = self.cgroup_path(def);
        ContainerCgroup(self.0.containers.cgroups.as_ref().map(|cgroups| cgroups.open(&path)))
    }

    /// The executable monitors run: a copy in memory that nobody can change, neither an upgrade nor a container.
    fn runtime_executable(&self) -> Result<&OwnedFd> {
        if let Some(runtime) = self.0.containers.runtime.get() {
            return Ok(runtime);
        }
        let path = &self.config().runtime;
        let file = std::fs::File::open(path)
            .map_err(|error| Error::system(format!("open runtime {}", path.display()), error))?;
        let copy = hull_sys::image::sealed_copy(&file)
            .map_err(|error| Error::system(format!("copy runtime {}", path.display()), error))?;
        Ok(self.0.containers.runtime.get_or_init(|| copy))
    }

    /// Pids in the namespaces a container shares with others, which must run.
    fn shared_pids(&self, def: &Definition) -> Result<SharedPids> {
        let pid = |mode: &str, what: &str| -> Result<Option<i32>> {
            let Some(other) = mode.strip_prefix("container:") else { return Ok(None) };
            let now = self.0.containers.registry.find(other)?.now();
            if !now.state.status.has_processes() {
                return Err(Error::conflict(format!(
                    "cannot join {what} namespace of a non running container: container {} is {}",
                    now.def.name,
                    now.state.status.as_str()
                )));
            }
            Ok(Some(now.state.pid))
        };
        Ok(SharedPids {
            network: pid(&def.host.network_mode, "network")?,
            pid: pid(&def.host.pid_mode, "PID")?,
            ipc: pid(&def.host.ipc_mode, "IPC")?,
        })
    }
}

/// A container's cgroup on a machine that may have none.
#[derive(Debug, Clone)]
struct ContainerCgroup(Option<Cgroup>);

impl ContainerCgroup {
    fn of(&self) -> Result<&Cgroup, hull_cgroup::Error> {
        self.0.as_ref().ok_or(hull_cgroup::Error::NotMounted)
    }

    fn freeze(&self) -> Result<(), hull_cgroup::Error> {
        self.of()?.freeze()
    }

    fn thaw(&self) -> Result<(), hull_cgroup::Error> {
        self.of()?.thaw()
    }

    fn remove(&self) -> Result<(), hull_cgroup::Error> {
        self.of()?.remove()
    }
}
