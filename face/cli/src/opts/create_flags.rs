//! The flags `run` and `create` share.

use crate::flags::{BOOL, BYTES, DECIMAL, DURATION, Flag, INT, LIST, MAP, STRING, UINT, UINT16, named};
use crate::opts;

/// See the module.
pub(crate) const CREATE: [Flag; 102] = [
    Flag::new(LIST, "add-host", "Add a custom host-to-IP mapping (host:ip)").check(opts::extra_host),
    Flag::new(
        MAP,
        "annotation",
        "Add an annotation to the container (passed through to the OCI runtime) (default map[])",
    ),
    Flag::new(LIST, "attach", "Attach to STDIN, STDOUT or STDERR").short('a').check(opts::attach),
    Flag::new(
        UINT16,
        "blkio-weight",
        "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)",
    ),
    Flag::new(LIST, "blkio-weight-device", "Block IO weight (relative device weight) (default [])")
        .check(opts::device::check_weight),
    Flag::new(LIST, "cap-add", "Add Linux capabilities"),
    Flag::new(LIST, "cap-drop", "Drop Linux capabilities"),
    Flag::new(STRING, "cgroup-parent", "Optional parent cgroup for the container"),
    Flag::new(
        STRING,
        "cgroupns",
        "Cgroup namespace to use (host|private)\n'host':    Run the container in the Docker host's cgroup namespace\n'private': Run the container in its own private cgroup namespace\n'':        Use the cgroup namespace as configured by the\n           default-cgroupns-mode option on the daemon (default)",
    ),
    Flag::new(STRING, "cidfile", "Write the container ID to the file"),
    Flag::new(INT, "cpu-count", "CPU count (Windows only)"),
    Flag::new(INT, "cpu-percent", "CPU percent (Windows only)"),
    Flag::new(INT, "cpu-period", "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag::new(INT, "cpu-quota", "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag::new(INT, "cpu-rt-period", "Limit CPU real-time period in microseconds"),
    Flag::new(INT, "cpu-rt-runtime", "Limit CPU real-time runtime in microseconds"),
    Flag::new(INT, "cpu-shares", "CPU shares (relative weight)").short('c'),
    Flag::new(DECIMAL, "cpus", "Number of CPUs"),
    Flag::new(STRING, "cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::new(STRING, "cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::new(LIST, "device", "Add a host device to the container"),
    Flag::new(LIST, "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
        .check(opts::device::cgroup_rule),
    Flag::new(LIST, "device-read-bps", "Limit read rate (bytes per second) from a device (default [])")
        .check(opts::device::check_bps),
    Flag::new(LIST, "device-read-iops", "Limit read rate (IO per second) from a device (default [])")
        .check(opts::device::check_iops),
    Flag::new(LIST, "device-write-bps", "Limit write rate (bytes per second) to a device (default [])")
        .check(opts::device::check_bps),
    Flag::new(LIST, "device-write-iops", "Limit write rate (IO per second) to a device (default [])")
        .check(opts::device::check_iops),
    Flag::new(LIST, "dns", "Set custom DNS servers").check(opts::ip_address),
    Flag::new(LIST, "dns-option", "Set DNS options"),
    Flag::new(LIST, "dns-search", "Set custom DNS search domains").check(opts::domain),
    Flag::new(STRING, "domainname", "Container NIS domain name"),
    Flag::new(STRING, "entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    Flag::new(LIST, "env", "Set environment variables").short('e').check(opts::env_variable),
    Flag::new(LIST, "env-file", "Read in a file of environment variables"),
    Flag::new(LIST, "expose", "Expose a port or a range of ports"),
    Flag::new(
        named(LIST, "gpu-request"),
        "gpus",
        "GPU devices to add to the container ('all' to pass all GPUs)",
    )
    .check(opts::device::check_gpus),
    Flag::new(LIST, "group-add", "Add additional groups to join"),
    Flag::new(STRING, "health-cmd", "Command to run to check health"),
    Flag::new(DURATION, "health-interval", "Time between running the check (ms|s|m|h) (default 0s)"),
    Flag::new(INT, "health-retries", "Consecutive failures needed to report unhealthy"),
    Flag::new(
        DURATION,
        "health-start-interval",
        "Time between running the check during the start period (ms|s|m|h) (default 0s)",
    ),
    Flag::new(
        DURATION,
        "health-start-period",
        "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)",
    ),
    Flag::new(DURATION, "health-timeout", "Maximum time to allow one check to run (ms|s|m|h) (default 0s)"),
    Flag::new(STRING, "hostname", "Container host name").short('h'),
    Flag::switch("init", "Run an init inside the container that forwards signals and reaps processes"),
    Flag::switch("interactive", "Keep STDIN open even if not attached").short('i'),
    Flag::new(BYTES, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)"),
    Flag::new(UINT, "io-maxiops", "Maximum IOps limit for the system drive (Windows only)"),
    Flag::new(STRING, "ip", "IPv4 address (e.g., 172.30.100.104)"),
    Flag::new(STRING, "ip6", "IPv6 address (e.g., 2001:db8::33)"),
    Flag::new(STRING, "ipc", "IPC mode to use"),
    Flag::new(STRING, "isolation", "Container isolation technology"),
    Flag::new(LIST, "label", "Set meta data on a container").short('l').check(opts::label),
    Flag::new(LIST, "label-file", "Read in a line delimited file of labels"),
    Flag::new(LIST, "link", "Add link to another container").check(opts::link),
    Flag::new(LIST, "link-local-ip", "Container IPv4/IPv6 link-local addresses"),
    Flag::new(STRING, "log-driver", "Logging driver for the container"),
    Flag::new(LIST, "log-opt", "Log driver options"),
    Flag::new(STRING, "mac-address", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag::new(BYTES, "memory", "Memory limit").short('m'),
    Flag::new(BYTES, "memory-reservation", "Memory soft limit"),
    Flag::new(BYTES, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    Flag::new(INT, "memory-swappiness", "Tune container memory swappiness (0 to 100) (default -1)")
        .default("-1"),
    Flag::new(named(LIST, "mount"), "mount", "Attach a filesystem mount to the container")
        .check(opts::mount::check),
    Flag::new(STRING, "name", "Assign a name to the container"),
    Flag::new(named(LIST, "network"), "network", "Connect a container to a network")
        .check(opts::network::check),
    Flag::new(LIST, "network-alias", "Add network-scoped alias for the container"),
    Flag::switch("no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    Flag::switch("oom-kill-disable", "Disable OOM Killer"),
    Flag::new(INT, "oom-score-adj", "Tune host's OOM preferences (-1000 to 1000)"),
    Flag::new(STRING, "pid", "PID namespace to use"),
    Flag::new(INT, "pids-limit", "Tune container pids limit (set -1 for unlimited)"),
    Flag::new(STRING, "platform", "Set platform if server is multi-platform capable"),
    Flag::switch("privileged", "Give extended privileges to this container"),
    Flag::new(LIST, "publish", "Publish a container's port(s) to the host").short('p'),
    Flag::switch("publish-all", "Publish all exposed ports to random ports").short('P'),
    Flag::switch("quiet", "Suppress the pull output").short('q'),
    Flag::switch("read-only", "Mount the container's root filesystem as read only"),
    Flag::new(STRING, "restart", "Restart policy to apply when a container exits (default \"no\")")
        .default("no"),
    Flag::switch(
        "rm",
        "Automatically remove the container and its associated anonymous volumes when it exits",
    ),
    Flag::new(STRING, "runtime", "Runtime to use for this container"),
    Flag::new(LIST, "security-opt", "Security Options"),
    Flag::new(BYTES, "shm-size", "Size of /dev/shm"),
    Flag::new(STRING, "stop-signal", "Signal to stop the container"),
    Flag::new(INT, "stop-timeout", "Timeout (in seconds) to stop a container"),
    Flag::new(LIST, "storage-opt", "Storage driver options for the container"),
    Flag::new(MAP, "sysctl", "Sysctl options (default map[])").check(opts::sysctl),
    Flag::new(LIST, "tmpfs", "Mount a tmpfs directory"),
    Flag::switch("tty", "Allocate a pseudo-TTY").short('t'),
    Flag::new(named(LIST, "ulimit"), "ulimit", "Ulimit options (default [])").check(opts::check_ulimit),
    Flag::switch("use-api-socket", "Bind mount Docker API socket and required auth"),
    Flag::new(STRING, "user", "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
    Flag::new(STRING, "userns", "User namespace to use"),
    Flag::new(STRING, "uts", "UTS namespace to use"),
    Flag::new(LIST, "volume", "Bind mount a volume").short('v'),
    Flag::new(STRING, "volume-driver", "Optional volume driver for the container"),
    Flag::new(LIST, "volumes-from", "Mount volumes from the specified container(s)"),
    Flag::new(STRING, "workdir", "Working directory inside the container").short('w'),
    Flag::alias(LIST, "net", "network").check(opts::network::check),
    Flag::alias(LIST, "net-alias", "network-alias"),
    Flag::alias(LIST, "dns-opt", "dns-option"),
    Flag::retired(BYTES, "kernel-memory"),
    Flag::retired(BOOL, "disable-content-trust"),
];

/// Flags of two tables as one.
pub(crate) const fn joined<const A: usize, const B: usize, const N: usize>(
    a: [Flag; A],
    b: [Flag; B],
) -> [Flag; N] {
    let mut all = [a[0]; N];
    let mut index = 0;
    while index < N {
        all[index] = if index < A { a[index] } else { b[index - A] };
        index += 1;
    }
    all
}
