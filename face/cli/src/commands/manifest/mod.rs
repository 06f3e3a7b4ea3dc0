//! `hull manifest`: lists of manifests for several platforms, made here and pushed to a registry.

pub(crate) mod annotate;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod push;
pub(crate) mod rm;
mod store;

use hull_client::{Client, Method, Query, empty, path_part};
use hull_docker_api::ManifestDocument;
use hull_model::Reference;

use crate::auth;
use crate::command::{Group, Invocation};
use crate::error::{Failure, Result};

/// `hull manifest`.
pub(crate) static GROUP: Group = Group {
    about: "Manage Docker image manifests and manifest lists",
    commands: &[&annotate::COMMAND, &create::COMMAND, &inspect::COMMAND, &push::COMMAND, &rm::COMMAND],
};

/// A name with its tag or digest.
fn reference(name: &str) -> Result<Reference> {
    let reference: Reference =
        name.parse().map_err(|error: hull_model::ReferenceError| Failure::new(error.to_string()))?;
    Ok(reference.or_default_tag())
}

/// A manifest or index as its registry has it.
async fn fetch(invocation: &Invocation, client: &Client, reference: &Reference) -> Result<ManifestDocument> {
    let path = format!("/distribution/{}/manifest", path_part(&reference.to_string()));
    let auth = auth::header_for(invocation.engine.config(), reference);
    let headers = [("X-Registry-Auth", auth.as_str())];
    let reply = client.send(Method::GET, &path, &Query::new(), empty(), &headers).await?;
    Ok(serde_json::from_slice(&reply.bytes(client).await?)?)
}
