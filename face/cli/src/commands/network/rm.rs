//! `hull network rm`.

use hull_client::{Query, path_part};

use crate::command::{Args, Command, Invocation};
use crate::error::{Result, for_each_in_order};
use crate::flags::Flag;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "NETWORK [NETWORK...]",
    about: "Remove one or more networks",
    aliases: &["network rm", "network remove"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::switch("force", "Do not error if the network does not exist").short('f')];

async fn run(invocation: Invocation) -> Result<u8> {
    let force = invocation.matches.on("force");
    let client = invocation.engine.client().await?;
    for_each_in_order(&invocation.matches.args, |name| {
        let client = client.clone();
        async move {
            match client.delete(&format!("/networks/{}", path_part(&name)), &Query::new()).await {
                Err(error) if force && error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(Some(name)),
            }
        }
    })
    .await
}
