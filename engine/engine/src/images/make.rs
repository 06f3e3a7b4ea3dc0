//! Images made here: import of a root file system, commit of a container.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use futures_util::stream;
use hull_content::{Ingest, sha256};
use hull_docker_api::{CommitResponse, ContainerConfig, JsonMessage, rfc3339_nano};
use hull_layer::{Compression, PackOptions, Staged, pack};
use hull_model::{
    ContainerDefaults, Descriptor, Digest, History, ImageConfig, Manifest, Platform, Reference, chain_ids,
    media_type,
};

use super::record::{Image, NewImage};
use super::remove::new_name;
use super::{CommitRequest, ImportRequest, ImportSource, Progress, changes};
use crate::bytestream::StreamReader;
use crate::containers::CommitSource;
use crate::{Engine, Error, Kind, Result};

/// A new layer: unpacked, named, and its blob stored.
struct NewLayer {
    diff_id: Digest,
    blob: Descriptor,
    staged: Staged,
}

impl Engine {
    /// Makes an image of one layer out of a root file system. The one message is the image's id.
    ///
    /// # Errors
    /// A stream that is no archive, changes or a name that are none.
    pub async fn image_import(&self, request: ImportRequest) -> Result<Progress> {
        let name =
            request.repository.as_deref().map(|repo| new_name(repo, request.tag.as_deref())).transpose()?;
        let platform = platform(request.platform.as_deref())?;
        let mut defaults = ContainerDefaults::default();
        changes::apply(&mut defaults, &request.changes)?;
        let archive = match request.source {
            ImportSource::Stream(archive) => StreamReader::new(archive),
            ImportSource::Url(_) => return Err(Error::not_implemented("importing from a URL")),
        };
        let incoming = Arc::clone(&self.0.images.incoming).read_owned().await;
        let engine = self.clone();
        let layer = tokio::task::spawn_blocking(move || engine.take_in(archive)).await??;
        let now = rfc3339_nano(jiff::Timestamp::now());
        let comment = request.message.filter(|text| !text.is_empty()).unwrap_or("Imported from -".to_owned());
        let config = ImageConfig {
            created: Some(now.clone()),
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            config: defaults,
            history: vec![History { created: Some(now), comment, ..History::default() }],
            ..ImageConfig::default()
        };
        let image = self.image_from_layer(config, Vec::new(), layer, None, name.as_ref()).await?;
        drop(incoming);
        let shown = name.map_or_else(|| image.record.id.to_string(), |name| name.familiar());
        self.image_event("import", &image.record.id, &shown);
        let message = JsonMessage::status("", image.record.id.to_string());
        Ok(Box::pin(stream::iter([Ok(message)])))
    }

    /// Makes an image out of a container: its image's layers and what the container changed.
    ///
    /// # Errors
    /// A container that is not there, changes or a name that are none.
    pub async fn image_commit(&self, request: CommitRequest) -> Result<CommitResponse> {
        let tag = request.tag.as_deref();
        let name = request.repository.as_deref().map(|repo| new_name(repo, tag)).transpose()?;
        changes::apply(&mut ContainerDefaults::default(), &request.changes)?;
        let source = self.container_for_commit(&request.container, request.pause).await?;
        let base = self.base_of(&source)?;
        let mut config =
            base.as_ref().map_or_else(ImageConfig::default, |base| ImageConfig::clone(&base.config));
        let command = source.config.cmd.as_ref().map(|words| words.join(" ")).unwrap_or_default();
        config.config = committed_defaults(&source.config, request.config.as_ref())?;
        changes::apply(&mut config.config, &request.changes)?;
        let container = source.id.clone();
        let (incoming, layer) = self.pack_container(source).await?;
        let now = rfc3339_nano(jiff::Timestamp::now());
        let host = Platform::host();
        if config.os.is_empty() {
            (config.os, config.architecture, config.variant) = (host.os, host.architecture, host.variant);
        }
        config.created = Some(now.clone());
        config.author.clone_from(&request.author);
        for stale in ["container", "container_config", "parent", "comment"] {
            config.extra.shift_remove(stale);
        }
        config.history.push(History {
            created: Some(now),
            created_by: command,
            author: request.author,
            comment: request.comment.clone(),
            empty_layer: false,
        });
        let lower =
            base.as_ref().map(|base| self.manifest_of(base)).transpose()?.map_or(Vec::new(), |m| m.layers);
        let parent = base.as_ref().map(|base| base.record.id.clone());
        let image = self.image_from_layer(config, lower, layer, parent, name.as_ref()).await?;
        drop(incoming);
        let attributes = [
            ("comment".to_owned(), request.comment),
            ("imageID".to_owned(), image.record.id.to_string()),
            ("imageRef".to_owned(), name.map(|name| name.familiar()).unwrap_or_default()),
        ];
        self.events().emit("container", "commit", &container, attributes.into());
        Ok(CommitResponse { id: image.record.id.to_string() })
    }

