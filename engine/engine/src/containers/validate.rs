//! Checks of a create or update request, in docker's words, and the defaults dockerd fills in.

use hull_docker_api::{ContainerConfig, HealthConfig, HostConfig, RestartPolicy, nat};

use crate::{Config, Error, Result};

/// Smallest memory limit docker takes, bytes.
const MINIMUM_MEMORY: i64 = 6 * 1024 * 1024;

/// Paths under /proc and /sys that a container does not see (moby `oci/defaults.go`).
pub(crate) const MASKED_PATHS: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Another masked path of newer engines: power readings leak what neighbours do (CVE-2023-… powercap).
pub(crate) const MASKED_POWERCAP: &str = "/sys/devices/virtual/powercap";

/// Paths under /proc that a container cannot write.
pub(crate) const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Checks the portable part of a request.
pub(crate) fn config(config: &ContainerConfig) -> Result<()> {
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if !config.stop_signal.is_empty() {
        super::signal::parse(&config.stop_signal)?;
    }
    for variable in config.env.iter().flatten() {
        if variable.is_empty() || variable.starts_with('=') || variable.contains('\0') {
            return Err(Error::invalid(format!("invalid environment variable: {variable}")));
        }
    }
    if let Some(health) = &config.healthcheck {
        health_config(health)?;
    }
    config.exposed_ports.keys().try_for_each(|port| port_spec(port))
}

