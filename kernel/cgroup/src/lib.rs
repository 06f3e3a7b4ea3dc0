//! cgroup v1, hybrid and v2: layout, limits, devices, freezer, statistics.

mod check;
mod control;
mod dbus;
mod delegate;
mod devices;
mod file;
mod layout;
mod oom;
mod stats;
pub mod systemd;
mod v1;
mod v2;

pub use check::check;

use crate::file::{failed, read};
use crate::layout::{Hierarchy, Layout};
use crate::v1::When;
use oci_spec::runtime::{LinuxRdma, LinuxResources};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failed cgroup operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cgroup file system is mounted.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// A limit is asked for whose controller this machine does not have.
    #[error("linux.resources.{field} needs the cgroup controller {controller}, which is not there")]
    NoController {
        /// Field of the configuration.
        field: &'static str,
        /// Controller.
        controller: &'static str,
    },
    /// The controller is there, but the kernel hands none down from a cgroup that has processes itself.
    #[error(
        "linux.resources.{field} needs the cgroup controller {controller}, which cannot be handed down while there are \
         processes in {}: move them to a cgroup below it", path.display()
    )]
    Occupied {
        /// Field of the configuration.
        field: &'static str,
        /// Controller.
        controller: &'static str,
        /// The cgroup that has the controller, and processes.
        path: PathBuf,
    },
    /// A value cannot be.
    #[error("{}: {reason}", full_field(field))]
    Invalid {
        /// Field of the configuration.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The cgroup exists and has processes.
    #[error("container's cgroup is not empty: {path} has {processes} processes in it already")]
    NotEmpty {
        /// Its path.
        path: String,
        /// How many.
        processes: usize,
    },
    /// The cgroup exists and is frozen: what joined it would never run, nor end.
    #[error("container's cgroup unexpectedly frozen: {path}")]
    Frozen {
        /// Its path.
        path: String,
    },
    /// The service manager could not be asked, or refused.
    #[error("{step}")]
    Systemd {
        /// What was asked for.
        step: String,
        /// Why not.
        #[source]
        source: dbus::Error,
    },
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    File {
        /// `mkdir`, `read`, `write "max" to`, …
        operation: String,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustix::io::Errno,
    },
}

/// Fields are named as in the configuration; most are limits.
fn full_field(field: &str) -> String {
    match field {
        "cgroupsPath" => "linux.cgroupsPath".into(),
        other if other.starts_with("annotations.") || other.starts_with('-') => other.into(),
        other => format!("linux.resources.{other}"),
    }
}

/// Result of a cgroup operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Which of the three set-ups a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One hierarchy per controller, nothing else.
    V1,
    /// Controllers in hierarchies of their own, and a cgroup2 hierarchy beside.
    Hybrid,
    /// One cgroup2 hierarchy at `/sys/fs/cgroup`.
    V2,
}

/// The machine's cgroup hierarchies.
#[derive(Clone, Debug)]
pub struct Cgroups {
    layout: Arc<Layout>,
}

/// One cgroup: the same path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    layout: Arc<Layout>,
    path: String,
    /// Whether processes join this cgroup and no other, even if it takes none.
    exact: bool,
    /// v1: controllers whose directory to join is another.
    elsewhere: Vec<(String, String)>,
}

/// What a cgroup uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// CPU time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Tasks.
    pub pids: PidsStats,
    /// Block devices.
    pub io: Vec<IoStats>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CpuStats {
    /// User and system.
    pub total: u64,
    /// User.
    pub user: u64,
    /// System.
    pub system: u64,
    /// Per CPU, v1 only.
    pub per_cpu: Vec<u64>,
    /// Enforcement periods elapsed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time throttled.
    pub throttled_time: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct MemoryStats {
    /// In use now, page cache included.
    pub usage: u64,
    /// Most ever in use.
    pub max_usage: u64,
    /// Limit; `u64::MAX` for none.
    pub limit: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
    /// Swap in use.
    pub swap: u64,
    /// `memory.stat`, as the kernel names its fields.
    pub stat: std::collections::BTreeMap<String, u64>,
}

/// Tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct PidsStats {
    /// Now.
    pub current: u64,
    /// Limit; `None` for none.
    pub limit: Option<u64>,
}

/// One block device.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct IoStats {
    /// Device.
    pub major: u64,
    /// Device.
    pub minor: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

impl Cgroups {
    /// Finds the hierarchies.
    pub fn detect() -> Result<Self> {
        Ok(Self { layout: Arc::new(Layout::detect()?) })
    }

    /// Which set-up this machine has.
    pub fn mode(&self) -> Mode {
        self.layout.mode
    }

