//! `hull volume prune`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{Filters, VolumesPruned};

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, or_empty, prune_filters};
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused local volumes",
    aliases: &["volume prune"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Remove all unused volumes, not just anonymous ones").short('a'),
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"label=<label>\")"),
    Flag::switch("force", "Do not prompt for confirmation").short('f'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let all = invocation.matches.on("all");
    let what = if all { "all" } else { "anonymous" };
    let question = format!(
        "WARNING! This will remove {what} local volumes not used by at least one container.\nAre you sure you want to \
         continue? [y/N] "
    );
    if !confirmed(&invocation, &question)? {
        return Ok(0);
    }
    let mut filters = prune_filters(&invocation);
    if all {
        if filters.contains("all") {
            return Err("conflicting options: cannot specify both --all and --filter all=1".into());
        }
        filters.add("all", "true");
    }
    let (space, text) = prune(&invocation, filters).await?;
    if !text.is_empty() {
        output::line(&text);
    }
    output::line(&format!("Total reclaimed space: {}", human::size(space as f64)));
    Ok(0)
}

/// Removes unused volumes; the bytes gained and what was removed.
pub(crate) async fn prune(invocation: &Invocation, filters: Filters) -> Result<(u64, String)> {
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&filters);
    let pruned: VolumesPruned = client.request(Method::POST, "/volumes/prune", &query, empty()).await?;
    let deleted = or_empty(pruned.volumes_deleted);
    let text = if deleted.is_empty() {
        String::new()
    } else {
        format!("Deleted Volumes:\n{}\n", deleted.join("\n"))
    };
    Ok((pruned.space_reclaimed, text))
}
