//! `hull load`.

use hull_client::{JsonLines, Method, Query};

use crate::command::{Args, Command, Invocation};
use crate::commands::{platform, read_archive};
use crate::error::Result;
use crate::flags::{Flag, STRING};
use crate::output::progress::{Sink, show};

pub(crate) static COMMAND: Command = Command {
    name: "load",
    usage: "[OPTIONS]",
    about: "Load an image from a tar archive or STDIN",
    aliases: &["image load", "load"],
    args: Args::None,
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "input", "Read from tar archive file, instead of STDIN").short('i'),
    Flag::new(
        STRING,
        "platform",
        "Load only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
    Flag::switch("quiet", "Suppress the load output").short('q'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let input = matches.text("input");
    if input.is_empty() && crate::terminal::stdin_is_terminal() {
        return Err("requested load from stdin, but stdin is empty".into());
    }
    let archive = read_archive(if input.is_empty() { "-" } else { input })?;
    let quiet = matches.on("quiet") || !crate::terminal::stdout_is_terminal();
    let query = Query::new().flag("quiet", quiet).set_nonempty("platform", platform(matches, "platform")?);
    let client = invocation.engine.client().await?;
    let reply = client.send(Method::POST, "/images/load", &query, archive, &[]).await?;
    show(JsonLines::new(reply), Sink::Stdout).await?;
    Ok(0)
}
