//! `hull manifest push`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_client::{Method, Query, path_part};
use hull_docker_api::ManifestUpload;
use hull_model::{Reference, media_type};
use serde_json::{Value, json};

use super::inspect::indented;
use super::reference;
use super::store::{Lists, Stored};
use crate::auth;
use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::Flag;
use crate::output;

pub(crate) static COMMAND: Command = Command {
    name: "push",
    usage: "[OPTIONS] MANIFEST_LIST",
    about: "Push a manifest list to a repository",
    aliases: &["manifest push"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("insecure", "Allow push to an insecure registry"),
    Flag::switch("purge", "Remove the local manifest list after push").short('p'),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let lists = Lists::new(&invocation.engine.config_directory());
    let list = reference(invocation.arg(0))?;
    let missing = || Failure::new(format!("{} not found", invocation.arg(0)));
    let members = lists.all(&list)?.filter(|members| !members.is_empty()).ok_or_else(missing)?;
    let (media_type, document) = list_document(&members)?;
    let mut sources = Vec::new();
    for member in &members {
        let name = reference(&member.reference)?;
        let digest = member.descriptor.digest.parse();
        let digest =
            digest.map_err(|error| Failure::new(format!("{}: {error}", member.descriptor.digest)))?;
        sources.push(name.with_digest(digest));
    }
    let upload = ManifestUpload {
        media_type: media_type.to_owned(),
        raw: STANDARD.encode(&document),
        sources: sources.iter().map(Reference::to_string).collect(),
    };
    let path = format!("/distribution/{}/manifest", path_part(&list.to_string()));
    let auth = auth::header_for(invocation.engine.config(), &list);
    let headers = [("X-Registry-Auth", auth.as_str())];
    let client = invocation.engine.client().await?;
    let payload = hull_client::json(&upload);
    let reply = client.send(Method::PUT, &path, &Query::new(), payload, &headers).await?;
    let answer: Value = serde_json::from_slice(&reply.bytes(&client).await?)?;
    for source in sources.iter().filter(|source| source.path() != list.path()) {
        if let Some(digest) = source.digest() {
            output::line(&format!("Pushed ref {} with digest: {digest}", list.with_digest(digest.clone())));
        }
    }
    output::line(answer["Digest"].as_str().unwrap_or_default());
    if invocation.matches.on("purge") {
        lists.remove(&list)?;
    }
    Ok(0)
}

/// The list of these manifests: its media type, which the first one decides, and its bytes.
pub(super) fn list_document(members: &[Stored]) -> Result<(&'static str, Vec<u8>)> {
    let oci = members.first().is_some_and(|m| m.descriptor.media_type == media_type::OCI_MANIFEST);
    let kind = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_LIST };
    let mut entries = Vec::new();
    for member in members {
        let descriptor = &member.descriptor;
        let platform = descriptor.platform.clone().unwrap_or_default();
        if platform.architecture.is_empty() || platform.os.is_empty() {
            let name = &member.reference;
            return Err(Failure::new(format!(
                "manifest {name} must have an OS and Architecture to be pushed to a registry"
            )));
        }
        entries.push(json!({
            "mediaType": descriptor.media_type, "size": descriptor.size, "digest": descriptor.digest,
            "platform": platform,
        }));
    }
    let document = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
    Ok((kind, indented(&document, b"   ")?))
}
