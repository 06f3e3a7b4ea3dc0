//! Volumes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::go::go_struct;

go_struct! {
    /// A volume, in lists and inspected.
    pub struct Volume {
        created_at: String = "CreatedAt" omitempty,
        driver: String = "Driver",
        labels: Option<BTreeMap<String, String>> = "Labels",
        mountpoint: String = "Mountpoint",
        name: String = "Name",
        options: Option<BTreeMap<String, String>> = "Options",
        /// `local` or `global`.
        scope: String = "Scope",
        status: BTreeMap<String, Value> = "Status" omitempty,
        usage_data: Option<VolumeUsage> = "UsageData" omitempty,
    }

    /// How much a volume holds and how many containers use it; -1 is not known.
    pub struct VolumeUsage {
        ref_count: i64 = "RefCount",
        size: i64 = "Size",
    }

    /// `POST /volumes/create`.
    pub struct VolumeCreateRequest {
        driver: String = "Driver" omitempty,
        driver_opts: BTreeMap<String, String> = "DriverOpts" omitempty,
        labels: BTreeMap<String, String> = "Labels" omitempty,
        name: String = "Name" omitempty,
    }

    /// `GET /volumes`.
    pub struct VolumeList {
        /// Written as `[]` when there are none.
        volumes: Vec<Volume> = "Volumes",
        warnings: Option<Vec<String>> = "Warnings",
    }

    /// `POST /volumes/prune`.
    pub struct VolumesPruned {
        volumes_deleted: Option<Vec<String>> = "VolumesDeleted",
        space_reclaimed: u64 = "SpaceReclaimed",
    }
}
