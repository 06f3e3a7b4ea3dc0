//! Pushing.

use std::sync::Arc;

use hull_distribution::{Access, Client, Credentials};
use hull_docker_api::{JsonMessage, PushResult};
use hull_images::{PushEvent, PushProgress, PushStatus};
use hull_model::Reference;

use super::progress::{self, Board};
use super::record::{check_platform, parse_reference};
use super::registry::{credentials, image_error};
use super::{Progress, PushRequest};
use crate::{Engine, Error, Result};

impl Engine {
    /// Sends an image to its registry: one tag, or all tags of the repository. Given up when the client leaves.
    ///
    /// # Errors
    /// A name that is none, or that no image has. Everything else is told by the stream.
    pub async fn image_push(&self, request: PushRequest) -> Result<Progress> {
        let invalid = |error: hull_model::ReferenceError| Error::invalid(error.to_string());
        let mut reference = parse_reference(&request.image).map_err(invalid)?;
        if let Some(tag) = request.tag.as_deref().filter(|tag| !tag.is_empty()) {
            reference = reference.with_tag(tag).map_err(invalid)?;
        }
        if reference.digest().is_some() {
            return Err(Error::invalid("cannot push a digest reference"));
        }
        let names = self.names_to_push(&reference)?;
        if let Some(platform) = &request.platform {
            for name in &names {
                check_platform(&*self.image_find(&name.to_string())?, &name.familiar(), platform)?;
            }
        }
        let client = self.registry_client().await?;
        let credentials = request.auth.map(credentials);
        let engine = self.clone();
        let followed = progress::run(|board| async move {
            let repository = reference.repository();
            board.tell(JsonMessage::status("", format!("The push refers to repository [{repository}]")));
            for name in names {
                engine.push_one(&client, &name, credentials.clone(), &board).await?;
            }
            Ok(())
        });
        Ok(progress::follow(followed))
    }

    fn names_to_push(&self, reference: &Reference) -> Result<Vec<Reference>> {
        let known = self.0.images.known();
        let names: Vec<Reference> = known
            .references
            .values()
            .map(|(name, _)| name)
            .filter(|name| name.digest().is_none() && name.name() == reference.name())
            .filter(|name| reference.is_name_only() || name.tag() == reference.tag())
            .cloned()
            .collect();
        if !names.is_empty() {
            return Ok(names);
        }
        Err(Error::not_found(match reference.tag() {
            Some(tag) => format!("tag does not exist: {}:{tag}", reference.familiar_name()),
            None => format!("An image does not exist locally with the tag: {}", reference.familiar_name()),
        }))
    }

    async fn push_one(
        &self,
        client: &Client,
        name: &Reference,
        credentials: Option<Credentials>,
        board: &Board,
    ) -> Result<()> {
        let image = self.image_find(&name.to_string())?;
        let repository = client.repository(name, Access::Push, credentials);
        let mounts: Vec<Reference> = self
            .0
            .images
            .known()
            .references_of(image.id())
            .iter()
            .filter(|other| other.domain() == name.domain() && other.path() != name.path())
            .map(Reference::repository)
            .collect();
        let uploads = self.config().max_concurrent_uploads.max(1);
        let store = &self.0.images.store;
        let pushed =
            store.push(&repository, name, &image.record.image, &mounts, uploads, &teller(board)).await;
        let pushed = pushed.map_err(image_error)?;
        self.reference_set(&name.with_digest(pushed.digest.clone()), &image).await?;
        self.image_event("push", image.id(), &name.familiar());
        let tag = name.tag().unwrap_or_default().to_owned();
        let size = i64::try_from(pushed.size).unwrap_or(i64::MAX);
        board.tell(JsonMessage::status("", format!("{tag}: digest: {} size: {size}", pushed.digest)));
        let result = PushResult { tag, digest: pushed.digest.to_string(), size };
        board.tell(JsonMessage { aux: serde_json::to_value(result).ok(), ..JsonMessage::default() });
        Ok(())
    }
}

fn teller(board: &Board) -> PushProgress {
    let board = board.clone();
    Arc::new(move |event: PushEvent| {
        let id = event.diff_id.short();
        match event.status {
            PushStatus::Pushing(current, total) => board.tell_progress(id, "Pushing", current, total),
            other => board.tell(JsonMessage::status(id, words(&other))),
        }
    })
}

fn words(status: &PushStatus) -> &'static str {
    match status {
        PushStatus::Preparing => "Preparing",
        PushStatus::Pushing(..) => "Pushing",
        PushStatus::Pushed => "Pushed",
        PushStatus::Exists => "Layer already exists",
        PushStatus::Mounted => "Mounted",
        PushStatus::Skipped => "Skipped foreign layer",
    }
}
