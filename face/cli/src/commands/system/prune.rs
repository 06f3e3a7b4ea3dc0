//! `hull system prune`.

use hull_client::{Method, Query, empty};
use hull_docker_api::{BuildCachePruned, Filters};

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, container, image, network, or_empty, prune_filters, volume};
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "prune",
    usage: "[OPTIONS]",
    about: "Remove unused data",
    aliases: &["system prune"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Remove all unused images not just dangling ones").short('a'),
    Flag::new(FILTER, "filter", "Provide filter values (e.g. \"label=<key>=<value>\")"),
    Flag::switch("force", "Do not prompt for confirmation").short('f'),
    Flag::switch("volumes", "Prune anonymous volumes"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let (all, volumes) = (matches.on("all"), matches.on("volumes"));
    let mut filters = matches.filters("filter");
    if volumes && filters.contains("until") {
        return Err("ERROR: The \"until\" filter is not supported with \"--volumes\"".into());
    }
    if filters.is_empty() {
        filters = prune_filters(&invocation);
    }
    if !confirmed(&invocation, &question(all, volumes, &filters))? {
        return Ok(0);
    }
    let mut space = 0;
    let mut told = |(reclaimed, text): (u64, String)| {
        space += reclaimed;
        if !text.is_empty() {
            output::line(&text);
        }
    };
    told(container::prune::prune(&invocation, filters.clone()).await?);
    told((0, network::prune::prune(&invocation, filters.clone()).await?));
    if volumes {
        told(volume::prune::prune(&invocation, labels_only(&filters)).await?);
    }
    told(image::prune::prune(&invocation, filters.clone(), all).await?);
    told(build_cache(&invocation, filters, all).await?);
    output::line(&format!("Total reclaimed space: {}", human::size(space as f64)));
    Ok(0)
}

/// Removes the build cache. An engine that has none says that it has not implemented this.
async fn build_cache(invocation: &Invocation, filters: Filters, all: bool) -> Result<(u64, String)> {
    let client = invocation.engine.client().await?;
    let query = Query::new().flag("all", all).filters(&filters);
    let pruned: BuildCachePruned = match client.request(Method::POST, "/build/prune", &query, empty()).await {
        Err(error) if matches!(error.status(), Some(404 | 501)) => return Ok((0, String::new())),
        other => other?,
    };
    let deleted = or_empty(pruned.caches_deleted);
    let text = match deleted.is_empty() {
        true => String::new(),
        false => format!("Deleted build cache objects:\n{}\n", deleted.join("\n")),
    };
    Ok((pruned.space_reclaimed, text))
}

fn labels_only(filters: &Filters) -> Filters {
    let mut labels = Filters::new();
    for field in ["label", "label!"] {
        filters.values(field).iter().for_each(|value| labels.add(field, value));
    }
    labels
}

fn question(all: bool, volumes: bool, filters: &Filters) -> String {
    let mut text = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
    if volumes {
        text += "  - all anonymous volumes not used by at least one container\n";
    }
    text += match all {
        true => "  - all images without at least one container associated to them\n  - all build cache\n",
        false => "  - all dangling images\n  - unused build cache\n",
    };
    if !filters.is_empty() {
        text += "\n  Items to be pruned will be filtered with:\n";
        for field in filters.fields() {
            filters.values(field).iter().for_each(|value| text += &format!("  - {field}={value}\n"));
        }
    }
    text + "\nAre you sure you want to continue? [y/N] "
}
