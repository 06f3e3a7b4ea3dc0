//! The flags of `run` and `create` as a request.

use std::collections::{BTreeMap, BTreeSet};

use hull_docker_api::{
    ContainerConfig, ContainerCreateRequest, Empty, HealthConfig, HostConfig, LogConfig, NetworkingConfig,
    PortMap, PortSet, StrSlice, nat,
};

use super::{Checked, device, env, key_values, mount, network, publish};
use crate::error::Result;
use crate::flags::Matches;

/// The request of a `run` or `create` whose first argument is the image.
pub(crate) fn request(m: &Matches) -> Result<ContainerCreateRequest> {
    let (exposed, published) = ports(m)?;
    let (binds, volumes) = volumes(m)?;
    let (network_mode, endpoints) = network::endpoints(m)?;
    let mut config = config(m, exposed, volumes)?;
    let mut host = host_config(m, binds, published)?;
    host.network_mode = network_mode;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err("conflicting options: cannot specify both --restart and --rm".into());
    }
    config.stdin_once = config.open_stdin && config.attach_stdin;
    Ok(ContainerCreateRequest {
        config,
        host_config: Some(host),
        networking_config: Some(NetworkingConfig { endpoints_config: Some(endpoints) }),
    })
}

fn config(m: &Matches, exposed: PortSet, volumes: BTreeMap<String, Empty>) -> Result<ContainerConfig> {
    let attach = m.list("attach");
    let attached = |stream: &str| attach.iter().any(|given| given.eq_ignore_ascii_case(stream));
    let command = m.args.get(1..).unwrap_or_default().to_vec();
    let entrypoint = m.is_set("entrypoint").then(|| StrSlice(vec![m.text("entrypoint").to_owned()]));
    let labels = env::labels(&m.list("label-file"), &m.list("label"))?;
    Ok(ContainerConfig {
        hostname: m.text("hostname").to_owned(),
        domainname: m.text("domainname").to_owned(),
        user: m.text("user").to_owned(),
        attach_stdin: attached("stdin") || m.on("interactive"),
        attach_stdout: attach.is_empty() || attached("stdout"),
        attach_stderr: attach.is_empty() || attached("stderr"),
        exposed_ports: exposed,
        tty: m.on("tty"),
        open_stdin: m.on("interactive"),
        env: Some(env::variables(&m.list("env-file"), &m.list("env"))?)
            .filter(|variables| !variables.is_empty()),
        cmd: (!command.is_empty()).then_some(StrSlice(command)),
        healthcheck: health(m)?,
        image: m.args.first().cloned().unwrap_or_default(),
        volumes: Some(volumes),
        working_dir: m.text("workdir").to_owned(),
        entrypoint,
        labels: Some(key_values(&labels)),
        stop_signal: m.text("stop-signal").to_owned(),
        stop_timeout: m.is_set("stop-timeout").then(|| m.int("stop-timeout")),
        ..ContainerConfig::default()
    })
}

