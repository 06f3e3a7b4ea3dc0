//! Actions about the engine as a whole: info, version, disk usage, log-in to a registry.

use std::collections::BTreeMap;
use std::path::Path;

use hull_docker_api::{
    AddressPool, Commit, DiskUsage, FirewallInfo, IndexInfo, PluginsInfo, RegistryServiceConfig, Runtime,
    SwarmInfo, SystemInfo, Version, VersionComponent, VersionPlatform, rfc3339_nano,
};

use crate::containers::ListOptions;
use crate::{Engine, Result};

impl Engine {
    /// What this engine and its machine are; the API versions are those of the protocol that asks.
    ///
    /// # Errors
    /// None today.
    pub async fn version(&self, api_version: &str, min_api_version: &str) -> Result<Version> {
        let machine = Machine::read();
        let version = self.config().version.clone();
        let details = [
            ("ApiVersion", api_version.to_owned()),
            ("MinAPIVersion", min_api_version.to_owned()),
            ("Arch", machine.go_arch().to_owned()),
            ("Os", "linux".to_owned()),
            ("KernelVersion", machine.kernel.clone()),
            ("Experimental", "false".to_owned()),
        ];
        let engine = VersionComponent {
            name: "Engine".to_owned(),
            version: version.clone(),
            details: details.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        Ok(Version {
            platform: VersionPlatform { name: "Hull".to_owned() },
            components: vec![engine],
            version,
            api_version: api_version.to_owned(),
            min_api_version: min_api_version.to_owned(),
            os: "linux".to_owned(),
            arch: machine.go_arch().to_owned(),
            kernel_version: machine.kernel,
            ..Version::default()
        })
    }

    /// The state of the engine and what its machine offers.
    ///
    /// # Errors
    /// When containers or images cannot be counted.
    pub async fn info(&self) -> Result<SystemInfo> {
        let (mut running, mut paused, mut stopped) = (0, 0, 0);
        let every = ListOptions { all: true, ..ListOptions::default() };
        for container in unless_absent(self.container_list(every).await)? {
            match container.state.as_str() {
                "running" | "restarting" => running += 1,
                "paused" => paused += 1,
                _ => stopped += 1,
            }
        }
        let images = unless_absent(self.image_list(Default::default()).await)?.len();
        let config = self.config();
        let machine = tokio::task::spawn_blocking(Machine::read).await?;
        let cgroups = machine.cgroups;
        Ok(SystemInfo {
            id: self.id().id.clone(),
            containers: running + paused + stopped,
            containers_running: running,
            containers_paused: paused,
            containers_stopped: stopped,
            images: i64::try_from(images).unwrap_or(i64::MAX),
            driver: self.layers().driver().to_string(),
            driver_status: vec![["Backing Filesystem".to_owned(), file_system(&config.data_root)]],
            plugins: PluginsInfo {
                volume: Some(vec!["local".to_owned()]),
                network: Some(["bridge", "host", "null"].map(str::to_owned).to_vec()),
                authorization: None,
                log: Some(["json-file", "none"].map(str::to_owned).to_vec()),
            },
            memory_limit: cgroups.memory,
            swap_limit: cgroups.swap,
            cpu_cfs_period: cgroups.cpu,
            cpu_cfs_quota: cgroups.cpu,
            cpu_shares: cgroups.cpu,
            cpu_set: cgroups.cpuset,
            pids_limit: cgroups.pids,
            ipv4_forwarding: read_text("/proc/sys/net/ipv4/ip_forward").as_deref() == Some("1"),
            debug: config.debug,
            n_fd: std::fs::read_dir("/proc/self/fd").map_or(-1, |entries| count(entries.count())),
            oom_kill_disable: cgroups.version == 1 && cgroups.memory,
            n_goroutines: count(tokio::runtime::Handle::current().metrics().num_alive_tasks()),
            system_time: rfc3339_nano(jiff::Timestamp::now()),
            logging_driver: config.log_driver.clone(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: cgroups.version.to_string(),
            n_events_listener: count(self.events().listeners()),
            operating_system: machine.system_name(),
            os_version: machine.os_release.get("VERSION_ID").cloned().unwrap_or_default(),
            os_type: "linux".to_owned(),
            architecture: std::env::consts::ARCH.to_owned(),
            index_server_address: "https://index.docker.io/v1/".to_owned(),
            registry_config: Some(self.registry_config()),
            n_cpu: machine.cpus,
            mem_total: machine.memory,
            docker_root_dir: config.data_root.display().to_string(),
            name: machine.host_name,
            kernel_version: machine.kernel,
            labels: config.labels.clone(),
            server_version: config.version.clone(),
            runtimes: self.runtimes(),
            default_runtime: config.default_runtime.clone(),
            swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
            // Containers outlive the engine, always.
            live_restore_enabled: true,
            init_binary: "hull-runtime".to_owned(),
            containerd_commit: Commit::default(),
            runc_commit: Commit::default(),
            init_commit: Commit::default(),
            security_options: security_options(),
            default_address_pools: self.address_pools(),
            firewall_backend: config
                .firewall
                .then(|| FirewallInfo { driver: "nftables".to_owned(), info: Vec::new() }),
            warnings: Some(cgroups.warnings()),
            ..SystemInfo::default()
        })
    }

    /// Bytes used by images, containers and volumes, as far as they are asked for.
    ///
    /// # Errors
    /// When something cannot be listed or measured.
    pub async fn disk_usage(&self, containers: bool, images: bool, volumes: bool) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        if containers {
            let every = ListOptions { all: true, size: true, ..ListOptions::default() };
            usage.containers = Some(self.container_list(every).await?);
        }
        if images {
            let (list, layers_size) = self.images_usage().await?;
            usage.images = Some(list);
            usage.layers_size = layers_size;
        }
        if volumes {
            usage.volumes = Some(self.volumes_usage().await?);
        }
        // There is no build cache: that is known, so it is empty and not absent.
        usage.build_cache = Some(Vec::new());
        Ok(usage)
    }

    fn registry_config(&self) -> RegistryServiceConfig {
        let config = self.config();
        let docker_io = IndexInfo {
            name: "docker.io".to_owned(),
            mirrors: config.registry_mirrors.clone(),
            secure: true,
            official: true,
        };
        let mut registries = RegistryServiceConfig {
            insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
            index_configs: [("docker.io".to_owned(), docker_io)].into(),
            mirrors: Some(config.registry_mirrors.clone()),
            ..RegistryServiceConfig::default()
        };
        for insecure in &config.insecure_registries {
            if insecure.contains('/') {
                registries.insecure_registry_cidrs.push(insecure.clone());
            } else {
                let index = IndexInfo { name: insecure.clone(), ..IndexInfo::default() };
                registries.index_configs.insert(insecure.clone(), index);
            }
        }
        registries
    }

    fn runtimes(&self) -> BTreeMap<String, Runtime> {
        let own = Runtime { path: self.config().runtime.display().to_string(), ..Runtime::default() };
        let mut runtimes: BTreeMap<String, Runtime> = [("hull".to_owned(), own)].into();
        for (name, path) in &self.config().runtimes {
            runtimes.insert(name.clone(), Runtime { path: path.display().to_string(), ..Runtime::default() });
        }
        runtimes
    }

    fn address_pools(&self) -> Vec<AddressPool> {
        let pools = &self.config().default_address_pools;
        pools.iter().map(|pool| AddressPool { base: pool.base.clone(), size: pool.size.into() }).collect()
    }
}

/// An action that is not there counts as an empty list, anything else that fails is an error.
fn unless_absent<T>(listed: Result<Vec<T>>) -> Result<Vec<T>> {
    match listed {
        Err(error) if error.kind() == crate::Kind::NotImplemented => Ok(Vec::new()),
        other => other,
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What `info` says about the machine.
struct Machine {
    kernel: String,
    host_name: String,
    os_release: BTreeMap<String, String>,
    cpus: i64,
    memory: i64,
    cgroups: CgroupSupport,
}

impl Machine {
    fn read() -> Machine {
        let uname = rustix::system::uname();
        Machine {
            kernel: uname.release().to_string_lossy().into_owned(),
            host_name: uname.nodename().to_string_lossy().into_owned(),
            os_release: parse_os_release(
                &read_text("/etc/os-release")
                    .or_else(|| read_text("/usr/lib/os-release"))
                    .unwrap_or_default(),
            ),
            cpus: count(std::thread::available_parallelism().map_or(1, usize::from)),
            memory: total_memory(&read_text("/proc/meminfo").unwrap_or_default()),
            cgroups: CgroupSupport::from_mountinfo(&read_text("/proc/self/mountinfo").unwrap_or_default()),
        }
    }

    fn system_name(&self) -> String {
        self.os_release
            .get("PRETTY_NAME")
            .or_else(|| self.os_release.get("NAME"))
            .cloned()
            .unwrap_or("Linux".to_owned())
    }

    /// The architecture's name in Go, which is what clients compare.
    fn go_arch(&self) -> &'static str {
        match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        }
    }
}

fn read_text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// os-release(5).
fn parse_os_release(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

/// Bytes of `MemTotal` in proc_meminfo(5).
fn total_memory(meminfo: &str) -> i64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<i64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// Name of the file system that a directory is on.
fn file_system(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else { return "<unknown>".to_owned() };
    // Numbers of statfs(2).
    let name = match stat.f_type as u32 {
        0xef53 => "extfs",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        _ => "<unknown>",
    };
    name.to_owned()
}

/// Which limits the machine's control groups can set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CgroupSupport {
    version: u8,
    memory: bool,
    swap: bool,
    cpu: bool,
    cpuset: bool,
    pids: bool,
}

impl CgroupSupport {
    /// From proc_pid_mountinfo(5): controllers mounted on v1 hierarchies make it version 1.
    fn from_mountinfo(mountinfo: &str) -> CgroupSupport {
        let mut support = CgroupSupport { version: 2, ..CgroupSupport::default() };
        let mut unified = None;
        for line in mountinfo.lines() {
            let Some((mount, file_system)) = line.split_once(" - ") else { continue };
            let mut file_system = file_system.split(' ');
            let (kind, options) = (file_system.next().unwrap_or(""), file_system.nth(1).unwrap_or(""));
            let point = mount.split(' ').nth(4).unwrap_or("");
            match kind {
                "cgroup" => support.add_v1(options, point),
                "cgroup2" if unified.is_none() => unified = Some(point.to_owned()),
                _ => {}
            }
        }
        if support.version == 2
            && let Some(point) = unified
        {
            support.add_v2(&read_text(&format!("{point}/cgroup.controllers")).unwrap_or_default());
        }
        support
    }

