use hull_distribution::{DistributionError, Fetched, MAX_DOCUMENT, Repository};
use hull_model::{Descriptor, Digest, Manifest, ManifestOrIndex, Reference, media_type};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::channel;

use crate::pull::{Arriving, DEPTH, LayerStatus, PullEvent, PullProgress, Workers, feed, own_type};
use crate::{ImageError, ImageStore, Lease, Leased};

/// A manifest that is no image to run, with everything it names: a chart, a signature, an SBOM, an attestation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The manifest.
    pub manifest: Descriptor,
    /// What kind of thing it is: its artifact type, or else the media type of its configuration.
    pub artifact_type: String,
    /// What it names: its configuration, then its content.
    pub blobs: Vec<Descriptor>,
    /// The manifest it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Digest>,
}

impl Artifact {
    pub(crate) fn new(manifest: Descriptor, document: &Manifest) -> Self {
        let artifact_type =
            document.artifact_type.clone().unwrap_or_else(|| document.config.media_type.clone());
        let mut blobs = vec![document.config.clone()];
        for layer in &document.layers {
            if !blobs.iter().any(|known| known.digest == layer.digest) {
                blobs.push(layer.clone());
            }
        }
        let subject = document.subject.as_ref().map(|subject| subject.digest.clone());
        Self { manifest, artifact_type, blobs, subject }
    }

    /// Everything it needs of the content store.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.manifest.digest).chain(self.blobs.iter().map(|blob| &blob.digest))
    }

    /// Bytes of all it names.
    pub fn size(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.size).sum()
    }
}

impl ImageStore {
    /// Fetches an artifact: its manifest and every blob, verified, none unpacked. When it returns, everything is on
    /// disk.
    ///
    /// # Errors
    /// As [`ImageStore::pull`]; an index is none.
    pub async fn pull_artifact(
        &self,
        repository: &Repository,
        reference: &Reference,
        progress: &PullProgress,
    ) -> Result<Leased<Artifact>, ImageError> {
        let lease = self.lease();
        let mut fetched = repository.manifest(reference).await?;
        let document = ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)?;
        fetched.descriptor.media_type = own_type(&document, &fetched.descriptor.media_type);
        let ManifestOrIndex::Manifest(manifest) = document else {
            return Err(ImageError::NotAnArtifact(fetched.descriptor.media_type));
        };
        progress(PullEvent::Resolved(fetched.descriptor.digest.clone()));
        let artifact = self.fetch_artifact(repository, &fetched, &manifest, progress, &lease).await?;
        self.flush().await?;
        Ok(Leased { value: artifact, lease })
    }

    pub(crate) async fn fetch_artifact(
        &self,
        repository: &Repository,
        fetched: &Fetched,
        manifest: &Manifest,
        progress: &PullProgress,
        lease: &Lease,
    ) -> Result<Artifact, ImageError> {
        let artifact = Artifact::new(fetched.descriptor.clone(), manifest);
        artifact.digests().for_each(|digest| lease.hold(digest));
        self.content().put_as(&fetched.descriptor.digest, &fetched.bytes)?;
        for blob in &artifact.blobs {
            self.fetch_blob(repository, blob, progress).await?;
        }
        Ok(artifact)
    }

    /// A blob as it is; whoever wants the same at the same time waits and then finds it there.
    async fn fetch_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        progress: &PullProgress,
    ) -> Result<(), ImageError> {
        let tell = |status| progress(PullEvent::Layer(blob.digest.clone(), status));
        let lock = self.busy().get(&blob.digest);
        let _only = lock.lock().await;
        if self.content().contains(&blob.digest, blob.size) {
            tell(LayerStatus::Exists);
            return Ok(());
        }
        if blob.size <= MAX_DOCUMENT {
            let bytes = repository.blob_bytes(blob, MAX_DOCUMENT).await?;
            self.content().put_as(&blob.digest, &bytes)?;
            tell(LayerStatus::Complete);
            return Ok(());
        }
        tell(LayerStatus::Pulling);
        let (workers, done) = Workers::new();
        let (content, wanted) = (self.content().clone(), blob.clone());
        let ingest =
            workers.run("reading", move || Ok(content.ingest(&wanted.digest, Some(wanted.size))?)).await?;
        let offset = ingest.offset();
        let (sender, receiver) = channel(DEPTH);
        let disk = workers.run("storing", move || {
            let mut arriving = Arriving::new(ingest, receiver)?;
            arriving.drain().map_err(|e| ImageError::Stored("blob", e))?;
            arriving.commit()
        });
        let (network, disk) = tokio::join!(feed(repository, blob, offset, sender, progress), disk);
        drop(workers);
        done.wait().await;
        network.map_err(ImageError::from).and(disk)?;
        tell(LayerStatus::Complete);
        Ok(())
    }

    /// What the registry has that refers to a manifest.
    ///
    /// # Errors
    /// When the registry cannot be reached.
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, DistributionError> {
        Ok(repository.referrers(subject, artifact_type).await?.manifests)
    }

    /// The artifact of a stored manifest.
    ///
    /// # Errors
    /// When it is not there or no manifest.
    pub fn describe_artifact(&self, manifest: &Descriptor) -> Result<Artifact, ImageError> {
        Ok(Artifact::new(manifest.clone(), &self.read_manifest(manifest)?))
    }
}

/// Whether a manifest describes an image to run.
pub(crate) fn is_image(manifest: &Manifest) -> bool {
    crate::store::check_is_image(manifest).is_ok() && media_type::is_config(&manifest.config.media_type)
}
