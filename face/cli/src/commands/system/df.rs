//! `hull system df`.

use hull_client::Query;
use hull_docker_api::DiskUsage;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::commands::or_empty;
use crate::error::Result;
use crate::flags::Flag;
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "df",
    usage: "[OPTIONS]",
    about: "Show docker disk usage",
    aliases: &["system df"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] =
    &[formats::LIST, Flag::switch("verbose", "Show detailed information on space usage").short('v')];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let usage: DiskUsage = client.get("/system/df", &Query::new()).await?;
    if matches.on("verbose") {
        return super::df_verbose::show(usage, matches.text("format"));
    }
    output::text(&listing().render(&summary(usage), matches.text("format"), false)?);
    Ok(0)
}

/// One kind of object.
struct Row {
    kind: &'static str,
    total: usize,
    active: usize,
    size: i64,
    /// Bytes of objects nothing uses.
    reclaimable: i64,
    percent: bool,
}

fn listing() -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "Active", header: "ACTIVE", value: |row| row.active.to_string() },
        Column { name: "Reclaimable", header: "RECLAIMABLE", value: reclaimable },
        Column { name: "Size", header: "SIZE", value: |row| human::size(row.size as f64) },
        Column { name: "TotalCount", header: "TOTAL", value: |row| row.total.to_string() },
        Column { name: "Type", header: "TYPE", value: |row| row.kind.to_owned() },
    ];
    let default = vec!["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    Listing { columns: COLUMNS, default, quiet: "Type", labels: None }
}

fn reclaimable(row: &Row) -> String {
    let text = human::size(row.reclaimable as f64);
    match row.percent && row.size > 0 {
        true => format!("{text} ({}%)", row.reclaimable * 100 / row.size),
        false => text,
    }
}

fn summary(usage: DiskUsage) -> Vec<Row> {
    let images = or_empty(usage.images);
    let containers = or_empty(usage.containers);
    let volumes = or_empty(usage.volumes);
    let cache = or_empty(usage.build_cache);
    let used_images: i64 = images
        .iter()
        .filter(|image| image.containers != 0 && image.size >= 0 && image.shared_size >= 0)
        .map(|image| image.size - image.shared_size)
        .sum();
    let running = |state: &str| matches!(state, "running" | "paused" | "restarting");
    let volume_size = |wanted: fn(i64) -> bool| -> i64 {
        let usages = volumes.iter().filter_map(|volume| volume.usage_data.as_ref());
        usages.filter(|usage| usage.size >= 0 && wanted(usage.ref_count)).map(|usage| usage.size).sum()
    };
    vec![
        Row {
            kind: "Images",
            total: images.len(),
            active: images.iter().filter(|image| image.containers > 0).count(),
            size: usage.layers_size,
            reclaimable: usage.layers_size - used_images,
            percent: true,
        },
        Row {
            kind: "Containers",
            total: containers.len(),
            active: containers.iter().filter(|container| running(&container.state)).count(),
            size: containers.iter().map(|container| container.size_rw).sum(),
            reclaimable: containers.iter().filter(|c| !running(&c.state)).map(|c| c.size_rw).sum(),
            percent: true,
        },
        Row {
            kind: "Local Volumes",
            total: volumes.len(),
            active: volumes.iter().filter(|v| v.usage_data.as_ref().is_some_and(|u| u.ref_count > 0)).count(),
            size: volume_size(|_| true),
            reclaimable: volume_size(|count| count == 0),
            percent: true,
        },
        Row {
            kind: "Build Cache",
            total: cache.len(),
            active: cache.iter().filter(|record| record.in_use).count(),
            size: cache.iter().filter(|record| !record.shared).map(|record| record.size).sum(),
            reclaimable: cache.iter().filter(|r| !r.in_use && !r.shared).map(|r| r.size).sum(),
            percent: false,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary() {
        let usage: DiskUsage = serde_json::from_str(
            r#"{"LayersSize":4000000,"Images":[{"Id":"a","Containers":1,"Size":3000000,"SharedSize":0},{"Id":"b","Containers":0,"Size":1000000,"SharedSize":0}],
               "Containers":[{"Id":"c","State":"running","SizeRw":100},{"Id":"d","State":"exited","SizeRw":300}],"Volumes":null,"BuildCache":[]}"#,
        )
        .unwrap();
        assert_eq!(
            listing().render(&summary(usage), "", false).unwrap_or_else(|f| f.message),
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE\n\
             Images          2         1         4MB       1MB (25%)\n\
             Containers      2         1         400B      300B (75%)\n\
             Local Volumes   0         0         0B        0B\n\
             Build Cache     0         0         0B        0B\n"
        );
    }
}
