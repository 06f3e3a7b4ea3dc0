//! `hull image prune`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{Filters, ImagesPruned};

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, or_empty, prune_filters};
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused images",
    aliases: &["image prune"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Remove all unused images, not just dangling ones").short('a'),
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
    Flag::switch("force", "Do not prompt for confirmation").short('f'),
    Flag::switch("dry-run", "Tell what would be removed, and remove nothing"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let all = invocation.matches.on("all");
    let what = if all {
        "all images without at least one container associated to them"
    } else {
        "all dangling images"
    };
    let question = format!("WARNING! This will remove {what}.\nAre you sure you want to continue? [y/N] ");
    if invocation.matches.on("dry-run") {
        return tell(&invocation, prune_filters(&invocation), all).await;
    }
    if !confirmed(&invocation, &question)? {
        return Ok(0);
    }
    let (space, text) = prune(&invocation, prune_filters(&invocation), all).await?;
    if !text.is_empty() {
        output::line(&text);
    }
    output::line(&format!("Total reclaimed space: {}", human::size(space as f64)));
    Ok(0)
}

async fn tell(invocation: &Invocation, mut filters: Filters, all: bool) -> Result<u8> {
    filters.add("dangling", if all { "false" } else { "true" });
    let client = invocation.engine.client().await?;
    let query = Query::new().flag("dry-run", true).filters(&filters);
    let pruned: ImagesPruned = client.request(Method::POST, "/images/prune", &query, empty()).await?;
    let deleted = or_empty(pruned.images_deleted);
    if !deleted.is_empty() {
        output::line(&format!("Images to delete:\n{}", super::rm::lines(&deleted).to_lowercase_first()));
    }
    output::line(&format!("Space to reclaim: {}", human::size(pruned.space_reclaimed as f64)));
    Ok(0)
}

/// Removes unused images; the bytes gained and what was removed.
pub(crate) async fn prune(invocation: &Invocation, mut filters: Filters, all: bool) -> Result<(u64, String)> {
    filters.add("dangling", if all { "false" } else { "true" });
    let client = invocation.engine.client().await?;
    let query = Query::new().filters(&filters);
    let pruned: ImagesPruned = client.request(Method::POST, "/images/prune", &query, empty()).await?;
    let deleted = or_empty(pruned.images_deleted);
    let text = match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted Images:\n{}", super::rm::lines(&deleted).to_lowercase_first()),
    };
    Ok((pruned.space_reclaimed, text))
}

/// Prune writes `untagged:` and `deleted:` where rmi writes capitals.
trait LowercaseFirst {
    fn to_lowercase_first(&self) -> String;
}

impl LowercaseFirst for String {
    fn to_lowercase_first(&self) -> String {
        self.replace("Untagged: ", "untagged: ").replace("Deleted: ", "deleted: ")
    }
}
