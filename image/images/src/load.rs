use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use hull_content::Ingest;
use hull_distribution::MAX_DOCUMENT;
use hull_layer::Decompressor;
use hull_layer::tar::{Entry, HeaderLimits, Kind, Reader, TarError};
use hull_model::{Descriptor, Digest, ImageConfig, Index, ManifestOrIndex, Platform, Reference, media_type};

use crate::archive::{ArchiveItem, MAX_INDEX, NAME_ANNOTATION, REF_ANNOTATION};
use crate::build::layer_type;
use crate::{ArchiveError, Family, Image, ImageError, ImageStore, Lease, Leased, LoadEvent};

/// An image found in an archive and the names it has there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// Its names.
    pub names: Vec<Reference>,
    /// The other platforms the archive holds, where its index names them.
    pub family: Family,
}

impl ImageStore {
    /// Reads a Docker archive or OCI image layout (a tar, compressed or not) and unpacks its images. Of an image for
    /// several platforms, that for `platform` (the host's if none) is taken.
    ///
    /// All or nothing: after an error the store is as before.
    pub fn load(
        &self,
        input: impl Read,
        platform: Option<&Platform>,
        progress: &dyn Fn(LoadEvent),
    ) -> Result<Leased<Vec<Loaded>>, ImageError> {
        let mut intake = Intake::new(self);
        let result = intake.read(input).and_then(|()| {
            let found = intake.images(platform)?;
            intake.unpack(found, progress)
        });
        // What became part of an image is held by its own lease as well and stays.
        self.undo(&intake.added, &intake.chains);
        let (value, lease) = result?;
        value.iter().try_for_each(|loaded| self.sync(&loaded.image))?;
        Ok(Leased { value, lease })
    }

    /// Reads a plain tar as the only layer of a new image (`docker import`); `config` is what the image starts with.
    pub fn import(&self, input: impl Read + Send, config: ImageConfig) -> Result<Leased<Image>, ImageError> {
        let lease = self.lease();
        let layer = self.add_layer(input, &lease)?;
        self.create(None, Some(layer), config, lease)
    }
}

/// The content of an archive while it is read.
struct Intake<'a> {
    store: &'a ImageStore,
    lease: Lease,
    /// Files by their path in the archive.
    files: HashMap<Vec<u8>, (Digest, u64)>,
    /// Symbolic and hard links, which older Docker used for equal layers.
    links: HashMap<Vec<u8>, Vec<u8>>,
    table: Option<Vec<u8>>,
    index: Option<Vec<u8>>,
    /// Blobs that were not in the store before.
    added: Vec<Digest>,
    /// Layers that were not.
    chains: Vec<Digest>,
}

impl<'a> Intake<'a> {
    fn new(store: &'a ImageStore) -> Self {
        Self {
            store,
            lease: store.lease(),
            files: HashMap::new(),
            links: HashMap::new(),
            table: None,
            index: None,
            added: Vec::new(),
            chains: Vec::new(),
        }
    }

