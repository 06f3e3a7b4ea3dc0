//! What is recorded of images and their names, and how they are found.

use std::collections::BTreeMap;
use std::sync::Arc;

use hull_images::{Artifact, Family, ImageError, ImageStore, Leased, WithFamily};
use hull_meta::Durability;
use hull_model::{Digest, ImageConfig, Platform, Reference, ReferenceError};
use serde::{Deserialize, Serialize};

use crate::{Engine, Error, Kind, Result};

pub(super) const IMAGES: &str = "images";
pub(super) const REFERENCES: &str = "references";
pub(super) const ARTIFACTS: &str = "artifacts";

/// What is recorded of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// What it is made of.
    pub(super) image: hull_images::Image,
    /// Bytes of the files in each layer, lowest first.
    pub(super) layer_sizes: Vec<u64>,
    /// The other platforms of its index, and what else that lists, as far as they were asked for.
    #[serde(default)]
    pub(super) family: Family,
    /// Bytes of the files in the layers of the other platforms, by chain id.
    #[serde(default)]
    pub(super) family_sizes: BTreeMap<Digest, u64>,
    /// The image it was made from on this machine.
    #[serde(default)]
    pub(super) parent: Option<Digest>,
    /// When it last got a name, RFC 3339.
    #[serde(default)]
    pub(super) last_tagged: Option<String>,
    /// Removed by force while containers use it: not shown any more, and gone with the last of them.
    #[serde(default)]
    pub(super) removed: bool,
}

/// An image: its record and its configuration.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) record: Record,
    pub(super) config: Arc<ImageConfig>,
    /// The other platforms as images of their own, which share its names.
    pub(super) others: Vec<Arc<Image>>,
}

impl Image {
    /// With the configurations of all platforms.
    fn new(record: Record, store: &ImageStore) -> Result<Image, ImageError> {
        let config = Arc::new(store.config(&record.image)?);
        let other = |image: &hull_images::Image| {
            let size = |layer: &hull_images::ImageLayer| record.family_sizes.get(&layer.chain_id).copied();
            let layer_sizes = image.layers.iter().map(|layer| size(layer).unwrap_or(0)).collect();
            let config = Arc::new(store.config(image)?);
            let record = Record {
                image: image.clone(),
                layer_sizes,
                family: Family::default(),
                family_sizes: BTreeMap::new(),
                parent: None,
                last_tagged: record.last_tagged.clone(),
                removed: record.removed,
            };
            Ok(Arc::new(Image { record, config, others: Vec::new() }))
        };
        let others = record.family.images.iter().map(other).collect::<Result<_, ImageError>>()?;
        Ok(Image { record, config, others })
    }

    /// The image for a platform; the image itself for none.
    pub(super) fn for_platform(self: &Arc<Self>, platform: Option<&Platform>) -> Option<Arc<Image>> {
        let Some(wanted) = platform else { return Some(Arc::clone(self)) };
        let all = std::iter::once(self).chain(&self.others);
        let ranked = all.filter_map(|image| Some((wanted.rank(&image.config.platform())?, image)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, image)| Arc::clone(image))
    }

    /// Ids of all its platforms, its own first.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(self.id()).chain(self.others.iter().map(|other| other.id()))
    }

    /// Layers of all platforms with the bytes of their files.
    pub(super) fn all_layers(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.sized_layers().chain(self.record.family_sizes.iter().map(|(chain, size)| (chain, *size)))
    }

    /// Digest of the configuration.
    pub(super) fn id(&self) -> &Digest {
        &self.record.image.id
    }

    /// Chain ids of the layers, lowest first.
    pub(super) fn chain(&self) -> impl DoubleEndedIterator<Item = &Digest> {
        self.record.image.layers.iter().map(|layer| &layer.chain_id)
    }

    /// Layers with the bytes of their files, lowest first.
    pub(super) fn sized_layers(&self) -> impl Iterator<Item = (&Digest, u64)> {
        self.chain().zip(self.record.layer_sizes.iter().copied())
    }

    /// When it was made, seconds since 1970; 0 where the image does not say.
    pub(super) fn created(&self) -> i64 {
        self.created_at().map_or(0, jiff::Timestamp::as_second)
    }

    pub(super) fn created_at(&self) -> Option<jiff::Timestamp> {
        self.config.created.as_deref()?.parse().ok()
    }
}

/// The target of a name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Target {
    image: Digest,
}

