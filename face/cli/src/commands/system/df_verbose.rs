//! `hull system df --verbose`: every object and what it takes.

use hull_docker_api::{BuildCacheRecord, ContainerSummary, DiskUsage, ImageSummary, ListedContainer, Volume};
use serde_json::{Value, json};

use crate::commands::{container, image, or_empty, volume};
use crate::error::Result;
use crate::output::listing::{Column, Listing};
use crate::output::template::{Format, go_escape};
use crate::output::{self, human};

/// Prints the objects: blocks of tables, one object of JSON, or a template on that object.
pub(crate) fn show(usage: DiskUsage, format: &str) -> Result<u8> {
    let lists = Lists {
        images: or_empty(usage.images),
        containers: or_empty(usage.containers),
        volumes: or_empty(usage.volumes),
        cache: or_empty(usage.build_cache),
    };
    let text = match format.trim() {
        "" | "table" => lists.tables()?,
        "json" | "{{json .}}" => go_escape(&lists.objects().to_string()),
        format => {
            let objects = lists.objects();
            Format::parse(format)?.render_json(&objects, &objects)?
        }
    };
    output::text(&text);
    Ok(0)
}

struct Lists {
    images: Vec<ImageSummary>,
    containers: Vec<ContainerSummary>,
    volumes: Vec<Volume>,
    cache: Vec<BuildCacheRecord>,
}

impl Lists {
    fn tables(&self) -> Result<String> {
        let images = images().render(&self.image_rows(true), "", false)?;
        let containers = containers().render(&self.container_rows(true), "", false)?;
        let volumes = volumes().render(&self.volume_rows(), "", false)?;
        let cache = cache().render(&self.cache_rows(true), "", false)?;
        let used: i64 = self.cache.iter().filter(|record| !record.shared).map(|record| record.size).sum();
        Ok(format!(
            "Images space usage:\n\n{images}\nContainers space usage:\n\n{containers}\nLocal Volumes space \
             usage:\n\n{volumes}\nBuild cache usage: {}\n\n{cache}",
            human::size(used as f64)
        ))
    }

    fn objects(&self) -> Value {
        fn all<T>(listing: &Listing<T>, rows: &[T]) -> Vec<Value> {
            rows.iter().map(|row| listing.fields(row)).collect()
        }
        json!({
            "Images": all(&images(), &self.image_rows(false)),
            "Containers": all(&containers(), &self.container_rows(false)),
            "Volumes": all(&volumes(), &self.volume_rows()),
            "BuildCache": all(&cache(), &self.cache_rows(false)),
        })
    }

    fn image_rows(&self, trunc: bool) -> Vec<image::ls::Row> {
        self.images.iter().map(|image| image::ls::first_row(image, trunc)).collect()
    }

    fn container_rows(&self, trunc: bool) -> Vec<container::ls::Row> {
        // The size of a container is what it has written; its image is in the list above.
        let own = |container: &ContainerSummary| ListedContainer {
            size_root_fs: 0,
            ..ListedContainer::from(container.clone())
        };
        self.containers
            .iter()
            .map(|container| container::ls::Row { container: own(container), trunc })
            .collect()
    }

    fn volume_rows(&self) -> Vec<volume::ls::Row> {
        self.volumes.iter().cloned().map(volume::ls::Row::from).collect()
    }

    fn cache_rows(&self, trunc: bool) -> Vec<CacheRow> {
        self.cache.iter().cloned().map(|record| CacheRow { record, trunc }).collect()
    }
}

fn images() -> Listing<image::ls::Row> {
    let default =
        ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"];
    Listing { columns: image::ls::COLUMNS, default: default.to_vec(), quiet: "ID", labels: None }
}

fn containers() -> Listing<container::ls::Row> {
    let default = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"];
    Listing { columns: container::ls::COLUMNS, default: default.to_vec(), quiet: "ID", labels: None }
}

fn volumes() -> Listing<volume::ls::Row> {
    volume::ls::listing(&["Name", "Links", "Size"])
}

struct CacheRow {
    record: BuildCacheRecord,
    trunc: bool,
}

