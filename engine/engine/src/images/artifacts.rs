//! What is no image: artifacts in the store, what refers to a manifest, manifests sent as they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hull_distribution::{Access, Client, Credentials, DistributionError, MAX_DOCUMENT};
use hull_docker_api::{
    ArtifactSummary, AuthConfig, ImageDeleted, JsonMessage, ManifestDocument, ManifestUpload, ReferrerList,
};
use hull_images::{Artifact, Leased, PullProgress};
use hull_meta::Durability;
use hull_model::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference, media_type};

use super::progress::Board;
use super::record::{ARTIFACTS, parse_reference};
use super::registry::{self, credentials, image_error};
use crate::{Engine, Error, Kind, Result};

impl Engine {
    /// Artifacts in the store, by name.
    pub async fn artifact_list(&self) -> Vec<ArtifactSummary> {
        let known = self.0.images.known();
        let summary = |(name, artifact): &(Reference, Artifact)| ArtifactSummary {
            name: name.familiar(),
            digest: artifact.manifest.digest.to_string(),
            artifact_type: artifact.artifact_type.clone(),
            subject: artifact.subject.as_ref().map(Digest::to_string).unwrap_or_default(),
            size: i64::try_from(artifact.size()).unwrap_or(i64::MAX),
        };
        known.artifacts.values().map(summary).collect()
    }

    /// The artifact of a name.
    pub(super) fn artifact_find(&self, name: &str) -> Option<(Reference, Artifact)> {
        let reference = parse_reference(name).ok()?.or_default_tag();
        self.0.images.known().artifacts.get(&reference.to_string()).cloned()
    }

    /// What to tell somebody who wants to run an artifact.
    pub(super) fn not_an_image(&self, name: &str) -> Option<Error> {
        let (name, artifact) = self.artifact_find(name)?;
        let kind = artifact.artifact_type;
        Some(Error::invalid(format!(
            "{} is an artifact of type {kind}, not an image to run",
            name.familiar()
        )))
    }

    pub(super) async fn artifact_record(&self, made: Leased<Artifact>, name: &Reference) -> Result<()> {
        let Leased { value: artifact, lease } = made;
        let (engine, name) = (self.clone(), name.clone());
        tokio::spawn(async move {
            let mut batch = hull_meta::Batch::new();
            batch.put(ARTIFACTS, &name.to_string(), &artifact)?;
            engine.store().write(batch, Durability::Disk).await?;
            let replaced =
                engine.0.images.known().artifacts.insert(name.to_string(), (name, artifact.clone()));
            drop(lease);
            match replaced {
                Some((_, old)) if old != artifact => engine.artifact_release(old).await,
                _ => Ok(()),
            }
        })
        .await?
    }

