//! Listing, inspecting, history and disk usage: reads memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hull_docker_api::{
    Filters, GraphDriver, HistoryItem, ImageInspect, ImageMetadata, ImageSummary, RootFs, rfc3339_nano,
};
use hull_model::{Digest, Reference};

use super::record::{Image, Known, parse_reference, select_platform};
use super::{ListOptions, manifests, until};
use crate::volumes::{boolean, check_filters, has_any_label};
use crate::{Engine, Error, Result};

impl Engine {
    /// Images that pass the filters `before`, `dangling`, `label`, `label!`, `reference`, `since` and `until`, newest
    /// first.
    ///
    /// # Errors
    /// An unknown filter, or one that names an image that is not there.
    pub async fn image_list(&self, options: ListOptions) -> Result<Vec<ImageSummary>> {
        let chosen = {
            let known = self.0.images.known();
            let filter = Filter::parse(&options.filters, &known)?;
            let images: Vec<Arc<Image>> = known.shown().cloned().collect();
            let names = |image: &Arc<Image>| known.references_of(image.id());
            let chosen: Vec<(Arc<Image>, Vec<Reference>)> = images
                .into_iter()
                .map(|image| (names(&image), image))
                .filter(|(names, image)| {
                    let intermediate = names.is_empty() && known.children_of(image.id()).next().is_some();
                    filter.matches(image, names, intermediate) && (options.all || !intermediate)
                })
                .map(|(names, image)| (image, filter.shown_names(names)))
                .collect();
            chosen
        };
        let shared = options.shared_size.then(|| self.shared_layers());
        let mut list: Vec<ImageSummary> =
            chosen.iter().map(|(image, names)| self.summary(image, names, shared.as_ref())).collect();
        if options.manifests {
            for ((image, _), summary) in chosen.iter().zip(&mut list) {
                summary.descriptor = Some(manifests::top(image));
                summary.manifests = self.manifests_of(image).await?;
            }
        }
        list.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        Ok(list)
    }

