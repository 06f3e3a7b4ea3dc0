use std::collections::HashSet;

use hull_distribution::{Fetched, Repository};
use hull_model::{Descriptor, Digest, Index, ManifestOrIndex, Platform};
use serde::{Deserialize, Serialize};

use crate::artifact::is_image;
use crate::pull::{PullEvent, PullProgress, PullRequest, own_type};
use crate::{Artifact, Image, ImageError, ImageStore, Lease, Leased};

/// Indexes within indexes; deeper ones are an attack or a mistake.
const MAX_DEPTH: usize = 3;

/// Manifests of one index; more are an attack or a mistake.
const MAX_MANIFESTS: usize = 500;

/// The other platforms of an image, and what else its index lists, as far as they are in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Images for other platforms.
    pub images: Vec<Image>,
    /// Attestations and other artifacts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// Indexes within the index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Descriptor>,
}

impl Family {
    /// Everything it needs of the content store.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        let images = self.images.iter().flat_map(Image::blobs);
        let artifacts = self.artifacts.iter().flat_map(Artifact::digests);
        images.chain(artifacts).chain(self.indexes.iter().map(|index| &index.digest))
    }

    /// Chain ids of its layers.
    pub fn chains(&self) -> impl Iterator<Item = &Digest> {
        self.images.iter().flat_map(|image| &image.layers).map(|layer| &layer.chain_id)
    }
}

/// An image with its family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithFamily {
    /// The image for the platform asked for or the host's; the first of the index if there is none.
    pub image: Image,
    /// The others.
    pub family: Family,
}

/// What an index leads to.
#[derive(Default)]
struct Found {
    images: Vec<Image>,
    artifacts: Vec<Artifact>,
    indexes: Vec<Descriptor>,
    seen: HashSet<Digest>,
}

impl ImageStore {
    /// Pulls an image for all its platforms, with attestations and other artifacts of its index, so that the index is
    /// whole and can be pushed. When it returns, everything is on disk.
    ///
    /// # Errors
    /// As [`ImageStore::pull`]; also when one platform fails.
    pub async fn pull_all(
        &self,
        repository: &Repository,
        request: &PullRequest,
        progress: &PullProgress,
    ) -> Result<Leased<WithFamily>, ImageError> {
        let lease = self.lease();
        let fetched = fetch(repository, request, None).await?;
        progress(PullEvent::Resolved(fetched.descriptor.digest.clone()));
        let top = fetched.descriptor.clone();
        let mut found = Found::default();
        Box::pin(self.follow(repository, request, fetched, 0, &mut found, progress, &lease)).await?;
        for image in &mut found.images {
            self.hold(&lease, image);
            Box::pin(self.fetch_layers(repository, image, request.concurrency.max(1), progress)).await?;
            image.size = self.size(image)?;
        }
        self.flush().await?;
        let index = found.indexes.iter().position(|index| index.digest == top.digest);
        let index = index.map(|at| found.indexes.remove(at));
        found.images.iter_mut().for_each(|image| image.index.clone_from(&index));
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let best = found
            .images
            .iter()
            .enumerate()
            .min_by_key(|(_, image)| wanted.rank(&image.platform).unwrap_or(u32::MAX))
            .map(|(at, _)| at)
            .ok_or_else(|| ImageError::NoPlatform(wanted.clone()))?;
        let image = found.images.remove(best);
        let family = Family { images: found.images, artifacts: found.artifacts, indexes: found.indexes };
        Ok(Leased { value: WithFamily { image, family }, lease })
    }

