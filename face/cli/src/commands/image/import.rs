//! `hull import`.

use hull_client::{JsonLines, Method, Query, empty};

use hull_model::Reference;

use crate::command::{Args, Command, Invocation};
use crate::commands::read_archive;
use crate::error::{Failure, Result};
use crate::flags::{Flag, LIST, STRING};
use crate::output::progress::{Sink, show};

pub(crate) static COMMAND: Command = Command {
    name: "import",
    usage: "[OPTIONS] file|URL|- [REPOSITORY[:TAG]]",
    about: "Import the contents from a tarball to create a filesystem image",
    aliases: &["image import", "import"],
    args: Args::AtLeast(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(LIST, "change", "Apply Dockerfile instruction to the created image").short('c'),
    Flag::new(STRING, "message", "Set commit message for imported image").short('m'),
    Flag::new(STRING, "platform", "Set platform if server is multi-platform capable"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let source = invocation.arg(0);
    let remote = source.starts_with("http://") || source.starts_with("https://");
    let mut query = Query::new()
        .set("fromSrc", if remote { source } else { "-" })
        .set_nonempty("message", matches.text("message"))
        .set_nonempty("platform", matches.text("platform"));
    if !invocation.arg(1).is_empty() {
        let _: Reference = invocation
            .arg(1)
            .parse()
            .map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))?;
        query = query.set("repo", invocation.arg(1));
    }
    for change in matches.list("change") {
        query = query.set("changes", change);
    }
    let payload = if remote { empty() } else { read_archive(source)? };
    let client = invocation.engine.client().await?;
    let reply = client.send(Method::POST, "/images/create", &query, payload, &[]).await?;
    show(JsonLines::new(reply), Sink::Stdout).await?;
    Ok(0)
}
