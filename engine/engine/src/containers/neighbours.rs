//! What images, networks and volumes ask about containers.

use hull_docker_api::EndpointSettings;

use super::actor::Command;
use super::record::{MountKind, Status};
use crate::{Engine, Result};

/// What commit reads of a container.
#[derive(Debug)]
#[allow(dead_code)]
pub(crate) struct CommitSource {
    /// Full id.
    pub(crate) id: String,
    /// `sha256:…` of its image, empty for none.
    pub(crate) image: String,
    /// Its configuration.
    pub(crate) config: hull_docker_api::ContainerConfig,
    /// Its directory, with the files of its own.
    pub(crate) own: std::path::PathBuf,
    /// Lower directories, topmost first.
    pub(crate) layers: Vec<std::path::PathBuf>,
    /// Paths inside that are mounts and don't belong to the layer.
    pub(crate) mounts: Vec<String>,
    /// Thaws the container when it was paused for the commit.
    pub(crate) paused: Option<Paused>,
}

/// A container paused for a moment; goes on when this is dropped.
#[derive(Debug)]
pub(crate) struct Paused {
    engine: Engine,
    id: String,
}

impl Drop for Paused {
    fn drop(&mut self) {
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            if let Err(error) = engine.container_unpause(&id).await {
                tracing::warn!(container = id, %error, "unpause after commit");
            }
        });
    }
}

#[allow(dead_code)]
impl Engine {
    /// Ids of containers made from an image (`sha256:…`), with whether each runs.
    pub(crate) fn containers_of_image(&self, image: &str) -> Vec<(String, bool)> {
        let all = self.0.containers.registry.all();
        let of_image = all.iter().map(super::registry::Handle::now).filter(|now| now.def.image_id == image);
        of_image.map(|now| (now.def.id.clone(), now.state.status.is_up())).collect()
    }

    /// Ids of containers that mount a volume. One that is being removed will never do so again.
    pub(crate) fn containers_of_volume(&self, volume: &str) -> Vec<String> {
        let all = self.0.containers.registry.all();
        let users = all.iter().map(super::registry::Handle::now).filter(|now| {
            now.state.status != Status::Removing
                && now.def.mounts.iter().any(|mount| mount.kind == MountKind::Volume && mount.name == volume)
        });
        users.map(|now| now.def.id.clone()).collect()
    }

    /// Containers with an endpoint in a network: id, name, endpoint; running ones only.
    pub(crate) fn containers_of_network(&self, network: &str) -> Vec<(String, String, EndpointSettings)> {
        let mut found = Vec::new();
        for handle in self.0.containers.registry.all() {
            let now = handle.now();
            for (name, endpoint) in &now.state.endpoints {
                if name == network || endpoint.network_id == network {
                    found.push((now.def.id.clone(), now.def.name.clone(), endpoint.clone()));
                }
            }
        }
        found
    }

    /// Puts a container (running or not) into a network: `docker network connect`.
    pub(crate) async fn container_connect(
        &self,
        id: &str,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<()> {
        let network = self.network_lookup(network)?.name;
        let settings = Box::new(settings);
        self.0.containers.registry.find(id)?.ask(|reply| Command::Connect { network, settings, reply }).await
    }

    /// Takes a container out of a network: `docker network disconnect`.
    pub(crate) async fn container_disconnect(&self, id: &str, network: &str, force: bool) -> Result<()> {
        let network = self.network_lookup(network)?.name;
        self.0.containers.registry.find(id)?.ask(|reply| Command::Disconnect { network, force, reply }).await
    }

    /// For commit: the container's image, configuration and writable layer, with its processes paused meanwhile if
    /// `pause`.
    pub(crate) async fn container_for_commit(&self, id: &str, pause: bool) -> Result<CommitSource> {
        let handle = self.0.containers.registry.find(id)?;
        let mut now = handle.now();
        let mut paused = None;
        if pause && now.state.status == super::record::Status::Running {
            self.container_pause(&handle.id).await?;
            paused = Some(Paused { engine: self.clone(), id: handle.id.to_string() });
            now = handle.now();
        }
        Ok(CommitSource {
            id: now.def.id.clone(),
            image: now.def.image_id.clone(),
            config: now.def.config.clone(),
            own: self.config().container_dir(&now.def.id),
            layers: now.def.layers.clone(),
            mounts: now.def.mount_points(),
            paused,
        })
    }
}
