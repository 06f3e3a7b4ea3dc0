//! `hull push`.

use hull_client::{JsonLines, Method, Query, empty, path_part};
use hull_model::Reference;

use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{BOOL, Flag, STRING};
use crate::output;
use crate::output::progress::{Sink, show};

pub(crate) static COMMAND: Command = Command {
    name: "push",
    usage: "[OPTIONS] NAME[:TAG]",
    about: "Upload an image to a registry",
    aliases: &["image push", "push"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all-tags", "Push all tags of an image to the repository").short('a'),
    Flag::switch("disable-content-trust", "Skip image signing (default true)").default("true"),
    Flag::new(
        STRING,
        "platform",
        "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
    ),
    Flag::switch("quiet", "Suppress verbose output").short('q'),
    Flag::switch("referrers", "Upload the artifacts about the image that are here as well"),
    Flag::retired(BOOL, "disable-content-trust"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let reference: Reference = invocation
        .arg(0)
        .parse()
        .map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))?;
    let all = matches.on("all-tags");
    if all && !reference.is_name_only() {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    let quiet = matches.on("quiet");
    let platform = crate::commands::platform(matches, "platform")?;
    if !all && !quiet && reference.is_name_only() {
        output::line("Using default tag: latest");
    }
    let tag = if all { "" } else { reference.tag().unwrap_or("latest") };
    let query = Query::new().set_nonempty("tag", tag).set_nonempty("platform", platform);
    let query = if matches.on("referrers") { query.flag("referrers", true) } else { query };
    let auth = auth::header_for(invocation.engine.config(), &reference);
    let client = invocation.engine.client().await?;
    let path = format!("/images/{}/push", path_part(&reference.familiar_name()));
    let headers = [("X-Registry-Auth", auth.as_str())];
    let reply = client.send(Method::POST, &path, &query, empty(), &headers).await?;
    show(JsonLines::new(reply), if quiet { Sink::Nowhere } else { Sink::Stdout }).await?;
    if quiet {
        let name = format!("{}/{}", reference.domain(), reference.path());
        output::line(&if all { name } else { format!("{name}:{tag}") });
    }
    Ok(0)
}
