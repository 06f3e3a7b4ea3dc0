//! `hull images`.

use hull_client::Query;
use hull_docker_api::ImageSummary;

use crate::command::{Args, Command, Invocation};
use crate::commands::formats;
use crate::error::Result;
use crate::flags::{FILTER, Flag};
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "ls",
    usage: "[OPTIONS] [REPOSITORY[:TAG]]",
    about: "List images",
    aliases: &["image ls", "image list", "images"],
    args: Args::AtMost(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all images (default hides intermediate images)").short('a'),
    Flag::switch("artifacts", "List what is no image: charts, signatures, SBOMs, …"),
    Flag::switch("digests", "Show digests"),
    Flag::new(FILTER, "filter", "Filter output based on conditions provided").short('f'),
    formats::LIST,
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::switch("quiet", "Only show image IDs").short('q'),
    Flag::switch("tree", "List multi-platform images as a tree (EXPERIMENTAL)"),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    if matches.on("artifacts") {
        return super::artifacts::run(&invocation).await;
    }
    if matches.on("tree") {
        return super::tree::run(&invocation).await;
    }
    let mut filters = matches.filters("filter");
    if !invocation.arg(0).is_empty() {
        filters.add("reference", invocation.arg(0));
    }
    let format = match matches.text("format") {
        "" => invocation.engine.config().text("imagesFormat"),
        format => format,
    };
    let client = invocation.engine.client().await?;
    let query = Query::new().flag("all", matches.on("all")).filters(&filters);
    let images: Vec<ImageSummary> = client.get("/images/json", &query).await?;
    let wants_digests = matches.on("digests");
    let digests = wants_digests || format.contains("{{.Digest}}");
    let trunc = !matches.on("no-trunc");
    let rows: Vec<Row> = images.iter().flat_map(|image| rows(image, trunc, digests)).collect();
    output::text(&listing(wants_digests).render(&rows, format, matches.on("quiet"))?);
    Ok(0)
}

/// A line of the list: an image under one of its names.
#[derive(Default)]
pub(crate) struct Row {
    repository: String,
    tag: String,
    digest: String,
    id: String,
    created: i64,
    size: i64,
    shared: i64,
    containers: i64,
}

const NONE: &str = "<none>";

/// The lines of an image: one per tag, with digests one per tag and digest; an image without names has one line.
pub(crate) fn rows(image: &ImageSummary, trunc: bool, digests: bool) -> Vec<Row> {
    let split = |text: &str, at: char| {
        let (name, rest) = text.rsplit_once(at).unwrap_or((text, NONE));
        (name.to_owned(), rest.to_owned())
    };
    let row = |repository: String, tag: String, digest: String| Row {
        repository,
        tag,
        digest,
        id: if trunc { human::short_id(&image.id) } else { image.id.clone() },
        created: image.created,
        size: image.size,
        shared: image.shared_size,
        containers: image.containers,
    };
    let tags =
        image.repo_tags.iter().flatten().filter(|tag| *tag != "<none>:<none>").map(|tag| split(tag, ':'));
    let by_digest: Vec<(String, String)> = image
        .repo_digests
        .iter()
        .flatten()
        .filter(|digest| *digest != "<none>@<none>")
        .map(|digest| split(digest, '@'))
        .collect();
    let mut rows = Vec::new();
    for (repository, tag) in tags {
        let own: Vec<&String> =
            by_digest.iter().filter(|(name, _)| *name == repository).map(|(_, digest)| digest).collect();
        if !digests || own.is_empty() {
            rows.push(row(repository, tag, NONE.to_owned()));
        } else {
            rows.extend(own.iter().map(|digest| row(repository.clone(), tag.clone(), (*digest).clone())));
        }
    }
    if rows.is_empty() {
        match by_digest.as_slice() {
            [] => rows.push(row(NONE.to_owned(), NONE.to_owned(), NONE.to_owned())),
            named if digests => {
                rows.extend(
                    named.iter().map(|(name, digest)| row(name.clone(), NONE.to_owned(), digest.clone())),
                );
            }
            // Without --digests docker leaves the digest of such a line empty.
            [(name, _), ..] => rows.push(row(name.clone(), NONE.to_owned(), String::new())),
        }
    }
    rows
}