    async fn artifact_release(&self, artifact: Artifact) -> Result<()> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let images = &engine.0.images;
            let blobs = artifact.digests().cloned().collect();
            images.store.release_parts(blobs, Default::default(), &|part| images.known().needs(part))
        })
        .await?
        .map_err(|error| Error::system("remove artifact", error))?;
        Ok(())
    }

    /// Removes an artifact's name, and the artifact with its last; `otherwise` when there is none.
    pub(super) async fn artifact_remove(&self, name: &str, otherwise: Error) -> Result<Vec<ImageDeleted>> {
        let Some((name, artifact)) = self.artifact_find(name) else { return Err(otherwise) };
        self.store().delete(ARTIFACTS, &name.to_string(), Durability::Disk).await?;
        let last = {
            let mut known = self.0.images.known();
            known.artifacts.remove(&name.to_string());
            !known.artifacts.values().any(|(_, other)| other.manifest.digest == artifact.manifest.digest)
        };
        let mut done = vec![ImageDeleted { untagged: name.familiar(), ..ImageDeleted::default() }];
        if last {
            let deleted = artifact.manifest.digest.to_string();
            self.artifact_release(artifact).await?;
            done.push(ImageDeleted { deleted, ..ImageDeleted::default() });
        }
        Ok(done)
    }

    /// Gives an artifact another name; `otherwise` when there is none.
    pub(super) async fn artifact_tag(&self, name: &str, new: Reference, otherwise: Error) -> Result<()> {
        let Some((_, artifact)) = self.artifact_find(name) else { return Err(otherwise) };
        let lease = self.0.images.store.lease();
        self.artifact_record(Leased { value: artifact, lease }, &new).await
    }

    /// Fetches what a reference names that is no image.
    pub(super) async fn pull_artifact(
        &self,
        client: &Client,
        reference: &Reference,
        credentials: Option<Credentials>,
        board: &Board,
        progress: &PullProgress,
    ) -> Result<()> {
        let repository = client.repository(reference, Access::Pull, credentials);
        let pulled = self.0.images.store.pull_artifact(&repository, reference, progress).await;
        let pulled = pulled.map_err(image_error)?;
        let (digest, kind) = (pulled.value.manifest.digest.clone(), pulled.value.artifact_type.clone());
        self.artifact_record(pulled, reference).await?;
        board.tell(JsonMessage::status("", format!("Digest: {digest}")));
        let name = reference.familiar();
        board.tell(JsonMessage::status("", format!("Status: Downloaded artifact {name} of type {kind}")));
        Ok(())
    }

    /// Fetches what refers to these manifests of a repository.
    pub(super) async fn pull_referrers(
        &self,
        client: &Client,
        reference: &Reference,
        subjects: &[Digest],
        credentials: Option<Credentials>,
        board: &Board,
        progress: &PullProgress,
    ) -> Result<()> {
        let repository = client.repository(reference, Access::Pull, credentials.clone());
        for subject in subjects {
            let found = repository.referrers(subject, None).await.map_err(registry::error)?;
            for entry in found.manifests {
                let by_digest = reference.with_digest(entry.digest);
                self.pull_artifact(client, &by_digest, credentials.clone(), board, progress).await?;
            }
        }
        Ok(())
    }

    /// What a registry has that refers to an image or artifact, of one type if it is given.
    ///
    /// # Errors
    /// When the registry has no such thing or cannot be reached.
    pub async fn referrer_list(
        &self,
        name: &str,
        artifact_type: Option<&str>,
        auth: Option<AuthConfig>,
    ) -> Result<ReferrerList> {
        let reference = named(name)?;
        let client = self.registry_client().await?;
        let repository = client.repository(&reference, Access::Pull, auth.map(credentials));
        let subject = match reference.digest() {
            Some(digest) => digest.clone(),
            None => repository.resolve(&reference).await.map_err(registry::error)?.digest,
        };
        let found = repository.referrers(&subject, artifact_type).await.map_err(registry::error)?;
        let referrers = found.manifests.iter().map(registry::descriptor).collect();
        Ok(ReferrerList { subject: subject.to_string(), referrers })
    }

    /// A manifest or index as the registry has it.
    ///
    /// # Errors
    /// When the registry has no such thing or cannot be reached.
    pub async fn manifest_fetch(&self, name: &str, auth: Option<AuthConfig>) -> Result<ManifestDocument> {
        let reference = named(name)?;
        let client = self.registry_client().await?;
        let repository = client.repository(&reference, Access::Pull, auth.map(credentials));
        let fetched = repository.manifest(&reference).await.map_err(registry::error)?;
        let invalid = |error: hull_model::DocumentError| Error::invalid(crate::chain(&error));
        let mut platform = None;
        let mut media_type = fetched.descriptor.media_type.clone();
        match ManifestOrIndex::parse(&media_type, &fetched.bytes).map_err(invalid)? {
            ManifestOrIndex::Manifest(manifest) => {
                if media_type::is_config(&manifest.config.media_type) {
                    let bytes = repository.blob_bytes(&manifest.config, MAX_DOCUMENT).await;
                    let bytes = bytes.map_err(registry::error)?;
                    let config = hull_model::ImageConfig::parse(&bytes).map_err(invalid)?;
                    platform = Some(registry::platform(&config.platform()));
                }
                media_type = manifest.media_type.unwrap_or(media_type);
            }
            ManifestOrIndex::Index(index) => media_type = index.media_type.unwrap_or(media_type),
        }
        let descriptor = registry::descriptor(&Descriptor { media_type, ..fetched.descriptor });
        Ok(ManifestDocument { descriptor, raw: STANDARD.encode(&fetched.bytes), platform })
    }

    /// Sends a manifest or index as it is. What it lists must be in its registry; from other repositories there it is
    /// taken over. Returns its digest.
    ///
    /// # Errors
    /// A document or source that is none; when the registry refuses.
    pub async fn manifest_push(
        &self,
        name: &str,
        upload: ManifestUpload,
        auth: Option<AuthConfig>,
    ) -> Result<Digest> {
        let reference = named(name)?;
        let bytes = STANDARD.decode(&upload.raw).map_err(|_| Error::invalid("Raw is not base64"))?;
        ManifestOrIndex::parse(&upload.media_type, &bytes)
            .map_err(|error| Error::invalid(crate::chain(&error)))?;
        let client = self.registry_client().await?;
        let credentials = auth.map(credentials);
        let target = client.repository(&reference, Access::Push, credentials.clone());
        for source in &upload.sources {
            let source = named(source)?;
            if source.domain() != reference.domain() {
                return Err(Error::invalid(format!(
                    "{} is in another registry than {}: push it there first",
                    source.familiar(),
                    reference.familiar()
                )));
            }
            if source.path() != reference.path() {
                let from = client.repository(&source, Access::Pull, credentials.clone());
                take_over(&from, &source, &target, &reference).await?;
            }
        }
        target.push_manifest(&reference, &upload.media_type, &bytes).await.map_err(registry::error)
    }
}

/// Brings a manifest of another repository of the same registry, with its blobs, into this one.
async fn take_over(
    from: &hull_distribution::Repository,
    source: &Reference,
    target: &hull_distribution::Repository,
    name: &Reference,
) -> Result<()> {
    let fetched = from.manifest(source).await.map_err(registry::error)?;
    let kind = fetched.descriptor.media_type.clone();
    let document = ManifestOrIndex::parse(&kind, &fetched.bytes)
        .map_err(|error| Error::invalid(crate::chain(&error)))?;
    let ManifestOrIndex::Manifest(Manifest { config, layers, .. }) = document else {
        return Err(Error::invalid(format!("{} is an index itself", source.familiar())));
    };
    for blob in std::iter::once(&config).chain(&layers) {
        if media_type::is_foreign_layer(&blob.media_type) {
            continue;
        }
        if !target.mount_blob(&blob.digest, &source.repository()).await.map_err(registry::error)? {
            return Err(Error::new(
                Kind::System,
                format!(
                    "the registry does not let {} be mounted from {}: push that image to {} first",
                    blob.digest,
                    source.familiar_name(),
                    name.familiar_name()
                ),
            ));
        }
    }
    let by_digest = name.with_digest(fetched.descriptor.digest.clone());
    let pushed: std::result::Result<Digest, DistributionError> =
        target.push_manifest(&by_digest, &kind, &fetched.bytes).await;
    pushed.map(drop).map_err(registry::error)
}

fn named(name: &str) -> Result<Reference> {
    let reference = parse_reference(name).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(reference.or_default_tag())
}
