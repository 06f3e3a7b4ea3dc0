//! The command line, compatible with runc's.

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hull_oci::cgroup::systemd::Manager;
use hull_oci::container::Store;
use std::path::PathBuf;

/// Version and what of the specification is implemented, in the form engines read.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Where records are, unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/hull-runtime";

#[derive(Parser)]
#[command(name = "hull-runtime", version = VERSION, about = "OCI container runtime", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct Global {
    /// Write more to the log
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Write the log to this file (default: standard error)
    #[arg(long)]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Directory of the containers' records
    #[arg(long)]
    root: Option<PathBuf>,
    /// Have systemd make cgroups; linux.cgroupsPath is slice:prefix:name then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes cgroups, as crun has it
    #[arg(long, value_enum, default_value = "cgroupfs", hide = true)]
    cgroup_manager: CgroupManager,
    /// Whether the caller is an ordinary user
    #[arg(long, value_enum, default_value = "auto")]
    rootless: Rootless,
    /// Program for checkpoints (default: criu on PATH)
    #[arg(long, hide = true)]
    pub(crate) criu: Option<PathBuf>,
}

impl Global {
    /// A directory that was named must be there; the default one is made when it is needed.
    pub(crate) fn check_root(&self) -> anyhow::Result<()> {
        match &self.root {
            Some(root) if !root.is_dir() => anyhow::bail!("no directory of records at {}", root.display()),
            _ => Ok(()),
        }
    }

    /// The records: an ordinary user's are in their own runtime directory.
    pub(crate) fn store(&self) -> Store {
        let default = || match self.runtime_directory() {
            Some(directory) if self.rootless() => directory.join("hull-runtime"),
            _ => DEFAULT_ROOT.into(),
        };
        Store::new(self.root.clone().unwrap_or_else(default))
    }

    /// Whether the caller has no rights on the machine's cgroups.
    pub(crate) fn rootless(&self) -> bool {
        match self.rootless {
            Rootless::True => true,
            Rootless::False => false,
            Rootless::Auto => !rustix::process::geteuid().is_root(),
        }
    }

    /// Whether containers have cgroups of their own at all.
    pub(crate) fn without_cgroups(&self) -> bool {
        self.cgroup_manager == CgroupManager::Disabled
    }

    /// The service manager that makes cgroups, if one does.
    pub(crate) fn manager(&self) -> anyhow::Result<Option<Manager>> {
        if !self.systemd_cgroup && self.cgroup_manager != CgroupManager::Systemd {
            return Ok(None);
        }
        if rustix::process::geteuid().is_root() {
            return Ok(Some(Manager::System));
        }
        let directory = self.runtime_directory();
        let directory =
            directory.context("--systemd-cgroup needs XDG_RUNTIME_DIR, to find the user's systemd")?;
        Ok(Some(Manager::User(directory)))
    }

    fn runtime_directory(&self) -> Option<PathBuf> {
        std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()).map(PathBuf::from)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rootless {
    True,
    False,
    Auto,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListFormat {
    Table,
    Json,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a container, to be started later
    Create(Create),
    /// Create and start a container
    Run(Run),
    /// Start a created container
    Start(Id),
    /// Run another process in a container
    Exec(Box<Exec>),
    /// Print a container's state
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Delete a container
    Delete(Delete),
    /// Stop all processes of a container
    Pause(Id),
    /// Let the processes of a paused container go on
    Resume(Id),
    /// List containers
    List(List),
    /// Show the processes of a container
    Ps(Ps),
    /// Show a container's resource use and out-of-memory events
    Events(Events),
    /// Change a container's limits
    Update(Box<Update>),
    /// Write a new configuration
    Spec(SpecArgs),
    /// Print what this runtime does
    Features,
    /// Write a container's processes into images, with criu
    Checkpoint(Box<Checkpoint>),
    /// Make a container from such images
    Restore(Box<Restore>),
}

#[derive(Args)]
pub(crate) struct Id {
    /// Container id
    pub(crate) id: String,
}

#[derive(Args)]
pub(crate) struct Create {
    /// Container id
    pub(crate) id: String,
    /// Bundle directory (default: the current one)
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// The configuration's name (default: config.json of the bundle)
    #[arg(short = 'f', long)]
    pub(crate) config: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Unix socket that receives a pidfd of the first process
    #[arg(long)]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File to write the first process's pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// Do not use pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Stay in the session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many further descriptors to the container
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Ignored: the process is always reaped by its parent
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
}

#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Do not wait for the container's end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Keep the container's record and cgroup after its end
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Args)]
pub(crate) struct Exec {
    /// Container id
    pub(crate) id: String,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long)]
    pub(crate) cwd: Option<PathBuf>,
    /// Environment variable, NAME=VALUE
    #[arg(short, long)]
    pub(crate) env: Vec<String>,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// User, `UID[:GID]`
    #[arg(short, long)]
    pub(crate) user: Option<String>,
    /// Additional groups
    #[arg(short = 'g', long)]
    pub(crate) additional_gids: Vec<u32>,
    /// File with the process as JSON
    #[arg(short, long)]
    pub(crate) process: Option<PathBuf>,
    /// Do not wait for the process's end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the process's pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long)]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile
    #[arg(long)]
    pub(crate) apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Additional capability
    #[arg(short, long)]
    pub(crate) cap: Vec<String>,
    /// Pass this many further descriptors to the process
    #[arg(long, default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Cgroup below the container's to run in, with v1 as `controller,…:path`
    #[arg(long)]
    pub(crate) cgroup: Vec<String>,
    /// Unix socket that receives a pidfd of the process
    #[arg(long)]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Exec even if the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Ignored: the process is always reaped by its parent
    #[arg(long, hide = true)]
    pub(crate) no_subreaper: bool,
}

