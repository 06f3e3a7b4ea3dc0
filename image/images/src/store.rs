use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use hull_content::Store;
use hull_distribution::MAX_DOCUMENT;
use hull_layer::{Layers, Snapshot};
use hull_model::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, media_type};

use crate::lease::Leases;
use crate::{Family, Image, ImageError, Lease};

/// As many as overlayfs stacks (OVL_MAX_STACK).
pub(crate) const MAX_LAYERS: usize = 500;

/// Content and layers of one data root together. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ImageStore {
    content: Store,
    layers: Layers,
    leases: Arc<Leases>,
    busy: Arc<KeyedLocks>,
}

/// Something made in the store, protected until the lease is dropped.
#[derive(Debug)]
pub struct Leased<T> {
    /// What was made.
    pub value: T,
    /// Keep it until the record is written.
    pub lease: Lease,
}

impl ImageStore {
    /// Over these two stores of one data root.
    pub fn new(content: Store, layers: Layers) -> Self {
        Self { content, layers, leases: Arc::default(), busy: Arc::default() }
    }

    /// The blobs.
    pub fn content(&self) -> &Store {
        &self.content
    }

    /// The unpacked layers.
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    pub(crate) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// A new, empty lease.
    pub fn lease(&self) -> Lease {
        self.leases.lease()
    }

    /// Removes blobs and layers an operation that failed has added, those nobody else relied upon meanwhile.
    pub(crate) fn undo(&self, blobs: &[Digest], chains: &[Digest]) {
        // What cannot be removed is unreferenced and goes with the next collection.
        for digest in blobs {
            let _ = self.leases.if_unshared(digest, || self.content.delete(digest));
        }
        for chain_id in chains {
            if let Some(Ok(Some(trash))) = self.leases.if_unshared(chain_id, || self.layers.discard(chain_id))
            {
                let _ = trash.delete();
            }
        }
    }

    pub(crate) fn busy(&self) -> &KeyedLocks {
        &self.busy
    }

    /// Configuration of an image, parsed.
    pub fn config(&self, image: &Image) -> Result<ImageConfig, ImageError> {
        Ok(ImageConfig::parse(&self.config_bytes(image)?)?)
    }

    /// Configuration of an image as it came.
    pub fn config_bytes(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        Ok(self.content.read(&image.config.digest, MAX_DOCUMENT)?)
    }

    /// Manifest of an image.
    pub fn manifest(&self, image: &Image) -> Result<Manifest, ImageError> {
        self.read_manifest(&image.manifest)
    }

    pub(crate) fn read_manifest(&self, descriptor: &Descriptor) -> Result<Manifest, ImageError> {
        let bytes = self.content.read(&descriptor.digest, MAX_DOCUMENT)?;
        match ManifestOrIndex::parse(&descriptor.media_type, &bytes)? {
            ManifestOrIndex::Manifest(manifest) => Ok(manifest),
            ManifestOrIndex::Index(_) => Err(ImageError::Nested),
        }
    }

    /// The image a stored manifest describes; its layers need not be unpacked, but its configuration must be there.
    pub fn describe(&self, manifest: &Descriptor) -> Result<Image, ImageError> {
        let document = self.read_manifest(manifest)?;
        check_is_image(&document)?;
        let config = ImageConfig::parse(&self.content.read(&document.config.digest, MAX_DOCUMENT)?)?;
        config.check_layers(&document)?;
        Ok(Image::new(manifest.clone(), &document, &config))
    }

    /// Bytes of the files of an image's layers.
    pub fn size(&self, image: &Image) -> Result<u64, ImageError> {
        let mut size = 0;
        for layer in &image.layers {
            size += self.layers.record(&layer.chain_id).map_err(ImageError::layer(&layer.chain_id))?.size;
        }
        Ok(size)
    }

    /// Lower directories of a container's overlay, topmost first.
    pub fn snapshot(&self, image: &Image) -> Result<Snapshot, ImageError> {
        self.layers.snapshot(&image.chain_ids()).map_err(ImageError::layer(&image.id))
    }

    /// Unpacks those layers of an image that are not, from their blobs; fills in its size.
    pub fn unpack(&self, image: &mut Image) -> Result<(), ImageError> {
        let mut parent: Option<&Digest> = None;
        for layer in &image.layers {
            if !self.layers.contains(&layer.chain_id) {
                let blob = self.content.open_blob(&layer.blob.digest)?;
                let failed = || ImageError::layer(&layer.blob.digest);
                let staged = self.layers.stage(blob, Some(&layer.diff_id)).map_err(failed())?;
                staged.commit(&layer.chain_id, parent).map_err(failed())?;
            }
            parent = Some(&layer.chain_id);
        }
        image.size = self.size(image)?;
        Ok(())
    }

    /// Protects everything of an image's family.
    pub fn hold_family(&self, lease: &Lease, family: &Family) {
        family.digests().chain(family.chains()).for_each(|digest| lease.hold(digest));
    }

    /// Brings an image to the disk, so that it may be recorded: file by file where it is a few large files, and else all
    /// that the file system has not written yet.
    ///
    /// # Errors
    /// When something of it is not there or the disk refuses.
    pub fn sync(&self, image: &Image) -> Result<(), ImageError> {
        let synced = self.layers.sync(&image.chain_ids()).map_err(ImageError::layer(&image.id))?;
        match synced {
            true => Ok(self.content.sync_blobs(image.blobs())?),
            false => Ok(self.content.sync()?),
        }
    }

    /// Protects everything of an image.
    pub fn hold(&self, lease: &Lease, image: &Image) {
        image.blobs().for_each(|digest| lease.hold(digest));
        image.layers.iter().for_each(|layer| lease.hold(&layer.chain_id));
    }
}

/// Refuses artifacts (charts, signatures, …) and towers nobody could mount.
pub(crate) fn check_is_image(manifest: &Manifest) -> Result<(), ImageError> {
    let kind = &manifest.config.media_type;
    if !kind.is_empty() && !media_type::is_config(kind) && kind != "application/octet-stream" {
        return Err(ImageError::NotAnImage(kind.clone()));
    }
    if let Some(odd) =
        manifest.layers.iter().find(|l| !l.media_type.is_empty() && !media_type::is_layer(&l.media_type))
    {
        return Err(ImageError::NotAnImage(odd.media_type.clone()));
    }
    match manifest.layers.len() {
        n if n > MAX_LAYERS => Err(ImageError::TooManyLayers(n)),
        _ => Ok(()),
    }
}

/// One lock for each key in use: the same layer wanted twice at once is fetched once.
#[derive(Debug, Default)]
pub(crate) struct KeyedLocks {
    locks: Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>,
}

impl KeyedLocks {
    pub(crate) fn get(&self, key: &Digest) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        locks.insert(key.clone(), Arc::downgrade(&lock));
        lock
    }
}
