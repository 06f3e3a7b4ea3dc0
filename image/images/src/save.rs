use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use hull_content::Hasher;
use hull_layer::tar::{Entry, Kind, Writer};
use hull_model::{Descriptor, Digest, Index, Reference, media_type};

use crate::archive::{ArchiveItem, NAME_ANNOTATION, REF_ANNOTATION};
use crate::{ArchiveError, Family, Image, ImageError, ImageStore};

/// An image to save and the names to save it under (perhaps none).
#[derive(Clone, Debug)]
pub struct SaveItem<'a> {
    /// Which image.
    pub image: &'a Image,
    /// Its names, with tags.
    pub names: Vec<Reference>,
    /// Saved with it, under its index: the other platforms. Without, the archive holds the one image.
    pub family: Option<&'a Family>,
}

impl SaveItem<'_> {
    /// The index, where more than the one image is saved.
    fn index(&self) -> Option<&Descriptor> {
        self.family.and(self.image.index.as_ref())
    }

    /// What `index.json` lists: the index, or the one manifest with its platform.
    fn top(&self) -> Descriptor {
        match self.index() {
            Some(index) => index.clone(),
            None => Descriptor { platform: Some(self.image.platform.clone()), ..self.image.manifest.clone() },
        }
    }

    fn digests(&self) -> Vec<&Digest> {
        let image = self.image;
        let own = [&image.config.digest, &image.manifest.digest].into_iter();
        let mut all: Vec<&Digest> = own.chain(image.layers.iter().map(|layer| &layer.blob.digest)).collect();
        if let (Some(index), Some(family)) = (self.index(), self.family) {
            all.push(&index.digest);
            // The index is among each image's blobs.
            all.extend(family.digests());
        }
        all
    }
}

impl ImageStore {
    /// Writes images as one tar that is a Docker archive (`manifest.json`, `repositories`) and an OCI image layout at
    /// once, as Docker 25 and newer do. Blobs are checked while they are read.
    pub fn save(&self, items: &[SaveItem<'_>], output: impl Write) -> Result<(), ImageError> {
        let mut archive = Archive { writer: Writer::new(output), written: HashSet::new() };
        archive.directory("blobs/")?;
        archive.directory("blobs/sha256/")?;
        for item in items {
            for digest in item.digests() {
                archive.blob(self, digest)?;
            }
        }
        archive.document("index.json", &index(items))?;
        archive.document("manifest.json", &items.iter().map(table_entry).collect::<Vec<_>>())?;
        archive.document("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
        let repositories = repositories(items);
        if !repositories.is_empty() {
            archive.document("repositories", &repositories)?;
        }
        archive.writer.finish().map_err(ArchiveError::Write)?;
        Ok(())
    }
}

struct Archive<W> {
    writer: Writer<W>,
    written: HashSet<Digest>,
}

impl<W: Write> Archive<W> {
    fn directory(&mut self, name: &str) -> Result<(), ImageError> {
        let entry = Entry { mode: 0o755, ..Entry::new(Kind::Directory, name) };
        Ok(self.writer.append(&entry, &mut io::empty()).map_err(ArchiveError::Write)?)
    }

    fn document(&mut self, name: &'static str, document: &impl serde::Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(document).map_err(|e| ImageError::Write(name, e))?;
        Ok(self.writer.append_bytes(&Entry::new(Kind::File, name), &bytes).map_err(ArchiveError::Write)?)
    }

    fn blob(&mut self, store: &ImageStore, digest: &Digest) -> Result<(), ImageError> {
        if !self.written.insert(digest.clone()) {
            return Ok(());
        }
        let size = store.content().size(digest)?.ok_or_else(|| ImageError::Missing(digest.clone()))?;
        let file = store.content().open_blob(digest)?;
        let mut hashing = Hashing { input: file, hasher: Hasher::new(digest.algorithm()) };
        let entry = Entry { size, ..Entry::new(Kind::File, blob_name(digest)) };
        self.writer.append(&entry, &mut hashing).map_err(ArchiveError::Write)?;
        let actual = hashing.hasher.finish();
        if actual != *digest {
            return Err(ArchiveError::Damaged { expected: digest.clone(), actual }.into());
        }
        Ok(())
    }
}

struct Hashing<R> {
    input: R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

fn index(items: &[SaveItem<'_>]) -> Index {
    let mut manifests = Vec::new();
    for item in items {
        let plain = item.top();
        if item.names.is_empty() {
            manifests.push(plain.clone());
        }
        for name in &item.names {
            let mut named = plain.clone();
            named.annotations.insert(NAME_ANNOTATION.into(), name.to_string());
            if let Some(tag) = name.tag() {
                named.annotations.insert(REF_ANNOTATION.into(), tag.into());
            }
            manifests.push(named);
        }
    }
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: BTreeMap::new(),
    }
}

fn table_entry(item: &SaveItem<'_>) -> ArchiveItem {
    let layers = &item.image.layers;
    let tags: Vec<_> = item.names.iter().map(Reference::familiar).collect();
    ArchiveItem {
        config: blob_name(&item.image.config.digest),
        repo_tags: (!tags.is_empty()).then_some(tags),
        layers: Some(layers.iter().map(|l| blob_name(&l.blob.digest)).collect()),
        layer_sources: layers.iter().map(|l| (l.diff_id.to_string(), l.blob.clone())).collect(),
    }
}

fn repositories(items: &[SaveItem<'_>]) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for item in items {
        let Some(top) = item.image.layers.last() else { continue };
        for name in &item.names {
            if let Some(tag) = name.tag() {
                found.entry(name.familiar_name()).or_default().insert(tag.into(), top.diff_id.hex().into());
            }
        }
    }
    found
}
