//! Archives: load and save.

use std::io::Write;
use std::sync::Arc;

use hull_docker_api::JsonMessage;
use hull_images::{Family, Leased, LoadEvent, Loaded, SaveItem, WithFamily};
use hull_model::{Platform, Reference};

use super::Progress;
use super::progress::{self, Board};
use super::record::{Image, parse_reference, select_platform};
use super::registry::image_error;
use crate::bytestream::{self, ByteStream, StreamReader};
use crate::{Engine, Error, Result};

impl Engine {
    /// Takes in the images of an archive that `docker save` wrote, or of an OCI layout; all of them or none. With
    /// `quiet`, layers are not told of.
    ///
    /// # Errors
    /// A platform that is none. Everything else is told by the stream.
    pub async fn image_load(
        &self,
        archive: ByteStream,
        quiet: bool,
        platform: Option<String>,
    ) -> Result<Progress> {
        let platform = platform
            .filter(|text| !text.is_empty())
            .map(|text| text.parse::<Platform>().map_err(|error| Error::invalid(error.to_string())))
            .transpose()?;
        let engine = self.clone();
        let followed =
            progress::run(|board| async move { engine.load(archive, quiet, platform, board).await });
        Ok(progress::follow(followed))
    }

    async fn load(
        &self,
        archive: ByteStream,
        quiet: bool,
        platform: Option<Platform>,
        board: Board,
    ) -> Result<()> {
        let archive = StreamReader::new(archive);
        let (store, teller) = (self.0.images.store.clone(), board.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            store.load(archive, platform.as_ref(), &|event| {
                if !quiet {
                    tell(&teller, &event)
                }
            })
        })
        .await?
        .map_err(image_error)?;
        let Leased { value: images, lease } = loaded;
        for Loaded { image, names, family } in images {
            // The common lease protects this one until all are recorded.
            let held = self.0.images.store.lease();
            self.0.images.store.hold(&held, &image);
            let value = WithFamily { image, family };
            let image = self.image_record_all(Leased { value, lease: held }, None, names.clone()).await?;
            self.image_event("load", image.id(), image.id().as_str());
            if names.is_empty() {
                board.tell(stream_line(format!("Loaded image ID: {}\n", image.id())));
            }
            for name in names {
                board.tell(stream_line(format!("Loaded image: {}\n", name.familiar())));
            }
        }
        drop(lease);
        Ok(())
    }

    /// Writes images as an archive for `docker load`, for all their platforms that are here or the one asked for. A name
    /// without a tag saves all tags of the repository.
    ///
    /// # Errors
    /// A name that no image has.
    pub async fn image_save(
        &self,
        names: Vec<String>,
        platform: Option<String>,
        compression: Compression,
    ) -> Result<ByteStream> {
        let mut wanted: Vec<(Arc<Image>, Vec<Reference>)> = Vec::new();
        for name in &names {
            for (image, reference) in self.images_to_save(name, platform.as_deref())? {
                match wanted.iter_mut().find(|(known, _)| known.id() == image.id()) {
                    Some((_, references)) => references.extend(reference),
                    None => wanted.push((image, reference.into_iter().collect())),
                }
            }
        }
        let store = self.0.images.store.clone();
        let lease = store.lease();
        for (image, _) in &wanted {
            store.hold(&lease, &image.record.image);
            store.hold_family(&lease, &image.record.family);
        }
        let engine = self.clone();
        Ok(bytestream::produce(move |out| {
            let items: Vec<SaveItem<'_>> = wanted
                .iter()
                .map(|(image, names)| {
                    let family = &image.record.family;
                    let family = (*family != Family::default()).then_some(family);
                    SaveItem { image: &image.record.image, names: names.clone(), family }
                })
                .collect();
            let save = |out: &mut dyn Write| {
                store.save(&items, out).map_err(|error| std::io::Error::other(crate::chain(&error)))
            };
            compression.write(out, save)?;
            for (image, _) in &wanted {
                engine.image_event("save", image.id(), image.id().as_str());
            }
            drop(lease);
            Ok(())
        }))
    }

    /// The images a name stands for, each with the name it is saved under; an id saves an image without a name.
    fn images_to_save(
        &self,
        name: &str,
        platform: Option<&str>,
    ) -> Result<Vec<(Arc<Image>, Option<Reference>)>> {
        let whole_repository = parse_reference(name).ok().filter(Reference::is_name_only);
        if let Some(repository) = whole_repository {
            let known = self.0.images.known();
            let tags = known.references.values().filter(|(reference, _)| {
                reference.digest().is_none() && reference.name() == repository.name()
            });
            let found: Vec<(Arc<Image>, Option<Reference>)> = tags
                .filter_map(|(reference, id)| Some((known.images.get(id)?.clone(), Some(reference.clone()))))
                .collect();
            drop(known);
            if !found.is_empty() {
                let one = |(image, reference)| {
                    Ok((select_platform(&image, name, platform.unwrap_or_default())?, reference))
                };
                return found.into_iter().map(one).collect();
            }
        }
        let image = select_platform(&self.image_find(name)?, name, platform.unwrap_or_default())?;
        let reference = parse_reference(name).ok().map(Reference::or_default_tag).filter(|reference| {
            reference.digest().is_none() && self.0.images.known().by_reference(reference).is_some()
        });
        Ok(vec![(image, reference)])
    }
}

/// How an archive is compressed on its way out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: layers mostly are already.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl std::str::FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "none" => Ok(Self::None),
            "gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => Err(Error::invalid(format!("unknown compression {other:?}: none, gzip or zstd"))),
        }
    }
}

impl Compression {
    fn write(
        self,
        out: &mut dyn Write,
        save: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        match self {
            Self::None => save(out),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::fast());
                save(&mut encoder)?;
                encoder.finish().map(drop)
            }
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(out, 0)?;
                save(&mut encoder)?;
                encoder.finish().map(drop)
            }
        }
    }
}

fn stream_line(text: String) -> JsonMessage {
    JsonMessage { stream: text, ..JsonMessage::default() }
}

fn tell(board: &Board, event: &LoadEvent) {
    match event {
        LoadEvent::Layer(diff_id, size) => {
            board.tell_progress(diff_id.short(), "Loading layer", *size, *size)
        }
    }
}
