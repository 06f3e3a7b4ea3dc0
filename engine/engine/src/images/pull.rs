//! Pulling: clients that want the same reference follow one pull.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};

use hull_distribution::{Access, Client, Credentials};
use hull_docker_api::JsonMessage;
use hull_images::{
    Family, ImageError, LayerStatus, Leased, PullEvent, PullProgress, PullRequest as StorePull, WithFamily,
};
use hull_model::{Digest, Platform, PlatformError, Reference};

use super::progress::{self, Board, Followed};
use super::record::parse_reference;
use super::registry::{self, credentials, image_error};
use super::{Progress, PullRequest, hello};
use crate::{Engine, Error, Result};

/// Pulls under way, by what is pulled and for whom.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<BTreeMap<Key, Weak<Followed>>>);

/// Clients with other credentials must not follow: they may not see the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    reference: String,
    platform: String,
    referrers: bool,
    /// Digest of the credentials, not themselves.
    credentials: Digest,
}

impl Engine {
    /// Fetches an image from its registry. Clients that pull the same reference follow one pull; it is given up when
    /// the last of them leaves. A name without tag and digest fetches all tags.
    ///
    /// # Errors
    /// A name or platform that is none. Everything else is told by the stream.
    pub async fn image_pull(&self, request: PullRequest) -> Result<Progress> {
        let invalid = |error: hull_model::ReferenceError| Error::invalid(error.to_string());
        let mut reference = parse_reference(&request.image).map_err(invalid)?;
        if let Some(tag) = request.tag.as_deref().filter(|tag| !tag.is_empty()) {
            reference = match tag.parse::<Digest>() {
                Ok(digest) => reference.with_digest(digest),
                Err(_) => reference.with_tag(tag).map_err(invalid)?,
            };
        }
        let platforms = match request.platform.as_deref().filter(|text| !text.is_empty()) {
            None => Platforms::Host,
            Some("all") => Platforms::All,
            Some(text) => Platforms::One(
                text.parse().map_err(|error: PlatformError| Error::invalid(error.to_string()))?,
            ),
        };
        self.registries_allow(&request.image, &reference)?;
        let what = What { platforms, referrers: request.referrers };
        let credentials = request.auth.map(credentials);
        let key = Key {
            reference: reference.to_string(),
            platform: request.platform.unwrap_or_default(),
            referrers: request.referrers,
            credentials: digest_of(credentials.as_ref()),
        };
        let mut pulls = self.0.images.pulls.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        pulls.retain(|_, pull| pull.strong_count() > 0);
        let running = pulls.get(&key).and_then(Weak::upgrade).filter(|pull| !pull.is_done());
        let followed = running.unwrap_or_else(|| {
            let engine = self.clone();
            let followed =
                progress::run(|board| async move { engine.pull(reference, what, credentials, &board).await });
            pulls.insert(key, Arc::downgrade(&followed));
            followed
        });
        Ok(progress::follow(followed))
    }

    async fn pull(
        &self,
        reference: Reference,
        what: What,
        credentials: Option<Credentials>,
        board: &Board,
    ) -> Result<()> {
        if hello::is_asked_for(&reference) {
            return self.make_hello(&reference, board).await;
        }
        let client = self.registry_client().await?;
        if !reference.is_name_only() {
            return self.pull_one(&client, reference, &what, credentials, board).await;
        }
        let repository = client.repository(&reference, Access::Pull, credentials.clone());
        for tag in repository.tags().await.map_err(registry::error)? {
            let tagged = reference.with_tag(&tag).map_err(|error| Error::internal(error.to_string()))?;
            self.pull_one(&client, tagged, &what, credentials.clone(), board).await?;
        }
        Ok(())
    }

