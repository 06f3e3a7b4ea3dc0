//! `hull rm`.

use hull_client::Query;

use crate::command::{Args, Command, Invocation};
use crate::error::{Result, for_each};
use crate::flags::Flag;
use crate::opts;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Remove one or more containers",
    aliases: &["container rm", "container remove", "rm"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("force", "Force the removal of a running container (uses SIGKILL)").short('f'),
    Flag::switch("link", "Remove the specified link").short('l').check(opts::link),
    Flag::switch("volumes", "Remove anonymous volumes associated with the container").short('v'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let force = matches.on("force");
    let query =
        Query::new().flag("v", matches.on("volumes")).flag("link", matches.on("link")).flag("force", force);
    let client = invocation.engine.client().await?;
    for_each(&matches.args, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            let name = name.trim_matches('/').to_owned();
            if name.is_empty() {
                return Err("Container name cannot be empty".into());
            }
            match client.container_remove(&name, &query).await {
                // As docker since 20.10: removing what is not there is what --force asks for.
                Err(error) if force && error.is_not_found() => {
                    crate::output::warn(&error.to_string());
                    Ok(None)
                }
                Err(error) => Err(error.into()),
                Ok(()) => Ok(Some(name)),
            }
        }
    })
    .await
}