/// All images and names of an engine.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) images: BTreeMap<Digest, Arc<Image>>,
    /// Full reference to image.
    pub(super) references: BTreeMap<String, (Reference, Digest)>,
    /// Artifacts by their full reference.
    pub(super) artifacts: BTreeMap<String, (Reference, Artifact)>,
}

impl Known {
    pub(super) fn load(store: &hull_meta::Store, images: &ImageStore) -> Result<Known> {
        let mut known = Known::default();
        for (id, record) in store.load::<Record>(IMAGES)? {
            match Image::new(record, images) {
                Ok(image) => {
                    known.images.insert(image.id().clone(), Arc::new(image));
                }
                // Its containers go on; the image has to be pulled again.
                Err(error) => {
                    tracing::error!(image = id, %error, "the image's configuration is gone or damaged")
                }
            }
        }
        for (text, target) in store.load::<Target>(REFERENCES)? {
            match text.parse::<Reference>() {
                Ok(reference) if known.images.contains_key(&target.image) => {
                    known.references.insert(text, (reference, target.image));
                }
                _ => tracing::warn!(reference = text, "the name's image is gone"),
            }
        }
        for (text, artifact) in store.load::<Artifact>(ARTIFACTS)? {
            if let Ok(reference) = text.parse::<Reference>() {
                known.artifacts.insert(text, (reference, artifact));
            }
        }
        Ok(known)
    }

    /// Names of an image, sorted.
    pub(super) fn references_of(&self, id: &Digest) -> Vec<Reference> {
        self.references
            .values()
            .filter(|(_, image)| image == id)
            .map(|(reference, _)| reference.clone())
            .collect()
    }

    /// Whether a blob or layer belongs to an image, those included that wait for their last container.
    pub(super) fn needs(&self, part: &Digest) -> bool {
        self.images.values().any(|image| {
            let family = &image.record.family;
            let own = image.record.image.blobs().chain(image.chain());
            own.chain(family.digests()).chain(family.chains()).any(|own| own == part)
        }) || self.artifacts.values().any(|(_, artifact)| artifact.digests().any(|own| own == part))
    }

    /// The image that one of several platforms belongs to.
    pub(super) fn main_of(&self, id: &Digest) -> Option<&Arc<Image>> {
        let belongs = |image: &&Arc<Image>| image.others.iter().any(|other| other.id() == id);
        self.images.get(id).or_else(|| self.images.values().find(belongs))
    }

    /// Images made from this one on this machine.
    pub(super) fn children_of(&self, id: &Digest) -> impl Iterator<Item = &Arc<Image>> {
        self.shown().filter(move |image| image.record.parent.as_ref() == Some(id))
    }

    /// All images but those that wait for their last container.
    pub(super) fn shown(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values().filter(|image| !image.record.removed)
    }

    /// The image of a name, an id, or a unique beginning of an id.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Image>> {
        self.find_for_run(name)
            .and_then(|image| if image.record.removed { Err(no_such_image(name)) } else { Ok(image) })
    }

    /// As [`Known::find`]; a removed image that containers still use is found by its whole id.
    pub(super) fn find_for_run(&self, name: &str) -> Result<Arc<Image>> {
        if let Some(id) = whole_id(name) {
            let main = self.main_of(&id).ok_or_else(|| no_such_image(name))?;
            let mut all = std::iter::once(main).chain(&main.others);
            return all.find(|image| *image.id() == id).cloned().ok_or_else(|| no_such_image(name));
        }
        match parse_reference(name) {
            Ok(reference) => {
                if let Some(image) = self.by_reference(&reference) {
                    return Ok(image);
                }
            }
            // Neither a name nor a part of an id.
            Err(error) if !is_id_prefix(name) => return Err(Error::invalid(error.to_string())),
            Err(_) => {}
        }
        self.by_id_prefix(name).ok_or_else(|| no_such_image(name))
    }

    /// The image a reference names; with tag and digest, the digest decides.
    pub(super) fn by_reference(&self, reference: &Reference) -> Option<Arc<Image>> {
        let key = match reference.digest() {
            Some(digest) => reference.with_digest(digest.clone()).to_string(),
            None => reference.clone().or_default_tag().to_string(),
        };
        let (_, id) = self.references.get(&key)?;
        self.images.get(id).filter(|image| !image.record.removed).cloned()
    }

    fn by_id_prefix(&self, prefix: &str) -> Option<Arc<Image>> {
        let prefix = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if !is_id_prefix(prefix) {
            return None;
        }
        let mut matching = self.shown().filter(|image| image.id().hex().starts_with(prefix));
        let first = matching.next()?;
        // Ambiguous is as good as unknown.
        matching.next().is_none().then(|| Arc::clone(first))
    }
}

