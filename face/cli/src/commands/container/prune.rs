//! `hull container prune`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{ContainersPruned, Filters};

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, prune_filters};
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove all stopped containers",
    aliases: &["container prune"],
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
    let question =
        "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
    if !confirmed(&invocation, question)? {
        return Ok(0);
    }
    let (space, text) = prune(&invocation, prune_filters(&invocation)).await?;
    if !text.is_empty() {
        output::line(&text);
    }
    output::line(&format!("Total reclaimed space: {}", human::size(space as f64)));
    Ok(0)
}

/// Removes stopped containers; the bytes gained and what was removed.
pub(crate) async fn prune(invocation: &Invocation, filters: Filters) -> Result<(u64, String)> {
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&filters);
    let pruned: ContainersPruned = client.request(Method::POST, "/containers/prune", &query, empty()).await?;
    let mut text = String::new();
    if let Some(deleted) = pruned.containers_deleted.filter(|deleted| !deleted.is_empty()) {
        text = format!("Deleted Containers:\n{}\n", deleted.join("\n"));
    }
    Ok((pruned.space_reclaimed, text))
}
