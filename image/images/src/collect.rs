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

/// Whether a blob or layer (by chain id) belongs to a recorded image. Asked while nobody can take or give back a
/// lease: what is recorded before its lease is dropped is therefore never missed.
pub type IsNeeded<'a> = &'a (dyn Fn(&Digest) -> bool + Sync);

impl ImageStore {
    /// Removes those blobs and layers of `image` that are not needed and that no lease protects.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn release(&self, image: &Image, is_needed: IsNeeded<'_>) -> Result<Freed, ImageError> {
        let blobs: HashSet<Digest> = image.blobs().cloned().collect();
        let chains = image.layers.iter().map(|layer| layer.chain_id.clone()).collect();
        self.remove(blobs, chains, is_needed)
    }

    /// The same for these blobs and layers (by chain id).
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn release_parts(
        &self,
        blobs: HashSet<Digest>,
        chains: HashSet<Digest>,
        is_needed: IsNeeded<'_>,
    ) -> Result<Freed, ImageError> {
        self.remove(blobs, chains, is_needed)
    }

    /// Removes all blobs and layers that are not needed and that no lease protects.
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn collect(&self, is_needed: IsNeeded<'_>) -> Result<Freed, ImageError> {
        let blobs = self.content().list()?.into_iter().map(|(digest, _)| digest).collect();
        let layers =
            self.layers().list().map_err(|source| ImageError::Layer { digest: "store".into(), source })?;
        let chains = layers.into_iter().map(|record| record.chain_id).collect();
        self.remove(blobs, chains, is_needed)
    }

    fn remove(
        &self,
        blobs: HashSet<Digest>,
        chains: HashSet<Digest>,
        is_needed: IsNeeded<'_>,
    ) -> Result<Freed, ImageError> {
        let mut freed = Freed::default();
        for digest in blobs {
            let size = self.content().size(&digest)?.unwrap_or(0);
            let delete = || if is_needed(&digest) { Ok(false) } else { self.content().delete(&digest) };
            if let Some(removed) = self.leases().unless_held(&digest, delete)
                && removed?
            {
                freed.blobs += 1;
                freed.blob_bytes += size;
            }
        }
        for chain_id in chains {
            let size = self.layers().record(&chain_id).map_or(0, |record| record.size);
            // Only the renaming is done under the lock; deleting may take long.
            let discard = || if is_needed(&chain_id) { Ok(None) } else { self.layers().discard(&chain_id) };
            if let Some(discarded) = self.leases().unless_held(&chain_id, discard)
                && let Some(trash) = discarded.map_err(ImageError::layer(&chain_id))?
            {
                trash.delete().map_err(ImageError::layer(&chain_id))?;
                freed.layers += 1;
                freed.layer_bytes += size;
            }
        }
        Ok(freed)
    }
}
