//! `hull tag`.

use hull_client::{Method, Query, empty, path_part};
use hull_model::Reference;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};

pub(crate) static COMMAND: Command = Command {
    name: "tag",
    usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    about: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    aliases: &["image tag", "tag"],
    args: Args::Exactly(2),
    flags: &[],
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

async fn run(invocation: Invocation) -> Result<u8> {
    parse(invocation.arg(0))?;
    let reference = parse(invocation.arg(1))?;
    if reference.digest().is_some() {
        return Err("refusing to create a tag with a digest reference".into());
    }
    let query =
        Query::new().set("repo", reference.familiar_name()).set("tag", reference.tag().unwrap_or("latest"));
    let client = invocation.engine.client().await?;
    let path = format!("/images/{}/tag", path_part(invocation.arg(0)));
    client.request_bytes(Method::POST, &path, &query, empty()).await?;
    Ok(0)
}

fn parse(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: hull_model::ReferenceError| {
        Failure::new(format!("Error parsing reference: {text:?} is not a valid repository/tag: {error}"))
    })
}