    /// Names of the controllers there are, `systemd` for `name=systemd`.
    pub fn controllers(&self) -> Vec<String> {
        let mut names: Vec<_> =
            self.layout.v1.iter().flat_map(|hierarchy| hierarchy.controllers.clone()).collect();
        if let Some(unified) = &self.layout.unified {
            let text = file::try_read(&unified.join("cgroup.controllers")).unwrap_or_default();
            names.extend(text.split_whitespace().map(str::to_owned));
        }
        names
    }

    /// Makes the cgroup in every hierarchy and sets its limits. `path` is absolute from the hierarchies' roots. A cgroup that
    /// exists is taken when nothing is in it. On an error nothing that was made is left.
    pub fn create(&self, path: &str, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        check_path(path)?;
        let cgroup = self.open(path);
        let made = cgroup.make_directories().and_then(|()| match resources {
            Some(resources) => cgroup.apply_when(resources, When::New),
            None => Ok(()),
        });
        match made {
            Ok(()) => Ok(cgroup),
            Err(error) => {
                if !matches!(error, Error::NotEmpty { .. } | Error::Frozen { .. }) {
                    // The first error is what the caller must know; what is left behind here is an empty directory.
                    let _ = cgroup.remove();
                }
                Err(error)
            }
        }
    }

    /// The cgroup of that path, which may exist or not.
    pub fn open(&self, path: &str) -> Cgroup {
        let path = format!("/{}", path.trim_matches('/'));
        Cgroup { layout: Arc::clone(&self.layout), path, exact: false, elsewhere: Vec::new() }
    }

    /// A cgroup that somebody else made, a service manager, with its limits set. Where that somebody did not make it, in some
    /// hierarchies of v1, it is made here.
    pub fn adopt(&self, path: &str, resources: &LinuxResources) -> Result<Cgroup> {
        check_path(path)?;
        let cgroup = self.open(path);
        match self.layout.unified.as_ref().filter(|_| self.layout.mode == Mode::V2) {
            Some(unified) => v2::enable_controllers(unified, path)?,
            None => drop(cgroup.make_v1_directories()?),
        }
        cgroup.apply_when(resources, When::New)?;
        Ok(cgroup)
    }
}

impl Cgroup {
    /// Its path from the hierarchies' roots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Each v1 hierarchy's controllers (joined by commas) with this cgroup's directory in it: what a container sees below
    /// `/sys/fs/cgroup`. Empty on v2.
    pub fn v1_directories(&self) -> Vec<(String, PathBuf)> {
        let of = |hierarchy: &Hierarchy| {
            (hierarchy.controllers.join(","), self.directory_in(&hierarchy.mount_point))
        };
        self.layout.v1.iter().map(of).collect()
    }

    /// The whole cgroup2 hierarchy, when that has the controllers.
    pub fn unified_root(&self) -> Option<PathBuf> {
        self.layout.unified.clone().filter(|_| self.layout.mode == Mode::V2)
    }

    /// Its directory in the cgroup2 hierarchy, when that has the controllers.
    pub fn unified_directory(&self) -> Option<PathBuf> {
        self.v2_directory()
    }

