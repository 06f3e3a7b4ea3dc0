//! cgroup v1, hybrid and v2: layout, limits, devices, freezer, statistics.

use oci_spec::runtime::LinuxResources;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

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
    /// A value cannot be.
    #[error("linux.resources.{field}: {reason}")]
    Invalid {
        /// Field of the configuration.
        field: String,
        /// What is wrong.
        reason: String,
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
    mode: Mode,
}

/// One cgroup: the same path in every hierarchy.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
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
    /// Finds the hierarchies in `/proc/self/mountinfo`.
    pub fn detect() -> Result<Self> {
        Err(Error::NotMounted)
    }

    /// Which set-up this machine has.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Makes the cgroup in every hierarchy and sets its limits. `path` is absolute from the hierarchies' roots. On an
    /// error nothing is left.
    pub fn create(&self, path: &str, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let cgroup = Cgroup { path: path.into() };
        cgroup.apply(resources.unwrap_or(&LinuxResources::default()))?;
        Ok(cgroup)
    }

    /// The cgroup of that path, which may exist or not.
    pub fn open(&self, path: &str) -> Cgroup {
        Cgroup { path: path.into() }
    }
}

impl Cgroup {
    /// Its path from the hierarchies' roots.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Files into which a process writes `0` to join (v1: `tasks` of each hierarchy; v2: `cgroup.procs`). The process must
    /// have one thread.
    pub fn join_fds(&self) -> Result<Vec<OwnedFd>> {
        Err(Error::NotMounted)
    }

    /// The directory to give to `clone3` (`CLONE_INTO_CGROUP`): on v2 only.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>> {
        Err(Error::NotMounted)
    }

    /// Sets limits; what `resources` does not name is left as it is.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let _ = resources;
        Err(Error::NotMounted)
    }

    /// What it uses.
    pub fn stats(&self) -> Result<Stats> {
        Err(Error::NotMounted)
    }

    /// Stops all its tasks, and waits until they are.
    pub fn freeze(&self) -> Result<()> {
        Err(Error::NotMounted)
    }

    /// Lets them go on.
    pub fn thaw(&self) -> Result<()> {
        Err(Error::NotMounted)
    }

    /// Whether it is frozen.
    pub fn frozen(&self) -> Result<bool> {
        Err(Error::NotMounted)
    }

    /// Sends SIGKILL to everything in it and below.
    pub fn kill(&self) -> Result<()> {
        Err(Error::NotMounted)
    }

    /// The processes in it and below.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Err(Error::NotMounted)
    }

    /// How many tasks the kernel killed here because of the memory limit.
    pub fn oom_kills(&self) -> Result<u64> {
        Err(Error::NotMounted)
    }

    /// Removes it from every hierarchy, with what is below. A cgroup still busy is tried again for a moment. Missing is fine.
    pub fn remove(&self) -> Result<()> {
        Err(Error::NotMounted)
    }
}
