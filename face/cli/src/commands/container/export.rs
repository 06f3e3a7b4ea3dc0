//! `hull export`.

use hull_client::{Query, empty, path_part};

use crate::command::{Args, Command, Invocation};
use crate::commands::{check_output, write_archive};
use crate::error::Result;
use crate::flags::{Flag, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "export",
    usage: "[OPTIONS] CONTAINER",
    about: "Export a container's filesystem as a tar archive",
    aliases: &["container export", "export"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[Flag::new(STRING, "output", "Write to a file, instead of STDOUT").short('o')];

async fn run(invocation: Invocation) -> Result<u8> {
    let output = invocation.matches.text("output");
    if output.is_empty() && crate::terminal::stdout_is_terminal() {
        return Err("cowardly refusing to save to a terminal. Use the -o flag or redirect".into());
    }
    check_output("export container", output)?;
    let client = invocation.engine.client().await?;
    let path = format!("/containers/{}/export", path_part(invocation.arg(0)));
    let reply = client.send(hull_client::Method::GET, &path, &Query::new(), empty(), &[]).await?;
    write_archive(reply, output).await?;
    Ok(0)
}
