use std::sync::Arc;

use futures_util::stream::{self, TryStreamExt};
use hull_distribution::{MAX_DOCUMENT, Repository, Uploaded};
use hull_model::{Descriptor, Digest, Reference, media_type};

use crate::{Image, ImageError, ImageStore};

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
    Mounted,
    /// `Skipped foreign layer`
    Skipped,
}

/// Receives news; must not block.
pub type PushProgress = Arc<dyn Fn(PushEvent) + Send + Sync>;

impl ImageStore {
    /// Pushes an image under the reference: its layers as they were pulled or made (never compressed anew), then the
    /// configuration, then the manifest. `mounts` are repositories of the same registry that may have the layers already.
    /// Returns the manifest's descriptor as pushed.
    pub async fn push(
        &self,
        repository: &Repository,
        reference: &Reference,
        image: &Image,
        mounts: &[Reference],
        concurrency: usize,
        progress: &PushProgress,
    ) -> Result<Descriptor, ImageError> {
        let lease = self.lease();
        self.hold(&lease, image);
        for layer in &image.layers {
            progress(PushEvent { diff_id: layer.diff_id.clone(), status: PushStatus::Preparing });
        }
        stream::iter(image.layers.iter().map(Ok::<_, ImageError>))
            .try_for_each_concurrent(concurrency.max(1), |layer| async move {
                let tell = |status| progress(PushEvent { diff_id: layer.diff_id.clone(), status });
                if media_type::is_foreign_layer(&layer.blob.media_type) {
                    tell(PushStatus::Skipped);
                    return Ok(());
                }
                let size = layer.blob.size;
                let sent = |bytes| tell(PushStatus::Pushing(bytes, size));
                // The same blob twice in one image is sent once.
                let lock = self.busy().get(&layer.blob.digest);
                let _only = lock.lock().await;
                tell(match self.push_blob(repository, &layer.blob, mounts, &sent).await? {
                    Uploaded::Existed => PushStatus::Exists,
                    Uploaded::Mounted => PushStatus::Mounted,
                    Uploaded::Sent => PushStatus::Pushed,
                });
                Ok(())
            })
            .await?;
        self.push_blob(repository, &image.config, mounts, &|_| ()).await?;
        let bytes = self.content().read(&image.manifest.digest, MAX_DOCUMENT)?;
        repository.push_manifest(reference, &image.manifest.media_type, &bytes).await?;
        Ok(image.manifest.clone())
    }

    async fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        mounts: &[Reference],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Uploaded, ImageError> {
        if !self.content().contains(&blob.digest, blob.size) {
            return Err(ImageError::Missing(blob.digest.clone()));
        }
        let path = self.content().path(&blob.digest);
        let source = || std::fs::File::open(&path);
        Ok(repository.push_blob(&blob.digest, blob.size, &source, mounts, progress).await?)
    }
}