    fn base_of(&self, source: &CommitSource) -> Result<Option<Arc<Image>>> {
        if source.image.is_empty() {
            return Ok(None);
        }
        self.0.images.known().find_for_run(&source.image).map(Some)
    }

    fn manifest_of(&self, image: &Image) -> Result<Manifest> {
        let bytes = self
            .0
            .images
            .content
            .read(&image.record.manifest.digest, 8 << 20)
            .map_err(|error| Error::system("read image manifest", error))?;
        serde_json::from_slice(&bytes).map_err(|error| Error::system("read image manifest", error))
    }

    /// Packs the container's own files into a layer; the container is let go as soon as they are read.
    async fn pack_container(
        &self,
        source: CommitSource,
    ) -> Result<(tokio::sync::OwnedRwLockReadGuard<()>, NewLayer)> {
        let incoming = Arc::clone(&self.0.images.incoming).read_owned().await;
        let engine = self.clone();
        let layer = tokio::task::spawn_blocking(move || {
            let layer = engine.pack_layer(&source);
            drop(source);
            layer
        })
        .await??;
        Ok((incoming, layer))
    }

    /// Reads an archive once: it is stored as it is and unpacked on the way.
    fn take_in(&self, archive: impl Read + Send) -> Result<NewLayer> {
        let mut ingest =
            self.0.images.content.ingest_unnamed().map_err(|error| Error::system("store layer", error))?;
        let mut start = Start::default();
        let tee = Tee { from: archive, to: &mut ingest, start: &mut start };
        let staged = self.0.images.layers.stage(tee, None).map_err(|error| archive_error(&error))?;
        let compression = Compression::detect(&start.bytes).map_err(|error| archive_error(&error))?;
        let (digest, size) = ingest.commit().map_err(|error| Error::system("store layer", error))?;
        let media_type = match compression {
            Compression::None => media_type::OCI_LAYER,
            Compression::Gzip => media_type::OCI_LAYER_GZIP,
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        };
        let blob = Descriptor::new(media_type, digest, size);
        Ok(NewLayer { diff_id: staged.diff_id().clone(), blob, staged })
    }

    /// The upper directory as a compressed blob, then unpacked like any other layer: that checks it, and gives the
    /// layer the form every other one has.
    fn pack_layer(&self, source: &CommitSource) -> Result<NewLayer> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::internal(format!("commit container {}: {}", source.id, crate::chain(error)))
        };
        let upper = File::open(&source.upper).map_err(|error| failed(&error))?;
        let mounts: Vec<Vec<u8>> =
            source.mounts.iter().map(|path| path.trim_matches('/').as_bytes().to_vec()).collect();
        let is_mount = |path: &[u8]| mounts.iter().any(|mount| mount == path);
        let options = PackOptions { whiteouts: true, exclude: Some(&is_mount), ..PackOptions::default() };
        let ingest = self.0.images.content.ingest_unnamed().map_err(|error| failed(&error))?;
        let gzip = flate2::write::GzEncoder::new(IngestWriter(ingest), flate2::Compression::fast());
        let gzip = pack(&upper, gzip, &options).map_err(|error| failed(&error))?;
        let IngestWriter(ingest) = gzip.finish().map_err(|error| failed(&error))?;
        let (digest, size) = ingest.commit().map_err(|error| failed(&error))?;
        let blob = Descriptor::new(media_type::OCI_LAYER_GZIP, digest.clone(), size);
        let archive = self.0.images.content.open_blob(&digest).map_err(|error| failed(&error))?;
        let staged = self.0.images.layers.stage(archive, None).map_err(|error| failed(&error))?;
        Ok(NewLayer { diff_id: staged.diff_id().clone(), blob, staged })
    }

    /// Puts a layer on top of others and records the image.
    async fn image_from_layer(
        &self,
        mut config: ImageConfig,
        mut lower: Vec<Descriptor>,
        layer: NewLayer,
        parent: Option<Digest>,
        name: Option<&Reference>,
    ) -> Result<Arc<Image>> {
        config.rootfs.kind = "layers".to_owned();
        config.rootfs.diff_ids.push(layer.diff_id);
        let content = self.0.images.content.clone();
        let manifest = tokio::task::spawn_blocking(move || {
            let failed = |error: &(dyn std::error::Error + 'static)| Error::internal(crate::chain(error));
            let chain = chain_ids(&config.rootfs.diff_ids, sha256);
            if let Some((top, below)) = chain.split_last() {
                layer.staged.commit(top, below.last()).map_err(|error| failed(&error))?;
            }
            let bytes = serde_json::to_vec(&config).map_err(|error| failed(&error))?;
            let id = content.put(&bytes).map_err(|error| failed(&error))?;
            lower.push(layer.blob);
            let manifest = Manifest {
                schema_version: 2,
                media_type: Some(media_type::OCI_MANIFEST.to_owned()),
                artifact_type: None,
                config: Descriptor::new(media_type::OCI_CONFIG, id, bytes.len() as u64),
                layers: lower.into_iter().map(as_oci).collect(),
                subject: None,
                annotations: Default::default(),
            };
            let bytes = serde_json::to_vec(&manifest).map_err(|error| failed(&error))?;
            let digest = content.put(&bytes).map_err(|error| failed(&error))?;
            Ok::<_, Error>(Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64))
        })
        .await??;
        let names: Vec<Reference> = name.cloned().into_iter().collect();
        let image = self.image_record(NewImage { manifest, index: None, parent }, &names).await?;
        if let Some(name) = name {
            self.image_event("tag", &image.record.id, &name.familiar());
        }
        Ok(image)
    }
}

