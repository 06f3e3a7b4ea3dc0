//! `hull save`.

use hull_client::{Method, Query, empty};

use crate::command::{Args, Command, Invocation};
use crate::commands::{check_output, platform, write_archive, write_layout};
use crate::error::Result;
use crate::flags::{Flag, STRING};

pub(crate) static COMMAND: Command = Command {
    name: "save",
    usage: "[OPTIONS] IMAGE [IMAGE...]",
    about: "Save one or more images to a tar archive (streamed to STDOUT by default)",
    aliases: &["image save", "save"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "compression", "Compress the archive: \"gzip\" or \"zstd\""),
    Flag::new(
        STRING,
        "format",
        "\"archive\" (docker archive and OCI layout at once, the default) or \"oci-dir\" (OCI layout in the directory given by --output)",
    ),
    Flag::new(STRING, "output", "Write to a file, instead of STDOUT").short('o'),
    Flag::new(
        STRING,
        "platform",
        "Save only the given platform variant. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let output = invocation.matches.text("output");
    let directory = match invocation.matches.text("format") {
        "" | "archive" | "docker-archive" | "oci-archive" => false,
        "oci-dir" if output.is_empty() => return Err("--format oci-dir needs --output".into()),
        "oci-dir" => true,
        other => return Err(format!("unknown format {other:?}: archive or oci-dir").into()),
    };
    let compression = invocation.matches.text("compression");
    if directory && !compression.is_empty() {
        return Err("--compression can't be used with --format oci-dir".into());
    }
    if output.is_empty() && crate::terminal::stdout_is_terminal() {
        return Err("cowardly refusing to save to a terminal. Use the -o flag or redirect".into());
    }
    if !directory {
        check_output("save image", output)?;
    }
    let mut query = Query::new()
        .set_nonempty("compression", compression)
        .set_nonempty("platform", platform(&invocation.matches, "platform")?);
    for name in &invocation.matches.args {
        query = query.set("names", name);
    }
    let client = invocation.engine.client().await?;
    let reply = client.send(Method::GET, "/images/get", &query, empty(), &[]).await?;
    match directory {
        true => write_layout(reply, output).await?,
        false => write_archive(reply, output).await?,
    }
    Ok(0)
}
