//! Tagging, removing and pruning, by docker's rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use hull_docker_api::{Filters, ImageDeleted, ImagesPruned};
use hull_meta::Durability;
use hull_model::{Digest, Reference};

use super::record::{IMAGES, Image, parse_reference};
use super::until;
use crate::volumes::{boolean, check_filters, has_any_label};
use crate::{Engine, Error, Result};

impl Engine {
    /// Gives an image another name, taking it away from the image that had it.
    ///
    /// # Errors
    /// An image that is not there, or a name that is none.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: Option<&str>) -> Result<()> {
        let reference = new_name(repository, tag)?;
        let image = match self.image_find(name) {
            Err(error) => return self.artifact_tag(name, reference, error).await,
            Ok(image) => image,
        };
        self.reference_set(&reference, &image).await?;
        self.image_event("tag", image.id(), &reference.familiar());
        Ok(())
    }

    /// Removes a name of an image; the image goes with its last name, or when it is given by id. With `force`, names
    /// in several repositories and stopped containers are no obstacle. Unnamed parents go along unless `noprune`.
    ///
    /// # Errors
    /// An image that is not there, or is in use (conflict).
    pub async fn image_remove(&self, name: &str, force: bool, noprune: bool) -> Result<Vec<ImageDeleted>> {
        let image = match self.image_find(name) {
            Err(error) => return self.artifact_remove(name, error).await,
            Ok(image) => image,
        };
        let id = image.id().clone();
        let names = self.names_of(&id);
        let mut done = Vec::new();
        let mut by_name = false;
        if self.is_given_by_id(&id, name) {
            if is_single_repository(&names) {
                let checks = Checks { children: true, running: true, stopped: !force, references: false };
                self.check_conflict(&id, checks)?;
                self.untag_all(&id, names, &mut done).await?;
            }
        } else {
            if !force && is_single_repository(&names) {
                self.refuse_last_name_of_used(&id, name)?;
            }
            self.untag(&id, name, &mut done).await?;
            if !self.names_of(&id).is_empty() {
                return Ok(done);
            }
            by_name = true;
        }
        self.delete_with_parents(id, force, !noprune, by_name, &mut done).await?;
        Ok(done)
    }

    /// Removes images that no container uses: those without a name, or with `dangling=false` all. Filters `label`,
    /// `label!` and `until` narrow the choice.
    ///
    /// # Errors
    /// An unknown filter.
    pub async fn image_prune(&self, filters: &Filters) -> Result<ImagesPruned> {
        let mut deleted = Vec::new();
        let mut reclaimed = 0;
        for image in self.prunable(filters)? {
            self.untag_all(image.id(), self.names_of(image.id()), &mut deleted).await?;
            reclaimed += self.own_bytes(&image);
            self.delete(&image, &mut deleted).await?;
        }
        reclaimed += self.sweep().await?;
        let attributes = [("reclaimed".to_owned(), reclaimed.to_string())].into();
        self.events().emit("image", "prune", "", attributes);
        Ok(ImagesPruned {
            images_deleted: (!deleted.is_empty()).then_some(deleted),
            space_reclaimed: reclaimed,
        })
    }

    /// What [`Engine::image_prune`] would remove, and the bytes of layers that nothing else needs. Removes nothing.
    ///
    /// # Errors
    /// An unknown filter.
    pub fn image_prune_preview(&self, filters: &Filters) -> Result<ImagesPruned> {
        let images = self.prunable(filters)?;
        let mut told = Vec::new();
        for image in &images {
            let untagged = self.names_of(image.id()).into_iter().map(|name| name.familiar());
            told.extend(untagged.map(|untagged| ImageDeleted { untagged, ..ImageDeleted::default() }));
            told.push(ImageDeleted { deleted: image.id().to_string(), ..ImageDeleted::default() });
        }
        let goes = |id: &Digest| images.iter().any(|image| image.id() == id);
        let known = self.0.images.known();
        let others = known.images.values().filter(|other| !goes(other.id()));
        let kept: BTreeSet<&Digest> = others.flat_map(|other| other.chain()).collect();
        let freed: std::collections::BTreeMap<&Digest, u64> = images
            .iter()
            .flat_map(|image| image.sized_layers())
            .filter(|(layer, _)| !kept.contains(layer))
            .collect();
        Ok(ImagesPruned {
            images_deleted: (!told.is_empty()).then_some(told),
            space_reclaimed: freed.values().sum(),
        })
    }

    /// The images a prune is about, children before parents.
    fn prunable(&self, filters: &Filters) -> Result<Vec<Arc<Image>>> {
        check_filters(filters, &["dangling", "label", "label!", "until"])?;
        let only_dangling = boolean(filters, "dangling")?.unwrap_or(true);
        let until = until(filters)?;
        let mut candidates: Vec<Arc<Image>> = self.0.images.known().shown().cloned().collect();
        candidates.sort_by_key(|image| std::cmp::Reverse(image.created()));
        let mut chosen: Vec<Arc<Image>> = Vec::new();
        for image in candidates {
            let id = image.id();
            let names = self.names_of(id);
            let labels = &image.config.config.labels;
            let has_tag = names.iter().any(|name| name.tag().is_some());
            let young = until.is_some_and(|until| image.created_at().is_some_and(|created| created > until));
            if (only_dangling && has_tag)
                || young
                || !filters.matches_labels("label", labels)
                || has_any_label(filters, "label!", labels)
                || !self.users_of(id).is_empty()
                || self
                    .0
                    .images
                    .known()
                    .children_of(id)
                    .any(|child| chosen.iter().all(|c| c.id() != child.id()))
            {
                continue;
            }
            chosen.push(image);
        }
        Ok(chosen)
    }

    /// Containers of an image, of all its platforms: id, and whether it runs.
    pub(super) fn users_of(&self, id: &Digest) -> Vec<(String, bool)> {
        let image = self.0.images.known().images.get(id).cloned();
        let ids = image.iter().flat_map(|image| image.ids()).chain((image.is_none()).then_some(id));
        ids.flat_map(|id| self.containers_of_image(id.as_str())).collect()
    }

    fn names_of(&self, id: &Digest) -> Vec<Reference> {
        self.0.images.known().references_of(id)
    }

    /// Whether the image was given by (the beginning of) its id. A name that could be one as well is a name.
    fn is_given_by_id(&self, id: &Digest, name: &str) -> bool {
        let is_name =
            parse_reference(name).is_ok_and(|name| self.0.images.known().by_reference(&name).is_some());
        !is_name && (id.as_str().starts_with(name) || id.hex().starts_with(name))
    }

    /// Without `force`, the last name stays while a container uses the image: it would be left without any.
    fn refuse_last_name_of_used(&self, id: &Digest, name: &str) -> Result<()> {
        match self.users_of(id).first() {
            None => Ok(()),
            Some((container, _)) => Err(Error::conflict(format!(
                "conflict: unable to remove repository reference {name:?} (must force) - container {} is using its \
                 referenced image {}",
                short(container),
                id.short()
            ))),
        }
    }

    /// Removes one name; digests of the same repository go with its last tag.
    async fn untag(&self, id: &Digest, name: &str, done: &mut Vec<ImageDeleted>) -> Result<()> {
        let given = parse_reference(name).map_err(|error| Error::invalid(error.to_string()))?;
        let name = match given.digest() {
            Some(digest) => given.with_digest(digest.clone()),
            None => given.or_default_tag(),
        };
        self.untag_one(id, &name, done).await?;
        if name.digest().is_some() {
            return Ok(());
        }
        let same_repository: Vec<Reference> =
            self.names_of(id).into_iter().filter(|other| other.name() == name.name()).collect();
        if same_repository.iter().all(|other| other.digest().is_some()) {
            self.untag_all(id, same_repository, done).await?;
        }
        Ok(())
    }

    async fn untag_all(
        &self,
        id: &Digest,
        names: Vec<Reference>,
        done: &mut Vec<ImageDeleted>,
    ) -> Result<()> {
        for name in names {
            self.untag_one(id, &name, done).await?;
        }
        Ok(())
    }

    async fn untag_one(&self, id: &Digest, name: &Reference, done: &mut Vec<ImageDeleted>) -> Result<()> {
        self.reference_remove(name).await?;
        self.image_event("untag", id, id.as_str());
        done.push(ImageDeleted { untagged: name.familiar(), ..ImageDeleted::default() });
        Ok(())
    }

    /// Deletes an image and then its unnamed, unused parents. What is in the way of an image that was given by name is
    /// an error only if the image were left without a name and without a user.
    async fn delete_with_parents(
        &self,
        id: Digest,
        force: bool,
        prune: bool,
        by_name: bool,
        done: &mut Vec<ImageDeleted>,
    ) -> Result<()> {
        let (mut id, mut force, mut quiet) = (id, force, by_name);
        loop {
            let checks = Checks { children: true, running: true, stopped: !force, references: !force };
            if let Err(conflict) = self.check_conflict(&id, checks) {
                let dangling = self.names_of(&id).is_empty();
                let used = !self.users_of(&id).is_empty();
                return if quiet && (!dangling || used || done.iter().any(|d| !d.deleted.is_empty())) {
                    Ok(())
                } else {
                    Err(conflict)
                };
            }
            let Some(image) = self.0.images.known().images.get(&id).cloned() else { return Ok(()) };
            self.untag_all(&id, self.names_of(&id), done).await?;
            self.delete(&image, done).await?;
            match image.record.parent.clone().filter(|_| prune) {
                Some(parent) if self.0.images.known().images.contains_key(&parent) => {
                    (id, force, quiet) = (parent, false, true);
                    if !self.names_of(&id).is_empty() {
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    /// Removes the record, then what no other image is made of.
    async fn delete(&self, image: &Arc<Image>, done: &mut Vec<ImageDeleted>) -> Result<()> {
        let id = image.id();
        self.image_event("delete", id, id.as_str());
        done.push(ImageDeleted { deleted: id.to_string(), ..ImageDeleted::default() });
        if !self.users_of(id).is_empty() {
            return self.image_hide(image).await;
        }
        for layer in self.image_forget(image).await? {
            done.push(ImageDeleted { deleted: layer.to_string(), ..ImageDeleted::default() });
        }
        Ok(())
    }

    /// Containers go on using the layers: the image is only not shown any more.
    async fn image_hide(&self, image: &Arc<Image>) -> Result<()> {
        let mut hidden = Image::clone(image);
        hidden.record.removed = true;
        let id = hidden.id().clone();
        self.store().put(IMAGES, id.as_str(), &hidden.record, Durability::Disk).await?;
        self.0.images.known().images.insert(id, Arc::new(hidden));
        Ok(())
    }

    /// Removes an image's record and whatever belonged to it alone; gives back the layers that went, topmost first.
    pub(super) async fn image_forget(&self, image: &Arc<Image>) -> Result<Vec<Digest>> {
        self.store().delete(IMAGES, image.id().as_str(), Durability::Disk).await?;
        let layers: Vec<Digest> = {
            let mut known = self.0.images.known();
            known.images.remove(image.id());
            let others = image.record.family.chains();
            image.chain().rev().chain(others).filter(|layer| !known.needs(layer)).cloned().collect()
        };
        let (engine, image) = (self.clone(), Arc::clone(image));
        tokio::task::spawn_blocking(move || {
            let images = &engine.0.images;
            let family = &image.record.family;
            let blobs = image.record.image.blobs().chain(family.digests()).cloned().collect();
            let chains = image.chain().chain(family.chains()).cloned().collect();
            images.store.release_parts(blobs, chains, &|part| images.known().needs(part))
        })
        .await?
        .map_err(|error| Error::system("remove image", error))?;
        Ok(layers)
    }

    /// Removes blobs and layers that no image is made of, left by interrupted actions; gives back their bytes.
    pub(crate) async fn sweep(&self) -> Result<u64> {
        let engine = self.clone();
        tokio::task::spawn_blocking(move || {
            let images = &engine.0.images;
            let store = &images.store;
            let freed = store.collect(&|part| images.known().needs(part))?;
            let partial = store.content().remove_partial()?;
            Ok::<u64, hull_images::ImageError>(freed.blob_bytes + freed.layer_bytes + partial)
        })
        .await?
        .map_err(|error| Error::system("sweep images", error))
    }

    /// Bytes of the layers that only this image has.
    fn own_bytes(&self, image: &Image) -> u64 {
        let known = self.0.images.known();
        let others = known.images.values().filter(|other| other.id() != image.id());
        let kept: BTreeSet<&Digest> =
            others.flat_map(|other| other.all_layers()).map(|(layer, _)| layer).collect();
        image.all_layers().filter(|(layer, _)| !kept.contains(layer)).map(|(_, size)| size).sum()
    }

    fn check_conflict(&self, id: &Digest, checks: Checks) -> Result<()> {
        let conflict = |hard: bool, reason: String| {
            let force = if hard { "cannot be forced" } else { "must be forced" };
            Err(Error::conflict(format!("conflict: unable to delete {} ({force}) - {reason}", id.short())))
        };
        let containers = self.users_of(id);
        if checks.children && self.0.images.known().children_of(id).next().is_some() {
            return conflict(true, "image has dependent child images".to_owned());
        }
        if checks.running
            && let Some((container, _)) = containers.iter().find(|(_, running)| *running)
        {
            return conflict(true, format!("image is being used by running container {}", short(container)));
        }
        if checks.references && self.names_of(id).len() > 1 {
            return conflict(false, "image is referenced in multiple repositories".to_owned());
        }
        if checks.stopped
            && let Some((container, _)) = containers.iter().find(|(_, running)| !*running)
        {
            return conflict(false, format!("image is being used by stopped container {}", short(container)));
        }
        Ok(())
    }
}

/// What forbids the removal of an image.
#[derive(Debug, Clone, Copy)]
struct Checks {
    children: bool,
    running: bool,
    stopped: bool,
    references: bool,
}

/// The name for `repo` and `tag` of a request; the repository may carry the tag itself.
pub(super) fn new_name(repository: &str, tag: Option<&str>) -> Result<Reference> {
    let invalid = |error: hull_model::ReferenceError| Error::invalid(error.to_string());
    let reference = parse_reference(repository).map_err(invalid)?;
    if reference.digest().is_some() {
        return Err(Error::invalid("refusing to create a tag with a digest reference"));
    }
    match tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => reference.with_tag(tag).map_err(invalid),
        None => Ok(reference.or_default_tag()),
    }
}

/// Whether an image has at most one tag, and digests of its repository only.
fn is_single_repository(names: &[Reference]) -> bool {
    let mut tags = names.iter().filter(|name| name.digest().is_none());
    let (first, second) = (tags.next(), tags.next());
    if second.is_some() {
        return false;
    }
    match first.or(names.first()) {
        Some(one) => names.iter().all(|name| name.name() == one.name()),
        None => true,
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
