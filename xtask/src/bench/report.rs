//! The table: medians, what must be reached, and whether it is.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use super::sample::Figure;

const PLACE: Place = Place { begin: "<!-- cargo xtask bench writes from here -->", end: "<!-- to here -->" };

/// Where in a page a table stands.
pub(super) struct Place {
    pub(super) begin: &'static str,
    pub(super) end: &'static str,
}

impl Place {
    /// Replaces what stands there.
    pub(super) fn write(&self, page: &Path, content: &str) -> Result<()> {
        let text = fs::read_to_string(page).with_context(|| format!("{}", page.display()))?;
        let (before, rest) = text
            .split_once(self.begin)
            .with_context(|| format!("{} has no place for the table", page.display()))?;
        let (_, after) = rest.split_once(self.end).context("no end of the table's place")?;
        fs::write(page, format!("{before}{}\n\n{content}\n{}{after}", self.begin, self.end))?;
        Ok(())
    }
}

/// What a row must reach.
pub(super) enum Target {
    /// At most this share of a peer's median of the same row.
    Share(f64, &'static str),
    /// At most this, in the row's unit.
    Below(f64),
}

use Target::{Below, Share};

/// Rows in the order of the table, with what they mean and must reach.
const ROWS: [(&str, &str, Target); 19] = [
    ("run --network none", "`run --rm --network none busybox true`, engine included", Share(1.0, "crun")),
    ("run", "the same with the bridge network", Share(0.1, "docker")),
    ("exec", "`exec` of true", Share(0.6, "crun")),
    ("start 50", "50 containers started one after another", Share(1.0 / 6.0, "podman")),
    ("remove 50", "… and removed", Share(1.0 / 6.0, "podman")),
    ("idle memory", "memory of the idle engine (PSS)", Below(15.0 * 1024.0)),
    ("memory per container", "memory per running container beside its own processes", Below(512.0)),
    ("log of 200 MB", "200 MB of log lines, detached", Share(0.6, "podman")),
    ("ps -a of 300", "`ps -a` with 300 containers", Share(0.125, "docker")),
    ("pull slim", "`pull` of one layer of small files (80 MB) into an empty store", Share(0.35, "podman")),
    ("pull big", "`pull` of five layers (900 MB)", Share(0.4, "podman")),
    ("rmi big", "`rmi` of it", Share(0.3, "docker")),
    ("image ls of 500", "`image ls` with 500 images", Share(0.1, "docker")),
    ("pull of a small layer", "`pull` with all layers there but a small one", Share(0.2, "docker")),
    (
        "push of a big image",
        "`push` of six layers to an empty registry, as they were pulled",
        Share(0.8, "ctr"),
    ),
    ("save of a big image", "`save` of it", Share(0.5, "podman")),
    ("load of a big image", "`load` of it", Share(0.5, "podman")),
    ("memory of a pull", "most memory of the engine while it pulls it (PSS)", Below(100.0 * 1024.0)),
    ("memory of a pull", "… beside dockerd and containerd", Share(0.5, "docker")),
];

const ENGINES: [&str; 6] = ["hull", "docker", "podman", "ctr", "crun", "sh"];

/// Figures of one run.
pub(super) struct Report {
    versions: Value,
    figures: Vec<Figure>,
}

impl Report {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let versions = serde_json::from_str(lines.next().context("no results")?)?;
        let figures = lines.map(serde_json::from_str).collect::<Result<_, _>>()?;
        Ok(Self { versions, figures })
    }

