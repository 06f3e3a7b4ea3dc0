//! Folders are layers and arrows point down.

use std::path::Path;

use crate::project::{Dependency, Package};

/// From the ground up. Layers in one row are domains that do not see each other: they meet in the engine.
const ROWS: [&[&str]; 7] = [
    &["spec"],
    &["kernel"],
    &["runtime", "image", "network", "volume"],
    &["engine"],
    &["face"],
    &["bin"],
    &["test", "xtask"],
];

/// One sentence for every arrow that points up or sideways between domains.
pub(crate) fn violations(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let Some(from) = package.manifest_path.parent().and_then(layer) else {
            found.push(format!("{} lies in a folder that is no layer", package.name));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(to) = dependency.path.as_deref().and_then(layer) else { continue };
            if let Some(fault) = fault(from, to, dependency) {
                found.push(format!("{} ({from}) uses {} ({to}): {fault}", package.name, dependency.name));
            }
        }
    }
    found
}

fn fault(from: &str, to: &str, dependency: &Dependency) -> Option<&'static str> {
    // Test helpers are not shipped with what uses them.
    if dependency.kind.as_deref() == Some("dev") && to == "test" {
        return None;
    }
    let (from_row, to_row) = (row(from)?, row(to)?);
    match from_row.cmp(&to_row) {
        std::cmp::Ordering::Less => Some("the arrow points up"),
        std::cmp::Ordering::Greater => None,
        std::cmp::Ordering::Equal if from == "bin" => Some("a program is no library"),
        // xtask runs the suites' helpers.
        std::cmp::Ordering::Equal if from == to || from == "xtask" => None,
        std::cmp::Ordering::Equal => Some("the arrow points sideways"),
    }
}

fn row(layer: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&layer))
}

/// The layer that a package's folder lies in.
fn layer(folder: &Path) -> Option<&'static str> {
    let of = if folder.ends_with("xtask") { folder } else { folder.parent()? };
    let name = of.file_name()?.to_str()?;
    ROWS.iter().copied().flatten().copied().find(|layer| *layer == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(place: &str, uses: &[(&str, Option<&str>)]) -> Package {
        let name = |place: &str| place.replace('/', "-");
        let dependency = |(place, kind): &(&str, Option<&str>)| Dependency {
            name: name(place),
            kind: kind.map(str::to_owned),
            path: Some(Path::new("/w").join(place)),
        };
        Package {
            name: name(place),
            manifest_path: Path::new("/w").join(place).join("Cargo.toml"),
            dependencies: uses.iter().map(dependency).collect(),
        }
    }

    fn found(place: &str, to: &str) -> Vec<String> {
        violations(&[package(place, &[(to, None)])])
    }

    #[test]
    fn arrows_down_and_within_a_layer_are_fine() {
        for (from, to) in [
            ("bin/hull", "face/cli"),
            ("bin/hull-runtime", "runtime/monitor"),
            ("face/cli", "face/client"),
            ("engine/engine", "image/layer"),
            ("image/distribution", "image/content"),
            ("kernel/mount", "kernel/sys"),
            ("runtime/runtime", "spec/model"),
            ("xtask", "test/fixtures"),
        ] {
            assert_eq!(found(from, to), Vec::<String>::new(), "{from} -> {to}");
        }
    }

    #[test]
    fn an_arrow_up_is_named() {
        assert_eq!(
            found("kernel/sys", "engine/meta"),
            ["kernel-sys (kernel) uses engine-meta (engine): the arrow points up"]
        );
        assert_eq!(found("spec/model", "kernel/sys").len(), 1);
        assert_eq!(found("engine/engine", "test/fixtures").len(), 1);
    }

    #[test]
    fn domains_do_not_see_each_other() {
        assert_eq!(
            found("runtime/runtime", "image/layer"),
            ["runtime-runtime (runtime) uses image-layer (image): the arrow points sideways"]
        );
        assert_eq!(found("network/network", "volume/volume").len(), 1);
        assert_eq!(found("bin/hull", "bin/hulld").len(), 1);
        assert_eq!(found("test/fixtures", "xtask").len(), 1);
    }

    #[test]
    fn test_helpers_may_be_used_by_tests_of_any_layer() {
        assert!(violations(&[package("kernel/sys", &[("test/fixtures", Some("dev"))])]).is_empty());
        assert_eq!(violations(&[package("kernel/sys", &[("engine/meta", Some("dev"))])]).len(), 1);
    }

    #[test]
    fn a_folder_outside_the_layers_is_named() {
        assert_eq!(
            violations(&[package("misc/thing", &[])]),
            ["misc-thing lies in a folder that is no layer"]
        );
    }
}