fn health_config(health: &HealthConfig) -> Result<()> {
    let millisecond = 1_000_000;
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < millisecond {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    match health.test.first().map(String::as_str) {
        None | Some("" | "NONE" | "CMD" | "CMD-SHELL") => Ok(()),
        Some(other) => Err(Error::invalid(format!("Unknown healthcheck type '{other}'"))),
    }
}

fn port_spec(port: &str) -> Result<()> {
    let (number, proto) = nat::split_proto(port);
    if nat::parse_range(number).is_none() || !matches!(proto, "tcp" | "udp" | "sctp") {
        return Err(Error::invalid(format!("invalid port specification: \"{port}\"")));
    }
    Ok(())
}

/// Checks the host part of a request.
pub(crate) fn host(host: &HostConfig, engine: &Config) -> Result<()> {
    restart_policy(&host.restart_policy)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    for (port, bindings) in host.port_bindings.iter().flatten() {
        port_spec(port)?;
        for binding in bindings.iter().flatten() {
            if !binding.host_port.is_empty() && nat::parse_range(&binding.host_port).is_none() {
                return Err(Error::invalid(format!("invalid port specification: \"{}\"", binding.host_port)));
            }
        }
    }
    for entry in host.extra_hosts.iter().flatten() {
        if !entry.contains([':', '=']) {
            return Err(Error::invalid(format!("bad format for add-host: \"{entry}\"")));
        }
    }
    if host.oom_score_adj < -1000 || host.oom_score_adj > 1000 {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    modes(host)?;
    resources(host)?;
    unsupported(host, engine)?;
    log_driver(host)
}

pub(crate) fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    let fail = |text: &str| Err(Error::invalid(format!("invalid restart policy: {text}")));
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count == 0 => Ok(()),
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count < 0 => {
            fail("maximum retry count can only be used with 'on-failure' and cannot be negative")
        }
        "" | "no" | "always" | "unless-stopped" => {
            fail("maximum retry count can only be used with 'on-failure'")
        }
        "on-failure" if policy.maximum_retry_count < 0 => fail("maximum retry count cannot be negative"),
        "on-failure" => Ok(()),
        other => fail(&format!(
            "unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )),
    }
}

fn modes(host: &HostConfig) -> Result<()> {
    let shared = |mode: &str| mode.strip_prefix("container:").is_none_or(|name| !name.is_empty());
    let check = |ok: bool, text: String| if ok { Ok(()) } else { Err(Error::invalid(text)) };
    let pid = host.pid_mode.as_str();
    check(
        matches!(pid, "" | "host" | "private") || (pid.starts_with("container:") && shared(pid)),
        format!("invalid PID mode: {pid}"),
    )?;
    let ipc = host.ipc_mode.as_str();
    check(
        matches!(ipc, "" | "private" | "shareable" | "host" | "none")
            || (ipc.starts_with("container:") && shared(ipc)),
        format!("invalid IPC mode: {ipc}"),
    )?;
    let uts = host.uts_mode.as_str();
    check(matches!(uts, "" | "host"), format!("invalid UTS mode: {uts}"))?;
    let cgroup = host.cgroupns_mode.as_str();
    check(matches!(cgroup, "" | "host" | "private"), format!("invalid cgroup namespace mode: {cgroup}"))?;
    check(
        matches!(host.userns_mode.as_str(), "" | "host"),
        format!("invalid USER mode: {}", host.userns_mode),
    )?;
    let net = host.network_mode.as_str();
    check(
        !net.starts_with("container:") || shared(net),
        "Invalid network mode: invalid container format container:<name|id>".to_owned(),
    )?;
    let published =
        host.port_bindings.as_ref().is_some_and(|ports| !ports.is_empty()) || host.publish_all_ports;
    check(
        !(net.starts_with("container:") && published),
        "conflicting options: port publishing and the container type network mode".to_owned(),
    )?;
    let links = host.links.as_ref().is_some_and(|links| !links.is_empty());
    check(
        !(net.starts_with("container:") && links),
        "conflicting options: container type network can't be used with links. This would result in undefined \
         behavior"
            .to_owned(),
    )
}

/// Checks limits; also for an update.
pub(crate) fn resources(host: &HostConfig) -> Result<()> {
    let fail = |text: &str| Err(Error::invalid(text));
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as i64;
    if host.memory != 0 && host.memory < MINIMUM_MEMORY {
        return fail("Minimum memory limit allowed is 6MB");
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return fail("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.memory == 0 && host.memory_swap > 0 {
        return fail("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let Some(swappiness) = host.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if host.memory_reservation != 0 && host.memory_reservation < MINIMUM_MEMORY {
        return fail("Minimum memory reservation allowed is 6MB");
    }
    if host.memory > 0 && host.memory_reservation > 0 && host.memory < host.memory_reservation {
        return fail("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.nano_cpus > 0 && host.cpu_period > 0 {
        return fail("Conflicting options: Nano CPUs and CPU Period cannot both be set");
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return fail("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
    }
    if host.nano_cpus < 0 || host.nano_cpus > cpus * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.cpu_period != 0 && !(1000..=1_000_000).contains(&host.cpu_period) {
        return fail("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1000 {
        return fail("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return fail("Range of blkio weight is from 10 to 1000");
    }
    cpuset(&host.cpuset_cpus, "cpus", cpus)
}

fn cpuset(list: &str, what: &str, cpus: i64) -> Result<()> {
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<i64>().ok();
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last && last < cpus => {}
            (Some(first), Some(last)) if first <= last => {
                return Err(Error::invalid(format!(
                    "Requested CPUs are not available - requested {list}, available: 0-{}",
                    cpus - 1
                )));
            }
            _ => return Err(Error::invalid(format!("Invalid value {list} for cpuset {what}"))),
        }
    }
    Ok(())
}

/// What docker knows and Hull does not do yet.
fn unsupported(host: &HostConfig, engine: &Config) -> Result<()> {
    if host.device_requests.as_ref().is_some_and(|requests| !requests.is_empty()) {
        return Err(Error::invalid("could not select device driver \"\" with capabilities: [[gpu]]"));
    }
    if host.storage_opt.contains_key("size") {
        return Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
        ));
    }
    if host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        return Err(Error::not_implemented("real-time CPU limits"));
    }
    let runtime = host.runtime.as_str();
    if !matches!(runtime, "" | "hull" | "runc" | "io.containerd.runc.v2")
        && !engine.runtimes.contains_key(runtime)
    {
        return Err(Error::invalid(format!("unknown or invalid runtime name: {runtime}")));
    }
    Ok(())
}

/// Log drivers Hull has, and their options.
fn log_driver(host: &HostConfig) -> Result<()> {
    let known: &[&str] = match host.log_config.kind.as_str() {
        "" | "json-file" => &[
            "max-size",
            "max-file",
            "compress",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
            "mode",
            "max-buffer-size",
            "cache-disabled",
        ],
        "none" => return Ok(()),
        other => {
            return Err(Error::invalid(format!("logger: no log driver named '{other}' is registered")));
        }
    };
    for key in host.log_config.config.iter().flatten().map(|(key, _)| key) {
        if !known.contains(&key.as_str()) {
            return Err(Error::invalid(format!("unknown log opt '{key}' for json-file log driver")));
        }
    }
    super::logs::rotation(&host.log_config).map(|_| ())
}

/// On cgroup v2 a privileged container can manage the cgroups below its own; on v1 it needs those of the machine.
fn default_cgroup_namespace(privileged: bool, unified: bool) -> &'static str {
    if privileged && !unified { "host" } else { "private" }
}

/// Whether this machine has cgroup v2 alone.
fn unified_cgroups() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Fills in what dockerd fills in.
pub(crate) fn fill_host(host: &mut HostConfig, engine: &Config) {
    let default = |value: &mut String, text: &str| {
        if value.is_empty() {
            text.clone_into(value);
        }
    };
    default(&mut host.network_mode, "bridge");
    if host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    default(&mut host.ipc_mode, "private");
    default(&mut host.cgroupns_mode, default_cgroup_namespace(host.privileged, unified_cgroups()));
    default(&mut host.restart_policy.name, "no");
    default(&mut host.runtime, &engine.default_runtime);
    if host.log_config.kind.is_empty() {
        host.log_config.kind.clone_from(&engine.log_driver);
        let options = host.log_config.config.get_or_insert_default();
        for (key, value) in &engine.log_options {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    host.log_config.config.get_or_insert_default();
    if host.shm_size == 0 {
        host.shm_size = engine.default_shm_size;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.cpu_shares > 0 {
        host.cpu_shares = host.cpu_shares.clamp(2, 262_144);
    }
    fill_paths(host);
}

/// `systempaths=unconfined` and `--privileged` show everything; an explicit list stays.
fn fill_paths(host: &mut HostConfig) {
    let options = host.security_opt.get_or_insert_default();
    let unconfined = options.iter().any(|option| option == "systempaths=unconfined");
    options.retain(|option| option != "systempaths=unconfined");
    if options.is_empty() {
        host.security_opt = None;
    }
    if unconfined || host.privileged {
        host.masked_paths.get_or_insert_default();
        host.readonly_paths.get_or_insert_default();
        return;
    }
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
    host.masked_paths.get_or_insert_with(|| {
        let mut masked = list(&MASKED_PATHS);
        masked.push(MASKED_POWERCAP.to_owned());
        masked
    });
    host.readonly_paths.get_or_insert_with(|| list(&READONLY_PATHS));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Config {
        Config::new("/d".into(), "/e".into(), "/r".into())
    }

    fn message(result: Result<()>) -> String {
        result.err().map(|error| error.message().to_owned()).unwrap_or_default()
    }

    #[test]
    fn limits_are_refused_in_dockers_words() {
        let check = |edit: fn(&mut HostConfig)| {
            let mut config = HostConfig::default();
            edit(&mut config);
            message(host(&config, &engine()))
        };
        assert_eq!(check(|_| {}), "");
        assert_eq!(check(|h| h.memory = 1024), "Minimum memory limit allowed is 6MB");
        assert!(check(|h| h.nano_cpus = 1_000_000_000_000).starts_with("range of CPUs is from 0.01 to"));
        assert!(check(|h| h.memory_swap = 99_999_999).starts_with("You should always set the Memory limit"));
        assert!(check(|h| h.cpuset_cpus = "0-999".into()).starts_with("Requested CPUs are not available"));
        assert!(check(|h| h.restart_policy.name = "maybe".into()).contains("unknown policy 'maybe'"));
        assert!(check(|h| h.log_config.kind = "splunk".into()).contains("no log driver named 'splunk'"));
        assert_eq!(
            check(|h| h.network_mode = "container:".into()),
            "Invalid network mode: invalid container format container:<name|id>"
        );
        assert!(
            check(|h| {
                h.auto_remove = true;
                h.restart_policy.name = "always".into();
            })
            .contains("AutoRemove")
        );
    }

    #[test]
    fn defaults_are_dockerds() {
        let mut host = HostConfig { memory: 100 << 20, ..HostConfig::default() };
        fill_host(&mut host, &engine());
        assert_eq!(host.network_mode, "bridge");
        assert_eq!(host.memory_swap, 200 << 20);
        assert_eq!(host.shm_size, 64 << 20);
        assert!(
            host.masked_paths.as_ref().is_some_and(|paths| paths.iter().any(|path| path == "/proc/kcore"))
        );
        let mut open = HostConfig {
            security_opt: Some(vec!["systempaths=unconfined".to_owned()]),
            ..HostConfig::default()
        };
        fill_host(&mut open, &engine());
        assert_eq!(open.masked_paths, Some(Vec::new()));
        assert_eq!(open.security_opt, None);
    }

    #[test]
    fn the_portable_part_is_checked() {
        let bad = ContainerConfig { working_dir: "srv".into(), ..ContainerConfig::default() };
        assert!(message(config(&bad)).contains("needs to be an absolute path"));
        let bad = ContainerConfig { stop_signal: "SIGFOO".into(), ..ContainerConfig::default() };
        assert_eq!(message(config(&bad)), "invalid signal: SIGFOO");
        let bad = ContainerConfig { env: Some(vec!["=x".into()]), ..ContainerConfig::default() };
        assert_eq!(message(config(&bad)), "invalid environment variable: =x");
    }
}
