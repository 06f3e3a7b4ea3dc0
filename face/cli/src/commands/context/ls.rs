//! `hull context ls`.

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::config::ContextMeta;
use crate::error::Result;
use crate::flags::Flag;
use crate::output::listing::{Column, Listing};
use crate::output::template::go_escape;
use crate::output::{self, natural};

pub(crate) static COMMAND: Command = Command {
    name: "ls",
    usage: "[OPTIONS]",
    about: "List contexts",
    aliases: &["context ls", "context list"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[formats::LIST, Flag::switch("quiet", "Only show context names").short('q')];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let current = invocation.engine.context_name();
    let mut contexts = super::store(&invocation).list();
    contexts.push(super::default_context());
    contexts.sort_by(|a, b| natural::compare(&a.name, &b.name));
    let rows: Vec<Row> =
        contexts.into_iter().map(|context| Row { current: context.name == current, context }).collect();
    let text = match matches.text("format") {
        "json" | "{{json .}}" if !matches.on("quiet") => rows.iter().map(json).collect(),
        format => listing(matches.on("quiet")).render(&rows, format, matches.on("quiet"))?,
    };
    output::text(&text);
    if current == "default" && std::env::var_os("DOCKER_HOST").is_some_and(|host| !host.is_empty()) {
        output::warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the \
             global --context flag, or unset DOCKER_HOST environment variable.",
        );
    }
    Ok(0)
}

struct Row {
    current: bool,
    context: ContextMeta,
}

/// Here `Current` is a truth value.
fn json(row: &Row) -> String {
    let value = serde_json::json!({
        "Current": row.current,
        "Description": row.context.description(),
        "DockerEndpoint": row.context.host(),
        "Error": "",
        "Name": row.context.name,
    });
    go_escape(&value.to_string()) + "\n"
}

fn listing(quiet: bool) -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "Current", header: "CURRENT", value: |row| row.current.to_string() },
        Column {
            name: "Description",
            header: "DESCRIPTION",
            value: |row| row.context.description().to_owned(),
        },
        Column {
            name: "DockerEndpoint",
            header: "DOCKER ENDPOINT",
            value: |row| row.context.host().to_owned(),
        },
        Column { name: "Error", header: "ERROR", value: |_| String::new() },
        Column { name: "Name", header: "NAME", value: |row| row.context.name.clone() },
        Column { name: "Marked", header: "NAME", value: marked },
    ];
    let quiet_column = if quiet { "Name" } else { "Marked" };
    Listing {
        columns: COLUMNS,
        default: vec!["Marked", "Description", "DockerEndpoint", "Error"],
        quiet: quiet_column,
        labels: None,
    }
}

fn marked(row: &Row) -> String {
    if row.current { format!("{} *", row.context.name) } else { row.context.name.clone() }
}
