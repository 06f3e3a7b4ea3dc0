//! `hull image layers`: what each layer adds, changes, removes and wastes.

use hull_client::{Query, path_part};
use hull_docker_api::{LayerFileView, LayerView};

use crate::command::{Args, Command, Invocation};
use crate::error::Result;
use crate::flags::{Flag, STRING};
use crate::output::listing::{Column, Listing};
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "layers",
    usage: "[OPTIONS] IMAGE",
    about: "Show what each layer of an image adds, changes, removes and wastes",
    aliases: &["image layers"],
    args: Args::Exactly(1),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("files", "Show the files of each layer as a tree"),
    crate::commands::formats::LIST,
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::new(
        STRING,
        "platform",
        "Show the layers for the given platform. Formatted as \"os[/arch[/variant]]\" (e.g., \"linux/amd64\")",
    ),
];

async fn run(invocation: Invocation) -> Result<u8> {
    let matches = &invocation.matches;
    let files = matches.on("files");
    let platform = crate::commands::platform(matches, "platform")?;
    let query = Query::new().flag("files", files).set_nonempty("platform", platform);
    let client = invocation.engine.client().await?;
    let path = format!("/images/{}/layers", path_part(invocation.arg(0)));
    let layers: Vec<LayerView> = client.get(&path, &query).await?;
    let trunc = !matches.on("no-trunc");
    if files {
        for layer in &layers {
            output::text(&tree(layer, trunc));
        }
        return Ok(0);
    }
    let format = matches.text("format");
    let (total, wasted) = layers.iter().fold((0, 0), |sum, layer| (sum.0 + layer.size, sum.1 + layer.wasted));
    let rows: Vec<Row> = layers.into_iter().map(|layer| Row { layer, trunc }).collect();
    output::text(&listing().render(&rows, format, false)?);
    if format.is_empty() && total > 0 {
        let share = wasted as f64 * 100.0 / total as f64;
        let (total, wasted) = (human::size3(total as f64), human::size3(wasted as f64));
        output::line(&format!(
            "{total} of files, of which {wasted} ({share:.1}%) are replaced or removed higher up"
        ));
    }
    Ok(0)
}

struct Row {
    layer: LayerView,
    trunc: bool,
}

fn listing() -> Listing<Row> {
    const COLUMNS: &[Column<Row>] = &[
        Column { name: "Layer", header: "LAYER", value: |row| id(&row.layer, row.trunc) },
        Column { name: "Compressed", header: "COMPRESSED", value: |row| size(row.layer.compressed) },
        Column { name: "Size", header: "SIZE", value: |row| size(row.layer.size) },
        Column { name: "Wasted", header: "WASTED", value: |row| size(row.layer.wasted) },
        Column { name: "Added", header: "ADDED", value: |row| row.layer.added.to_string() },
        Column { name: "Changed", header: "CHANGED", value: |row| row.layer.changed.to_string() },
        Column { name: "Removed", header: "REMOVED", value: |row| row.layer.removed.to_string() },
        Column { name: "CreatedBy", header: "CREATED BY", value: |row| created_by(&row.layer, row.trunc) },
    ];
    let default = COLUMNS.iter().map(|column| column.name).collect();
    Listing { columns: COLUMNS, default, quiet: "Layer", labels: None }
}

fn id(layer: &LayerView, trunc: bool) -> String {
    if trunc { human::short_id(&layer.diff_id) } else { layer.diff_id.clone() }
}

fn size(bytes: i64) -> String {
    human::size3(bytes as f64)
}

fn created_by(layer: &LayerView, trunc: bool) -> String {
    let text = layer.created_by.replace(['\t', '\n'], " ");
    if trunc { human::ellipsis(&text, 45) } else { text }
}

/// A layer's heading and its paths below their directories.
fn tree(layer: &LayerView, trunc: bool) -> String {
    let mut text = format!("{}  {}  {}\n", id(layer, trunc), size(layer.size), created_by(layer, trunc));
    let mut files: Vec<&LayerFileView> = layer.files.iter().collect();
    files.sort_by(|a, b| a.path.split('/').cmp(b.path.split('/')));
    let mut above: Vec<&str> = Vec::new();
    for file in files {
        let parts: Vec<&str> = file.path.split('/').filter(|part| !part.is_empty()).collect();
        let Some((name, parents)) = parts.split_last() else { continue };
        let known = above.iter().zip(parents).take_while(|(a, b)| a == b).count();
        // Directories the layer does not list itself.
        for (depth, parent) in parents.iter().enumerate().skip(known) {
            text += &format!("  {:10} {:>8}   {}{parent}/\n", "", "", "  ".repeat(depth));
        }
        let bytes = if file.mode.starts_with('-') { size(file.size) } else { String::new() };
        let slash = if file.mode.starts_with('d') { "/" } else { "" };
        let depth = "  ".repeat(parents.len());
        text += &format!("{} {:10} {bytes:>8}   {depth}{name}{slash}\n", file.effect, file.mode);
        above = parts;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stand_below_their_directories() {
        let file = |path: &str, effect: &str, mode: &str, size| LayerFileView {
            path: path.into(),
            effect: effect.into(),
            mode: mode.into(),
            size,
        };
        let layer = LayerView {
            diff_id: "sha256:0123456789abcdef".into(),
            created_by: "RUN x".into(),
            size: 1500,
            files: vec![
                file("/etc/b", "C", "-rw-r--r--", 1500),
                file("/usr/share/x", "D", "", 0),
                file("/etc/", "A", "drwxr-xr-x", 0),
            ],
            ..LayerView::default()
        };
        assert_eq!(
            tree(&layer, true),
            "0123456789ab  1.5kB  RUN x\n\
             A drwxr-xr-x            etc/\n\
             C -rw-r--r--    1.5kB     b\n\
             \x20                       usr/\n\
             \x20                         share/\n\
             D                           x\n"
        );
    }
}
