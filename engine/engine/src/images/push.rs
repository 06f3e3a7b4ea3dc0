//! Pushing.

use std::sync::Arc;

use hull_distribution::{Access, Client, Credentials};
use hull_docker_api::{JsonMessage, PushResult};
use hull_images::{Artifact, Family, PushEvent, PushProgress, PushStatus, PushTarget};
use hull_model::{Descriptor, Digest, Reference};

use super::progress::{self, Board};
use super::record::{Image, parse_reference, select_platform};
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
        let platform = request.platform.clone().unwrap_or_default();
        for name in &names {
            if let Ok(image) = self.image_find(&name.to_string()) {
                select_platform(&image, &name.familiar(), &platform)?;
            }
        }
        let referrers = request.referrers;
        let client = self.registry_client().await?;
        let credentials = request.auth.map(credentials);
        let engine = self.clone();
        let followed = progress::run(|board| async move {
            let repository = reference.repository();
            board.tell(JsonMessage::status("", format!("The push refers to repository [{repository}]")));
            for name in names {
                let pushed =
                    engine.push_one(&client, &name, (&platform, referrers), credentials.clone(), &board);
                Box::pin(pushed).await?;
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
            .chain(known.artifacts.values().map(|(name, _)| name))
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

    /// Repositories of the same registry that got or gave images with this blob: it may be mounted from there.
    fn homes_of(&self, blob: &Digest, name: &Reference) -> Vec<Reference> {
        let known = self.0.images.known();
        let mut homes: Vec<Reference> = Vec::new();
        for (other, id) in known.references.values() {
            let elsewhere = other.domain() == name.domain() && other.path() != name.path();
            let has = || {
                known.images.get(id).is_some_and(|image| {
                    let family = image.record.family.digests();
                    image.record.image.blobs().chain(family).any(|own| own == blob)
                })
            };
            // Only a name with a digest has been in the registry.
            if elsewhere && other.digest().is_some() && has() {
                homes.push(other.repository());
            }
        }
        homes.dedup();
        homes
    }

    async fn push_one(
        &self,
        client: &Client,
        name: &Reference,
        (platform, referrers): (&str, bool),
        credentials: Option<Credentials>,
        board: &Board,
    ) -> Result<()> {
        let repository = client.repository(name, Access::Push, credentials);
        let mounts = |blob: &Digest| self.homes_of(blob, name);
        let target = PushTarget {
            repository: &repository,
            mounts: &mounts,
            concurrency: self.config().max_concurrent_uploads.max(1),
            progress: &teller(board),
        };
        let store = &self.0.images.store;
        let Ok(image) = self.image_find(&name.to_string()) else {
            let missing = || Error::not_found(format!("tag does not exist: {}", name.familiar()));
            let (_, artifact) = self.artifact_find(&name.to_string()).ok_or_else(missing)?;
            let pushed =
                Box::pin(store.push_artifact(&target, name, &artifact)).await.map_err(image_error)?;
            tell_pushed(board, name, &pushed);
            return Ok(());
        };
        let chosen = select_platform(&image, &name.familiar(), platform)?;
        let whole = match &image.record.image.index {
            Some(index) if platform.is_empty() && image.record.family != Family::default() => {
                let (store, index) = (store.clone(), index.clone());
                tokio::task::spawn_blocking(move || store.is_whole(&index)).await?.map_err(image_error)?
            }
            _ => false,
        };
        let own = &chosen.record.image;
        let pushed = match &own.index {
            Some(index) if whole => {
                Box::pin(store.push_index(&target, name, index, own, &image.record.family)).await
            }
            _ => Box::pin(store.push(&target, name, own)).await,
        };
        let pushed = pushed.map_err(image_error)?;
        if referrers {
            Box::pin(self.push_referrers(&target, name, &image)).await?;
        }
        self.reference_set(&name.with_digest(pushed.digest.clone()), &image).await?;
        self.image_event("push", image.id(), &name.familiar());
        tell_pushed(board, name, &pushed);
        Ok(())
    }

    /// Sends the artifacts in the store that are about an image.
    async fn push_referrers(&self, target: &PushTarget<'_>, name: &Reference, image: &Image) -> Result<()> {
        let subjects = Self::subjects(image);
        let about =
            |artifact: &Artifact| artifact.subject.as_ref().is_some_and(|subject| subjects.contains(subject));
        let found: Vec<Artifact> = {
            let known = self.0.images.known();
            let artifacts = known.artifacts.values().map(|(_, artifact)| artifact);
            artifacts.filter(|artifact| about(artifact)).cloned().collect()
        };
        for artifact in found {
            let by_digest = name.with_digest(artifact.manifest.digest.clone());
            self.0.images.store.push_artifact(target, &by_digest, &artifact).await.map_err(image_error)?;
        }
        Ok(())
    }
}

fn tell_pushed(board: &Board, name: &Reference, pushed: &Descriptor) {
    let tag = name.tag().unwrap_or_default().to_owned();
    let size = i64::try_from(pushed.size).unwrap_or(i64::MAX);
    board.tell(JsonMessage::status("", format!("{tag}: digest: {} size: {size}", pushed.digest)));
    let result = PushResult { tag, digest: pushed.digest.to_string(), size };
    board.tell(JsonMessage { aux: serde_json::to_value(result).ok(), ..JsonMessage::default() });
}

fn teller(board: &Board) -> PushProgress {
    let board = board.clone();
    Arc::new(move |event: PushEvent| {
        let id = event.diff_id.short();
        match event.status {
            PushStatus::Pushing(current, total) => board.tell_progress(id, "Pushing", current, total),
            PushStatus::Mounted(from) => {
                board.tell(JsonMessage::status(id, format!("Mounted from {}", from.path())));
            }
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
        PushStatus::Mounted(_) => "Mounted",
        PushStatus::Skipped => "Skipped foreign layer",
    }
}