    fn read(&mut self, input: impl Read) -> Result<(), ImageError> {
        let plain = Decompressor::new(input).map_err(ArchiveError::Decompress)?;
        let mut reader = Reader::new(BufReader::with_capacity(128 << 10, plain), HeaderLimits::default());
        while let Some(entry) = reader.next_entry().map_err(ArchiveError::Tar)? {
            let Some(name) = clean(&entry.name) else { continue };
            match entry.kind {
                Kind::File => self.file(&entry, name, &mut reader)?,
                Kind::Symlink => {
                    let parent = name.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &name[..at]);
                    if let Some(target) = clean(&[parent, b"/", &entry.link].concat()) {
                        self.links.insert(name, target);
                    }
                }
                Kind::HardLink => {
                    if let Some(target) = clean(&entry.link) {
                        self.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file<R: BufRead>(
        &mut self,
        entry: &Entry,
        name: Vec<u8>,
        reader: &mut Reader<R>,
    ) -> Result<(), ImageError> {
        match name.as_slice() {
            b"manifest.json" => self.table = Some(small(entry, reader)?),
            b"index.json" => self.index = Some(small(entry, reader)?),
            b"repositories" | b"oci-layout" => {}
            _ => {
                let ingest = self.ingest_for(entry, &name)?;
                let found = self.store_file(ingest, reader)?;
                self.files.insert(name, found);
            }
        }
        Ok(())
    }

    /// A blob by its name's digest; anything else by the digest it turns out to have.
    fn ingest_for(&self, entry: &Entry, name: &[u8]) -> Result<Ingest, ImageError> {
        match name.strip_prefix(b"blobs/") {
            Some(_) => {
                let mut ingest = self.store.content().ingest(&blob_digest(name)?, Some(entry.size))?;
                ingest.restart()?;
                Ok(ingest)
            }
            None => Ok(self.store.content().ingest_unnamed()?),
        }
    }

    fn store_file<R: BufRead>(
        &mut self,
        mut ingest: Ingest,
        reader: &mut Reader<R>,
    ) -> Result<(Digest, u64), ImageError> {
        let copied = loop {
            let piece = reader.chunk(u64::MAX, |piece| ingest.append(piece).map_err(CopyError::Content));
            match piece {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(CopyError::Content(e)) => break Err(e.into()),
                Err(CopyError::Tar(e)) => break Err(ArchiveError::Tar(e).into()),
            }
        };
        if let Err(e) = copied {
            ingest.discard();
            return Err(e);
        }
        // Only what was not there before may be taken back.
        let mut new = None;
        let content = self.store.content();
        let lease = &self.lease;
        let stored = ingest.commit_held(|digest| {
            lease.hold(digest);
            if !matches!(content.size(digest), Ok(Some(_))) {
                new = Some(digest.clone());
            }
        })?;
        self.added.extend(new);
        Ok(stored)
    }

    /// A path of the archive, through its links.
    fn find(&self, name: &str) -> Result<(Digest, u64), ImageError> {
        let missing = || ArchiveError::MissingFile(name.to_owned());
        let mut path = clean(name.as_bytes()).ok_or_else(missing)?;
        for _ in 0..8 {
            match (self.files.get(&path), self.links.get(&path)) {
                (Some(found), _) => return Ok(found.clone()),
                (None, Some(next)) => path = next.clone(),
                (None, None) => break,
            }
        }
        Err(missing().into())
    }

    fn has(&self, digest: &Digest) -> bool {
        self.files.values().any(|(d, _)| d == digest)
    }

    /// The images of the archive, nothing unpacked yet.
    fn images(&mut self, platform: Option<&Platform>) -> Result<Vec<Loaded>, ImageError> {
        match (self.table.take(), &self.index) {
            // The table knows no indexes: an image for several platforms is only whole in the other one.
            (Some(_), Some(index)) if self.has_index(index)? => self.oci_images(index, platform),
            (Some(table), _) => self.docker_images(&table),
            (None, Some(index)) => self.oci_images(index, platform),
            (None, None) => Err(ArchiveError::NoImage.into()),
        }
    }

    fn has_index(&self, index: &[u8]) -> Result<bool, ImageError> {
        let index: Index = json("index.json", index)?;
        Ok(index.manifests.iter().any(|d| media_type::is_index(&d.media_type) && self.has(&d.digest)))
    }

    fn docker_images(&mut self, table: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        let items: Vec<ArchiveItem> = json("manifest.json", table)?;
        if items.is_empty() {
            return Err(ArchiveError::NoImage.into());
        }
        let known = self.manifests()?;
        items.iter().map(|item| self.docker_image(item, &known)).collect()
    }

    fn docker_image(&mut self, item: &ArchiveItem, known: &[Descriptor]) -> Result<Loaded, ImageError> {
        let (digest, size) = self.find(&item.config)?;
        let config = Descriptor::new(media_type::OCI_CONFIG, digest, size);
        let mut layers = Vec::new();
        for name in item.layers.iter().flatten() {
            let (digest, size) = self.find(name)?;
            layers.push(Descriptor::new(self.layer_type(&digest)?, digest, size));
        }
        let names = item.repo_tags.iter().flatten().map(|name| reference(name)).collect::<Result<_, _>>()?;
        let manifest = match self.manifest_of(&config, &layers, known)? {
            Some(manifest) => manifest,
            None => {
                let (manifest, _, new) = self.store.store_manifest(config, layers, &self.lease)?;
                self.added.extend(new.then(|| manifest.digest.clone()));
                manifest
            }
        };
        Ok(Loaded { image: self.store.describe(&manifest)?, names, family: Family::default() })
    }

    fn layer_type(&self, digest: &Digest) -> Result<&'static str, ImageError> {
        let mut start = Vec::new();
        let blob = self.store.content().open_blob(digest)?;
        blob.take(8).read_to_end(&mut start).map_err(|e| ImageError::Stored("layer", e))?;
        Ok(layer_type(&start))
    }

    /// Manifests the archive's own index lists, if it has one: using them keeps the images' digests.
    fn manifests(&self) -> Result<Vec<Descriptor>, ImageError> {
        let Some(index) = &self.index else { return Ok(Vec::new()) };
        let index: Index = json("index.json", index)?;
        Ok(index
            .manifests
            .into_iter()
            .filter(|d| media_type::is_manifest(&d.media_type) && self.has(&d.digest))
            .collect())
    }

    fn manifest_of(
        &self,
        config: &Descriptor,
        layers: &[Descriptor],
        known: &[Descriptor],
    ) -> Result<Option<Descriptor>, ImageError> {
        for descriptor in known {
            let manifest = self.store.read_manifest(descriptor)?;
            let same = manifest.config.digest == config.digest
                && manifest.layers.iter().map(|l| &l.digest).eq(layers.iter().map(|l| &l.digest));
            if same {
                return Ok(Some(Descriptor::new(
                    &descriptor.media_type,
                    descriptor.digest.clone(),
                    descriptor.size,
                )));
            }
        }
        Ok(None)
    }

    fn oci_images(&self, index: &[u8], platform: Option<&Platform>) -> Result<Vec<Loaded>, ImageError> {
        let index: Index = json("index.json", index)?;
        let mut found: Vec<Loaded> = Vec::new();
        for descriptor in index.manifests.iter().filter(|d| !d.is_attestation()) {
            let image = self.oci_image(descriptor, platform)?;
            // One platform asked for is one platform.
            let family = match platform {
                None => self.store.family_of(&image)?,
                Some(_) => Family::default(),
            };
            let name = name_of(descriptor)?;
            match found.iter_mut().find(|other| other.image == image) {
                Some(other) => other.names.extend(name),
                None => found.push(Loaded { image, names: name.into_iter().collect(), family }),
            }
        }
        if found.is_empty() {
            return Err(ArchiveError::NoImage.into());
        }
        Ok(found)
    }

    fn oci_image(&self, top: &Descriptor, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let mut descriptor = Descriptor::new(&top.media_type, top.digest.clone(), top.size);
        let mut index = None;
        for _ in 0..3 {
            let bytes = self.read_document(&descriptor.digest)?;
            let mut list = match ManifestOrIndex::parse(&descriptor.media_type, &bytes)? {
                ManifestOrIndex::Manifest(_) => {
                    let mut image = self.store.describe(&descriptor)?;
                    image.index = index;
                    return Ok(image);
                }
                ManifestOrIndex::Index(list) => list,
            };
            // Archives may hold one platform of many.
            list.manifests.retain(|d| self.has(&d.digest));
            let any = || list.manifests.iter().find(|d| platform.is_none() && !d.is_attestation());
            let chosen =
                list.choose(&wanted).or_else(any).ok_or_else(|| ImageError::NoPlatform(wanted.clone()))?;
            let chosen = Descriptor::new(&chosen.media_type, chosen.digest.clone(), chosen.size);
            index.get_or_insert(std::mem::replace(&mut descriptor, chosen));
        }
        Err(ImageError::Nested)
    }

    fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        if !self.has(digest) {
            return Err(ArchiveError::MissingFile(digest.to_string()).into());
        }
        Ok(self.store.content().read(digest, MAX_DOCUMENT)?)
    }

    fn unpack(
        &mut self,
        mut found: Vec<Loaded>,
        progress: &dyn Fn(LoadEvent),
    ) -> Result<(Vec<Loaded>, Lease), ImageError> {
        let images = found
            .iter_mut()
            .flat_map(|loaded| std::iter::once(&mut loaded.image).chain(&mut loaded.family.images));
        for image in images {
            for layer in &image.layers {
                self.lease.hold(&layer.chain_id);
                if !self.store.layers().contains(&layer.chain_id) {
                    self.chains.push(layer.chain_id.clone());
                    progress(LoadEvent::Layer(layer.diff_id.clone(), layer.blob.size));
                }
            }
            self.store.unpack(image)?;
        }
        let lease = self.store.lease();
        for loaded in &found {
            self.store.hold(&lease, &loaded.image);
            self.store.hold_family(&lease, &loaded.family);
        }
        Ok((found, lease))
    }
}

enum CopyError {
    Content(hull_content::ContentError),
    Tar(TarError),
}

impl From<TarError> for CopyError {
    fn from(error: TarError) -> Self {
        Self::Tar(error)
    }
}

fn small<R: BufRead>(entry: &Entry, reader: &mut Reader<R>) -> Result<Vec<u8>, ImageError> {
    if entry.size > MAX_INDEX {
        return Err(ArchiveError::TooLarge { name: entry.display_name(), size: entry.size }.into());
    }
    let mut bytes = Vec::new();
    loop {
        let n = reader.chunk(u64::MAX, |piece| {
            bytes.extend_from_slice(piece);
            Ok::<(), TarError>(())
        });
        if n.map_err(ArchiveError::Tar)? == 0 {
            return Ok(bytes);
        }
    }
}

fn json<T: serde::de::DeserializeOwned>(name: &'static str, bytes: &[u8]) -> Result<T, ImageError> {
    Ok(serde_json::from_slice(bytes).map_err(|source| ArchiveError::Json { name, source })?)
}

/// `blobs/<algorithm>/<hex>`.
fn blob_digest(name: &[u8]) -> Result<Digest, ImageError> {
    let text = String::from_utf8_lossy(name);
    let digest = text.strip_prefix("blobs/").and_then(|rest| rest.replacen('/', ":", 1).parse().ok());
    Ok(digest.ok_or_else(|| ArchiveError::BlobName(text.into_owned()))?)
}

fn reference(name: &str) -> Result<Reference, ImageError> {
    let parsed = Reference::parse_default_tag(name);
    Ok(parsed.map_err(|source| ArchiveError::Name { name: name.into(), source })?)
}

/// containerd's full name, or a reference name that is one; a bare tag names no image.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>, ImageError> {
    if let Some(name) = descriptor.annotations.get(NAME_ANNOTATION) {
        return reference(name).map(Some);
    }
    let full = descriptor.annotations.get(REF_ANNOTATION).filter(|name| name.contains(['/', ':']));
    full.map(|name| reference(name)).transpose()
}

/// A path of the archive without dots; `None` if it climbs out or is empty.
pub(crate) fn clean(path: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join(&b'/'))
}
