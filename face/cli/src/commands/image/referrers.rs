//! `hull image referrers`: what a registry has that refers to an image.

use hull_client::{Method, Query, empty, path_part};
use hull_docker_api::{Descriptor, ReferrerList};
use hull_model::Reference;

use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::{Flag, STRING};
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "referrers",
    usage: "[OPTIONS] NAME[:TAG|@DIGEST]",
    about: "List signatures, SBOMs and other artifacts a registry has about an image",
    aliases: &["image referrers"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::new(STRING, "artifact-type", "Only those of this type"),
    crate::commands::formats::LIST,
    Flag::switch("quiet", "Only show digests").short('q'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let parsed = invocation.arg(0).parse();
    let reference: Reference =
        parsed.map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))?;
    let reference = reference.or_default_tag();
    let query = Query::new().set_nonempty("artifactType", matches.text("artifact-type"));
    let auth = auth::header_for(invocation.engine.config(), &reference);
    let client = invocation.engine.client().await?;
    let path = format!("/distribution/{}/referrers", path_part(&reference.to_string()));
    let headers = [("X-Registry-Auth", auth.as_str())];
    let reply = client.send(Method::GET, &path, &query, empty(), &headers).await?;
    let list: ReferrerList = serde_json::from_slice(&reply.bytes(&client).await?)?;
    output::text(&listing().render(&list.referrers, matches.text("format"), matches.on("quiet"))?);
    Ok(0)
}

fn listing() -> Listing<Descriptor> {
    const COLUMNS: &[Column<Descriptor>] = &[
        Column { name: "Digest", header: "DIGEST", value: |entry| entry.digest.clone() },
        Column { name: "ArtifactType", header: "ARTIFACT TYPE", value: |entry| entry.artifact_type.clone() },
        Column { name: "Size", header: "SIZE", value: |entry| human::size3(entry.size as f64) },
    ];
    let default = COLUMNS.iter().map(|column| column.name).collect();
    Listing { columns: COLUMNS, default, quiet: "Digest", labels: None }
}