    /// Documents of a manifest or of everything an index lists; artifacts whole, images without layers.
    #[allow(clippy::too_many_arguments)]
    async fn follow(
        &self,
        repository: &Repository,
        request: &PullRequest,
        fetched: Fetched,
        depth: usize,
        found: &mut Found,
        progress: &PullProgress,
        lease: &Lease,
    ) -> Result<(), ImageError> {
        if !found.seen.insert(fetched.descriptor.digest.clone()) {
            return Ok(());
        }
        if depth >= MAX_DEPTH || found.seen.len() > MAX_MANIFESTS {
            return Err(ImageError::Nested);
        }
        lease.hold(&fetched.descriptor.digest);
        match ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)? {
            ManifestOrIndex::Index(index) => {
                self.content().put_as(&fetched.descriptor.digest, &fetched.bytes)?;
                found.indexes.push(fetched.descriptor);
                for entry in &index.manifests {
                    let fetched = fetch(repository, request, Some(entry)).await?;
                    let further =
                        self.follow(repository, request, fetched, depth + 1, found, progress, lease);
                    Box::pin(further).await?;
                }
            }
            ManifestOrIndex::Manifest(manifest) if is_image(&manifest) && !is_attestation(&manifest) => {
                self.content().put_as(&fetched.descriptor.digest, &fetched.bytes)?;
                found.images.push(self.fetch_documents(repository, &fetched, lease).await?);
            }
            ManifestOrIndex::Manifest(manifest) => {
                let artifact = self.fetch_artifact(repository, &fetched, &manifest, progress, lease);
                let artifact = Box::pin(artifact).await?;
                found.artifacts.push(artifact);
            }
        }
        Ok(())
    }

    /// The members of a stored index, as far as they are in the store and but for `image` itself.
    ///
    /// # Errors
    /// When a document that is there cannot be read.
    pub fn family_of(&self, image: &Image) -> Result<Family, ImageError> {
        let mut family = Family::default();
        if let Some(index) = &image.index {
            self.collect_family(index, image, 0, &mut family)?;
        }
        Ok(family)
    }

    fn collect_family(
        &self,
        index: &Descriptor,
        image: &Image,
        depth: usize,
        family: &mut Family,
    ) -> Result<(), ImageError> {
        if depth >= MAX_DEPTH {
            return Err(ImageError::Nested);
        }
        for entry in self.read_index(index)?.manifests {
            if entry.digest == image.manifest.digest || !self.content().contains(&entry.digest, entry.size) {
                continue;
            }
            let plain = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
            match self.read_document(&plain)? {
                ManifestOrIndex::Index(_) => {
                    self.collect_family(&plain, image, depth + 1, family)?;
                    family.indexes.push(plain);
                }
                ManifestOrIndex::Manifest(manifest) => {
                    let there = |blob: &Descriptor| self.content().contains(&blob.digest, blob.size);
                    if !there(&manifest.config) || !manifest.layers.iter().all(there) {
                        continue;
                    }
                    if is_image(&manifest) && !is_attestation(&manifest) {
                        let mut other = self.describe(&plain)?;
                        other.index.clone_from(&image.index);
                        // Known once its layers are unpacked.
                        other.size = self.size(&other).unwrap_or(0);
                        family.images.push(other);
                    } else {
                        family.artifacts.push(Artifact::new(plain, &manifest));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether everything an index lists is in the store.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn is_whole(&self, index: &Descriptor) -> Result<bool, ImageError> {
        self.is_whole_at(index, 0)
    }

    fn is_whole_at(&self, index: &Descriptor, depth: usize) -> Result<bool, ImageError> {
        for entry in self.read_index(index)?.manifests {
            if depth >= MAX_DEPTH || !self.content().contains(&entry.digest, entry.size) {
                return Ok(false);
            }
            let there = |blob: &Descriptor| {
                hull_model::media_type::is_foreign_layer(&blob.media_type)
                    || self.content().contains(&blob.digest, blob.size)
            };
            let whole = match self.read_document(&entry)? {
                ManifestOrIndex::Index(_) => self.is_whole_at(&entry, depth + 1)?,
                ManifestOrIndex::Manifest(m) => there(&m.config) && m.layers.iter().all(there),
            };
            if !whole {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A stored index.
    ///
    /// # Errors
    /// When it is not there or none.
    pub fn read_index(&self, index: &Descriptor) -> Result<Index, ImageError> {
        match self.read_document(index)? {
            ManifestOrIndex::Index(index) => Ok(index),
            ManifestOrIndex::Manifest(_) => Err(ImageError::NotAnIndex(index.digest.clone())),
        }
    }

    pub(crate) fn read_document(&self, descriptor: &Descriptor) -> Result<ManifestOrIndex, ImageError> {
        let bytes = self.content().read(&descriptor.digest, hull_distribution::MAX_DOCUMENT)?;
        Ok(ManifestOrIndex::parse(&descriptor.media_type, &bytes)?)
    }
}

/// BuildKit gives its attestations the type of an image; their layers tell.
fn is_attestation(manifest: &hull_model::Manifest) -> bool {
    !manifest.layers.is_empty()
        && manifest.layers.iter().all(|layer| layer.media_type.starts_with("application/vnd.in-toto"))
}

async fn fetch(
    repository: &Repository,
    request: &PullRequest,
    entry: Option<&Descriptor>,
) -> Result<Fetched, ImageError> {
    let reference = match entry {
        Some(entry) => request.reference.with_digest(entry.digest.clone()),
        None => request.reference.clone(),
    };
    let mut fetched = repository.manifest(&reference).await?;
    let document = ManifestOrIndex::parse(&fetched.descriptor.media_type, &fetched.bytes)?;
    fetched.descriptor.media_type = own_type(&document, &fetched.descriptor.media_type);
    Ok(fetched)
}
