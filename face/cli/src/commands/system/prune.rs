//! `hull system prune`.

use hull_docker_api::Filters;

use crate::command::{Args, Command, Invocation};
use crate::commands::{confirmed, container, image, network, prune_filters, volume};
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
    if !confirmed(&invocation, &question(all, volumes))? {
        return Ok(0);
    }
    if filters.is_empty() {
        filters = prune_filters(&invocation);
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
    told(image::prune::prune(&invocation, filters, all).await?);
    output::line(&format!("Total reclaimed space: {}", human::size(space as f64)));
    Ok(0)
}

fn labels_only(filters: &Filters) -> Filters {
    let mut labels = Filters::new();
    for field in ["label", "label!"] {
        filters.values(field).iter().for_each(|value| labels.add(field, value));
    }
    labels
}

fn question(all: bool, volumes: bool) -> String {
    let mut text = "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n".to_owned();
    if volumes {
        text += "  - all anonymous volumes not used by at least one container\n";
    }
    text += match all {
        true => "  - all images without at least one container associated to them\n",
        false => "  - all dangling images\n",
    };
    text + "\nAre you sure you want to continue? [y/N] "
}
