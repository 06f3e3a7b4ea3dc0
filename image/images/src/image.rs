use hull_content::sha256;
use hull_model::{Descriptor, Digest, ImageConfig, Manifest, Platform, chain_ids};
use serde::{Deserialize, Serialize};

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Name of the unpacked layer on top of those below.
    pub chain_id: Digest,
    /// The blob it came as.
    pub blob: Descriptor,
}

/// An image in the store; this is what a record of it should hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Docker's image id: digest of the configuration.
    pub id: Digest,
    /// The configuration.
    pub config: Descriptor,
    /// The manifest.
    pub manifest: Descriptor,
    /// The index the manifest was chosen from, if it came by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Descriptor>,
    /// What it runs on.
    pub platform: Platform,
    /// Lowest first.
    pub layers: Vec<ImageLayer>,
    /// Bytes of the files of all layers.
    pub size: u64,
}

impl Image {
    pub(crate) fn new(manifest: Descriptor, document: &Manifest, config: &ImageConfig) -> Self {
        let diff_ids = &config.rootfs.diff_ids;
        let layers = chain_ids(diff_ids, sha256)
            .into_iter()
            .zip(diff_ids)
            .zip(&document.layers)
            .map(|((chain_id, diff_id), blob)| ImageLayer {
                diff_id: diff_id.clone(),
                chain_id,
                blob: blob.clone(),
            })
            .collect();
        Self {
            id: document.config.digest.clone(),
            config: document.config.clone(),
            manifest,
            index: None,
            platform: config.platform(),
            layers,
            size: 0,
        }
    }

    /// Digest that names it in a registry (`repository@digest`): the index's if there is one.
    pub fn repo_digest(&self) -> &Digest {
        &self.index.as_ref().unwrap_or(&self.manifest).digest
    }

    /// Chain ids of its layers, lowest first.
    pub fn chain_ids(&self) -> Vec<Digest> {
        self.layers.iter().map(|layer| layer.chain_id.clone()).collect()
    }

    /// Everything it needs of the content store.
    pub fn blobs(&self) -> impl Iterator<Item = &Digest> {
        let documents = [Some(&self.config), Some(&self.manifest), self.index.as_ref()];
        documents.into_iter().flatten().chain(self.layers.iter().map(|l| &l.blob)).map(|d| &d.digest)
    }
}
