//! `hull search`.

use hull_client::Query;
use hull_docker_api::SearchResult;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{FILTER, Flag, INT, STRING};
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "search",
    usage: "[OPTIONS] TERM",
    about: "Search Docker Hub for images",
    aliases: &["search"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(FILTER, "filter", "Filter output based on conditions provided").short('f'),
    Flag::new(STRING, "format", "Pretty-print search using a Go template"),
    Flag::new(INT, "limit", "Max number of search results"),
    Flag::switch("no-trunc", "Don't truncate output"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let mut query = Query::new().set("term", invocation.arg(0)).filters(&matches.filters("filter"));
    if matches.is_set("limit") {
        query = query.set("limit", matches.int("limit").to_string());
    }
    let client = invocation.engine.client().await?;
    let results: Vec<SearchResult> = client.get("/images/search", &query).await?;
    let trunc = !matches.on("no-trunc");
    let rows: Vec<Row> = results.into_iter().map(|result| Row { result, trunc }).collect();
    output::text(&listing().render(&rows, matches.text("format"), false)?);
    Ok(0)
}

struct Row {
    result: SearchResult,
    trunc: bool,
}

fn listing() -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "Description", header: "DESCRIPTION", value: description },
        Column { name: "IsOfficial", header: "OFFICIAL", value: official },
        Column { name: "Name", header: "NAME", value: |row| row.result.name.clone() },
        Column { name: "StarCount", header: "STARS", value: |row| row.result.star_count.to_string() },
    ];
    Listing {
        columns: COLUMNS,
        default: vec!["Name", "Description", "StarCount", "IsOfficial"],
        quiet: "Name",
        labels: None,
    }
}

fn description(row: &Row) -> String {
    let text = row.result.description.replace(['\n', '\r'], " ");
    if row.trunc { human::ellipsis(&text, 45) } else { text }
}

fn official(row: &Row) -> String {
    if row.result.is_official { "[OK]".to_owned() } else { String::new() }
}
