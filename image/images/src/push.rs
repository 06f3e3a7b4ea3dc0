use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt};
use hull_distribution::{MAX_DOCUMENT, Repository, Uploaded};
use hull_model::{Descriptor, Digest, Reference, media_type};

use crate::{Artifact, Family, Image, ImageError, ImageStore};

/// News of a push: which layer (by diff id), and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushEvent {
    /// The layer.
    pub diff_id: Digest,
    /// How it stands.
    pub status: PushStatus,
}

/// Where a layer stands; the words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushStatus {
    /// `Preparing`
    Preparing,
    /// `Pushing`: bytes sent, in all.
    Pushing(u64, u64),
    /// `Pushed`
    Pushed,
    /// `Layer already exists`
    Exists,
    /// `Mounted from …`
    Mounted(Reference),
    /// `Skipped foreign layer`
    Skipped,
}

/// Receives news; must not block.
pub type PushProgress = Arc<dyn Fn(PushEvent) + Send + Sync>;

/// Repositories of the same registry that may have a blob.
pub type Mounts<'a> = &'a (dyn Fn(&Digest) -> Vec<Reference> + Sync);

/// Where and how to push.
pub struct PushTarget<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// Where a blob may already be.
    pub mounts: Mounts<'a>,
    /// Layers at once.
    pub concurrency: usize,
    /// Receives news.
    pub progress: &'a PushProgress,
}

impl ImageStore {
    /// Pushes an image under the reference: its layers as they were pulled or made (never compressed anew), then the
    /// configuration, then the manifest. Returns the manifest's descriptor as pushed.
    ///
    /// # Errors
    /// When the registry refuses, or a blob is not in the store.
    pub async fn push(
        &self,
        target: &PushTarget<'_>,
        reference: &Reference,
        image: &Image,
    ) -> Result<Descriptor, ImageError> {
        let lease = self.lease();
        self.hold(&lease, image);
        let layers: Vec<(&Digest, &Descriptor)> =
            image.layers.iter().map(|layer| (&layer.diff_id, &layer.blob)).collect();
        self.push_blobs(target, &layers).await?;
        self.push_blob(target, &image.config, &|_| ()).await?;
        self.push_document(target, reference, &image.manifest).await?;
        Ok(image.manifest.clone())
    }

    /// Pushes an artifact under the reference.
    ///
    /// # Errors
    /// As [`ImageStore::push`].
    pub async fn push_artifact(
        &self,
        target: &PushTarget<'_>,
        reference: &Reference,
        artifact: &Artifact,
    ) -> Result<Descriptor, ImageError> {
        let lease = self.lease();
        artifact.digests().for_each(|digest| lease.hold(digest));
        let blobs: Vec<(&Digest, &Descriptor)> =
            artifact.blobs.iter().map(|blob| (&blob.digest, blob)).collect();
        self.push_blobs(target, &blobs).await?;
        self.push_document(target, reference, &artifact.manifest).await?;
        Ok(artifact.manifest.clone())
    }

    /// Pushes an image's index with all it lists, which must be in the store; the index goes last, under the reference.
    ///
    /// # Errors
    /// As [`ImageStore::push`].
    pub async fn push_index(
        &self,
        target: &PushTarget<'_>,
        reference: &Reference,
        index: &Descriptor,
        image: &Image,
        family: &Family,
    ) -> Result<Descriptor, ImageError> {
        let lease = self.lease();
        family.digests().chain([&index.digest]).for_each(|digest| lease.hold(digest));
        for image in std::iter::once(image).chain(&family.images) {
            let by_digest = reference.with_digest(image.manifest.digest.clone());
            Box::pin(self.push(target, &by_digest, image)).await?;
        }
        for artifact in &family.artifacts {
            let by_digest = reference.with_digest(artifact.manifest.digest.clone());
            self.push_artifact(target, &by_digest, artifact).await?;
        }
        for inner in &family.indexes {
            self.push_document(target, &reference.with_digest(inner.digest.clone()), inner).await?;
        }
        self.push_document(target, reference, index).await?;
        Ok(index.clone())
    }

    async fn push_document(
        &self,
        target: &PushTarget<'_>,
        reference: &Reference,
        document: &Descriptor,
    ) -> Result<(), ImageError> {
        let bytes = self.content().read(&document.digest, MAX_DOCUMENT)?;
        target.repository.push_manifest(reference, &document.media_type, &bytes).await?;
        Ok(())
    }

    async fn push_blobs(
        &self,
        target: &PushTarget<'_>,
        blobs: &[(&Digest, &Descriptor)],
    ) -> Result<(), ImageError> {
        let progress = target.progress;
        for (name, _) in blobs {
            progress(PushEvent { diff_id: (*name).clone(), status: PushStatus::Preparing });
        }
        stream::iter(blobs.iter().map(Ok::<_, ImageError>))
            .try_for_each_concurrent(target.concurrency.max(1), |(name, blob)| async move {
                let tell = |status| progress(PushEvent { diff_id: (*name).clone(), status });
                if media_type::is_foreign_layer(&blob.media_type) {
                    tell(PushStatus::Skipped);
                    return Ok(());
                }
                let sent = |bytes| tell(PushStatus::Pushing(bytes, blob.size));
                // The same blob twice in one image is sent once.
                let lock = self.busy().get(&blob.digest);
                let _only = lock.lock().await;
                tell(match self.push_blob(target, blob, &sent).await? {
                    Uploaded::Existed => PushStatus::Exists,
                    Uploaded::Mounted(from) => PushStatus::Mounted(from),
                    Uploaded::Sent => PushStatus::Pushed,
                });
                Ok(())
            })
            .await
    }

    async fn push_blob(
        &self,
        target: &PushTarget<'_>,
        blob: &Descriptor,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Uploaded, ImageError> {
        if !self.content().contains(&blob.digest, blob.size) {
            return Err(ImageError::Missing(blob.digest.clone()));
        }
        let path = self.content().path(&blob.digest);
        let source = || std::fs::File::open(&path);
        let mounts = (target.mounts)(&blob.digest);
        Ok(target.repository.push_blob(&blob.digest, blob.size, &source, &mounts, progress).await?)
    }
}