    /// Everything about one image.
    ///
    /// # Errors
    /// When there is none of this name, or it is for another platform.
    pub async fn image_inspect(
        &self,
        name: &str,
        manifests: bool,
        platform: Option<String>,
    ) -> Result<ImageInspect> {
        let main = self.image_find(name)?;
        let image = select_platform(&main, name, platform.as_deref().unwrap_or_default())?;
        let names = self.0.images.known().references_of(main.id());
        let config = &image.config;
        let defaults = serde_json::to_value(&config.config)
            .and_then(serde_json::from_value)
            .map_err(|error| Error::system("image configuration", error))?;
        let manifests = match manifests {
            true => self.manifests_of(&main).await?,
            false => Vec::new(),
        };
        let last_comment = config.history.last().map(|step| step.comment.clone()).unwrap_or_default();
        let comment = match config.extra_str("comment") {
            "" => last_comment,
            comment => comment.to_owned(),
        };
        Ok(ImageInspect {
            id: image.id().to_string(),
            repo_tags: familiar(&names, false),
            repo_digests: familiar(&names, true),
            parent: image.record.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
            comment,
            created: image.created_at().map(rfc3339_nano).unwrap_or_default(),
            docker_version: config.extra_str("docker_version").to_owned(),
            author: config.author.clone(),
            config: Some(defaults),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            os_version: config.os_version.clone(),
            size: signed(image.record.image.size),
            graph_driver: self.graph_driver(&image),
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
            },
            metadata: ImageMetadata {
                last_tag_time: image
                    .record
                    .last_tagged
                    .clone()
                    .unwrap_or_else(|| hull_docker_api::ZERO_TIME.to_owned()),
            },
            descriptor: (!manifests.is_empty()).then(|| manifests::top(&main)),
            manifests,
            ..ImageInspect::default()
        })
    }

    /// The steps an image was made in, newest first.
    ///
    /// # Errors
    /// When there is none of this name, or it is for another platform.
    pub async fn image_history(&self, name: &str, platform: Option<String>) -> Result<Vec<HistoryItem>> {
        let main = self.image_find(name)?;
        let image = select_platform(&main, name, platform.as_deref().unwrap_or_default())?;
        let names = self.0.images.known().references_of(main.id());
        let mut sizes = image.record.layer_sizes.iter();
        let mut steps: Vec<HistoryItem> = image
            .config
            .history
            .iter()
            .map(|step| HistoryItem {
                comment: step.comment.clone(),
                created: step
                    .created
                    .as_deref()
                    .and_then(|at| at.parse::<jiff::Timestamp>().ok())
                    .map_or(0, jiff::Timestamp::as_second),
                created_by: step.created_by.clone(),
                id: "<missing>".to_owned(),
                size: if step.empty_layer { 0 } else { sizes.next().copied().map_or(0, signed) },
                tags: None,
            })
            .collect();
        // Layers that the history does not tell of.
        steps.extend(sizes.map(|size| HistoryItem {
            id: "<missing>".to_owned(),
            size: signed(*size),
            ..HistoryItem::default()
        }));
        steps.reverse();
        if let Some(top) = steps.first_mut() {
            top.id = image.id().to_string();
            top.tags = Some(familiar(&names, false)).filter(|tags| !tags.is_empty());
        }
        Ok(steps)
    }

    /// All images with the bytes they share, and the bytes of all layers, for `system df`.
    ///
    /// # Errors
    /// When images cannot be listed.
    pub async fn images_usage(&self) -> Result<(Vec<ImageSummary>, i64)> {
        let options = ListOptions { shared_size: true, ..ListOptions::default() };
        let list = self.image_list(options).await?;
        let known = self.0.images.known();
        let layers: BTreeMap<&Digest, u64> =
            known.images.values().flat_map(|image| image.all_layers()).collect();
        Ok((list, signed(layers.values().sum())))
    }

    /// Layers that more than one image has.
    fn shared_layers(&self) -> BTreeSet<Digest> {
        let known = self.0.images.known();
        let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
        for image in known.shown() {
            for layer in image.chain() {
                *users.entry(layer).or_default() += 1;
            }
        }
        users.into_iter().filter(|(_, users)| *users > 1).map(|(layer, _)| layer.clone()).collect()
    }

    fn summary(&self, image: &Image, names: &[Reference], shared: Option<&BTreeSet<Digest>>) -> ImageSummary {
        let record = &image.record;
        let shared_size = shared.map_or(-1, |shared| {
            signed(
                image.sized_layers().filter(|(layer, _)| shared.contains(*layer)).map(|(_, size)| size).sum(),
            )
        });
        let labels = &image.config.config.labels;
        ImageSummary {
            containers: i64::try_from(self.containers_of_image(image.id().as_str()).len())
                .unwrap_or(i64::MAX),
            created: image.created(),
            id: image.id().to_string(),
            labels: (!labels.is_empty()).then(|| labels.clone()),
            parent_id: record.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
            repo_digests: Some(familiar(names, true)),
            repo_tags: Some(familiar(names, false)),
            shared_size,
            size: signed(record.image.size),
            ..ImageSummary::default()
        }
    }

    fn graph_driver(&self, image: &Image) -> GraphDriver {
        let mut directories =
            image.chain().rev().map(|layer| self.layers().place(layer).display().to_string());
        let mut data = BTreeMap::new();
        if let Some(upper) = directories.next() {
            data.insert("UpperDir".to_owned(), upper);
            let lower: Vec<String> = directories.collect();
            if !lower.is_empty() {
                data.insert("LowerDir".to_owned(), lower.join(":"));
            }
        }
        GraphDriver { data: Some(data), name: self.layers().driver().to_string() }
    }
}

/// Docker's image filters, parsed.
struct Filter<'a> {
    filters: &'a Filters,
    dangling: Option<bool>,
    before: Option<i64>,
    since: Option<i64>,
    until: Option<jiff::Timestamp>,
    patterns: Vec<Pattern>,
}

