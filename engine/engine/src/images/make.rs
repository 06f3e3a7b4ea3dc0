//! Images made here: import of a root file system, commit of a container.

use std::io::{self, BufWriter};
use std::sync::Arc;

use futures_util::stream;
use hull_docker_api::{CommitResponse, ContainerConfig, JsonMessage, rfc3339_nano};
use hull_images::{ImageError, ImageStore, Lease, Leased, NewLayer};
use hull_layer::LayerError;
use hull_model::{ContainerDefaults, History, ImageConfig, Platform};

use super::record::Image;
use super::remove::new_name;
use super::{CommitRequest, ImportRequest, ImportSource, Progress, changes};
use crate::bytestream::StreamReader;
use crate::containers::CommitSource;
use crate::{Engine, Error, Kind, Result};

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
            ImportSource::Url(url) => {
                // docker's clients leave the scheme out.
                let url = if url.contains("://") { url } else { format!("http://{url}") };
                let client = self.registry_client().await?;
                let (_, bytes) = client.download(&url).await.map_err(super::registry::error)?;
                StreamReader::new(bytes)
            }
        };
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
        let store = self.0.images.store.clone();
        let made =
            tokio::task::spawn_blocking(move || store.import(archive, config)).await?.map_err(|error| {
                Error::new(kind_of(&error), format!("import: {}", crate::chain(&error))).because(error)
            })?;
        let image = self.image_record(made, None, name.clone().into_iter().collect()).await?;
        let shown = name.map_or_else(|| image.id().to_string(), |name| name.familiar());
        self.image_event("import", image.id(), &shown);
        let message = JsonMessage::status("", image.id().to_string());
        Ok(Box::pin(stream::iter([Ok(message)])))
    }

    /// Makes an image out of a container: its image's layers and what the container changed.
    ///
    /// # Errors
    /// A container that is not there, changes or a name that are none.
    pub async fn image_commit(&self, request: CommitRequest) -> Result<CommitResponse> {
        let tag = request.tag.as_deref();
        let name = request.repository.as_deref().map(|repo| new_name(repo, tag)).transpose()?;
        // Before the container is paused.
        changes::apply(&mut ContainerDefaults::default(), &request.changes)?;
        let source = self.container_for_commit(&request.container, request.pause).await?;
        let base = self.base_of(&source)?;
        let mut config =
            base.as_ref().map_or_else(ImageConfig::default, |base| ImageConfig::clone(&base.config));
        config.config = committed_defaults(&source.config, request.config.as_ref())?;
        changes::apply(&mut config.config, &request.changes)?;
        sign(&mut config, &source, &request);
        let container = source.id.clone();
        let parent = base.as_ref().map(|base| base.id().clone());
        let made = self.commit_layer(source, base, config).await?;
        let image = self.image_record(made, parent, name.clone().into_iter().collect()).await?;
        if let Some(name) = &name {
            self.image_event("tag", image.id(), &name.familiar());
        }
        let attributes = [
            ("comment".to_owned(), request.comment),
            ("imageID".to_owned(), image.id().to_string()),
            ("imageRef".to_owned(), name.map(|name| name.familiar()).unwrap_or_default()),
        ];
        self.events().emit("container", "commit", &container, attributes.into());
        Ok(CommitResponse { id: image.id().to_string() })
    }

    fn base_of(&self, source: &CommitSource) -> Result<Option<Arc<Image>>> {
        if source.image.is_empty() {
            return Ok(None);
        }
        self.0.images.known().find_for_run(&source.image).map(Some)
    }

    /// Packs the container's own files into a layer on top of its image; the container goes on as soon as they are
    /// read.
    async fn commit_layer(
        &self,
        source: CommitSource,
        base: Option<Arc<Image>>,
        config: ImageConfig,
    ) -> Result<Leased<hull_images::Image>> {
        let store = self.0.images.store.clone();
        tokio::task::spawn_blocking(move || {
            let id = source.id.clone();
            let lease = store.lease();
            let layer = pack_into(&store, &source, &lease);
            drop(source);
            let base = base.as_ref().map(|base| &base.record.image);
            layer
                .and_then(|layer| store.create(base, Some(layer), config, lease))
                .map_err(|error| Error::system(format_args!("commit container {id}"), error))
        })
        .await?
    }
}

/// Packs a writable layer, compressed, straight into the store.
fn pack_into(store: &ImageStore, source: &CommitSource, lease: &Lease) -> Result<NewLayer, ImageError> {
    let mounts: Vec<&[u8]> = source.mounts.iter().map(|path| path.trim_matches('/').as_bytes()).collect();
    let failed = |error| ImageError::Stored("layer", error);
    let (reader, writer) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || {
            let is_mount = |path: &[u8]| mounts.contains(&path);
            let gzip = flate2::write::GzEncoder::new(writer, flate2::Compression::fast());
            let mut buffered = BufWriter::with_capacity(256 << 10, gzip);
            store
                .layers()
                .container_pack(&source.own, &source.layers, &mut buffered, Some(&is_mount))
                .map_err(|source| ImageError::Layer { digest: "container".into(), source })?;
            let gzip = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
            gzip.finish().map(drop).map_err(failed)
        });
        let layer = store.add_layer(reader, lease);
        let packed = packer.join().map_err(|_| failed(io::Error::other("packing stopped unexpectedly")))?;
        // When the store failed, the packer only saw its pipe close.
        let layer = layer?;
        packed.map(|()| layer)
    })
}

/// Date, author and history of a committed image.
fn sign(config: &mut ImageConfig, source: &CommitSource, request: &CommitRequest) {
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
        created_by: source.config.cmd.as_ref().map(|words| words.join(" ")).unwrap_or_default(),
        author: request.author.clone(),
        comment: request.comment.clone(),
        empty_layer: false,
    });
}

/// Whether it lies in what was sent or in the machine.
fn kind_of(error: &ImageError) -> Kind {
    match error {
        ImageError::Layer { source, .. } => match source {
            LayerError::Io { .. } | LayerError::Entry { .. } | LayerError::Thread => Kind::System,
            _ => Kind::InvalidParameter,
        },
        _ => Kind::System,
    }
}

fn platform(text: Option<&str>) -> Result<Platform> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(Platform::host()),
        Some(text) => {
            text.parse().map_err(|error: hull_model::PlatformError| Error::invalid(error.to_string()))
        }
    }
}

/// The container's configuration as an image's, overlaid with what the request gives.
fn committed_defaults(
    container: &ContainerConfig,
    over: Option<&ContainerConfig>,
) -> Result<ContainerDefaults> {
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
    let failed = |error: serde_json::Error| Error::system("container configuration", error);
    let mut document = serde_json::to_value(container).map_err(failed)?;
    if let Some(over) = over {
        overlay(&mut document, serde_json::to_value(over).map_err(failed)?);
    }
    if let Some(fields) = document.as_object_mut() {
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
