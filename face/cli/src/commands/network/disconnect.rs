//! `hull network disconnect`.

use hull_client::{Method, Query, json, path_part};
use hull_docker_api::NetworkDisconnectRequest;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::Flag;

pub(crate) static COMMAND: Command = Command {
    name: "disconnect",
    usage: "[OPTIONS] NETWORK CONTAINER",
    about: "Disconnect a container from a network",
    aliases: &["network disconnect"],
    args: Args::Exactly(2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] =
    &[Flag::switch("force", "Force the container to disconnect from a network").short('f')];

async fn run(invocation: Invocation) -> Result<u8> {
    let request = NetworkDisconnectRequest {
        container: invocation.arg(1).to_owned(),
        force: invocation.matches.on("force"),
    };
    let client = invocation.engine.client().await?;
    let path = format!("/networks/{}/disconnect", path_part(invocation.arg(0)));
    client.request_bytes(Method::POST, &path, &Query::new(), json(&request)).await?;
    Ok(0)
}
