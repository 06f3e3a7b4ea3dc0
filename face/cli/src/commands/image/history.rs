//! `hull history`.

use hull_client::{Query, path_part};
use hull_docker_api::HistoryItem;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{Flag, STRING};
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "history",
    usage: "[OPTIONS] IMAGE",
    about: "Show the history of an image",
    aliases: &["image history", "history"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    formats::LIST,
    Flag::switch("human", "Print sizes and dates in human readable format (default true)")
        .short('H')
        .default("true"),
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::new(
        STRING,
        "platform",
        "Show history for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
    Flag::switch("quiet", "Only show image IDs").short('q'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let query = Query::new().set_nonempty("platform", crate::commands::platform(matches, "platform")?);
    let items: Vec<HistoryItem> =
        client.get(&format!("/images/{}/history", path_part(invocation.arg(0))), &query).await?;
    let (human, trunc) = (matches.on("human"), !matches.on("no-trunc"));
    let rows: Vec<Row> = items.into_iter().map(|item| Row { item, human, trunc }).collect();
    output::text(&listing(human).render(&rows, matches.text("format"), matches.on("quiet"))?);
    Ok(0)
}

/// One layer or instruction.
struct Row {
    item: HistoryItem,
    human: bool,
    trunc: bool,
}

/// The columns; a machine's list names the time for what it is.
const fn columns(created: &'static str) -> [Column<Row>; 6] {
    [
        Column { name: "Comment", header: "COMMENT", value: |row| row.item.comment.clone() },
        Column { name: "CreatedAt", header: "CREATED AT", value: |row| created_at(&row.item) },
        Column { name: "CreatedBy", header: "CREATED BY", value: created_by },
        Column { name: "CreatedSince", header: created, value: created_since },
        Column { name: "ID", header: "IMAGE", value: id },
        Column { name: "Size", header: "SIZE", value: size },
    ]
}

const COLUMNS: &[Column<Row>] = &columns("CREATED");
const EXACT: &[Column<Row>] = &columns("CREATED AT");

fn listing(human: bool) -> Listing<Row> {
    let default = vec!["ID", "CreatedSince", "CreatedBy", "Size", "Comment"];
    Listing { columns: if human { COLUMNS } else { EXACT }, default, quiet: "ID", labels: None }
}

fn id(row: &Row) -> String {
    if row.trunc && row.item.id.len() > 20 { human::short_id(&row.item.id) } else { row.item.id.clone() }
}

fn created_at(item: &HistoryItem) -> String {
    jiff::Timestamp::from_second(item.created)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn created_since(row: &Row) -> String {
    match row.human {
        true => human::ago(row.item.created),
        false => created_at(&row.item),
    }
}

fn created_by(row: &Row) -> String {
    let text = row.item.created_by.replace('\t', " ");
    if row.trunc { human::ellipsis(&text, 45) } else { text }
}

fn size(row: &Row) -> String {
    if row.human { human::size3(row.item.size as f64) } else { row.item.size.to_string() }
}