#[derive(Args)]
pub(crate) struct Kill {
    /// Container id
    pub(crate) id: String,
    /// Signal name or number
    #[arg(default_value = "SIGTERM")]
    pub(crate) signal: String,
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct Delete {
    /// Container id
    pub(crate) id: String,
    /// Kill the container if it runs; a missing one is fine
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct List {
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
    /// Ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Args)]
pub(crate) struct Ps {
    /// Container id
    pub(crate) id: String,
    /// Output format
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: ListFormat,
    /// Options of ps (default: -ef)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Events {
    /// Container id
    pub(crate) id: String,
    /// Time between two statistics
    #[arg(long, default_value = "5s")]
    pub(crate) interval: String,
    /// Print statistics once
    #[arg(long)]
    pub(crate) stats: bool,
}

#[derive(Args)]
pub(crate) struct Update {
    /// Container id
    pub(crate) id: String,
    /// File with resources as JSON, - for standard input
    #[arg(short, long)]
    pub(crate) resources: Option<PathBuf>,
    /// Relative block I/O weight
    #[arg(long)]
    pub(crate) blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)]
    pub(crate) cpu_period: Option<u64>,
    /// CPU quota in microseconds per period
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU burst in microseconds
    #[arg(long)]
    pub(crate) cpu_burst: Option<u64>,
    /// Relative CPU weight
    #[arg(long)]
    pub(crate) cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long)]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Real-time run time in microseconds
    #[arg(long)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    pub(crate) cpuset_mems: Option<String>,
    /// Idle scheduling
    #[arg(long)]
    pub(crate) cpu_idle: Option<i64>,
    /// Memory limit in bytes
    #[arg(short, long, allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory reservation in bytes
    #[arg(long)]
    pub(crate) memory_reservation: Option<String>,
    /// Limit of memory and swap in bytes, -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Most tasks
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Share of the third level cache, as a line of resctrl's schemata
    #[arg(long)]
    pub(crate) l3_cache_schema: Option<String>,
    /// Share of the memory bandwidth, as a line of resctrl's schemata
    #[arg(long)]
    pub(crate) mem_bw_schema: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, hide = true)]
    kernel_memory_tcp: Option<String>,
}

/// What checkpoint and restore have in common.
#[derive(Args)]
pub(crate) struct Criu {
    /// Directory of the images
    #[arg(long, default_value = "checkpoint")]
    pub(crate) image_path: PathBuf,
    /// Directory of criu's logs (default: that of the images)
    #[arg(long)]
    pub(crate) work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Allow unix sockets connected to the outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a controlling terminal from outside
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Allow file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// Transfer memory pages on demand
    #[arg(long)]
    pub(crate) lazy_pages: bool,
    /// How cgroups are treated
    #[arg(long, value_enum, default_value = "soft")]
    pub(crate) manage_cgroups_mode: CgroupMode,
    /// Kind of namespace whose content is left out
    #[arg(long)]
    pub(crate) empty_ns: Vec<String>,
    /// Remove from parent images what these have
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// Give files that are open but removed a name again
    #[arg(long)]
    pub(crate) link_remap: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupMode {
    Soft,
    Full,
    Strict,
    Ignore,
}

#[derive(Args)]
pub(crate) struct Checkpoint {
    /// Container id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// Images of an earlier pre-dump, relative to these
    #[arg(long)]
    pub(crate) parent_path: Option<String>,
    /// Leave the container running
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Leave out TCP connections being opened
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Descriptor that gets a zero byte when lazy pages can be asked for
    #[arg(long)]
    pub(crate) status_fd: Option<i32>,
    /// ADDRESS:PORT of a server for pages
    #[arg(long)]
    pub(crate) page_server: Option<String>,
    /// Write memory only, the container runs on
    #[arg(long)]
    pub(crate) pre_dump: bool,
}

#[derive(Args)]
pub(crate) struct Restore {
    /// Container id
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// Bundle directory (default: the current one)
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
    /// Do not wait for the container's end
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the first process's pid to
    #[arg(long)]
    pub(crate) pid_file: Option<PathBuf>,
    /// TYPE:LABEL for the processes instead of what they had
    #[arg(long)]
    pub(crate) lsm_profile: Option<String>,
    /// SELinux context of mounts instead of what they had
    #[arg(long)]
    pub(crate) lsm_mount_context: Option<String>,
    /// Ignored: the process is always reaped by its parent
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Ignored: criu decides
    #[arg(long, hide = true)]
    no_pivot: bool,
}

#[derive(Args)]
pub(crate) struct SpecArgs {
    /// Directory to write config.json to (default: the current one)
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// For a container of an ordinary user
    #[arg(long)]
    pub(crate) rootless: bool,
}