    fn add_v1(&mut self, options: &str, point: &str) {
        for controller in options.split(',') {
            match controller {
                "memory" => {
                    self.memory = true;
                    self.swap = Path::new(point).join("memory.memsw.limit_in_bytes").exists();
                }
                "cpu" => self.cpu = true,
                "cpuset" => self.cpuset = true,
                "pids" => self.pids = true,
                _ => continue,
            }
            self.version = 1;
        }
    }

    fn add_v2(&mut self, controllers: &str) {
        for controller in controllers.split_whitespace() {
            match controller {
                "memory" => (self.memory, self.swap) = (true, true),
                "cpu" => self.cpu = true,
                "cpuset" => self.cpuset = true,
                "pids" => self.pids = true,
                _ => {}
            }
        }
    }

    /// Docker's words for limits that cannot be set.
    fn warnings(&self) -> Vec<String> {
        let missing = [
            (self.memory, "WARNING: No memory limit support"),
            (self.swap, "WARNING: No swap limit support"),
            (self.cpu, "WARNING: No cpu cfs quota support"),
            (self.cpu, "WARNING: No cpu cfs period support"),
            (self.cpu, "WARNING: No cpu shares support"),
            (self.cpuset, "WARNING: No cpuset support"),
            (self.pids, "WARNING: No pids limit support"),
        ];
        missing.iter().filter(|(there, _)| !there).map(|(_, text)| (*text).to_owned()).collect()
    }
}

fn security_options() -> Vec<String> {
    // AppArmor is not named: no profile is applied to containers that ask for none.
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    // Containers have a cgroup namespace of their own where the kernel has such.
    if Path::new("/proc/self/ns/cgroup").exists() {
        options.push("name=cgroupns".to_owned());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_on_v1_make_it_version_1() {
        let hybrid = "30 24 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n\
                      31 24 0:27 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let support = CgroupSupport::from_mountinfo(hybrid);
        assert_eq!((support.version, support.memory, support.cpu, support.pids), (1, true, true, false));
        assert!(support.warnings().contains(&"WARNING: No pids limit support".to_owned()));
        let unified = "32 24 0:28 / /nonexistent rw - cgroup2 cgroup2 rw\n";
        assert_eq!(CgroupSupport::from_mountinfo(unified).version, 2);
    }

    #[test]
    fn files_of_the_machine_are_read() {
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2 * 1024 * 1024);
        let release = parse_os_release("# x\nNAME=\"Debian GNU/Linux\"\nVERSION_ID='13'\nID=debian\n");
        assert_eq!(release["NAME"], "Debian GNU/Linux");
        assert_eq!((release["VERSION_ID"].as_str(), release["ID"].as_str()), ("13", "debian"));
    }
}