/// A name as clients write it. 64 hexadecimal digits are no name but an id.
pub(super) fn parse_reference(name: &str) -> Result<Reference, ReferenceError> {
    name.parse()
}

/// An id in full, with or without `sha256:`.
fn whole_id(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let lowercase = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex.len() == 64 && lowercase).then(|| format!("sha256:{hex}").parse().ok())?
}

/// Whether a text can be the beginning of an id.
pub(super) fn is_id_prefix(text: &str) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    !hex.is_empty()
        && hex.len() <= 64
        && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Docker's words: names are shown in their short form with the tag that was meant.
pub(super) fn no_such_image(name: &str) -> Error {
    let shown = match parse_reference(name) {
        Ok(reference) if whole_id(name).is_none() => reference.or_default_tag().familiar(),
        _ => name.to_owned(),
    };
    Error::not_found(format!("No such image: {shown}"))
}

/// The image for the platform that was asked for, if any was.
pub(super) fn select_platform(image: &Arc<Image>, name: &str, platform: &str) -> Result<Arc<Image>> {
    if platform.is_empty() {
        return Ok(Arc::clone(image));
    }
    let wanted: Platform =
        platform.parse().map_err(|error: hull_model::PlatformError| Error::invalid(error.to_string()))?;
    image.for_platform(Some(&wanted)).ok_or_else(|| {
        let actual = image.config.platform();
        Error::not_found(format!(
            "image with reference {name} was found but its platform ({actual}) does not match the specified platform \
             ({wanted})"
        ))
    })
}

impl Engine {
    /// Records an image and gives it names, durably; its parts are on the disk and held by a lease. What is recorded
    /// stays recorded even if whoever waits for it goes away.
    pub(super) async fn image_record(
        &self,
        made: Leased<hull_images::Image>,
        parent: Option<Digest>,
        names: Vec<Reference>,
    ) -> Result<Arc<Image>> {
        let Leased { value: image, lease } = made;
        let value = WithFamily { image, family: Family::default() };
        self.image_record_all(Leased { value, lease }, parent, names).await
    }

    /// The same for an image with its other platforms.
    pub(super) async fn image_record_all(
        &self,
        made: Leased<WithFamily>,
        parent: Option<Digest>,
        names: Vec<Reference>,
    ) -> Result<Arc<Image>> {
        let engine = self.clone();
        tokio::spawn(async move {
            let Leased { value: made, lease } = made;
            let recorded = engine.record(made, parent, &names).await;
            drop(lease);
            recorded
        })
        .await?
    }

    async fn record(
        &self,
        made: WithFamily,
        parent: Option<Digest>,
        names: &[Reference],
    ) -> Result<Arc<Image>> {
        let id = made.image.id.clone();
        let old = self.0.images.known().images.get(&id).cloned();
        let store = self.0.images.store.clone();
        let is_named = !names.is_empty();
        let image = tokio::task::spawn_blocking(move || {
            let WithFamily { image: made, mut family } = made;
            let size = |chain: &Digest| store.layers().record(chain).map_or(0, |record| record.size);
            let layer_sizes = made.layers.iter().map(|layer| size(&layer.chain_id)).collect();
            let (mut parent, mut last_tagged) = (parent, None);
            if let Some(old) = old {
                // Known already, maybe under another manifest: it stays what was made from its parent, and what was
                // asked for of its index stays.
                parent = parent.or_else(|| old.record.parent.clone());
                last_tagged.clone_from(&old.record.last_tagged);
                if family == Family::default() && made.index == old.record.image.index {
                    family.clone_from(&old.record.family);
                }
            }
            if is_named {
                last_tagged = Some(hull_docker_api::rfc3339_nano(jiff::Timestamp::now()));
            }
            let family_sizes = family.chains().map(|chain| (chain.clone(), size(chain))).collect();
            let removed = false;
            let record =
                Record { image: made, layer_sizes, family, family_sizes, parent, last_tagged, removed };
            Image::new(record, &store)
        })
        .await?
        .map_err(|error| Error::system("record image", error))?;
        let image = Arc::new(image);
        let mut batch = hull_meta::Batch::new();
        batch.put(IMAGES, id.as_str(), &image.record)?;
        for name in names {
            batch.put(REFERENCES, &name.to_string(), &Target { image: id.clone() })?;
        }
        self.store().write(batch, Durability::Disk).await?;
        let mut known = self.0.images.known();
        known.images.insert(id.clone(), Arc::clone(&image));
        for name in names {
            known.references.insert(name.to_string(), (name.clone(), id.clone()));
        }
        drop(known);
        Ok(image)
    }