fn host_config(m: &Matches, binds: Vec<String>, published: PortMap) -> Result<HostConfig> {
    let modes = Modes::read(m)?;
    let (security_opt, unconfined_paths) = security_options(&m.list("security-opt"))?;
    let (devices, device_requests) = devices(m)?;
    let (cap_add, cap_drop) = capabilities(&m.list("cap-add"), &m.list("cap-drop"));
    let swappiness = m.int("memory-swappiness");
    if swappiness != -1 && !(0..=100).contains(&swappiness) {
        return Err(format!("invalid value: {swappiness}. Valid memory swappiness range is 0-100").into());
    }
    let list = |name: &str| Some(m.strings(name)).filter(|values| !values.is_empty());
    let throttles = |name: &str, parse: fn(&str) -> Checked<_>| {
        m.list(name).into_iter().map(parse).collect::<Checked<Vec<_>>>().map(Some)
    };
    Ok(HostConfig {
        binds: Some(binds).filter(|binds| !binds.is_empty()),
        container_id_file: m.text("cidfile").to_owned(),
        log_config: log_config(m)?,
        port_bindings: Some(published),
        restart_policy: super::restart_policy(m.text("restart"))?,
        auto_remove: m.on("rm"),
        volume_driver: m.text("volume-driver").to_owned(),
        volumes_from: list("volumes-from"),
        annotations: key_values(&m.list("annotation")),
        cap_add,
        cap_drop,
        cgroupns_mode: modes.cgroupns,
        dns: Some(m.strings("dns")),
        dns_options: Some(m.strings("dns-option")),
        dns_search: Some(m.strings("dns-search")),
        extra_hosts: Some(m.list("add-host").into_iter().map(super::extra_host_value).collect())
            .filter(|hosts: &Vec<String>| !hosts.is_empty()),
        group_add: list("group-add"),
        ipc_mode: m.text("ipc").to_owned(),
        links: list("link"),
        oom_score_adj: m.int("oom-score-adj"),
        pid_mode: modes.pid,
        privileged: m.on("privileged"),
        publish_all_ports: m.on("publish-all"),
        readonly_rootfs: m.on("read-only"),
        security_opt: Some(security_opt).filter(|options| !options.is_empty()),
        storage_opt: storage_options(m)?,
        tmpfs: m
            .list("tmpfs")
            .into_iter()
            .map(|text| text.split_once(':').unwrap_or((text, "")))
            .map(|(path, options)| (path.to_owned(), options.to_owned()))
            .collect(),
        uts_mode: modes.uts,
        userns_mode: modes.userns,
        shm_size: m.bytes("shm-size")?,
        sysctls: key_values(&m.list("sysctl")),
        runtime: m.text("runtime").to_owned(),
        isolation: m.text("isolation").to_owned(),
        cpu_shares: m.int("cpu-shares"),
        memory: m.bytes("memory")?,
        nano_cpus: super::nano_cpus(m.text("cpus"))?,
        cgroup_parent: m.text("cgroup-parent").to_owned(),
        blkio_weight: u16::try_from(m.int("blkio-weight")).unwrap_or_default(),
        blkio_weight_device: Some(
            m.list("blkio-weight-device").into_iter().map(device::weight).collect::<Checked<_>>()?,
        ),
        blkio_device_read_bps: throttles("device-read-bps", device::bps)?,
        blkio_device_write_bps: throttles("device-write-bps", device::bps)?,
        blkio_device_read_iops: throttles("device-read-iops", device::iops)?,
        blkio_device_write_iops: throttles("device-write-iops", device::iops)?,
        cpu_period: m.int("cpu-period"),
        cpu_quota: m.int("cpu-quota"),
        cpu_realtime_period: m.int("cpu-rt-period"),
        cpu_realtime_runtime: m.int("cpu-rt-runtime"),
        cpuset_cpus: m.text("cpuset-cpus").to_owned(),
        cpuset_mems: m.text("cpuset-mems").to_owned(),
        devices: Some(devices),
        device_cgroup_rules: list("device-cgroup-rule"),
        device_requests,
        memory_reservation: m.bytes("memory-reservation")?,
        memory_swap: m.bytes("memory-swap")?,
        memory_swappiness: Some(swappiness),
        oom_kill_disable: Some(m.on("oom-kill-disable")),
        pids_limit: Some(m.int("pids-limit")),
        ulimits: Some(ulimits(&m.list("ulimit"))?),
        cpu_count: m.int("cpu-count"),
        cpu_percent: m.int("cpu-percent"),
        io_maximum_iops: u64::try_from(m.int("io-maxiops")).unwrap_or_default(),
        io_maximum_bandwidth: u64::try_from(m.bytes("io-maxbandwidth")?).unwrap_or_default(),
        mounts: m.list("mount").into_iter().map(mount::parse).collect::<Checked<_>>()?,
        masked_paths: unconfined_paths.then(Vec::new),
        readonly_paths: unconfined_paths.then(Vec::new),
        init: m.is_set("init").then(|| m.on("init")),
        ..HostConfig::default()
    })
}

/// Limits by name; the last one of a name counts.
fn ulimits(values: &[&str]) -> Checked<Vec<hull_docker_api::Ulimit>> {
    let limits = values.iter().map(|value| super::ulimit(value)).collect::<Checked<Vec<_>>>()?;
    let by_name: BTreeMap<String, _> = limits.into_iter().map(|limit| (limit.name.clone(), limit)).collect();
    Ok(by_name.into_values().collect())
}

/// Capabilities to add and drop by their full names, sorted; `ALL` stands for every one, and adding wins.
fn capabilities(add: &[&str], drop: &[&str]) -> (Option<StrSlice>, Option<StrSlice>) {
    let names = |values: &[&str]| -> BTreeSet<String> {
        let full = |value: &&str| match value.trim().to_uppercase() {
            name if name == "ALL" || name.starts_with("CAP_") => name,
            name => format!("CAP_{name}"),
        };
        let names: BTreeSet<String> = values.iter().map(full).collect();
        if names.contains("ALL") { BTreeSet::from(["ALL".to_owned()]) } else { names }
    };
    let (add, drop) = (names(add), names(drop));
    let list = |names: Vec<String>| (!names.is_empty()).then_some(StrSlice(names));
    let drop = drop.difference(&add).cloned().collect();
    (list(add.into_iter().collect()), list(drop))
}

