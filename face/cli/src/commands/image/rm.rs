//! `hull rmi`.

use hull_client::{Query, path_part};
use hull_docker_api::ImageDeleted;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result, for_each_in_order};
use crate::flags::{Flag, STRINGS};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Remove one or more images",
    aliases: &["image rm", "image remove", "rmi"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("force", "Force removal of the image").short('f'),
    Flag::switch("no-prune", "Do not delete untagged parents"),
    Flag::new(
        STRINGS,
        "platform",
        "Remove only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let force = matches.on("force");
    let mut query = Query::new().flag("force", force).flag("noprune", matches.on("no-prune"));
    for platform in matches.comma_list("platform") {
        query = query.set("platforms", crate::commands::platform_json(&platform)?);
    }
    let client = invocation.engine.client().await?;
    for_each_in_order(&matches.args, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            match client.delete(&format!("/images/{}", path_part(&name)), &query).await {
                Ok(bytes) => {
                    let deleted: Vec<ImageDeleted> = serde_json::from_slice(&bytes)?;
                    output::text(&lines(&deleted));
                    Ok(None)
                }
                // As docker: with --force a missing image is told, and is no failure.
                Err(error) if force && error.is_not_found() => {
                    output::warn(&Failure::from(error).message);
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        }
    })
    .await
}

/// `Untagged: …` and `Deleted: …`.
pub(crate) fn lines(deleted: &[ImageDeleted]) -> String {
    deleted
        .iter()
        .map(|item| match item.deleted.is_empty() {
            true => format!("Untagged: {}\n", item.untagged),
            false => format!("Deleted: {}\n", item.deleted),
        })
        .collect()
}
