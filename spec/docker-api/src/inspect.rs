//! What the engine tells about containers: inspect, list, top, wait, changes.

use std::collections::BTreeMap;

use crate::container::{ContainerConfig, HostConfig, PortMap};
use crate::go::{Empty, go_struct};
use crate::image::Descriptor;
use crate::network::EndpointSettings;

go_struct! {
    /// `GET /containers/{id}/json`.
    pub struct ContainerInspect {
        id: String = "Id",
        created: String = "Created",
        path: String = "Path",
        args: Vec<String> = "Args",
        state: ContainerState = "State",
        image: String = "Image",
        resolv_conf_path: String = "ResolvConfPath",
        hostname_path: String = "HostnamePath",
        hosts_path: String = "HostsPath",
        log_path: String = "LogPath",
        /// With a leading `/`.
        name: String = "Name",
        restart_count: i64 = "RestartCount",
        driver: String = "Driver",
        platform: String = "Platform",
        mount_label: String = "MountLabel",
        process_label: String = "ProcessLabel",
        app_armor_profile: String = "AppArmorProfile",
        exec_ids: Option<Vec<String>> = "ExecIDs",
        host_config: HostConfig = "HostConfig",
        graph_driver: GraphDriver = "GraphDriver",
        size_rw: Option<i64> = "SizeRw" omitempty,
        size_root_fs: Option<i64> = "SizeRootFs" omitempty,
        mounts: Vec<MountPoint> = "Mounts",
        config: ContainerConfig = "Config",
        network_settings: NetworkSettings = "NetworkSettings",
        image_manifest_descriptor: Option<Descriptor> = "ImageManifestDescriptor" omitempty,
    }

    /// `State` of a container.
    pub struct ContainerState {
        /// `created`, `running`, `paused`, `restarting`, `removing`, `exited`, `dead`.
        status: String = "Status",
        running: bool = "Running",
        paused: bool = "Paused",
        restarting: bool = "Restarting",
        oom_killed: bool = "OOMKilled",
        dead: bool = "Dead",
        pid: i64 = "Pid",
        exit_code: i64 = "ExitCode",
        error: String = "Error",
        started_at: String = "StartedAt",
        finished_at: String = "FinishedAt",
        health: Option<Health> = "Health" omitempty,
    }

    /// Result of the health checks.
    pub struct Health {
        /// `starting`, `healthy`, `unhealthy`, `none`.
        status: String = "Status",
        failing_streak: i64 = "FailingStreak",
        log: Vec<HealthcheckResult> = "Log",
    }

    /// One health check that ended.
    pub struct HealthcheckResult {
        start: String = "Start",
        end: String = "End",
        exit_code: i64 = "ExitCode",
        output: String = "Output",
    }

    /// The snapshot driver of a container or image and what it holds.
    pub struct GraphDriver {
        data: Option<BTreeMap<String, String>> = "Data",
        name: String = "Name",
    }

    /// A mount a container has.
    pub struct MountPoint {
        kind: String = "Type" omitempty,
        name: String = "Name" omitempty,
        source: String = "Source",
        destination: String = "Destination",
        driver: String = "Driver" omitempty,
        mode: String = "Mode",
        rw: bool = "RW",
        propagation: String = "Propagation",
    }

    /// `NetworkSettings` of an inspected container.
    pub struct NetworkSettings {
        bridge: String = "Bridge",
        sandbox_id: String = "SandboxID",
        sandbox_key: String = "SandboxKey",
        /// Written as `{}` when there are none.
        ports: PortMap = "Ports",
        hairpin_mode: bool = "HairpinMode",
        link_local_ipv6_address: String = "LinkLocalIPv6Address",
        link_local_ipv6_prefix_len: i64 = "LinkLocalIPv6PrefixLen",
        secondary_ip_addresses: Option<Vec<NetworkAddress>> = "SecondaryIPAddresses",
        secondary_ipv6_addresses: Option<Vec<NetworkAddress>> = "SecondaryIPv6Addresses",
        endpoint_id: String = "EndpointID",
        gateway: String = "Gateway",
        global_ipv6_address: String = "GlobalIPv6Address",
        global_ipv6_prefix_len: i64 = "GlobalIPv6PrefixLen",
        ip_address: String = "IPAddress",
        ip_prefix_len: i64 = "IPPrefixLen",
        ipv6_gateway: String = "IPv6Gateway",
        mac_address: String = "MacAddress",
        networks: BTreeMap<String, EndpointSettings> = "Networks",
    }

    /// An address and its prefix length.
    pub struct NetworkAddress {
        addr: String = "Addr",
        prefix_len: i64 = "PrefixLen",
    }

    /// An element of `GET /containers/json`.
    pub struct ContainerSummary {
        id: String = "Id",
        names: Vec<String> = "Names",
        image: String = "Image",
        image_id: String = "ImageID",
        image_manifest_descriptor: Option<Descriptor> = "ImageManifestDescriptor" omitempty,
        command: String = "Command",
        /// Seconds since 1970.
        created: i64 = "Created",
        ports: Vec<Port> = "Ports",
        size_rw: i64 = "SizeRw" omitempty,
        size_root_fs: i64 = "SizeRootFs" omitempty,
        labels: BTreeMap<String, String> = "Labels",
        state: String = "State",
        /// For people: `Up 2 minutes`, `Exited (0) 3 hours ago`.
        status: String = "Status",
        host_config: SummaryHostConfig = "HostConfig",
        network_settings: SummaryNetworkSettings = "NetworkSettings",
        mounts: Vec<MountPoint> = "Mounts",
    }

    /// What a list shows of a [`ContainerSummary`]; reading it skips the rest, which is most of it.
    pub struct ListedContainer {
        id: String = "Id",
        names: Vec<String> = "Names",
        image: String = "Image",
        command: String = "Command",
        /// Seconds since 1970.
        created: i64 = "Created",
        ports: Vec<Port> = "Ports",
        size_rw: i64 = "SizeRw" omitempty,
        size_root_fs: i64 = "SizeRootFs" omitempty,
        labels: BTreeMap<String, String> = "Labels",
        state: String = "State",
        /// For people: `Up 2 minutes`, `Exited (0) 3 hours ago`.
        status: String = "Status",
        network_settings: ListedNetworks = "NetworkSettings",
        mounts: Vec<ListedMount> = "Mounts",
    }

    /// The names of a listed container's networks.
    pub struct ListedNetworks {
        networks: BTreeMap<String, Empty> = "Networks",
    }

    /// A mount of a listed container.
    pub struct ListedMount {
        name: String = "Name" omitempty,
        source: String = "Source",
        driver: String = "Driver" omitempty,
    }

    /// The host configuration a listed container shows.
    pub struct SummaryHostConfig {
        network_mode: String = "NetworkMode" omitempty,
        annotations: BTreeMap<String, String> = "Annotations" omitempty,
    }

    /// The networks a listed container shows.
    pub struct SummaryNetworkSettings {
        networks: BTreeMap<String, EndpointSettings> = "Networks",
    }

    /// A port of a listed container.
    pub struct Port {
        ip: String = "IP" omitempty,
        private_port: u16 = "PrivatePort",
        public_port: u16 = "PublicPort" omitempty,
        kind: String = "Type",
    }

    /// `GET /containers/{id}/top`.
    pub struct ContainerTop {
        processes: Vec<Vec<String>> = "Processes",
        titles: Vec<String> = "Titles",
    }

    /// `POST /containers/{id}/wait`.
    pub struct ContainerWait {
        status_code: i64 = "StatusCode",
        error: Option<WaitError> = "Error" omitempty,
    }

    /// Why waiting failed.
    pub struct WaitError {
        message: String = "Message",
    }

    /// An element of `GET /containers/{id}/changes`.
    pub struct FilesystemChange {
        path: String = "Path",
        /// 0 modified, 1 added, 2 deleted.
        kind: u32 = "Kind",
    }

    /// `X-Docker-Container-Path-Stat`, base64 of this, of `/containers/{id}/archive`.
    pub struct ContainerPathStat {
        name: String = "name",
        size: i64 = "size",
        /// Go's `os.FileMode`: permission bits, and `1<<31` directory, `1<<27` symbolic link, ….
        mode: u32 = "mode",
        mtime: String = "mtime",
        link_target: String = "linkTarget",
    }

    /// `POST /containers/prune`.
    pub struct ContainersPruned {
        containers_deleted: Option<Vec<String>> = "ContainersDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }

    /// `POST /commit`.
    pub struct CommitResponse {
        id: String = "Id",
    }
}

impl From<ContainerSummary> for ListedContainer {
    fn from(all: ContainerSummary) -> ListedContainer {
        let networks = all.network_settings.networks.into_keys().map(|name| (name, Empty {})).collect();
        let mount =
            |mount: MountPoint| ListedMount { name: mount.name, source: mount.source, driver: mount.driver };
        ListedContainer {
            id: all.id,
            names: all.names,
            image: all.image,
            command: all.command,
            created: all.created,
            ports: all.ports,
            size_rw: all.size_rw,
            size_root_fs: all.size_root_fs,
            labels: all.labels,
            state: all.state,
            status: all.status,
            network_settings: ListedNetworks { networks },
            mounts: all.mounts.into_iter().map(mount).collect(),
        }
    }
}
