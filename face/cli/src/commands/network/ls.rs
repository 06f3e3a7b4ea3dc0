//! `hull network ls`.

use hull_client::Query;
use hull_docker_api::NetworkInspect;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::listing::{Column, Listing, joined_labels};
use crate::output::{self, human, natural};

pub(crate) static COMMAND: Command = Command {
    name: "ls",
    usage: "[OPTIONS]",
    about: "List networks",
    aliases: &["network ls", "network list"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"driver=bridge\")").short('f'),
    formats::LIST,
    Flag::switch("no-trunc", "Do not truncate the output"),
    Flag::switch("quiet", "Only display network IDs").short('q'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&matches.filters("filter"));
    let mut networks: Vec<NetworkInspect> = client.get("/networks", &query).await?;
    networks.sort_by(|a, b| natural::compare(&a.name, &b.name));
    let format = match matches.text("format") {
        "" => invocation.engine.config().text("networksFormat"),
        format => format,
    };
    let trunc = !matches.on("no-trunc");
    let rows: Vec<Row> = networks.into_iter().map(|network| Row { network, trunc }).collect();
    output::text(&listing().render(&rows, format, matches.on("quiet"))?);
    Ok(0)
}

struct Row {
    network: NetworkInspect,
    trunc: bool,
}

fn listing() -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "CreatedAt", header: "CREATED AT", value: created_at },
        Column { name: "Driver", header: "DRIVER", value: |row| row.network.driver.clone() },
        Column { name: "ID", header: "NETWORK ID", value: id },
        Column { name: "IPv4", header: "IPV4", value: |row| row.network.enable_ipv4.to_string() },
        Column { name: "IPv6", header: "IPV6", value: |row| row.network.enable_ipv6.to_string() },
        Column { name: "Internal", header: "INTERNAL", value: |row| row.network.internal.to_string() },
        Column { name: "Labels", header: "LABELS", value: |row| joined_labels(&row.network.labels) },
        Column { name: "Name", header: "NAME", value: |row| row.network.name.clone() },
        Column { name: "Scope", header: "SCOPE", value: |row| row.network.scope.clone() },
    ];
    let default = vec!["ID", "Name", "Driver", "Scope"];
    Listing { columns: COLUMNS, default, quiet: "ID", labels: Some(|row| &row.network.labels) }
}

fn id(row: &Row) -> String {
    if row.trunc { human::short_id(&row.network.id) } else { row.network.id.clone() }
}

fn created_at(row: &Row) -> String {
    row.network.created.replacen('T', " ", 1).replacen('Z', " +0000 UTC", 1)
}
