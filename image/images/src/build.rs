use std::io::{self, Read};

use hull_content::Ingest;
use hull_layer::Staged;
use hull_model::{Descriptor, Digest, ImageConfig, Manifest, chain_ids, media_type};

use crate::{Image, ImageError, ImageStore, Lease, Leased};

/// A layer unpacked and stored, but part of no image yet.
#[derive(Debug)]
pub struct NewLayer {
    blob: Descriptor,
    staged: Staged,
}

impl NewLayer {
    /// Digest of its uncompressed tar.
    pub fn diff_id(&self) -> &Digest {
        self.staged.diff_id()
    }

    /// Bytes of its files.
    pub fn size(&self) -> u64 {
        self.staged.size()
    }
}

impl ImageStore {
    /// Reads a layer tar, compressed or not, into the store.
    pub fn add_layer(&self, input: impl Read + Send, lease: &Lease) -> Result<NewLayer, ImageError> {
        let mut input = Tee { input, ingest: self.content().ingest_unnamed()?, start: Vec::new() };
        let failed = |source| ImageError::Layer { digest: "input".into(), source };
        let staged = self.layers().stage(&mut input, None).map_err(failed)?;
        io::copy(&mut input, &mut io::sink()).map_err(|e| ImageError::Stored("layer", e))?;
        let media_type = layer_type(&input.start);
        let (digest, size) = input.ingest.commit_held(|digest| lease.hold(digest))?;
        Ok(NewLayer { blob: Descriptor::new(media_type, digest, size), staged })
    }

    /// Makes an image: the layers of `base`, then `layer`, with `config`, whose `rootfs` is filled in here.
    ///
    /// Everything is on disk when it returns.
    pub fn create(
        &self,
        base: Option<&Image>,
        layer: Option<NewLayer>,
        mut config: ImageConfig,
        lease: Lease,
    ) -> Result<Leased<Image>, ImageError> {
        if let Some(base) = base {
            self.hold(&lease, base);
        }
        let mut blobs: Vec<Descriptor> =
            base.iter().flat_map(|b| &b.layers).map(|l| l.blob.clone()).collect();
        let mut diff_ids: Vec<Digest> =
            base.iter().flat_map(|b| &b.layers).map(|l| l.diff_id.clone()).collect();
        if let Some(layer) = layer {
            blobs.push(layer.blob);
            diff_ids.push(layer.staged.diff_id().clone());
            let chain = chain_ids(&diff_ids, hull_content::sha256);
            if let Some((chain_id, below)) = chain.split_last() {
                lease.hold(chain_id);
                layer.staged.commit(chain_id, below.last()).map_err(ImageError::layer(chain_id))?;
            }
        }
        config.rootfs.diff_ids = diff_ids;
        let mut image = self.store_documents(&config, blobs, &lease)?;
        self.hold(&lease, &image);
        image.size = self.size(&image)?;
        self.sync(&image)?;
        Ok(Leased { value: image, lease })
    }

    /// Writes configuration and manifest.
    fn store_documents(
        &self,
        config: &ImageConfig,
        layers: Vec<Descriptor>,
        lease: &Lease,
    ) -> Result<Image, ImageError> {
        let bytes = serde_json::to_vec(config).map_err(|e| ImageError::Write("image configuration", e))?;
        let digest = hull_content::sha256(&bytes);
        lease.hold(&digest);
        self.content().put_as(&digest, &bytes)?;
        let config_blob = Descriptor::new(media_type::OCI_CONFIG, digest, bytes.len() as u64);
        let (manifest, document, _) = self.store_manifest(config_blob, layers, lease)?;
        Ok(Image::new(manifest, &document, config))
    }

    /// Writes a manifest; says whether it is new.
    pub(crate) fn store_manifest(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
        lease: &Lease,
    ) -> Result<(Descriptor, Manifest, bool), ImageError> {
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.into()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: Default::default(),
        };
        let bytes = serde_json::to_vec(&manifest).map_err(|e| ImageError::Write("image manifest", e))?;
        let digest = hull_content::sha256(&bytes);
        lease.hold(&digest);
        let new = !self.content().contains(&digest, bytes.len() as u64);
        self.content().put_as(&digest, &bytes)?;
        Ok((Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64), manifest, new))
    }
}

/// Media type of a layer by its first bytes.
pub(crate) fn layer_type(start: &[u8]) -> &'static str {
    match hull_layer::Compression::detect(start) {
        Ok(hull_layer::Compression::Gzip) => media_type::OCI_LAYER_GZIP,
        Ok(hull_layer::Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    }
}

/// Stores what is read.
struct Tee<R> {
    input: R,
    ingest: Ingest,
    start: Vec<u8>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.ingest.append(&buffer[..n]).map_err(io::Error::other)?;
        let missing = 8usize.saturating_sub(self.start.len()).min(n);
        self.start.extend_from_slice(&buffer[..missing]);
        Ok(n)
    }
}
