//! `hull wait`.

use hull_docker_api::ContainerWait;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result, for_each_in_order};

pub(crate) static COMMAND: Command = Command {
    name: "wait",
    usage: "CONTAINER [CONTAINER...]",
    about: "Block until one or more containers stop, then print their exit codes",
    aliases: &["container wait", "wait"],
    args: Args::AtLeast(1),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let client = invocation.engine.client().await?;
    for_each_in_order(&invocation.matches.args, |name| {
        let client = client.clone();
        async move {
            let reply = client.container_wait(&name, "").await?;
            let wait: ContainerWait = serde_json::from_slice(&reply.bytes(&client).await?)?;
            match wait.error {
                Some(error) if !error.message.is_empty() => Err(Failure::new(error.message)),
                _ => Ok(Some(wait.status_code.to_string())),
            }
        }
    })
    .await
}
