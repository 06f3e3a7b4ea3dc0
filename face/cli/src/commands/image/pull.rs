//! `hull pull`.

use hull_client::{Client, JsonLines, Method, Query, empty};
use hull_model::Reference;

use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{BOOL, Flag, STRING};
use crate::output;
use crate::output::progress::{Sink, show};

pub(crate) static COMMAND: Command = Command {
    name: "pull",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "Download an image from a registry",
    aliases: &["image pull", "pull"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all-platforms", "Download the image for all platforms, with its attestations"),
    Flag::switch("all-tags", "Download all tagged images in the repository").short('a'),
    Flag::new(STRING, "platform", "Set platform if server is multi-platform capable"),
    Flag::switch("quiet", "Suppress verbose output").short('q'),
    Flag::switch("referrers", "Download signatures, SBOMs and other artifacts about the image as well"),
    Flag::retired(BOOL, "disable-content-trust"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let name = invocation.arg(0);
    let reference = parse(name)?;
    let all = matches.on("all-tags");
    if all && !reference.is_name_only() {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    let quiet = matches.on("quiet");
    if !all && !quiet && reference.is_name_only() {
        output::line("Using default tag: latest");
    }
    let client = invocation.engine.client().await?;
    let sink = if quiet { Sink::Nowhere } else { Sink::Stdout };
    let tag = if all { String::new() } else { tag_of(&reference) };
    let platform = match (matches.on("all-platforms"), matches.text("platform")) {
        (true, "") => "all",
        (true, _) => return Err("--platform can't be used with --all-platforms".into()),
        (false, platform) => platform,
    };
    let what = What { tag: &tag, platform, referrers: matches.on("referrers") };
    request(&invocation, &client, &reference, what, sink).await?;
    output::line(&canonical(&reference, all));
    Ok(0)
}

/// Pulls the image of a `run` or `create`.
pub(crate) async fn pull(
    invocation: &Invocation,
    client: &Client,
    image: &str,
    platform: &str,
    sink: Sink,
) -> Result<()> {
    let reference = parse(image)?;
    let tag = tag_of(&reference);
    let what = What { tag: &tag, platform, referrers: false };
    request(invocation, client, &reference, what, sink).await
}

/// What of a repository is wanted.
struct What<'a> {
    tag: &'a str,
    platform: &'a str,
    referrers: bool,
}

async fn request(
    invocation: &Invocation,
    client: &Client,
    reference: &Reference,
    what: What<'_>,
    sink: Sink,
) -> Result<()> {
    let query = Query::new()
        .set("fromImage", reference.familiar_name())
        .set_nonempty("tag", what.tag)
        .set_nonempty("platform", what.platform.to_lowercase());
    let query = if what.referrers { query.flag("referrers", true) } else { query };
    let auth = auth::header_for(invocation.engine.config(), reference);
    let headers = [("X-Registry-Auth", auth.as_str())];
    let reply = client.send(Method::POST, "/images/create", &query, empty(), &headers).await?;
    show(JsonLines::new(reply), sink).await.map(drop)
}

fn parse(name: &str) -> Result<Reference> {
    name.parse().map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))
}

fn tag_of(reference: &Reference) -> String {
    match reference.digest() {
        Some(digest) => digest.to_string(),
        None => reference.tag().unwrap_or("latest").to_owned(),
    }
}

/// The full name docker prints when a pull is done.
fn canonical(reference: &Reference, all: bool) -> String {
    let name = format!("{}/{}", reference.domain(), reference.path());
    match reference.digest() {
        _ if all => name,
        Some(digest) => format!("{name}@{digest}"),
        None => format!("{name}:{}", reference.tag().unwrap_or("latest")),
    }
}

/// The name people know with its tag, for messages.
pub(crate) fn with_tag(image: &str) -> String {
    match image.parse::<Reference>() {
        Ok(reference) => reference.or_default_tag().familiar(),
        Err(_) => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(with_tag("busybox"), "busybox:latest");
        assert_eq!(with_tag("localhost:5000/a/b:1"), "localhost:5000/a/b:1");
        assert_eq!(canonical(&parse("busybox").unwrap(), false), "docker.io/library/busybox:latest");
    }
}
