//! Removing what no image needs.

use std::collections::HashSet;

use hull_model::Digest;

use crate::{Image, ImageError, ImageStore};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Blobs removed.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Layers removed.
    pub layers: u64,
    /// Bytes of their files.
    pub layer_bytes: u64,
}

impl ImageStore {
    /// Removes what only `image` needed and none of `keep` does, unless a lease protects it.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn release<'a>(
        &self,
        image: &Image,
        keep: impl IntoIterator<Item = &'a Image>,
    ) -> Result<Freed, ImageError> {
        let blobs = image.blobs().cloned().collect();
        let chains = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        self.remove(&blobs, &chains, &Needed::by(keep))
    }

    /// Removes all blobs and layers none of `keep` needs and no lease protects.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn collect<'a>(&self, keep: impl IntoIterator<Item = &'a Image>) -> Result<Freed, ImageError> {
        let blobs = self.content().list()?.into_iter().map(|(digest, _)| digest).collect();
        let layers =
            self.layers().list().map_err(|source| ImageError::Layer { digest: "store".into(), source })?;
        let chains = layers.into_iter().map(|record| record.chain_id).collect();
        self.remove(&blobs, &chains, &Needed::by(keep))
    }

    fn remove(
        &self,
        blobs: &HashSet<Digest>,
        chains: &HashSet<Digest>,
        kept: &Needed,
    ) -> Result<Freed, ImageError> {
        let mut freed = Freed::default();
        for digest in blobs.difference(&kept.blobs) {
            let size = self.content().size(digest)?.unwrap_or(0);
            if let Some(removed) = self.leases().unless_held(digest, || self.content().delete(digest))
                && removed?
            {
                freed.blobs += 1;
                freed.blob_bytes += size;
            }
        }
        for chain_id in chains.difference(&kept.chains) {
            let size = self.layers().record(chain_id).map_or(0, |record| record.size);
            // Only the renaming is done under the lock; deleting may take long.
            let discarded = self.leases().unless_held(chain_id, || self.layers().discard(chain_id));
            if let Some(discarded) = discarded
                && let Some(trash) = discarded.map_err(ImageError::layer(chain_id))?
            {
                trash.delete().map_err(ImageError::layer(chain_id))?;
                freed.layers += 1;
                freed.layer_bytes += size;
            }
        }
        Ok(freed)
    }
}

struct Needed {
    blobs: HashSet<Digest>,
    chains: HashSet<Digest>,
}

impl Needed {
    fn by<'a>(images: impl IntoIterator<Item = &'a Image>) -> Needed {
        let mut needed = Needed { blobs: HashSet::new(), chains: HashSet::new() };
        for image in images {
            needed.blobs.extend(image.blobs().cloned());
            needed.chains.extend(image.layers.iter().map(|layer| layer.chain_id.clone()));
        }
        needed
    }
}
