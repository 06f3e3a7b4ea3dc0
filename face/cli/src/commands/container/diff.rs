//! `hull diff`.

use hull_client::{Query, path_part};
use hull_docker_api::FilesystemChange;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "diff",
    usage: "CONTAINER",
    about: "Inspect changes to files or directories on a container's filesystem",
    aliases: &["container diff", "diff"],
    args: Args::Exactly(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let path = format!("/containers/{}/changes", path_part(invocation.arg(0)));
    let changes: Option<Vec<FilesystemChange>> = client.get(&path, &Query::new()).await?;
    let kind = |kind| match kind {
        0 => 'C',
        1 => 'A',
        _ => 'D',
    };
    let lines = changes
        .unwrap_or_default()
        .iter()
        .map(|change| format!("{} {}\n", kind(change.kind), change.path))
        .collect::<String>();
    output::text(&lines);
    Ok(0)
}
