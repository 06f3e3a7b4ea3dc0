//! What a container is made from: configuration, host configuration and networking of `POST /containers/create`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go::{Empty, StrSlice, go_struct};
use crate::network::EndpointSettings;

/// Ports of a container (`80/tcp`) and where the host publishes each; `None` is exposed but not published.
pub type PortMap = BTreeMap<String, Option<Vec<PortBinding>>>;

/// A set of ports, `80/tcp`.
pub type PortSet = BTreeMap<String, Empty>;

go_struct! {
    /// The portable part of a container's configuration (`Config`).
    pub struct ContainerConfig {
        hostname: String = "Hostname",
        domainname: String = "Domainname",
        user: String = "User",
        attach_stdin: bool = "AttachStdin",
        attach_stdout: bool = "AttachStdout",
        attach_stderr: bool = "AttachStderr",
        exposed_ports: PortSet = "ExposedPorts" omitempty,
        tty: bool = "Tty",
        open_stdin: bool = "OpenStdin",
        stdin_once: bool = "StdinOnce",
        env: Option<Vec<String>> = "Env",
        cmd: Option<StrSlice> = "Cmd",
        healthcheck: Option<HealthConfig> = "Healthcheck" omitempty,
        args_escaped: bool = "ArgsEscaped" omitempty,
        image: String = "Image",
        volumes: Option<BTreeMap<String, Empty>> = "Volumes",
        working_dir: String = "WorkingDir",
        entrypoint: Option<StrSlice> = "Entrypoint",
        network_disabled: bool = "NetworkDisabled" omitempty,
        mac_address: String = "MacAddress" omitempty,
        on_build: Option<Vec<String>> = "OnBuild",
        labels: Option<BTreeMap<String, String>> = "Labels",
        stop_signal: String = "StopSignal" omitempty,
        /// Seconds.
        stop_timeout: Option<i64> = "StopTimeout" omitempty,
        shell: StrSlice = "Shell" omitempty,
    }

    /// How to test that a container is healthy. Durations are nanoseconds; 0 inherits.
    pub struct HealthConfig {
        /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`; empty inherits.
        test: Vec<String> = "Test" omitempty,
        interval: i64 = "Interval" omitempty,
        timeout: i64 = "Timeout" omitempty,
        start_period: i64 = "StartPeriod" omitempty,
        start_interval: i64 = "StartInterval" omitempty,
        retries: i64 = "Retries" omitempty,
    }

    /// The part of a container's configuration that depends on the host.
    pub struct HostConfig {
        binds: Option<Vec<String>> = "Binds",
        container_id_file: String = "ContainerIDFile",
        log_config: LogConfig = "LogConfig",
        network_mode: String = "NetworkMode",
        port_bindings: Option<PortMap> = "PortBindings",
        restart_policy: RestartPolicy = "RestartPolicy",
        auto_remove: bool = "AutoRemove",
        volume_driver: String = "VolumeDriver",
        volumes_from: Option<Vec<String>> = "VolumesFrom",
        /// Rows, columns.
        console_size: [u32; 2] = "ConsoleSize",
        annotations: BTreeMap<String, String> = "Annotations" omitempty,
        cap_add: Option<StrSlice> = "CapAdd",
        cap_drop: Option<StrSlice> = "CapDrop",
        cgroupns_mode: String = "CgroupnsMode",
        dns: Option<Vec<String>> = "Dns",
        dns_options: Option<Vec<String>> = "DnsOptions",
        dns_search: Option<Vec<String>> = "DnsSearch",
        extra_hosts: Option<Vec<String>> = "ExtraHosts",
        group_add: Option<Vec<String>> = "GroupAdd",
        ipc_mode: String = "IpcMode",
        cgroup: String = "Cgroup",
        links: Option<Vec<String>> = "Links",
        oom_score_adj: i64 = "OomScoreAdj",
        pid_mode: String = "PidMode",
        privileged: bool = "Privileged",
        publish_all_ports: bool = "PublishAllPorts",
        readonly_rootfs: bool = "ReadonlyRootfs",
        security_opt: Option<Vec<String>> = "SecurityOpt",
        storage_opt: BTreeMap<String, String> = "StorageOpt" omitempty,
        tmpfs: BTreeMap<String, String> = "Tmpfs" omitempty,
        uts_mode: String = "UTSMode",
        userns_mode: String = "UsernsMode",
        /// Bytes.
        shm_size: i64 = "ShmSize",
        sysctls: BTreeMap<String, String> = "Sysctls" omitempty,
        runtime: String = "Runtime" omitempty,
        isolation: String = "Isolation",
        cpu_shares: i64 = "CpuShares",
        /// Bytes.
        memory: i64 = "Memory",
        /// Billionths of a CPU.
        nano_cpus: i64 = "NanoCpus",
        cgroup_parent: String = "CgroupParent",
        blkio_weight: u16 = "BlkioWeight",
        blkio_weight_device: Option<Vec<WeightDevice>> = "BlkioWeightDevice",
        blkio_device_read_bps: Option<Vec<ThrottleDevice>> = "BlkioDeviceReadBps",
        blkio_device_write_bps: Option<Vec<ThrottleDevice>> = "BlkioDeviceWriteBps",
        blkio_device_read_iops: Option<Vec<ThrottleDevice>> = "BlkioDeviceReadIOps",
        blkio_device_write_iops: Option<Vec<ThrottleDevice>> = "BlkioDeviceWriteIOps",
        /// Microseconds.
        cpu_period: i64 = "CpuPeriod",
        /// Microseconds.
        cpu_quota: i64 = "CpuQuota",
        cpu_realtime_period: i64 = "CpuRealtimePeriod",
        cpu_realtime_runtime: i64 = "CpuRealtimeRuntime",
        cpuset_cpus: String = "CpusetCpus",
        cpuset_mems: String = "CpusetMems",
        devices: Option<Vec<DeviceMapping>> = "Devices",
        device_cgroup_rules: Option<Vec<String>> = "DeviceCgroupRules",
        device_requests: Option<Vec<DeviceRequest>> = "DeviceRequests",
        kernel_memory: i64 = "KernelMemory" omitempty,
        kernel_memory_tcp: i64 = "KernelMemoryTCP" omitempty,
        /// Bytes.
        memory_reservation: i64 = "MemoryReservation",
        /// Bytes, memory and swap together; -1 is unlimited.
        memory_swap: i64 = "MemorySwap",
        memory_swappiness: Option<i64> = "MemorySwappiness",
        oom_kill_disable: Option<bool> = "OomKillDisable",
        pids_limit: Option<i64> = "PidsLimit",
        ulimits: Option<Vec<Ulimit>> = "Ulimits",
        cpu_count: i64 = "CpuCount",
        cpu_percent: i64 = "CpuPercent",
        io_maximum_iops: u64 = "IOMaximumIOps",
        io_maximum_bandwidth: u64 = "IOMaximumBandwidth",
        mounts: Vec<Mount> = "Mounts" omitempty,
        masked_paths: Option<Vec<String>> = "MaskedPaths",
        readonly_paths: Option<Vec<String>> = "ReadonlyPaths",
        init: Option<bool> = "Init" omitempty,
    }

    /// `POST /containers/{id}/update`: the resources and the restart policy to change; 0 and `None` leave as is.
    pub struct ContainerUpdateRequest {
        cpu_shares: i64 = "CpuShares",
        memory: i64 = "Memory",
        nano_cpus: i64 = "NanoCpus",
        cgroup_parent: String = "CgroupParent",
        blkio_weight: u16 = "BlkioWeight",
        blkio_weight_device: Option<Vec<WeightDevice>> = "BlkioWeightDevice",
        blkio_device_read_bps: Option<Vec<ThrottleDevice>> = "BlkioDeviceReadBps",
        blkio_device_write_bps: Option<Vec<ThrottleDevice>> = "BlkioDeviceWriteBps",
        blkio_device_read_iops: Option<Vec<ThrottleDevice>> = "BlkioDeviceReadIOps",
        blkio_device_write_iops: Option<Vec<ThrottleDevice>> = "BlkioDeviceWriteIOps",
        cpu_period: i64 = "CpuPeriod",
        cpu_quota: i64 = "CpuQuota",
        cpu_realtime_period: i64 = "CpuRealtimePeriod",
        cpu_realtime_runtime: i64 = "CpuRealtimeRuntime",
        cpuset_cpus: String = "CpusetCpus",
        cpuset_mems: String = "CpusetMems",
        devices: Option<Vec<DeviceMapping>> = "Devices",
        device_cgroup_rules: Option<Vec<String>> = "DeviceCgroupRules",
        device_requests: Option<Vec<DeviceRequest>> = "DeviceRequests",
        kernel_memory: i64 = "KernelMemory" omitempty,
        memory_reservation: i64 = "MemoryReservation",
        memory_swap: i64 = "MemorySwap",
        memory_swappiness: Option<i64> = "MemorySwappiness",
        oom_kill_disable: Option<bool> = "OomKillDisable",
        pids_limit: Option<i64> = "PidsLimit",
        ulimits: Option<Vec<Ulimit>> = "Ulimits",
        cpu_count: i64 = "CpuCount",
        cpu_percent: i64 = "CpuPercent",
        io_maximum_iops: u64 = "IOMaximumIOps",
        io_maximum_bandwidth: u64 = "IOMaximumBandwidth",
        restart_policy: RestartPolicy = "RestartPolicy",
    }

    /// Answer of `POST /containers/{id}/update`.
    pub struct ContainerUpdateResponse {
        warnings: Option<Vec<String>> = "Warnings",
    }

    /// Where a port is published.
    pub struct PortBinding {
        host_ip: String = "HostIp",
        /// A port or a range `8000-8010`; empty lets the engine choose.
        host_port: String = "HostPort",
    }

    /// Whether and when a container starts again after its exit.
    pub struct RestartPolicy {
        /// Empty or `no`, `always`, `unless-stopped`, `on-failure`.
        name: String = "Name",
        maximum_retry_count: i64 = "MaximumRetryCount",
    }

    /// The log driver and its options.
    pub struct LogConfig {
        kind: String = "Type",
        config: Option<BTreeMap<String, String>> = "Config",
    }

    /// A weight of one block device.
    pub struct WeightDevice {
        path: String = "Path",
        weight: u16 = "Weight",
    }

    /// A rate limit of one block device, bytes or operations per second.
    pub struct ThrottleDevice {
        path: String = "Path",
        rate: u64 = "Rate",
    }

    /// A device of the host in the container.
    pub struct DeviceMapping {
        path_on_host: String = "PathOnHost",
        path_in_container: String = "PathInContainer",
        /// Some of `rwm`.
        cgroup_permissions: String = "CgroupPermissions",
    }

    /// Devices asked of a device driver (`--gpus`, CDI).
    pub struct DeviceRequest {
        driver: String = "Driver",
        count: i64 = "Count",
        device_ids: Option<Vec<String>> = "DeviceIDs",
        capabilities: Option<Vec<Vec<String>>> = "Capabilities",
        options: Option<BTreeMap<String, String>> = "Options",
    }

    /// A resource limit of the container's processes; -1 is unlimited.
    pub struct Ulimit {
        name: String = "Name",
        hard: i64 = "Hard",
        soft: i64 = "Soft",
    }

    /// A mount asked for with `--mount`.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `image`, `npipe`, `cluster`.
        kind: String = "Type" omitempty,
        source: String = "Source" omitempty,
        target: String = "Target" omitempty,
        read_only: bool = "ReadOnly" omitempty,
        consistency: String = "Consistency" omitempty,
        bind_options: Option<BindOptions> = "BindOptions" omitempty,
        volume_options: Option<VolumeOptions> = "VolumeOptions" omitempty,
        image_options: Option<ImageOptions> = "ImageOptions" omitempty,
        tmpfs_options: Option<TmpfsOptions> = "TmpfsOptions" omitempty,
        cluster_options: Option<Empty> = "ClusterOptions" omitempty,
    }

    /// Options of a bind mount.
    pub struct BindOptions {
        propagation: String = "Propagation" omitempty,
        non_recursive: bool = "NonRecursive" omitempty,
        create_mountpoint: bool = "CreateMountpoint" omitempty,
        read_only_non_recursive: bool = "ReadOnlyNonRecursive" omitempty,
        read_only_force_recursive: bool = "ReadOnlyForceRecursive" omitempty,
    }

    /// Options of a volume mount.
    pub struct VolumeOptions {
        no_copy: bool = "NoCopy" omitempty,
        labels: BTreeMap<String, String> = "Labels" omitempty,
        subpath: String = "Subpath" omitempty,
        driver_config: Option<VolumeDriverConfig> = "DriverConfig" omitempty,
    }

    /// The driver that makes a volume mount's volume.
    pub struct VolumeDriverConfig {
        name: String = "Name" omitempty,
        options: BTreeMap<String, String> = "Options" omitempty,
    }

    /// Options of an image mount.
    pub struct ImageOptions {
        subpath: String = "Subpath" omitempty,
    }

    /// Options of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Bytes; 0 is unlimited.
        size_bytes: i64 = "SizeBytes" omitempty,
        /// Permission bits.
        mode: u32 = "Mode" omitempty,
        options: Vec<Vec<String>> = "Options" omitempty,
    }

    /// The networks a container is created in.
    pub struct NetworkingConfig {
        endpoints_config: Option<BTreeMap<String, EndpointSettings>> = "EndpointsConfig",
    }

    /// Answer of `POST /containers/create`.
    pub struct ContainerCreateResponse {
        id: String = "Id",
        /// Written as `[]` when there are none.
        warnings: Vec<String> = "Warnings",
    }
}

/// Body of `POST /containers/create`: the configuration with the two other parts beside its fields.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerCreateRequest {
    /// The fields of `Config`, at the top level.
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// `HostConfig`.
    #[serde(rename = "HostConfig")]
    pub host_config: Option<HostConfig>,
    /// `NetworkingConfig`.
    #[serde(rename = "NetworkingConfig")]
    pub networking_config: Option<NetworkingConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_docker_py_read_as_zero_values() {
        let body = r#"{"Hostname":null,"Cmd":"true","Tty":null,"Env":null,"Labels":null,"HostConfig":{"Binds":null,
            "RestartPolicy":null,"ShmSize":null,"PortBindings":{"80/tcp":null}},"NetworkingConfig":null}"#;
        let request: ContainerCreateRequest = serde_json::from_str(body).unwrap();
        assert_eq!(request.config.cmd.unwrap().0, ["true"]);
        let host = request.host_config.unwrap();
        assert_eq!(host.restart_policy, RestartPolicy::default());
        assert_eq!(host.port_bindings.unwrap()["80/tcp"], None);
        assert_eq!(request.networking_config, None);
    }

    #[test]
    fn empty_config_has_go_nulls_and_omissions() {
        let json = serde_json::to_value(ContainerConfig::default()).unwrap();
        assert!(json["Cmd"].is_null() && json["Env"].is_null() && json["Volumes"].is_null());
        assert_eq!(json["Tty"], false);
        for absent in ["ExposedPorts", "Healthcheck", "StopSignal", "Shell", "MacAddress"] {
            assert!(json.get(absent).is_none(), "{absent}");
        }
    }
}
