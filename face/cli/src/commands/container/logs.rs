//! `hull logs`.

use hull_client::{Demux, Query, empty, path_part};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, STRING};
use crate::streams::write_out;

pub(crate) static COMMAND: Command = Command {
    name: "logs",
    usage: "[OPTIONS] CONTAINER",
    about: "Fetch the logs of a container",
    aliases: &["container logs", "logs"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("details", "Show extra details provided to logs"),
    Flag::switch("follow", "Follow log output").short('f'),
    Flag::new(
        STRING,
        "since",
        "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
    Flag::new(STRING, "tail", "Number of lines to show from the end of the logs (default \"all\")")
        .short('n')
        .default("all"),
    Flag::switch("timestamps", "Show timestamps").short('t'),
    Flag::new(
        STRING,
        "until",
        "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)",
    ),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let name = invocation.arg(0);
    let container = client.container_inspect(name).await?;
    let mut query = Query::new()
        .set("stdout", "1")
        .set("stderr", "1")
        .flag("timestamps", matches.on("timestamps"))
        .flag("follow", matches.on("follow"))
        .flag("details", matches.on("details"))
        .set_nonempty("tail", matches.text("tail"));
    for flag in ["since", "until"] {
        let text = matches.text(flag);
        if !text.is_empty() {
            let at = crate::commands::timestamp(text).map_err(|_| {
                format!("invalid value for \"{flag}\": failed to parse value as time or duration: {text:?}")
            })?;
            query = query.set(flag, at);
        }
    }
    let path = format!("/containers/{}/logs", path_part(&container.id));
    let mut reply = client.send(hull_client::Method::GET, &path, &query, empty(), &[]).await?;
    let mut demux = Demux::new();
    while let Some(chunk) = reply.chunk().await? {
        write_out(&mut demux, chunk, container.config.tty)?;
    }
    Ok(0)
}
