//! Images.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::container::{HealthConfig, PortSet};
use crate::go::{Empty, StrSlice, go_struct};
use crate::inspect::GraphDriver;

go_struct! {
    /// An element of `GET /images/json`.
    pub struct ImageSummary {
        /// How many containers use the image; -1 is not counted.
        containers: i64 = "Containers",
        /// Seconds since 1970.
        created: i64 = "Created",
        id: String = "Id",
        labels: Option<BTreeMap<String, String>> = "Labels",
        parent_id: String = "ParentId",
        descriptor: Option<Descriptor> = "Descriptor" omitempty,
        manifests: Vec<Value> = "Manifests" omitempty,
        repo_digests: Option<Vec<String>> = "RepoDigests",
        repo_tags: Option<Vec<String>> = "RepoTags",
        /// Bytes of layers shared with other images; -1 is not computed.
        shared_size: i64 = "SharedSize",
        size: i64 = "Size",
        /// Before API 1.44.
        virtual_size: i64 = "VirtualSize" omitempty,
    }

    /// `GET /images/{name}/json`.
    pub struct ImageInspect {
        id: String = "Id",
        repo_tags: Vec<String> = "RepoTags",
        repo_digests: Vec<String> = "RepoDigests",
        parent: String = "Parent",
        comment: String = "Comment",
        created: String = "Created" omitempty,
        docker_version: String = "DockerVersion",
        author: String = "Author",
        config: Option<ImageConfig> = "Config",
        architecture: String = "Architecture",
        variant: String = "Variant" omitempty,
        os: String = "Os",
        os_version: String = "OsVersion" omitempty,
        size: i64 = "Size",
        virtual_size: i64 = "VirtualSize" omitempty,
        graph_driver: GraphDriver = "GraphDriver",
        root_fs: RootFs = "RootFS",
        metadata: ImageMetadata = "Metadata",
        descriptor: Option<Descriptor> = "Descriptor" omitempty,
        manifests: Vec<Value> = "Manifests" omitempty,
    }

    /// The configuration containers of an image start with.
    pub struct ImageConfig {
        user: String = "User" omitempty,
        exposed_ports: PortSet = "ExposedPorts" omitempty,
        env: Vec<String> = "Env" omitempty,
        entrypoint: StrSlice = "Entrypoint" omitempty,
        cmd: StrSlice = "Cmd" omitempty,
        volumes: BTreeMap<String, Empty> = "Volumes" omitempty,
        working_dir: String = "WorkingDir" omitempty,
        labels: BTreeMap<String, String> = "Labels" omitempty,
        stop_signal: String = "StopSignal" omitempty,
        args_escaped: bool = "ArgsEscaped" omitempty,
        healthcheck: Option<HealthConfig> = "Healthcheck" omitempty,
        on_build: Vec<String> = "OnBuild" omitempty,
        shell: StrSlice = "Shell" omitempty,
    }

    /// The layers of an image by the digests of their uncompressed content.
    pub struct RootFs {
        /// `layers`.
        kind: String = "Type" omitempty,
        layers: Vec<String> = "Layers" omitempty,
    }

    /// What this engine alone knows about an image.
    pub struct ImageMetadata {
        last_tag_time: String = "LastTagTime" omitempty,
    }

    /// An OCI descriptor.
    pub struct Descriptor {
        media_type: String = "mediaType",
        digest: String = "digest",
        size: i64 = "size",
        urls: Vec<String> = "urls" omitempty,
        annotations: BTreeMap<String, String> = "annotations" omitempty,
        platform: Option<DescriptorPlatform> = "platform" omitempty,
        artifact_type: String = "artifactType" omitempty,
    }

    /// The platform of a descriptor.
    pub struct DescriptorPlatform {
        architecture: String = "architecture",
        os: String = "os",
        os_version: String = "os.version" omitempty,
        os_features: Vec<String> = "os.features" omitempty,
        variant: String = "variant" omitempty,
    }

    /// An element of `GET /images/{name}/history`, newest layer first.
    pub struct HistoryItem {
        comment: String = "Comment",
        /// Seconds since 1970.
        created: i64 = "Created",
        created_by: String = "CreatedBy",
        /// `<missing>` for layers that have no image of their own here.
        id: String = "Id",
        size: i64 = "Size",
        tags: Option<Vec<String>> = "Tags",
    }

    /// An element of the answer of `DELETE /images/{name}`.
    pub struct ImageDeleted {
        deleted: String = "Deleted" omitempty,
        untagged: String = "Untagged" omitempty,
    }

    /// `POST /images/prune`.
    pub struct ImagesPruned {
        images_deleted: Option<Vec<ImageDeleted>> = "ImagesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }

    /// An element of `GET /images/search`.
    pub struct SearchResult {
        star_count: i64 = "star_count",
        is_official: bool = "is_official",
        name: String = "name",
        is_automated: bool = "is_automated",
        description: String = "description",
    }

    /// `aux` of the last message of a push.
    pub struct PushResult {
        tag: String = "Tag",
        digest: String = "Digest",
        size: i64 = "Size",
    }

    /// `GET /distribution/{name}/json`.
    pub struct DistributionInspect {
        descriptor: Descriptor = "Descriptor",
        platforms: Vec<DescriptorPlatform> = "Platforms",
    }
}
