//! `hull network prune`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{Filters, NetworksPruned};

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, or_empty, prune_filters};
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove all unused networks",
    aliases: &["network prune"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
    Flag::switch("force", "Do not prompt for confirmation").short('f'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure \
                    you want to continue? [y/N] ";
    if !confirmed(&invocation, question)? {
        return Ok(0);
    }
    let text = prune(&invocation, prune_filters(&invocation)).await?;
    if !text.is_empty() {
        output::line(&text);
    }
    Ok(0)
}

/// Removes unused networks; what was removed.
pub(crate) async fn prune(invocation: &Invocation, filters: Filters) -> Result<String> {
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&filters);
    let pruned: NetworksPruned = client.request(Method::POST, "/networks/prune", &query, empty()).await?;
    let deleted = or_empty(pruned.networks_deleted);
    Ok(if deleted.is_empty() {
        String::new()
    } else {
        format!("Deleted Networks:\n{}\n", deleted.join("\n"))
    })
}
