//! The manifests of an image's index, as docker's API lists them.

use std::sync::Arc;

use hull_model::{Descriptor, Digest, media_type};
use serde_json::{Value, json};

use super::record::Image;
use super::registry::{descriptor, image_error};
use crate::{Engine, Result};

/// What an image's name stands for: its index, or its manifest.
pub(super) fn top(image: &Image) -> hull_docker_api::Descriptor {
    let image = &image.record.image;
    descriptor(image.index.as_ref().unwrap_or(&image.manifest))
}

impl Engine {
    /// All manifests of an image's index, those included that are not here; for an image without index, its own.
    pub(super) async fn manifests_of(&self, image: &Arc<Image>) -> Result<Vec<Value>> {
        let own = &image.record.image;
        let Some(index) = own.index.clone() else {
            let entry = Descriptor { platform: Some(own.platform.clone()), ..own.manifest.clone() };
            return Ok(vec![self.manifest_summary(image, &entry)]);
        };
        let store = self.0.images.store.clone();
        let read = tokio::task::spawn_blocking(move || store.read_index(&index)).await?;
        let index = read.map_err(image_error)?;
        Ok(index.manifests.iter().map(|entry| self.manifest_summary(image, entry)).collect())
    }

    fn manifest_summary(&self, image: &Arc<Image>, entry: &Descriptor) -> Value {
        let members = std::iter::once(image).chain(&image.others);
        let member = members.into_iter().find(|member| member.record.image.manifest.digest == entry.digest);
        let artifacts = &image.record.family.artifacts;
        let artifact = artifacts.iter().find(|artifact| artifact.manifest.digest == entry.digest);
        let content = match (member, artifact) {
            (Some(member), _) => {
                let image = &member.record.image;
                let layers: u64 = image.layers.iter().map(|layer| layer.blob.size).sum();
                layers + image.config.size + image.manifest.size
            }
            (None, Some(artifact)) => artifact.size() + artifact.manifest.size,
            (None, None) => 0,
        };
        let unpacked = member.map_or(0, |member| member.sized_layers().map(|(_, size)| size).sum());
        let mut summary = json!({
            "ID": entry.digest,
            "Descriptor": descriptor(entry),
            "Available": member.is_some() || artifact.is_some(),
            "Size": { "Content": content, "Total": content + unpacked },
            "Kind": "image",
        });
        if entry.is_attestation() {
            let about = entry.annotations.get("vnd.docker.reference.digest").cloned().unwrap_or_default();
            summary["Kind"] = json!("attestation");
            summary["AttestationData"] = json!({ "For": about });
        } else if artifact.is_some() || media_type::is_index(&entry.media_type) {
            summary["Kind"] = json!("unknown");
        } else {
            let platform = entry.platform.clone().or_else(|| member.map(|m| m.config.platform()));
            let containers: Vec<String> = member
                .map(|member| self.containers_of_image(member.id().as_str()))
                .unwrap_or_default()
                .into_iter()
                .map(|(id, _)| id)
                .collect();
            summary["ImageData"] = json!({
                "Platform": platform.unwrap_or_default(),
                "Size": { "Unpacked": unpacked },
                "Containers": containers,
            });
        }
        summary
    }

    /// Digests of the manifests an image consists of: what others may refer to.
    pub(super) fn subjects(image: &Image) -> Vec<Digest> {
        let members = std::iter::once(&image.record.image).chain(&image.record.family.images);
        let index = image.record.image.index.iter().map(|index| index.digest.clone());
        index.chain(members.map(|member| member.manifest.digest.clone())).collect()
    }
}
