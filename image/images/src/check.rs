//! Looking for damage, and mending what this machine can mend by itself.

use std::collections::{BTreeMap, BTreeSet};

use hull_content::{ContentError, Verdict};
use hull_layer::LayerError;
use hull_model::Digest;

use crate::{Image, ImageError, ImageStore};

/// A part of an image in the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A blob, by its digest.
    Blob(Digest),
    /// An unpacked layer, by its chain id.
    Layer(Digest),
}

/// What is wrong with a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is other than it was made.
    Damaged,
    /// It cannot be read.
    Unreadable(String),
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// With what.
    pub part: Part,
    /// What.
    pub fault: Fault,
}

/// What a look at everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Blobs read.
    pub blobs: u64,
    /// Layers read.
    pub layers: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// All that is wrong.
    pub findings: Vec<Finding>,
}

impl ImageStore {
    /// Reads every blob and layer of the store and those that `images` need. Blocks for as long as that takes; nothing is
    /// locked, and what is removed meanwhile is nothing to complain of unless an image needs it.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub fn check(&self, images: &[Image]) -> Result<Report, ImageError> {
        let mut report = Report::default();
        let needed: BTreeSet<Digest> = images.iter().flat_map(Image::blobs).cloned().collect();
        let mut blobs: BTreeMap<Digest, u64> = self.content().list()?.into_iter().collect();
        for digest in &needed {
            blobs.entry(digest.clone()).or_default();
        }
        for (digest, size) in blobs {
            let fault = self.blob_fault(&digest, needed.contains(&digest));
            report.add(Part::Blob(digest), size, fault);
        }
        let stored =
            self.layers().list().map_err(|source| ImageError::Layer { digest: "store".into(), source })?;
        let mut layers: BTreeMap<Digest, u64> = stored
            .into_iter()
            .map(|record| (record.chain_id.clone(), record.stored.max(record.size)))
            .collect();
        let needed: BTreeSet<Digest> =
            images.iter().flat_map(|image| &image.layers).map(|layer| layer.chain_id.clone()).collect();
        for chain_id in &needed {
            layers.entry(chain_id.clone()).or_default();
        }
        for (chain_id, size) in layers {
            let fault = self.layer_fault(&chain_id, needed.contains(&chain_id));
            report.add(Part::Layer(chain_id), size, fault);
        }
        Ok(report)
    }

    /// What is wrong with one part, if anything is.
    pub fn check_part(&self, part: &Part) -> Option<Fault> {
        match part {
            Part::Blob(digest) => self.blob_fault(digest, true),
            Part::Layer(chain_id) => self.layer_fault(chain_id, true),
        }
    }

    fn blob_fault(&self, digest: &Digest, needed: bool) -> Option<Fault> {
        match self.content().verify(digest) {
            Ok(Verdict::Intact) => None,
            Ok(Verdict::Damaged { .. }) => Some(Fault::Damaged),
            Err(ContentError::NotFound(_)) => needed.then_some(Fault::Missing),
            Err(error) => Some(Fault::Unreadable(chain(&error))),
        }
    }

    fn layer_fault(&self, chain_id: &Digest, needed: bool) -> Option<Fault> {
        match self.layers().is_intact(chain_id) {
            Ok(true) => None,
            Ok(false) => Some(Fault::Damaged),
            Err(LayerError::NotFound(_)) => needed.then_some(Fault::Missing),
            Err(error) => Some(Fault::Unreadable(chain(&error))),
        }
    }

    /// Takes away a part that is damaged, so that it is made or fetched anew by whoever needs it ([`ImageStore::unpack`],
    /// [`ImageStore::pull`]).
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_damaged(&self, part: &Part) -> Result<(), ImageError> {
        match part {
            Part::Blob(digest) => self.content().delete(digest).map(drop)?,
            Part::Layer(chain_id) => {
                self.layers().remove(chain_id).map(drop).map_err(ImageError::layer(chain_id))?;
            }
        }
        Ok(())
    }
}

impl Report {
    fn add(&mut self, part: Part, size: u64, fault: Option<Fault>) {
        match part {
            Part::Blob(_) => self.blobs += 1,
            Part::Layer(_) => self.layers += 1,
        }
        self.bytes += size;
        self.findings.extend(fault.map(|fault| Finding { part, fault }));
    }
}

impl Finding {
    /// Whether an image is made of this part.
    pub fn is_of(&self, image: &Image) -> bool {
        match &self.part {
            Part::Blob(digest) => image.blobs().any(|own| own == digest),
            Part::Layer(chain_id) => image.layers.iter().any(|layer| layer.chain_id == *chain_id),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
