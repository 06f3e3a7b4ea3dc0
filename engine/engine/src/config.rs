//! What the engine is told when it starts.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of one engine. `hulld` makes it from flags and `daemon.json`; [`Config::new`] has dockerd's defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything lasting lives, `/var/lib/hull`.
    pub data_root: PathBuf,
    /// Where sockets and other things of this boot live, `/run/hull`.
    pub exec_root: PathBuf,
    /// The `hull-runtime` executable.
    pub runtime: PathBuf,
    /// Command that starts this engine again, given to monitors.
    pub engine_command: Vec<String>,
    /// Version string, e.g. `0.1.0`.
    pub version: String,
    /// Debug mode, shown by `info`.
    pub debug: bool,
    /// `key=value` labels of the engine.
    pub labels: Vec<String>,
    /// Mirrors of docker.io, in order.
    pub registry_mirrors: Vec<String>,
    /// Registries (`host[:port]` or CIDR) spoken to over plain http or unverified TLS.
    pub insecure_registries: Vec<String>,
    /// Mirrors, rewrites, aliases and blocks of registries, `docs/registries.md`.
    pub registries_file: PathBuf,
    /// The default bridge network.
    pub bridge: Bridge,
    /// Pools from which subnets of new networks are taken; empty for docker's own.
    pub default_address_pools: Vec<AddressPool>,
    /// Whether the engine writes firewall rules.
    pub firewall: bool,
    /// Whether the engine switches on IP forwarding.
    pub ip_forward: bool,
    /// Whether traffic of containers is masqueraded.
    pub ip_masq: bool,
    /// Address that published ports without an address bind to.
    pub default_publish_address: std::net::IpAddr,
    /// Name servers for containers that name none.
    pub dns: Vec<String>,
    /// resolv.conf options for containers that name none.
    pub dns_options: Vec<String>,
    /// Search domains for containers that name none.
    pub dns_search: Vec<String>,
    /// Log driver for containers that name none.
    pub log_driver: String,
    /// Options of the default log driver.
    pub log_options: BTreeMap<String, String>,
    /// Default ulimits: name to (soft, hard).
    pub default_ulimits: BTreeMap<String, (i64, i64)>,
    /// Default size of /dev/shm in bytes.
    pub default_shm_size: i64,
    /// Whether containers run Hull's init unless they say otherwise.
    pub init: bool,
    /// Cgroup above all containers of this engine; none for `/hull-<engine>`.
    pub cgroup_parent: Option<String>,
    /// Whether containers get `no-new-privileges` unless they say otherwise.
    pub no_new_privileges: bool,
    /// Downloads at the same time.
    pub max_concurrent_downloads: usize,
    /// How often a download is tried; none for Hull's own choice.
    pub max_download_attempts: Option<u32>,
    /// Uploads at the same time.
    pub max_concurrent_uploads: usize,
    /// Foreign OCI runtimes by name.
    pub runtimes: BTreeMap<String, PathBuf>,
    /// Name of the runtime used by default; `hull` is the built-in one.
    pub default_runtime: String,
    /// How new layers are kept; the best that works if not said.
    pub storage_driver: Option<hull_layer::DriverName>,
}

/// The default bridge network.
#[derive(Debug, Clone, Default)]
pub struct Bridge {
    /// Name of the bridge; `none` for no default network, nothing for an own one named after the engine.
    pub name: Option<String>,
    /// Address of the bridge with prefix, e.g. `172.17.0.1/16`.
    pub bip: Option<String>,
    /// Part of the subnet that container addresses come from.
    pub fixed_cidr: Option<String>,
    /// Gateway instead of the bridge's address.
    pub default_gateway: Option<String>,
    /// MTU of the bridge and its interfaces.
    pub mtu: Option<u32>,
    /// Whether containers on it may talk to each other.
    pub icc: bool,
}

/// A range out of which subnets are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPool {
    /// The range, e.g. `10.10.0.0/16`.
    pub base: String,
    /// Prefix length of a subnet.
    pub size: u8,
}

impl Config {
    /// Dockerd's defaults with Hull's own paths.
    pub fn new(data_root: PathBuf, exec_root: PathBuf, runtime: PathBuf) -> Config {
        Config {
            data_root,
            exec_root,
            runtime,
            engine_command: Vec::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            debug: false,
            labels: Vec::new(),
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            registries_file: PathBuf::from("/etc/hull/registries.toml"),
            bridge: Bridge { icc: true, ..Bridge::default() },
            default_address_pools: Vec::new(),
            firewall: true,
            ip_forward: true,
            ip_masq: true,
            default_publish_address: std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            dns: Vec::new(),
            dns_options: Vec::new(),
            dns_search: Vec::new(),
            log_driver: "json-file".to_owned(),
            log_options: BTreeMap::new(),
            default_ulimits: BTreeMap::new(),
            default_shm_size: 64 * 1024 * 1024,
            init: false,
            cgroup_parent: None,
            no_new_privileges: false,
            max_concurrent_downloads: 3,
            max_download_attempts: None,
            max_concurrent_uploads: 5,
            runtimes: BTreeMap::new(),
            default_runtime: "hull".to_owned(),
            storage_driver: None,
        }
    }

    /// Directory of a container's lasting files.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// Directory of a container's sockets.
    pub fn container_exec_dir(&self, id: &str) -> PathBuf {
        self.exec_root.join("containers").join(id)
    }
}