    async fn pull_one(
        &self,
        client: &Client,
        reference: Reference,
        what: &What,
        credentials: Option<Credentials>,
        board: &Board,
    ) -> Result<()> {
        let progress = teller(board, &reference);
        // Boxed, as all that is large and rarely awaited: engine threads have small stacks.
        let pulled = Box::pin(self.pull_image(client, &reference, what, credentials.clone(), &progress));
        let pulled = match pulled.await {
            // Not to be run, but to be kept.
            Err(ImageError::NotAnImage(_)) => {
                let pulled = self.pull_artifact(client, &reference, credentials, board, &progress);
                return Box::pin(pulled).await;
            }
            pulled => pulled.map_err(image_error)?,
        };
        let digest = pulled.value.image.repo_digest().clone();
        let by_digest = reference.with_digest(digest.clone());
        let known_before = self.0.images.known().by_reference(&reference).map(|image| image.id().clone());
        let up_to_date = known_before.as_ref() == Some(&pulled.value.image.id);
        let mut names = vec![by_digest];
        if reference.digest().is_none() {
            names.push(reference.clone());
        }
        let image = self.image_record_all(pulled, None, names).await?;
        self.image_event("pull", image.id(), &reference.familiar());
        if what.referrers {
            let subjects = Self::subjects(&image);
            let pulled = self.pull_referrers(client, &reference, &subjects, credentials, board, &progress);
            Box::pin(pulled).await?;
        }
        board.tell(JsonMessage::status("", format!("Digest: {digest}")));
        let outcome = if up_to_date { "Image is up to date for" } else { "Downloaded newer image for" };
        board.tell(JsonMessage::status("", format!("Status: {outcome} {}", reference.familiar())));
        Ok(())
    }
}

impl Engine {
    async fn pull_image(
        &self,
        client: &Client,
        reference: &Reference,
        what: &What,
        credentials: Option<Credentials>,
        progress: &PullProgress,
    ) -> std::result::Result<Leased<WithFamily>, ImageError> {
        let repository = client.repository(reference, Access::Pull, credentials);
        let platform = match &what.platforms {
            Platforms::One(platform) => Some(platform.clone()),
            Platforms::Host | Platforms::All => None,
        };
        let concurrency = self.config().max_concurrent_downloads.max(1);
        let request = StorePull { reference: reference.clone(), platform, concurrency };
        let store = &self.0.images.store;
        if matches!(what.platforms, Platforms::All) {
            return Box::pin(store.pull_all(&repository, &request, progress)).await;
        }
        let Leased { value: image, lease } = Box::pin(store.pull(&repository, &request, progress)).await?;
        Ok(Leased { value: WithFamily { image, family: Family::default() }, lease })
    }
}

/// What of a reference is wanted.
#[derive(Debug, Clone)]
struct What {
    platforms: Platforms,
    /// What refers to the image as well.
    referrers: bool,
}

#[derive(Debug, Clone)]
enum Platforms {
    Host,
    One(Platform),
    All,
}

/// Tells a pull's news in docker's words.
fn teller(board: &Board, reference: &Reference) -> PullProgress {
    let (board, reference) = (board.clone(), reference.clone());
    Arc::new(move |event| match event {
        PullEvent::Resolved(_) => {
            let tag = match (reference.tag(), reference.digest()) {
                (_, Some(digest)) => digest.to_string(),
                (tag, None) => tag.unwrap_or_default().to_owned(),
            };
            // Its id is the tag, which no layer's can be mistaken for; a status of this kind has no detail.
            let mut message = JsonMessage::status(&tag, format!("Pulling from {}", reference.path()));
            message.progress_detail = None;
            board.tell(message);
        }
        PullEvent::Layer(digest, status) => tell_layer(&board, digest.short(), status),
    })
}

fn tell_layer(board: &Board, id: &str, status: LayerStatus) {
    match status {
        LayerStatus::Downloading(current, total) => board.tell_progress(id, "Downloading", current, total),
        LayerStatus::Extracting(current, total) => board.tell_progress(id, "Extracting", current, total),
        other => board.tell(JsonMessage::status(id, layer_words(&other))),
    }
}

fn layer_words(status: &LayerStatus) -> &'static str {
    match status {
        LayerStatus::Pulling => "Pulling fs layer",
        LayerStatus::Waiting => "Waiting",
        LayerStatus::Downloading(..) => "Downloading",
        LayerStatus::Verifying => "Verifying Checksum",
        LayerStatus::Downloaded => "Download complete",
        LayerStatus::Extracting(..) => "Extracting",
        LayerStatus::Complete => "Pull complete",
        LayerStatus::Exists => "Already exists",
    }
}

fn digest_of(credentials: Option<&Credentials>) -> Digest {
    let parts = credentials.map_or_else(Vec::new, |c| {
        vec![c.username.as_str(), c.password.reveal(), c.identity_token.reveal(), c.registry_token.reveal()]
    });
    hull_content::sha256(parts.join("\0").as_bytes())
}
