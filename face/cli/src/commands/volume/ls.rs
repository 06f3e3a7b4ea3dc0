//! `hull volume ls`.

use std::collections::BTreeMap;

use hull_client::Query;
use hull_docker_api::{Volume, VolumeList};

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::listing::{Column, Listing, joined_labels};
use crate::output::{self, human, natural};

pub(crate) static COMMAND: Command = Command {
    name: "ls",
    usage: "[OPTIONS]",
    about: "List volumes",
    aliases: &["volume ls", "volume list"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("cluster", "Display only cluster volumes, and use cluster volume list formatting"),
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"dangling=true\")").short('f'),
    formats::LIST,
    Flag::switch("quiet", "Only display volume names").short('q'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&matches.filters("filter"));
    let list: VolumeList = client.get("/volumes", &query).await?;
    let mut rows: Vec<Row> = list.volumes.into_iter().map(Row::from).collect();
    rows.sort_by(|a, b| natural::compare(&a.volume.name, &b.volume.name));
    let format = match matches.text("format") {
        "" => invocation.engine.config().text("volumesFormat"),
        format => format,
    };
    output::text(&listing(&["Driver", "Name"]).render(&rows, format, matches.on("quiet"))?);
    list.warnings.iter().flatten().for_each(|warning| output::warn(&format!("WARNING: {warning}")));
    Ok(0)
}

/// A volume; its labels apart, because the API has none as `null`.
pub(crate) struct Row {
    volume: Volume,
    labels: BTreeMap<String, String>,
}

impl From<Volume> for Row {
    fn from(volume: Volume) -> Self {
        Self { labels: volume.labels.clone().unwrap_or_default(), volume }
    }
}

/// A list of volumes with these columns in its default table.
pub(crate) fn listing(default: &[&'static str]) -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "Availability", header: "AVAILABILITY", value: |_| "N/A".to_owned() },
        Column { name: "Driver", header: "DRIVER", value: |row| row.volume.driver.clone() },
        Column { name: "Group", header: "GROUP", value: |_| "N/A".to_owned() },
        Column { name: "Labels", header: "LABELS", value: |row| joined_labels(&row.labels) },
        Column {
            name: "Links",
            header: "LINKS",
            value: |row| usage(row, |usage| usage.ref_count.to_string()),
        },
        Column { name: "Mountpoint", header: "MOUNTPOINT", value: |row| row.volume.mountpoint.clone() },
        Column { name: "Name", header: "VOLUME NAME", value: |row| row.volume.name.clone() },
        Column { name: "Scope", header: "SCOPE", value: |row| row.volume.scope.clone() },
        Column {
            name: "Size",
            header: "SIZE",
            value: |row| usage(row, |usage| human::size(usage.size as f64)),
        },
        Column { name: "Status", header: "STATUS", value: |_| "N/A".to_owned() },
    ];
    Listing { columns: COLUMNS, default: default.to_vec(), quiet: "Name", labels: Some(|row| &row.labels) }
}

fn usage(row: &Row, text: fn(&hull_docker_api::VolumeUsage) -> String) -> String {
    row.volume.usage_data.as_ref().map_or_else(|| "N/A".to_owned(), text)
}