    /// Points a name to an image, taking it away from the one that had it.
    pub(super) async fn reference_set(&self, name: &Reference, image: &Arc<Image>) -> Result<()> {
        let mut next = Image::clone(image);
        next.record.last_tagged = Some(hull_docker_api::rfc3339_nano(jiff::Timestamp::now()));
        let id = next.id().clone();
        let mut batch = hull_meta::Batch::new();
        batch.put(IMAGES, id.as_str(), &next.record)?;
        batch.put(REFERENCES, &name.to_string(), &Target { image: id.clone() })?;
        self.store().write(batch, Durability::Disk).await?;
        let mut known = self.0.images.known();
        known.references.insert(name.to_string(), (name.clone(), id.clone()));
        known.images.insert(id, Arc::new(next));
        Ok(())
    }

    /// Takes a name away.
    pub(super) async fn reference_remove(&self, name: &Reference) -> Result<()> {
        self.store().delete(REFERENCES, &name.to_string(), Durability::Disk).await?;
        self.0.images.known().references.remove(&name.to_string());
        Ok(())
    }

    /// The image of a name, or the error that clients know.
    pub(super) fn image_find(&self, name: &str) -> Result<Arc<Image>> {
        if name.is_empty() {
            return Err(Error::new(Kind::InvalidParameter, "image name cannot be empty"));
        }
        self.0.images.known().find(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(hexes: &[&str], names: &[(&str, usize)]) -> Known {
        let mut known = Known::default();
        let mut ids = Vec::new();
        for hex in hexes {
            let id: Digest = format!("sha256:{hex:0<64}").parse().expect("digest");
            let blob = hull_model::Descriptor::new("m", id.clone(), 1);
            let record = Record {
                image: hull_images::Image {
                    id: id.clone(),
                    config: blob.clone(),
                    manifest: blob,
                    index: None,
                    platform: Platform::host(),
                    layers: Vec::new(),
                    size: 0,
                },
                layer_sizes: Vec::new(),
                family: Family::default(),
                family_sizes: BTreeMap::new(),
                parent: None,
                last_tagged: None,
                removed: false,
            };
            known
                .images
                .insert(id.clone(), Arc::new(Image { record, config: Arc::default(), others: Vec::new() }));
            ids.push(id);
        }
        for (name, index) in names {
            let reference: Reference = Reference::parse_default_tag(name).expect("reference");
            known.references.insert(reference.to_string(), (reference, ids[*index].clone()));
        }
        known
    }

    fn found(known: &Known, name: &str) -> Result<String, (Kind, String)> {
        let short = |image: Arc<Image>| image.id().hex().trim_end_matches('0').to_owned();
        known.find(name).map(short).map_err(|error| (error.kind(), error.message().to_owned()))
    }

    #[test]
    fn images_are_found_by_name_id_and_beginning_of_an_id() {
        let known = known(&["abc1", "abd2", "cafe"], &[("busybox", 0), ("abd", 2), ("q.io/a/b:v1", 1)]);
        let whole = format!("{:0<64}", "abc1");
        for (name, id) in [
            ("busybox", "abc1"),
            ("docker.io/library/busybox:latest", "abc1"),
            ("q.io/a/b:v1", "abd2"),
            ("abc", "abc1"),
            ("sha256:abd2", "abd2"),
            (whole.as_str(), "abc1"),
            // A name wins over the beginning of an id.
            ("abd", "cafe"),
        ] {
            assert_eq!(found(&known, name), Ok(id.to_owned()), "{name}");
        }
    }

    #[test]
    fn what_is_not_found_is_named_in_dockers_words() {
        let known = known(&["abc1", "abd2"], &[]);
        for (name, kind, message) in [
            ("nope", Kind::NotFound, "No such image: nope:latest"),
            ("docker.io/library/nope:1", Kind::NotFound, "No such image: nope:1"),
            ("ab", Kind::NotFound, "No such image: ab:latest"),
            (
                "Nope",
                Kind::InvalidParameter,
                "invalid reference format: repository name (library/Nope) must be lowercase",
            ),
            ("a b", Kind::InvalidParameter, "invalid reference format"),
        ] {
            assert_eq!(found(&known, name), Err((kind, message.to_owned())), "{name}");
        }
        let id = format!("sha256:{}", "f".repeat(64));
        assert_eq!(found(&known, &id), Err((Kind::NotFound, format!("No such image: {id}"))));
    }
}
