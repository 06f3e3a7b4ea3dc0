//! `hull rename`.

use hull_client::Query;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};

pub(crate) static COMMAND: Command = Command {
    name: "rename",
    usage: "CONTAINER NEW_NAME",
    about: "Rename a container",
    aliases: &["container rename", "rename"],
    args: Args::Exactly(2),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let (old, new) = (invocation.arg(0).trim(), invocation.arg(1).trim());
    if old.is_empty() || new.is_empty() {
        return Err("Error: Neither old nor new names may be empty".into());
    }
    let client = invocation.engine.client().await?;
    match client.container_action(old, "rename", &Query::new().set("name", new)).await {
        Ok(()) => Ok(0),
        Err(error) => {
            let failure = Failure::from(error);
            Err(Failure {
                message: format!("{}\nError: failed to rename container named {old}", failure.message),
                ..failure
            })
        }
    }
}
