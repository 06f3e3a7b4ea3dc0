//! `hull volume rm`.

use hull_client::{Query, path_part};

use crate::command::{Args, Command, Invocation};
use crate::error::{Result, for_each_in_order};
use crate::flags::Flag;

pub(crate) static COMMAND: Command = Command {
    name: "rm",
    usage: "[OPTIONS] VOLUME [VOLUME...]",
    about: "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
    aliases: &["volume rm", "volume remove"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::switch("force", "Force the removal of one or more volumes").short('f')];

async fn run(invocation: Invocation) -> Result<u8> {
    let query = Query::new().flag("force", invocation.matches.on("force"));
    let client = invocation.engine.client().await?;
    for_each_in_order(&invocation.matches.args, |name| {
        let (client, query) = (client.clone(), query.clone());
        async move {
            client.delete(&format!("/volumes/{}", path_part(&name)), &query).await?;
            Ok(Some(name))
        }
    })
    .await
}
