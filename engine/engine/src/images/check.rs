//! `system check`: is everything in the store as it was made, and can what is not be had again?

use std::sync::Arc;

use hull_distribution::Access;
use hull_docker_api::{SystemCheck, SystemCheckFinding};
use hull_images::{Fault, Finding, Part, PullRequest as StorePull};

use super::record::Image;
use super::registry::image_error;
use crate::{Engine, Error, Result};

impl Engine {
    /// Reads every blob and layer. With `repair`, what is damaged is made or fetched anew: layers from their blobs, blobs
    /// from the registry under one of the image's names.
    ///
    /// # Errors
    /// When the store cannot be listed. What cannot be repaired is told in the findings.
    pub async fn store_check(&self, repair: bool) -> Result<SystemCheck> {
        let images: Vec<Arc<Image>> = self.0.images.known().images.values().cloned().collect();
        let made: Vec<hull_images::Image> = images.iter().map(|image| image.record.image.clone()).collect();
        let store = self.0.images.store.clone();
        // Whatever is looked at stays until this is over.
        let lease = store.lease();
        made.iter().for_each(|image| store.hold(&lease, image));
        let report = tokio::task::spawn_blocking(move || store.check(&made)).await?.map_err(image_error)?;
        let problems = match repair {
            true => self.repair(&report.findings, &images).await,
            false => Vec::new(),
        };
        let mut findings = Vec::with_capacity(report.findings.len());
        for finding in &report.findings {
            findings.push(self.told(finding, &images, repair, &problems).await?);
        }
        drop(lease);
        Ok(SystemCheck { blobs: report.blobs, layers: report.layers, bytes: report.bytes, findings })
    }

    async fn told(
        &self,
        finding: &Finding,
        images: &[Arc<Image>],
        repair: bool,
        problems: &[(Finding, String)],
    ) -> Result<SystemCheckFinding> {
        let (store, part) = (self.0.images.store.clone(), finding.part.clone());
        let needed = images.iter().any(|image| finding.is_of(&image.record.image));
        let left = match repair {
            true => tokio::task::spawn_blocking(move || store.check_part(&part)).await?,
            false => Some(finding.fault.clone()),
        };
        let gone = left == Some(Fault::Missing) && !needed;
        let of_images = images.iter().filter(|image| finding.is_of(&image.record.image));
        let (kind, digest) = match &finding.part {
            Part::Blob(digest) => ("blob", digest),
            Part::Layer(chain_id) => ("layer", chain_id),
        };
        let fault = match &finding.fault {
            Fault::Missing => "missing".to_owned(),
            Fault::Damaged => "damaged".to_owned(),
            Fault::Unreadable(reason) => format!("unreadable: {reason}"),
        };
        let reasons = problems.iter().filter(|(of, _)| of == finding).map(|(_, reason)| reason.clone());
        let repaired = repair && (left.is_none() || gone);
        Ok(SystemCheckFinding {
            kind: kind.to_owned(),
            digest: digest.to_string(),
            fault,
            images: of_images.map(|image| self.shown_name(image)).collect(),
            repaired,
            error: if repaired { String::new() } else { reasons.collect::<Vec<_>>().join("; ") },
        })
    }

    fn shown_name(&self, image: &Image) -> String {
        let names = self.0.images.known().references_of(image.id());
        let tagged = names.iter().find(|name| name.tag().is_some()).or(names.first());
        tagged.map_or_else(|| image.id().to_string(), |name| name.familiar())
    }

    /// Takes damaged parts away and has their images made whole; gives back what went wrong.
    async fn repair(&self, findings: &[Finding], images: &[Arc<Image>]) -> Vec<(Finding, String)> {
        let mut problems = Vec::new();
        let mut removed = Vec::new();
        for finding in findings {
            match self.take_away(finding, images).await {
                Ok(()) => removed.push(finding),
                Err(error) => problems.push((finding.clone(), error.message().to_owned())),
            }
        }
        for image in images {
            let own: Vec<_> = removed.iter().filter(|finding| finding.is_of(&image.record.image)).collect();
            if own.is_empty() {
                continue;
            }
            if let Err(error) = self.make_whole(image, own.iter().any(|finding| is_blob(finding))).await {
                problems.extend(own.iter().map(|finding| ((**finding).clone(), error.message().to_owned())));
            }
        }
        problems
    }

    async fn take_away(&self, finding: &Finding, images: &[Arc<Image>]) -> Result<()> {
        let of_images = images.iter().filter(|image| finding.is_of(&image.record.image));
        let mut used = of_images.flat_map(|image| self.containers_of_image(image.id().as_str()));
        if !is_blob(finding) && used.any(|(_, running)| running) {
            return Err(Error::conflict("it is used by a running container: stop that first"));
        }
        let (store, part) = (self.0.images.store.clone(), finding.part.clone());
        tokio::task::spawn_blocking(move || store.remove_damaged(&part)).await?.map_err(image_error)
    }

    /// Fetches blobs that are not there, then unpacks layers that are not.
    async fn make_whole(&self, image: &Arc<Image>, fetch: bool) -> Result<()> {
        if fetch {
            return self.fetch_again(image).await;
        }
        let (store, mut copy) = (self.0.images.store.clone(), image.record.image.clone());
        tokio::task::spawn_blocking(move || {
            store.unpack(&mut copy)?;
            store.sync(&copy)
        })
        .await?
        .map_err(image_error)
    }

    async fn fetch_again(&self, image: &Arc<Image>) -> Result<()> {
        let names = self.0.images.known().references_of(image.id());
        let mut outcome = Err(Error::invalid("the image has no name to fetch it by"));
        let client = self.registry_client().await?;
        for name in names {
            let digest = image.record.image.repo_digest().clone();
            let request = StorePull {
                reference: name.with_digest(digest),
                platform: Some(image.record.image.platform.clone())
                    .filter(|platform| !platform.os.is_empty()),
                concurrency: self.config().max_concurrent_downloads.max(1),
            };
            let repository = client.repository(&request.reference, Access::Pull, None);
            let told: hull_images::PullProgress = Arc::new(|_| {});
            match self.0.images.store.pull(&repository, &request, &told).await {
                Ok(_) => return Ok(()),
                Err(error) => outcome = Err(image_error(error)),
            }
        }
        outcome
    }
}

fn is_blob(finding: &Finding) -> bool {
    matches!(finding.part, Part::Blob(_))
}
