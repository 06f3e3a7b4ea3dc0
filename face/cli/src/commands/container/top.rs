//! `hull top`.

use hull_client::{Query, path_part};
use hull_docker_api::ContainerTop;

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::output::{self, table};

pub(crate) static COMMAND: Command = Command {
    name: "top",
    usage: "CONTAINER [ps OPTIONS]",
    about: "Display the running processes of a container",
    aliases: &["container top", "top"],
    args: Args::AtLeast(1),
    flags: &[],
    interspersed: false,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let arguments = invocation.matches.args.get(1..).unwrap_or_default().join(" ");
    let query = Query::new().set_nonempty("ps_args", &arguments);
    let top: ContainerTop =
        client.get(&format!("/containers/{}/top", path_part(invocation.arg(0))), &query).await?;
    let mut text = top.titles.join("\t") + "\n";
    for process in &top.processes {
        text += &(process.join("\t") + "\n");
    }
    output::text(&table::align_with(&text, 20, 1));
    Ok(0)
}