/// Namespace modes that the client checks.
struct Modes {
    pid: String,
    uts: String,
    userns: String,
    cgroupns: String,
}

impl Modes {
    fn read(m: &Matches) -> Result<Self> {
        let [pid, uts, userns, cgroupns] =
            ["pid", "uts", "userns", "cgroupns"].map(|name| m.text(name).to_owned());
        let container = pid.strip_prefix("container:").is_some_and(|name| !name.is_empty());
        if !matches!(pid.as_str(), "" | "host") && !container {
            return Err("--pid: invalid PID mode".into());
        }
        if !matches!(uts.as_str(), "" | "host") {
            return Err("--uts: invalid UTS mode".into());
        }
        if !matches!(userns.as_str(), "" | "host") {
            return Err("--userns: invalid USER mode".into());
        }
        if !matches!(cgroupns.as_str(), "" | "host" | "private") {
            return Err("--cgroupns: invalid CGROUP mode".into());
        }
        Ok(Self { pid, uts, userns, cgroupns })
    }
}

fn ports(m: &Matches) -> Result<(PortSet, PortMap)> {
    let specs = m.list("publish").into_iter().map(publish::short_form).collect::<Checked<Vec<_>>>()?;
    let (mut exposed, published) = nat::parse_port_specs(&specs).map_err(|error| error.to_string())?;
    publish::expose(&mut exposed, &m.list("expose"))?;
    Ok((exposed, published))
}

fn volumes(m: &Matches) -> Result<(Vec<String>, BTreeMap<String, Empty>)> {
    let (mut binds, mut anonymous) = (Vec::new(), BTreeMap::new());
    for value in m.list("volume") {
        match mount::volume_flag(value)? {
            mount::Volume::Anonymous(path) => {
                anonymous.insert(path, Empty {});
            }
            mount::Volume::Bind(bind) => binds.push(bind),
        }
    }
    Ok((binds, anonymous))
}

fn log_config(m: &Matches) -> Result<LogConfig> {
    let options = key_values(&m.list("log-opt"));
    let driver = m.text("log-driver");
    if driver == "none" && !options.is_empty() {
        return Err("invalid logging opts for driver none".into());
    }
    Ok(LogConfig { kind: driver.to_owned(), config: Some(options) })
}

fn storage_options(m: &Matches) -> Result<BTreeMap<String, String>> {
    let options = m.list("storage-opt");
    if options.iter().any(|option| !option.contains('=')) {
        return Err("invalid storage option".into());
    }
    Ok(key_values(&options))
}

fn devices(
    m: &Matches,
) -> Result<(Vec<hull_docker_api::DeviceMapping>, Option<Vec<hull_docker_api::DeviceRequest>>)> {
    let (mut devices, mut cdi) = (Vec::new(), Vec::new());
    for value in m.list("device") {
        match device::mapping(value)? {
            Some(mapping) => devices.push(mapping),
            None => cdi.push(value.to_owned()),
        }
    }
    let mut requests = m.list("gpus").into_iter().map(device::gpus).collect::<Checked<Vec<_>>>()?;
    if !cdi.is_empty() {
        requests.push(hull_docker_api::DeviceRequest {
            driver: "cdi".to_owned(),
            device_ids: Some(cdi),
            ..Default::default()
        });
    }
    Ok((devices, Some(requests).filter(|requests| !requests.is_empty())))
}

/// Security options with the profile files read in, and whether the system paths are unconfined.
fn security_options(values: &[&str]) -> Result<(Vec<String>, bool)> {
    let (mut options, mut unconfined) = (Vec::new(), false);
    for value in values {
        let (key, setting) = match value.split_once('=').or_else(|| value.split_once(':')) {
            Some((key, setting)) => (key, setting),
            None => (*value, ""),
        };
        if setting.is_empty() && key != "no-new-privileges" {
            return Err(format!("Invalid --security-opt: {value:?}").into());
        }
        match (key, setting) {
            ("systempaths", "unconfined") => unconfined = true,
            ("seccomp", "builtin" | "unconfined") => options.push((*value).to_owned()),
            ("seccomp", file) => options.push(format!("seccomp={}", seccomp_profile(file)?)),
            _ => options.push((*value).to_owned()),
        }
    }
    Ok((options, unconfined))
}

fn seccomp_profile(file: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!("opening seccomp profile ({file}) failed: open {file}: {}", env::io_reason(&error))
    })?;
    let profile: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| format!("compacting json for seccomp profile ({file}) failed: {error}"))?;
    Ok(profile.to_string())
}

