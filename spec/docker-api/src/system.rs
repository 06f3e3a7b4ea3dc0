//! The engine itself: version, information, disk usage, log-in.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::go::go_struct;
use crate::image::ImageSummary;
use crate::inspect::ContainerSummary;
use crate::volume::Volume;

go_struct! {
    /// `GET /version`.
    pub struct Version {
        platform: VersionPlatform = "Platform",
        components: Vec<VersionComponent> = "Components" omitempty,
        version: String = "Version",
        api_version: String = "ApiVersion",
        min_api_version: String = "MinAPIVersion" omitempty,
        git_commit: String = "GitCommit",
        go_version: String = "GoVersion",
        os: String = "Os",
        arch: String = "Arch",
        kernel_version: String = "KernelVersion" omitempty,
        experimental: bool = "Experimental" omitempty,
        build_time: String = "BuildTime" omitempty,
    }

    /// The product the engine is.
    pub struct VersionPlatform {
        name: String = "Name",
    }

    /// A part of the engine.
    pub struct VersionComponent {
        name: String = "Name",
        version: String = "Version",
        details: BTreeMap<String, String> = "Details" omitempty,
    }

    /// `GET /info`.
    pub struct SystemInfo {
        id: String = "ID",
        containers: i64 = "Containers",
        containers_running: i64 = "ContainersRunning",
        containers_paused: i64 = "ContainersPaused",
        containers_stopped: i64 = "ContainersStopped",
        images: i64 = "Images",
        driver: String = "Driver",
        driver_status: Vec<[String; 2]> = "DriverStatus",
        system_status: Vec<[String; 2]> = "SystemStatus" omitempty,
        plugins: PluginsInfo = "Plugins",
        memory_limit: bool = "MemoryLimit",
        swap_limit: bool = "SwapLimit",
        kernel_memory: bool = "KernelMemory" omitempty,
        kernel_memory_tcp: bool = "KernelMemoryTCP" omitempty,
        cpu_cfs_period: bool = "CpuCfsPeriod",
        cpu_cfs_quota: bool = "CpuCfsQuota",
        cpu_shares: bool = "CPUShares",
        cpu_set: bool = "CPUSet",
        pids_limit: bool = "PidsLimit",
        ipv4_forwarding: bool = "IPv4Forwarding",
        debug: bool = "Debug",
        n_fd: i64 = "NFd",
        oom_kill_disable: bool = "OomKillDisable",
        n_goroutines: i64 = "NGoroutines",
        system_time: String = "SystemTime",
        logging_driver: String = "LoggingDriver",
        cgroup_driver: String = "CgroupDriver",
        cgroup_version: String = "CgroupVersion" omitempty,
        n_events_listener: i64 = "NEventsListener",
        kernel_version: String = "KernelVersion",
        operating_system: String = "OperatingSystem",
        os_version: String = "OSVersion",
        os_type: String = "OSType",
        architecture: String = "Architecture",
        index_server_address: String = "IndexServerAddress",
        registry_config: Option<RegistryServiceConfig> = "RegistryConfig",
        n_cpu: i64 = "NCPU",
        mem_total: i64 = "MemTotal",
        generic_resources: Option<Vec<Value>> = "GenericResources",
        docker_root_dir: String = "DockerRootDir",
        http_proxy: String = "HttpProxy",
        https_proxy: String = "HttpsProxy",
        no_proxy: String = "NoProxy",
        name: String = "Name",
        labels: Vec<String> = "Labels",
        experimental_build: bool = "ExperimentalBuild",
        server_version: String = "ServerVersion",
        runtimes: BTreeMap<String, Runtime> = "Runtimes",
        default_runtime: String = "DefaultRuntime",
        swarm: SwarmInfo = "Swarm",
        live_restore_enabled: bool = "LiveRestoreEnabled",
        isolation: String = "Isolation",
        init_binary: String = "InitBinary",
        containerd_commit: Commit = "ContainerdCommit",
        runc_commit: Commit = "RuncCommit",
        init_commit: Commit = "InitCommit",
        security_options: Vec<String> = "SecurityOptions",
        product_license: String = "ProductLicense" omitempty,
        default_address_pools: Vec<AddressPool> = "DefaultAddressPools" omitempty,
        firewall_backend: Option<FirewallInfo> = "FirewallBackend" omitempty,
        cdi_spec_dirs: Vec<String> = "CDISpecDirs",
        discovered_devices: Vec<Value> = "DiscoveredDevices" omitempty,
        containerd: Option<ContainerdInfo> = "Containerd" omitempty,
        warnings: Option<Vec<String>> = "Warnings",
    }

    /// Kinds of drivers the engine has.
    pub struct PluginsInfo {
        volume: Option<Vec<String>> = "Volume",
        network: Option<Vec<String>> = "Network",
        authorization: Option<Vec<String>> = "Authorization",
        log: Option<Vec<String>> = "Log",
    }

    /// Registries by configuration.
    pub struct RegistryServiceConfig {
        allow_nondistributable_artifacts_cidrs: Option<Vec<String>> = "AllowNondistributableArtifactsCIDRs" omitempty,
        allow_nondistributable_artifacts_hostnames: Option<Vec<String>> =
            "AllowNondistributableArtifactsHostnames" omitempty,
        insecure_registry_cidrs: Vec<String> = "InsecureRegistryCIDRs",
        index_configs: BTreeMap<String, IndexInfo> = "IndexConfigs",
        mirrors: Option<Vec<String>> = "Mirrors",
    }

    /// One registry.
    pub struct IndexInfo {
        name: String = "Name",
        mirrors: Vec<String> = "Mirrors",
        secure: bool = "Secure",
        official: bool = "Official",
    }

    /// An OCI runtime.
    pub struct Runtime {
        path: String = "path" omitempty,
        runtime_args: Vec<String> = "runtimeArgs" omitempty,
        status: BTreeMap<String, String> = "status" omitempty,
    }

    /// The version of a part by its source commit.
    pub struct Commit {
        id: String = "ID",
    }

    /// Cluster membership; Hull answers `inactive`.
    pub struct SwarmInfo {
        node_id: String = "NodeID",
        node_addr: String = "NodeAddr",
        local_node_state: String = "LocalNodeState",
        control_available: bool = "ControlAvailable",
        error: String = "Error",
        remote_managers: Option<Vec<Value>> = "RemoteManagers",
    }

    /// A range new networks take their subnets from.
    pub struct AddressPool {
        base: String = "Base",
        size: i64 = "Size",
    }

    /// The firewall the engine programs.
    pub struct FirewallInfo {
        driver: String = "Driver",
        info: Vec<[String; 2]> = "Info" omitempty,
    }

    /// The containerd an engine uses.
    pub struct ContainerdInfo {
        address: String = "Address" omitempty,
        namespaces: BTreeMap<String, String> = "Namespaces",
    }

    /// `GET /system/df`.
    pub struct DiskUsage {
        layers_size: i64 = "LayersSize",
        images: Option<Vec<ImageSummary>> = "Images",
        containers: Option<Vec<ContainerSummary>> = "Containers",
        volumes: Option<Vec<Volume>> = "Volumes",
        build_cache: Option<Vec<BuildCacheRecord>> = "BuildCache",
        builder_size: i64 = "BuilderSize" omitempty,
    }

    /// `POST /system/check`, which is Hull's own: whether the store of images is as it was made.
    pub struct SystemCheck {
        blobs: u64 = "Blobs",
        layers: u64 = "Layers",
        bytes: u64 = "Bytes",
        findings: Vec<SystemCheckFinding> = "Findings",
    }

    /// Something in the store that is not as it should be.
    pub struct SystemCheckFinding {
        kind: String = "Kind",
        digest: String = "Digest",
        fault: String = "Fault",
        images: Vec<String> = "Images",
        repaired: bool = "Repaired",
        error: String = "Error" omitempty,
    }

    /// A record of the build cache.
    pub struct BuildCacheRecord {
        id: String = "ID",
        parents: Vec<String> = "Parents" omitempty,
        kind: String = "Type",
        description: String = "Description",
        in_use: bool = "InUse",
        shared: bool = "Shared",
        size: i64 = "Size",
        created_at: String = "CreatedAt",
        last_used_at: Option<String> = "LastUsedAt",
        usage_count: i64 = "UsageCount",
    }

    /// `POST /build/prune`.
    pub struct BuildCachePruned {
        caches_deleted: Option<Vec<String>> = "CachesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }

    /// Body of `POST /auth`, and base64url of it in `X-Registry-Auth`.
    pub struct AuthConfig {
        username: String = "username" omitempty,
        password: String = "password" omitempty,
        auth: String = "auth" omitempty,
        email: String = "email" omitempty,
        serveraddress: String = "serveraddress" omitempty,
        identitytoken: String = "identitytoken" omitempty,
        registrytoken: String = "registrytoken" omitempty,
    }

    /// Answer of `POST /auth`.
    pub struct AuthResponse {
        status: String = "Status",
        identity_token: String = "IdentityToken" omitempty,
    }

    /// The body of every error answer.
    pub struct ErrorResponse {
        message: String = "message",
    }
}