fn cache() -> Listing<CacheRow> {
    const COLUMNS: &[Column<CacheRow>] = &[
        Column { name: "CacheType", header: "CACHE TYPE", value: |row| row.record.kind.clone() },
        Column { name: "CreatedAt", header: "CREATED AT", value: |row| at(&row.record.created_at) },
        Column { name: "CreatedSince", header: "CREATED", value: |row| since(&row.record.created_at) },
        Column { name: "Description", header: "DESCRIPTION", value: |row| row.record.description.clone() },
        Column { name: "ID", header: "CACHE ID", value: cache_id },
        Column { name: "InUse", header: "IN USE", value: |row| row.record.in_use.to_string() },
        Column { name: "LastUsedAt", header: "LAST USED AT", value: |row| at(last_used(row)) },
        Column { name: "LastUsedSince", header: "LAST USED", value: |row| since(last_used(row)) },
        Column { name: "Parent", header: "PARENT", value: |row| row.record.parents.join(", ") },
        Column { name: "Shared", header: "SHARED", value: |row| row.record.shared.to_string() },
        Column { name: "Size", header: "SIZE", value: |row| human::size3(row.record.size as f64) },
        Column { name: "UsageCount", header: "USAGE", value: |row| row.record.usage_count.to_string() },
    ];
    let default = ["ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared"];
    Listing { columns: COLUMNS, default: default.to_vec(), quiet: "ID", labels: None }
}

/// The record's id, with a star when it is in use.
fn cache_id(row: &CacheRow) -> String {
    let id = if row.trunc { human::short_id(&row.record.id) } else { row.record.id.clone() };
    if row.record.in_use { id + "*" } else { id }
}

fn last_used(row: &CacheRow) -> &str {
    row.record.last_used_at.as_deref().unwrap_or_default()
}

fn at(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| String::new(), |at| human::timestamp(at.as_second()))
}

fn since(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| String::new(), |at| human::ago(at.as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists() -> Lists {
        let usage = json!({
            "i": [{"Id": "sha256:0123456789abcdef", "RepoTags": ["web:1", "web:2"], "RepoDigests": ["web@sha256:1"],
                   "Size": 3000000, "SharedSize": 1000000, "Containers": 1, "Created": 1}],
            "c": [{"Id": "fedcba9876543210", "Names": ["/a"], "Image": "web:1", "Command": "x", "SizeRw": 1000,
                   "SizeRootFs": 5000, "State": "running", "Status": "Up", "Created": 1}],
            "v": [{"Name": "data", "Driver": "local", "UsageData": {"RefCount": 1, "Size": 12345}}],
            "b": [{"ID": "abc", "Type": "regular", "InUse": true, "Size": 4096, "UsageCount": 2}],
        });
        let part = |key: &str| usage[key].clone();
        Lists {
            images: serde_json::from_value(part("i")).unwrap(),
            containers: serde_json::from_value(part("c")).unwrap(),
            volumes: serde_json::from_value(part("v")).unwrap(),
            cache: serde_json::from_value(part("b")).unwrap(),
        }
    }

    #[test]
    fn blocks_of_tables() {
        let text = lists().tables().unwrap();
        let years = human::ago(1);
        assert!(
            text.contains(&format!(
                "web          1         0123456789ab   {years}   3MB       1MB           2MB           1\n"
            )),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "fedcba987654   web:1     \"x\"       0               1kB       {years}   Up        a\n"
            )),
            "{text}"
        );
        assert!(text.contains("\nVOLUME NAME   LINKS     SIZE\ndata          1         12.35kB\n"), "{text}");
        assert!(text.contains("\nBuild cache usage: 4.096kB\n\nCACHE ID"), "{text}");
        assert!(text.contains("\nabc*       regular      4.1kB "), "{text}");
    }

    #[test]
    fn objects_have_whole_ids() {
        let objects = lists().objects();
        assert_eq!(objects["Images"][0]["ID"], "sha256:0123456789abcdef");
        assert_eq!(objects["Images"][0]["UniqueSize"], "2MB");
        assert_eq!(objects["Containers"][0]["Size"], "1kB");
    }
}
