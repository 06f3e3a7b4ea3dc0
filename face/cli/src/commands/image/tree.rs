//! `hull image ls --tree`: images with their platforms below.

use hull_client::Query;
use hull_docker_api::ImageSummary;
use serde_json::Value;

use crate::command::Invocation;
use crate::error::Result;
use crate::output::{self, human};
use crate::terminal;

const WARNING: &str =
    "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
const SPACING: usize = 3;
/// The first column is never narrower; columns that leave it less are dropped.
const MIN_NAME: usize = 12;

/// Lists the images as a tree.
pub(crate) async fn run(invocation: &Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let unsupported =
        [("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest"), ("format", "format")];
    if let Some((_, name)) = unsupported.iter().find(|(flag, _)| matches.is_set(flag)) {
        return Err(format!("--{name} is not yet supported with --tree").into());
    }
    let mut filters = matches.filters("filter");
    if !invocation.arg(0).is_empty() {
        filters.add("reference", invocation.arg(0));
    }
    let all = matches.on("all");
    let query = Query::new().flag("all", all).flag("manifests", true).filters(&filters);
    let client = invocation.engine.client().await?;
    let mut images: Vec<ImageSummary> = client.get("/images/json", &query).await?;
    images.retain(|image| all || !dangling(image));
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let tops: Vec<Top> = images.iter().map(Top::of).collect();
    let width = match terminal::size()[1] as usize {
        0 => 80,
        width => width.max(20),
    };
    output::text(&draw(&tops, width, Style { colors: terminal::stdout_is_terminal() }));
    Ok(0)
}

fn dangling(image: &ImageSummary) -> bool {
    image.repo_tags.as_ref().is_none_or(Vec::is_empty)
        && image.repo_digests.as_ref().is_none_or(Vec::is_empty)
}

/// An image.
struct Top {
    /// Longest first.
    names: Vec<String>,
    details: Details,
    platforms: Vec<Branch>,
}

/// One platform of an image.
struct Branch {
    platform: String,
    available: bool,
    details: Details,
}

struct Details {
    id: String,
    disk_usage: String,
    content_size: String,
    in_use: bool,
}

impl Top {
    fn of(image: &ImageSummary) -> Self {
        let manifests: Vec<&Value> =
            image.manifests.iter().filter(|manifest| manifest["Kind"] == "image").collect();
        let platforms: Vec<Branch> = manifests.iter().map(|manifest| Branch::of(manifest)).collect();
        let content: i64 = manifests.iter().filter_map(|manifest| manifest["Size"]["Content"].as_i64()).sum();
        let mut names = image.repo_tags.clone().unwrap_or_default();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let details = Details {
            id: human::short_id(&image.id),
            disk_usage: human::size3(image.size as f64),
            content_size: human::size3(content as f64),
            in_use: image.containers > 0 || platforms.iter().any(|branch| branch.details.in_use),
        };
        Self { names, details, platforms }
    }
}

impl Branch {
    fn of(manifest: &Value) -> Self {
        let platform = &manifest["ImageData"]["Platform"];
        let part = |key: &str| platform[key].as_str().unwrap_or_default();
        let mut name = format!("{}/{}", part("os"), part("architecture"));
        if !part("variant").is_empty() {
            name = name + "/" + part("variant");
        }
        let size = |key: &str| human::size3(manifest["Size"][key].as_f64().unwrap_or_default());
        Self {
            platform: name,
            available: manifest["Available"] == true,
            details: Details {
                id: human::short_id(manifest["ID"].as_str().unwrap_or_default()),
                disk_usage: size("Total"),
                content_size: size("Content"),
                in_use: manifest["ImageData"]["Containers"].as_array().is_some_and(|list| !list.is_empty()),
            },
        }
    }

    fn label(&self, last: bool) -> String {
        format!("{} {}", if last { "└─" } else { "├─" }, self.platform)
    }
}

/// A column after the name.
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    value: fn(&Details, Style) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "ID", width: 12, right: false, value: |details, _| details.id.clone() },
    Column { title: "DISK USAGE", width: 10, right: true, value: |details, _| details.disk_usage.clone() },
    Column {
        title: "CONTENT SIZE",
        width: 12,
        right: true,
        value: |details, _| details.content_size.clone(),
    },
    Column { title: "EXTRA", width: 5, right: false, value: |details, style| style.chip(details.in_use) },
];

/// Colours, on a terminal only.
#[derive(Clone, Copy)]
struct Style {
    colors: bool,
}

const PLAIN: &str = "\x1b[39m";
const BOLD: &str = "\x1b[39m\x1b[1m";
const NAME: &str = "\x1b[34m\x1b[1m";
const FAINT: &str = "\x1b[39m\x1b[2m";
const WARN: &str = "\x1b[93m";