/// The one line of an image in a list of space usage: under its first name.
pub(crate) fn first_row(image: &ImageSummary, trunc: bool) -> Row {
    let mut image = image.clone();
    image.repo_digests = None;
    image.repo_tags = image.repo_tags.map(|tags| tags.into_iter().take(1).collect());
    let row = rows(&image, trunc, false).into_iter().next();
    row.map(|row| Row { digest: String::new(), ..row }).unwrap_or_default()
}

fn listing(digests: bool) -> Listing<Row> {
    let mut default = vec!["Repository", "Tag", "ID", "CreatedSince", "Size"];
    if digests {
        default.insert(2, "Digest");
    }
    Listing { columns: COLUMNS, default, quiet: "ID", labels: None }
}

pub(crate) const COLUMNS: &[Column<Row>] = &[
    Column { name: "Containers", header: "CONTAINERS", value: |row| count(row.containers) },
    Column { name: "CreatedAt", header: "CREATED AT", value: |row| human::timestamp(row.created) },
    Column { name: "CreatedSince", header: "CREATED", value: created },
    Column { name: "Digest", header: "DIGEST", value: |row| row.digest.clone() },
    Column { name: "ID", header: "IMAGE ID", value: |row| row.id.clone() },
    Column { name: "Repository", header: "REPOSITORY", value: |row| row.repository.clone() },
    Column { name: "SharedSize", header: "SHARED SIZE", value: |row| bytes(row.shared) },
    Column { name: "Size", header: "SIZE", value: |row| human::size3(row.size as f64) },
    Column { name: "Tag", header: "TAG", value: |row| row.tag.clone() },
    Column { name: "UniqueSize", header: "UNIQUE SIZE", value: unique },
    Column { name: "VirtualSize", header: "SIZE", value: |row| human::size(row.size as f64) },
];

fn created(row: &Row) -> String {
    human::ago(row.created)
}

fn count(containers: i64) -> String {
    if containers < 0 { "N/A".to_owned() } else { containers.to_string() }
}

fn bytes(size: i64) -> String {
    if size < 0 { "N/A".to_owned() } else { human::size(size as f64) }
}

fn unique(row: &Row) -> String {
    if row.shared < 0 { "N/A".to_owned() } else { human::size((row.size - row.shared) as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_name() {
        let image = ImageSummary {
            id: "sha256:0123456789abcdef".into(),
            repo_tags: Some(vec!["busybox:latest".into(), "localhost:5000/b:1".into()]),
            repo_digests: Some(vec!["busybox@sha256:aa".into()]),
            size: 4_042_190,
            shared_size: -1,
            containers: -1,
            ..ImageSummary::default()
        };
        let dangling = ImageSummary { repo_tags: None, repo_digests: None, ..image.clone() };
        let rows: Vec<Row> =
            [&image, &dangling].into_iter().flat_map(|image| rows(image, true, false)).collect();
        assert_eq!(
            listing(false).render(&rows, "", false).unwrap_or_else(|f| f.message),
            format!(
                "REPOSITORY         TAG       IMAGE ID       CREATED        SIZE\n\
                 busybox            latest    0123456789ab   {age}   4.04MB\n\
                 localhost:5000/b   1         0123456789ab   {age}   4.04MB\n\
                 <none>             <none>    0123456789ab   {age}   4.04MB\n",
                age = human::ago(0)
            )
        );
        let digests = super::rows(&image, true, true);
        assert_eq!(
            digests.iter().map(|row| row.digest.as_str()).collect::<Vec<_>>(),
            ["sha256:aa", "<none>"]
        );
    }
}