fn health(m: &Matches) -> Result<Option<HealthConfig>> {
    let mut durations = [0; 4];
    let names = ["health-interval", "health-timeout", "health-start-period", "health-start-interval"];
    for (slot, name) in durations.iter_mut().zip(names) {
        *slot = m.duration(name)?;
        if *slot < 0 {
            return Err(format!("--{name} cannot be negative").into());
        }
    }
    let (command, retries) = (m.text("health-cmd"), m.int("health-retries"));
    let given = !command.is_empty() || retries != 0 || durations.iter().any(|duration| *duration != 0);
    if m.on("no-healthcheck") {
        if given {
            return Err("--no-healthcheck conflicts with --health-* options".into());
        }
        return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() }));
    }
    if retries < 0 {
        return Err("--health-retries cannot be negative".into());
    }
    let [interval, timeout, start_period, start_interval] = durations;
    Ok(given.then(|| HealthConfig {
        test: match command {
            "" => Vec::new(),
            command => vec!["CMD-SHELL".to_owned(), command.to_owned()],
        },
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::container::run::COMMAND;

    fn parse(line: &str) -> Result<serde_json::Value> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let matches = Matches::parse(COMMAND.flags, false, &words).map_err(crate::error::Failure::new)?;
        Ok(serde_json::to_value(request(&matches)?)?)
    }

    fn fail(line: &str) -> String {
        parse(line).err().map(|failure| failure.message).unwrap_or_default()
    }

    /// What docker 28.2 sends for the same flags.
    #[test]
    fn requests_are_dockers() {
        let request = parse("busybox").unwrap();
        let expected: serde_json::Value = serde_json::from_str(include_str!("create_default.json")).unwrap();
        assert_eq!(request, expected);
        let request =
            parse("-it -m 1g --cpus 1.5 --cap-add net_admin --cap-drop ALL --ulimit nofile=1:2 a sh -c x")
                .unwrap();
        assert_eq!(request["Cmd"], serde_json::json!(["sh", "-c", "x"]));
        assert_eq!(
            (&request["Tty"], &request["OpenStdin"], &request["StdinOnce"]),
            (&true.into(), &true.into(), &true.into())
        );
        let host = &request["HostConfig"];
        assert_eq!((&host["Memory"], &host["NanoCpus"]), (&(1u64 << 30).into(), &1_500_000_000u64.into()));
        assert_eq!(
            (&host["CapAdd"], &host["CapDrop"]),
            (&serde_json::json!(["CAP_NET_ADMIN"]), &serde_json::json!(["ALL"]))
        );
    }

    #[test]
    fn networks_and_ports() {
        let request = parse("-p 8080:80 --expose 53/udp --network name=n,alias=x --network m a").unwrap();
        assert_eq!(request["ExposedPorts"], serde_json::json!({"53/udp": {}, "80/tcp": {}}));
        let host = &request["HostConfig"];
        assert_eq!(host["PortBindings"], serde_json::json!({"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}));
        assert_eq!(host["NetworkMode"], "n");
        let endpoints = &request["NetworkingConfig"]["EndpointsConfig"];
        assert_eq!(endpoints["n"]["Aliases"], serde_json::json!(["x"]));
        assert!(endpoints["m"].is_object());
        // One network without options is left to the engine, as docker does.
        assert_eq!(
            parse("--net host a").unwrap()["NetworkingConfig"]["EndpointsConfig"],
            serde_json::json!({})
        );
    }

    #[test]
    fn refusals_are_dockers() {
        assert_eq!(
            fail("--restart always --rm a"),
            "conflicting options: cannot specify both --restart and --rm"
        );
        assert_eq!(fail("--pid foo a"), "--pid: invalid PID mode");
        assert_eq!(
            fail("--memory-swappiness 101 a"),
            "invalid value: 101. Valid memory swappiness range is 0-100"
        );
        assert_eq!(fail("--security-opt x a"), "Invalid --security-opt: \"x\"");
        assert_eq!(
            fail("--no-healthcheck --health-cmd x a"),
            "--no-healthcheck conflicts with --health-* options"
        );
        assert_eq!(fail("--health-interval -3s a"), "--health-interval cannot be negative");
        assert_eq!(fail("-v /a:/b:/c:/d x"), "invalid spec: /a:/b:/c:/d: too many colons");
        assert_eq!(fail("-p a:b:c:d x"), "invalid IP address: a:b");
        assert_eq!(
            fail("--network host --network foo a"),
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        );
        assert_eq!(
            fail("-e = a"),
            "invalid argument \"=\" for \"-e, --env\" flag: invalid environment variable: ="
        );
    }
}