impl<'a> Filter<'a> {
    fn parse(filters: &'a Filters, known: &Known) -> Result<Filter<'a>> {
        check_filters(filters, &["before", "dangling", "label", "label!", "reference", "since", "until"])?;
        let created = |field: &str| -> Result<Option<i64>> {
            filters
                .values(field)
                .first()
                .map(|name| known.find(name).map(|image| image.created()))
                .transpose()
        };
        Ok(Filter {
            filters,
            dangling: boolean(filters, "dangling")?,
            before: created("before")?,
            since: created("since")?,
            until: until(filters)?,
            patterns: filters.values("reference").iter().map(|text| Pattern(text.clone())).collect(),
        })
    }

    fn matches(&self, image: &Image, names: &[Reference], intermediate: bool) -> bool {
        let labels = &image.config.config.labels;
        self.dangling.is_none_or(|wanted| wanted == (names.is_empty() && !intermediate))
            && self.before.is_none_or(|before| image.created() < before)
            && self.since.is_none_or(|since| image.created() > since)
            && self.until.is_none_or(|until| image.created_at().is_none_or(|created| created < until))
            && self.filters.matches_labels("label", labels)
            && !has_any_label(self.filters, "label!", labels)
            && (self.patterns.is_empty() || names.iter().any(|name| self.has(name)))
    }

    fn has(&self, name: &Reference) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(name))
    }

    /// With a `reference` filter only the matching names are shown.
    fn shown_names(&self, names: Vec<Reference>) -> Vec<Reference> {
        if self.patterns.is_empty() {
            names
        } else {
            names.into_iter().filter(|name| self.has(name)).collect()
        }
    }
}

/// A shell pattern over the familiar form of a name, with or without its tag (Go's `path.Match`).
struct Pattern(String);

impl Pattern {
    fn matches(&self, name: &Reference) -> bool {
        let exact = parse_reference(&self.0).is_ok_and(|wanted| {
            wanted.name() == name.name() && (wanted.is_name_only() || wanted.to_string() == name.to_string())
        });
        exact || glob(&self.0, &name.familiar()) || glob(&self.0, &name.familiar_name())
    }
}

/// Go's `path.Match`: `*` and `?` do not match a slash, `[a-z]` is a class, a backslash quotes.
fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    glob_at(&pattern, &text)
}

fn glob_at(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => {
            let reach = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            (0..=reach).any(|skip| glob_at(rest, &text[skip..]))
        }
        ['?', rest @ ..] => text.first().is_some_and(|c| *c != '/') && glob_at(rest, &text[1..]),
        ['[', rest @ ..] => match (text.first(), rest.iter().position(|c| *c == ']')) {
            (Some(c), Some(end)) => in_class(&rest[..end], *c) && glob_at(&rest[end + 1..], &text[1..]),
            _ => false,
        },
        ['\\', quoted, rest @ ..] | [quoted, rest @ ..] => {
            text.first() == Some(quoted) && glob_at(rest, &text[1..])
        }
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, class) = match class {
        ['^', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    let mut rest = class;
    while let [first, tail @ ..] = rest {
        match tail {
            ['-', last, tail @ ..] => {
                found |= (*first..=*last).contains(&c);
                rest = tail;
            }
            _ => {
                found |= *first == c;
                rest = tail;
            }
        }
    }
    found != negated
}

/// Names as users write them: those with a digest, or those with a tag.
pub(super) fn familiar(names: &[Reference], digests: bool) -> Vec<String> {
    names.iter().filter(|name| name.digest().is_some() == digests).map(Reference::familiar).collect()
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gos_path_match() {
        for (pattern, text, matches) in [
            ("busy*", "busybox", true),
            ("b*x:la*", "busybox:latest", true),
            ("*", "team/app", false),
            ("*/*", "team/app", true),
            ("busybo?", "busybox", true),
            ("[a-c]usybox", "busybox", true),
            ("[^a-c]usybox", "busybox", false),
            ("\\*", "*", true),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn reference_filters_take_names_and_patterns() {
        let name: Reference = "docker.io/library/busybox:1.36".parse().expect("name");
        for (pattern, matches) in [
            ("busybox", true),
            ("busybox:1.36", true),
            ("busybox:latest", false),
            ("busybox:1.*", true),
            ("b*", true),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).matches(&name), matches, "{pattern}");
        }
    }
}
