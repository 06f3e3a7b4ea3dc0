//! The command line, compatible with runc's.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Where records are, unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/hull-runtime";

#[derive(Parser)]
#[command(name = "hull-runtime", version, about = "OCI container runtime", disable_help_subcommand = true)]
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
    /// Use systemd for cgroups (not implemented)
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Ignored; rootless operation is detected
    #[arg(long)]
    #[allow(dead_code)]
    rootless: Option<String>,
}

impl Global {
    pub(crate) fn store(&self) -> hull_oci::container::Store {
        hull_oci::container::Store::new(self.root.clone().unwrap_or_else(|| DEFAULT_ROOT.into()))
    }
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
    /// Checkpoint a container (not implemented)
    Checkpoint(Rest),
    /// Restore a container (not implemented)
    Restore(Rest),
}

#[derive(Args)]
pub(crate) struct Id {
    /// Container id
    pub(crate) id: String,
}

#[derive(Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<String>,
}

#[derive(Args)]
pub(crate) struct Create {
    /// Container id
    pub(crate) id: String,
    /// Bundle directory (default: the current one)
    #[arg(short, long)]
    pub(crate) bundle: Option<PathBuf>,
    /// Unix socket that receives the terminal's master
    #[arg(long)]
    pub(crate) console_socket: Option<PathBuf>,
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
    /// Cgroup below the container's to run in (not implemented)
    #[arg(long)]
    pub(crate) cgroup: Vec<String>,
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