impl Style {
    fn paint(self, color: &str, text: &str) -> String {
        if self.colors { format!("{color}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// The mark of an image in use.
    fn chip(self, in_use: bool) -> String {
        match in_use {
            false => String::new(),
            true if self.colors => "\x1b[38;5;0m\x1b[48;5;14m U \x1b[0m".to_owned(),
            true => "U".to_owned(),
        }
    }

    fn legend(self, width: usize) -> String {
        let (text, shown) = match self.colors {
            true => (
                format!(
                    "\x1b[1m\x1b[106m\x1b[30mi\x1b[0m\x1b[0m \x1b[96mInfo → \x1b[0m\x1b[0m {} In Use ",
                    self.chip(true)
                ),
                21,
            ),
            false => (format!("Info ->  {} In Use ", self.chip(true)), 18),
        };
        " ".repeat(width.saturating_sub(shown)) + &text
    }
}

fn draw(tops: &[Top], width: usize, style: Style) -> String {
    let (name_width, columns) = layout(tops, width);
    let mut text = format!("{}\n{}\n\n", style.paint(WARN, WARNING), style.legend(width));
    text += &style.paint(BOLD, "IMAGE");
    text += &" ".repeat(name_width.saturating_sub("IMAGE".len()));
    for column in columns {
        text += &" ".repeat(SPACING);
        text += &pad(&style.paint(BOLD, column.title), column.title.len(), column);
    }
    text.push('\n');
    let spaced = tops.iter().any(|top| !top.platforms.is_empty());
    for top in tops {
        text += &draw_top(top, name_width, columns, style);
        if spaced {
            text.push('\n');
        }
    }
    text
}

fn draw_top(top: &Top, name_width: usize, columns: &[Column], style: Style) -> String {
    let mut text = String::new();
    let (color, last) = match top.names.split_last() {
        Some((last, others)) => {
            others.iter().for_each(|name| text += &(style.paint(NAME, name) + "\n"));
            (NAME, last.as_str())
        }
        None => (FAINT, "<untagged>"),
    };
    text += &line(last, color, PLAIN, &top.details, name_width, columns, style);
    for (index, branch) in top.platforms.iter().enumerate() {
        let color = if branch.available { PLAIN } else { FAINT };
        let label = branch.label(index + 1 == top.platforms.len());
        text += &line(&label, color, color, &branch.details, name_width, columns, style);
    }
    text
}

fn line(
    name: &str,
    name_color: &str,
    color: &str,
    details: &Details,
    name_width: usize,
    columns: &[Column],
    style: Style,
) -> String {
    let name = human::ellipsis(name, name_width);
    let mut text = style.paint(name_color, &name);
    text += &" ".repeat(name_width - name.chars().count());
    for column in columns {
        text += &" ".repeat(SPACING);
        let value = (column.value)(details, style);
        let marked = value.starts_with('\x1b');
        let len = if marked { 3 } else { value.chars().count() };
        let shown = if marked || value.is_empty() { value } else { style.paint(color, &value) };
        text += &pad(&shown, len, column);
    }
    text + "\n"
}

/// Text that takes `len` columns on the screen, padded to the width of its column.
fn pad(text: &str, len: usize, column: &Column) -> String {
    let spaces = " ".repeat(column.width.saturating_sub(len));
    if column.right { spaces + text } else { text.to_owned() + &spaces }
}

/// The width of the first column and the others that have room beside it.
fn layout(tops: &[Top], width: usize) -> (usize, &'static [Column]) {
    let mut room = width;
    let mut shown = COLUMNS.len();
    for (index, column) in COLUMNS.iter().enumerate() {
        if room < column.width + SPACING + MIN_NAME {
            shown = index;
            break;
        }
        room -= column.width + SPACING;
    }
    let names = tops.iter().flat_map(|top| &top.names).map(|name| name.chars().count());
    let branches = tops.iter().flat_map(|top| &top.platforms).map(|branch| branch.platform.len() + 3);
    let widest = names.chain(branches).max().unwrap_or(0).max("<untagged>".len());
    (room.min(widest), &COLUMNS[..shown])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tops() -> Vec<Top> {
        let manifest = |architecture: &str, variant: &str, available: bool, containers: &[&str]| {
            serde_json::json!({
                "ID": "sha256:aaaaaaaaaaaaaaaa", "Kind": "image", "Available": available,
                "Size": {"Content": 3_000_000, "Total": 8_000_000},
                "ImageData": {"Platform": {"os": "linux", "architecture": architecture, "variant": variant},
                              "Containers": containers},
            })
        };
        let image = ImageSummary {
            id: "sha256:a1b2c3d4e5f60718".into(),
            size: 192_345_678,
            repo_tags: Some(vec!["nginx:1".into(), "nginx:latest".into()]),
            manifests: vec![
                manifest("amd64", "", true, &["c"]),
                manifest("arm64", "v8", false, &[]),
                serde_json::json!({"Kind": "attestation", "Size": {"Content": 5}}),
            ],
            ..Default::default()
        };
        vec![Top::of(&image)]
    }

    #[test]
    fn plain_tree() {
        let text = draw(&tops(), 80, Style { colors: false });
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "                                                              Info ->  U In Use ",
                "",
                "IMAGE               ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "nginx:latest",
                "nginx:1             a1b2c3d4e5f6        192MB            6MB   U    ",
                "├─ linux/amd64      aaaaaaaaaaaa          8MB            3MB   U    ",
                "└─ linux/arm64/v8   aaaaaaaaaaaa          8MB            3MB        ",
                "",
            ]
        );
    }

    #[test]
    fn narrow_screens_drop_columns() {
        let (width, columns) = layout(&tops(), 60);
        assert_eq!((width, columns.len()), (17, 3));
        let (width, columns) = layout(&tops(), 30);
        assert_eq!((width, columns.len()), (15, 1));
    }

    #[test]
    fn colours_do_not_change_the_layout() {
        let strip = |text: &str| {
            let mut parts = text.split('\x1b');
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
        };
        let plain = draw(&tops(), 100, Style { colors: false });
        let colored = strip(&draw(&tops(), 100, Style { colors: true }));
        let branches = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|line| line.contains("arm64") || line.starts_with("IMAGE"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(branches(&plain), branches(&colored));
    }
}