    /// Files into which a process writes `0` to join (v1: `tasks` of each hierarchy; v2: `cgroup.procs`). The process must
    /// have one thread.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>> {
        let open = |path: PathBuf| file::open_write(&path).map_err(failed("open", &path));
        if let Some(directory) = self.v2_directory() {
            return Ok(vec![open(directory.join("cgroup.procs"))?]);
        }
        if !self.elsewhere.is_empty() {
            return self.directories_to_join().map(|directory| open(directory.join("tasks"))).collect();
        }
        self.directories().map(|directory| open(directory.join("tasks"))).collect()
    }

    /// The directory to give to `clone3` (`CLONE_INTO_CGROUP`): on v2 only.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>> {
        let Some(directory) = self.v2_directory() else { return Ok(None) };
        rustix::fs::open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
            .map(Some)
            .map_err(failed("open", &directory))
    }

    /// The directory to give to `clone3` for a further process beside `neighbour`, which is in this cgroup or below: on v2
    /// only. A container that handed controllers down to cgroups of its own (an init system, an engine in a container)
    /// has emptied its own, where the kernel then takes no process any more.
    pub fn clone_into_beside(&self, neighbour: i32) -> Result<Option<OwnedFd>> {
        let Some(directory) = self.v2_directory() else { return Ok(None) };
        if self.exact || read(&directory.join("cgroup.subtree_control"))?.trim().is_empty() {
            return self.clone_into();
        }
        let membership = read(Path::new(&format!("/proc/{neighbour}/cgroup")))?;
        match unified_membership(&membership) {
            Some(path) if Path::new(path).starts_with(&self.path) => {
                let layout = Arc::clone(&self.layout);
                Self { layout, path: path.to_owned(), exact: false, elsewhere: Vec::new() }.clone_into()
            }
            _ => self.clone_into(),
        }
    }

    /// Sets limits; what `resources` does not name is left as it is.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.apply_when(resources, When::Update)
    }

    fn apply_when(&self, resources: &LinuxResources, when: When) -> Result<()> {
        match self.v2_directory() {
            Some(directory) => v2::apply(self, &directory, resources),
            None => v1::apply(self, resources, when),
        }
    }

    /// This cgroup's directories in all hierarchies Hull uses: on hybrid those of v1.
    fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let v1 = self.layout.v1.iter().map(|hierarchy| self.directory_in(&hierarchy.mount_point));
        v1.chain(self.v2_directory())
    }

    fn directory_in(&self, mount_point: &Path) -> PathBuf {
        mount_point.join(self.path.trim_start_matches('/'))
    }

    fn v1_directory(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy =
            self.layout.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|c| c == controller))?;
        Some(self.directory_in(&hierarchy.mount_point))
    }

    /// On v2 only: on hybrid the cgroup2 hierarchy has no controllers, and moving into it costs a grace period.
    fn v2_directory(&self) -> Option<PathBuf> {
        let unified = self.layout.unified.as_ref().filter(|_| self.layout.mode == Mode::V2)?;
        Some(self.directory_in(unified))
    }

    fn make_directories(&self) -> Result<()> {
        if let Some(unified) = self.layout.unified.as_ref().filter(|_| self.layout.mode == Mode::V2) {
            let existed = make_directory(unified, &self.directory_in(unified))?;
            self.refuse_if_used(existed)?;
            return v2::enable_controllers(unified, &self.path);
        }
        let existed = self.make_v1_directories()?;
        self.refuse_if_used(existed)
    }

    /// Whether one was there already.
    fn make_v1_directories(&self) -> Result<bool> {
        let mut existed = false;
        for hierarchy in &self.layout.v1 {
            let directory = self.directory_in(&hierarchy.mount_point);
            existed |= make_directory(&hierarchy.mount_point, &directory)?;
            if hierarchy.controllers.iter().any(|controller| controller == "cpuset") {
                v1::initialise_cpuset(&hierarchy.mount_point, &directory)?;
            }
        }
        Ok(existed)
    }

    /// Two containers in one cgroup would share limits, and die with each other.
    fn refuse_if_used(&self, existed: bool) -> Result<()> {
        if !existed {
            return Ok(());
        }
        let processes = self.pids()?.len();
        if processes > 0 {
            return Err(Error::NotEmpty { path: self.path.clone(), processes });
        }
        match self.frozen() {
            Ok(true) => Err(Error::Frozen { path: self.path.clone() }),
            // Without a freezer nothing is frozen.
            Ok(false) | Err(_) => Ok(()),
        }
    }
}

/// The path of the `0::` line, cgroup2's, of `/proc/<pid>/cgroup` (cgroups(7)).
fn unified_membership(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// Makes a cgroup and its missing parents; whether it was there already.
fn make_directory(mount_point: &Path, directory: &Path) -> Result<bool> {
    let mode = FileMode::from_raw_mode(0o755);
    match rustix::fs::mkdir(directory, mode) {
        Ok(()) => Ok(false),
        Err(Errno::EXIST) => Ok(true),
        Err(Errno::NOENT) => {
            let parent = directory.parent().filter(|parent| parent.starts_with(mount_point));
            let Some(parent) = parent else { return Err(failed("mkdir", directory)(Errno::NOENT)) };
            make_directory(mount_point, parent)?;
            match rustix::fs::mkdir(directory, mode) {
                Ok(()) => Ok(false),
                Err(Errno::EXIST) => Ok(true),
                Err(error) => Err(failed("mkdir", directory)(error)),
            }
        }
        Err(error) => Err(failed("mkdir", directory)(error)),
    }
}

/// A cgroup path has names only: neither the root itself nor a way up.
fn check_path(path: &str) -> Result<()> {
    let invalid = |reason: &str| {
        Err(Error::Invalid { field: "cgroupsPath".into(), reason: format!("{path:?} {reason}") })
    };
    if path.split('/').any(|name| name == "..") || path.contains(['\0', '\n']) {
        return invalid("is not a plain path");
    }
    if path.split('/').all(|name| name.is_empty() || name == ".") {
        return invalid("names the root cgroup");
    }
    Ok(())
}

/// A value that becomes part of a file's name must not lead elsewhere.
fn check_file_name(field: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.contains(['/', '\0']) || name.starts_with("cgroup.") {
        let reason = format!("{name:?} is not a controller's file");
        return Err(Error::Invalid { field: field.into(), reason });
    }
    Ok(())
}

fn rdma_line(device: &str, limit: &LinuxRdma) -> String {
    let value = |limit: Option<u32>| limit.map_or("max".into(), |limit: u32| limit.to_string());
    format!("{device} hca_handle={} hca_object={}", value(limit.hca_handles()), value(limit.hca_objects()))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod v2_tests;