/// Layers of docker's manifests are the same bytes under another media type.
fn as_oci(mut layer: Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        _ => return layer,
    };
    layer.media_type = media_type.to_owned();
    layer
}

fn platform(text: Option<&str>) -> Result<Platform> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Platform::host()),
        Some(text) => {
            text.parse().map_err(|error: hull_model::PlatformError| Error::invalid(error.to_string()))
        }
    }
}

/// What is wrong with an archive lies in the request, what the disk refuses does not.
fn archive_error(error: &hull_layer::LayerError) -> Error {
    let kind = match error {
        hull_layer::LayerError::Io { .. }
        | hull_layer::LayerError::Entry { .. }
        | hull_layer::LayerError::Thread => Kind::System,
        _ => Kind::InvalidParameter,
    };
    Error::new(kind, format!("import: {}", crate::chain(error)))
}

/// The container's configuration as an image's, overlaid with what the request gives.
fn committed_defaults(
    container: &ContainerConfig,
    over: Option<&ContainerConfig>,
) -> Result<ContainerDefaults> {
    let failed = |error: serde_json::Error| Error::system("container configuration", error);
    let mut document = serde_json::to_value(container).map_err(failed)?;
    if let Some(over) = over {
        let over = serde_json::to_value(over).map_err(failed)?;
        overlay(&mut document, over);
    }
    if let Some(fields) = document.as_object_mut() {
        // Only what an image can hold: the rest is about this one container.
        const KEPT: [&str; 12] = [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
            "Healthcheck",
            "OnBuild",
            "Shell",
        ];
        fields.retain(|name, _| KEPT.contains(&name.as_str()));
    }
    serde_json::from_value(document).map_err(failed)
}

/// Takes over every field that says something.
fn overlay(base: &mut serde_json::Value, over: serde_json::Value) {
    let (Some(base), serde_json::Value::Object(over)) = (base.as_object_mut(), over) else { return };
    for (name, value) in over {
        let says_nothing = match &value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => true,
            serde_json::Value::String(text) => text.is_empty(),
            serde_json::Value::Array(items) => items.is_empty(),
            serde_json::Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        if !says_nothing {
            base.insert(name, value);
        }
    }
}

/// The first bytes of a stream, which tell its compression.
#[derive(Default)]
struct Start {
    bytes: Vec<u8>,
}

/// Reads from one side and stores what was read.
struct Tee<'a, R> {
    from: R,
    to: &'a mut Ingest,
    start: &'a mut Start,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let missing = 8_usize.saturating_sub(self.start.bytes.len()).min(read);
        self.start.bytes.extend_from_slice(&buffer[..missing]);
        self.to.append(&buffer[..read]).map_err(io::Error::other)?;
        Ok(read)
    }
}

struct IngestWriter(Ingest);

impl Write for IngestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_keeps_what_an_image_can_hold() {
        let container = ContainerConfig {
            hostname: "abc".to_owned(),
            tty: true,
            env: Some(vec!["A=1".to_owned()]),
            cmd: Some(vec!["sh".to_owned()].into()),
            user: "1".to_owned(),
            ..ContainerConfig::default()
        };
        let over = ContainerConfig { user: "2".to_owned(), ..ContainerConfig::default() };
        let defaults = committed_defaults(&container, Some(&over)).expect("defaults");
        assert_eq!((defaults.user.as_str(), defaults.env.len()), ("2", 1));
        assert_eq!(defaults.cmd, Some(vec!["sh".to_owned()]));
        assert!(defaults.extra.is_empty(), "{:?}", defaults.extra);
    }
}