    fn figure(&self, row: &str, engine: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.row == row && figure.engine == engine)
    }

    /// Whether anything was measured of it.
    pub(super) fn has(&self, engine: &str) -> bool {
        self.figures.iter().any(|figure| figure.engine == engine)
    }

    /// What the first line says of it.
    pub(super) fn fact(&self, name: &str) -> String {
        self.versions[name].as_str().map_or_else(|| self.versions[name].to_string(), str::to_owned)
    }

    /// The table in Markdown.
    pub(super) fn table(&self) -> String {
        self.table_of(&ROWS, &ENGINES, &["Hull", "docker", "podman", "ctr", "bare crun", "`sh \\| cat`"])
    }

    pub(super) fn table_of(
        &self,
        rows: &[(&str, &str, Target)],
        engines: &[&str],
        titles: &[&str],
    ) -> String {
        let mut table = format!("| | {} | must reach | reached |\n", titles.join(" | "));
        table.push_str(&format!("{}|\n", "|---".repeat(titles.len() + 3)));
        for (row, meaning, target) in rows {
            let Some(hull) = self.figure(row, "hull") else { continue };
            let cells: Vec<String> = engines
                .iter()
                .map(|engine| self.figure(row, engine).map(shown).unwrap_or_default())
                .collect();
            let (wanted, reached) = self.judged(row, hull, target);
            table.push_str(&format!("| {meaning} | {} | {wanted} | {reached} |\n", cells.join(" | ")));
        }
        table
    }

    fn judged(&self, row: &str, hull: &Figure, target: &Target) -> (String, String) {
        match target {
            Below(limit) => {
                let reached = hull.median < *limit;
                (
                    format!("under {}", amount(*limit, &hull.unit)),
                    if reached { "yes".into() } else { "**no**".into() },
                )
            }
            Share(share, peer) => {
                let wanted = format!("{share:.3} of {peer}");
                let Some(peer) = self.figure(row, peer) else { return (wanted, "not measured".into()) };
                let ratio = hull.median / peer.median;
                (wanted, format!("{}: {ratio:.3}", if ratio <= *share { "yes" } else { "**no**" }))
            }
        }
    }

    /// Puts the table and what it was measured on into the page.
    pub(super) fn write_into(&self, page: &Path) -> Result<()> {
        let of = |name: &str| self.fact(name);
        let facts = format!(
            "`cargo xtask bench`, {} samples of each short measurement, on {} processors and Linux {}; docker {}, podman {}, {}.\n\
             Medians, in brackets the least and the greatest.\n",
            of("samples"),
            of("processors"),
            of("kernel"),
            of("docker"),
            of("podman"),
            of("crun")
        );
        PLACE.write(page, &format!("{facts}\n{}", self.table()))
    }
}

fn shown(figure: &Figure) -> String {
    let number = |value: f64| amount(value, &figure.unit);
    if figure.samples.len() < 2 {
        return number(figure.median);
    }
    format!("{} ({} – {})", number(figure.median), number(figure.min), number(figure.max))
}

/// A value with the unit a person would choose.
fn amount(value: f64, unit: &str) -> String {
    match unit {
        "ms" if value >= 2000.0 => format!("{:.2} s", value / 1e3),
        "ms" if value < 10.0 => format!("{value:.2} ms"),
        "ms" => format!("{value:.0} ms"),
        "calls" => format!("{value:.0}"),
        _ if value >= 1024.0 => format!("{:.1} MiB", value / 1024.0),
        _ => format!("{value:.0} KiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut text = "{\"docker\":\"26\",\"podman\":\"5\",\"crun\":\"crun 1\",\"kernel\":\"6\",\"processors\":2,\"samples\":3}\n".to_owned();
        for (row, engine, unit, samples) in [
            ("run", "hull", "ms", vec![20.0, 22.0, 21.0]),
            ("run", "docker", "ms", vec![300.0]),
            ("exec", "hull", "ms", vec![9.0]),
            ("exec", "crun", "ms", vec![10.0]),
            ("idle memory", "hull", "KiB", vec![12288.0]),
        ] {
            let figure = Figure::new(row, engine, unit, samples, &[]);
            text.push_str(&(serde_json::to_string(&figure).unwrap() + "\n"));
        }
        Report::parse(&text).unwrap()
    }

    #[test]
    fn the_table_says_what_is_reached() {
        let table = report().table();
        assert!(table.contains("| 21 ms (20 ms – 22 ms) | 300 ms |"), "{table}");
        assert!(table.contains("| 0.100 of docker | yes: 0.070 |"), "{table}");
        assert!(table.contains("| 0.600 of crun | **no**: 0.900 |"), "{table}");
        assert!(table.contains("| under 15.0 MiB | yes |"), "{table}");
        assert!(!table.contains("ps -a"), "{table}");
    }

    #[test]
    fn the_page_keeps_what_stands_around_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("p.md");
        fs::write(&page, format!("before\n{}\nold\n{}\nafter\n", PLACE.begin, PLACE.end)).unwrap();
        report().write_into(&page).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n"));
        assert!(text.contains("docker 26") && !text.contains("old"), "{text}");
    }
}
