//! `hull commit`.

use hull_client::{Method, Query, empty};
use hull_docker_api::CommitResponse;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, LIST, STRING};
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "commit",
    usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    about: "Create a new image from a container's changes",
    aliases: &["container commit", "commit"],
    args: Args::Between(1, 2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "author", "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")").short('a'),
    Flag::new(LIST, "change", "Apply Dockerfile instruction to the created image").short('c'),
    Flag::new(STRING, "message", "Commit message").short('m'),
    Flag::switch("pause", "Pause container during commit (default true)").short('p').default("true"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let mut query = Query::new().set("container", invocation.arg(0));
    if !invocation.arg(1).is_empty() {
        let reference: hull_model::Reference = invocation
            .arg(1)
            .parse()
            .map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))?;
        let name = reference.familiar_name();
        query = query.set("repo", &name).set("tag", reference.tag().unwrap_or("latest"));
    }
    query =
        query.set_nonempty("comment", matches.text("message")).set_nonempty("author", matches.text("author"));
    for change in matches.list("change") {
        query = query.set("changes", change);
    }
    if !matches.on("pause") {
        query = query.set("pause", "0");
    }
    let client = invocation.engine.client().await?;
    let response: CommitResponse = client.request(Method::POST, "/commit", &query, empty()).await?;
    output::line(&response.id);
    Ok(0)
}
