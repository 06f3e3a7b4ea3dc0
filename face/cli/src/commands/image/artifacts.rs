//! `hull image ls --artifacts`: what is in the store and is no image.

use hull_client::Query;
use hull_docker_api::ArtifactSummary;

use crate::command::Invocation;
use crate::error::Result;
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

/// Lists the artifacts.
pub(crate) async fn run(invocation: &Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let client = invocation.engine.client().await?;
    let artifacts: Vec<ArtifactSummary> = client.get("/artifacts/json", &Query::new()).await?;
    output::text(&listing().render(&artifacts, matches.text("format"), matches.on("quiet"))?);
    Ok(0)
}

fn listing() -> Listing<ArtifactSummary> {
    const COLUMNS: &[Column<ArtifactSummary>] = &[
        Column { name: "Name", header: "NAME", value: |artifact| artifact.name.clone() },
        Column { name: "Digest", header: "DIGEST", value: |artifact| human::short_id(&artifact.digest) },
        Column {
            name: "ArtifactType",
            header: "ARTIFACT TYPE",
            value: |artifact| artifact.artifact_type.clone(),
        },
        Column { name: "Subject", header: "SUBJECT", value: |artifact| human::short_id(&artifact.subject) },
        Column { name: "Size", header: "SIZE", value: |artifact| human::size3(artifact.size as f64) },
    ];
    let default = COLUMNS.iter().map(|column| column.name).collect();
    Listing { columns: COLUMNS, default, quiet: "Digest", labels: None }
}
