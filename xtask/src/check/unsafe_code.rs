//! Unsafe code stays in `kernel/sys`. The compiler denies it by a workspace lint; this check finds crates
//! that do not take the workspace's lints and attributes that allow it again.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::project::Project;

const HOME: &str = "kernel/sys";

/// One sentence for every crate or file that could hold unsafe code and should not.
pub(crate) fn violations(project: &Project) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for package in project.packages()? {
        let Some(folder) = package.manifest_path.parent() else { continue };
        if folder.ends_with(HOME) {
            continue;
        }
        let manifest = read(&package.manifest_path)?;
        if !takes_workspace_lints(&manifest) {
            found.push(format!("{}: [lints] workspace = true is missing", package.manifest_path.display()));
        }
        for source in sources(folder)? {
            let text = read(&source)?;
            let lines = text.lines().enumerate().filter(|(_, line)| allows_unsafe(line));
            found.extend(lines.map(|(at, line)| format!("{}:{}: {}", source.display(), at + 1, line.trim())));
        }
    }
    Ok(found)
}

fn takes_workspace_lints(manifest: &str) -> bool {
    let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]").skip(1);
    lines.find(|line| !line.is_empty()).is_some_and(|line| line.replace(' ', "") == "workspace=true")
}

fn allows_unsafe(line: &str) -> bool {
    let code = line.trim();
    let attribute = code.starts_with("#[") || code.starts_with("#![");
    attribute && code.contains("unsafe_code") && !code.contains("forbid") && !code.contains("deny")
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_allow_unsafe_are_seen() {
        assert!(allows_unsafe("#![allow(unsafe_code)]"));
        assert!(allows_unsafe("    #[expect(unsafe_code, reason = \"x\")]"));
        assert!(!allows_unsafe("#![forbid(unsafe_code)]"));
        assert!(!allows_unsafe("// unsafe_code is denied"));
    }

    #[test]
    fn lints_of_the_workspace_are_required() {
        assert!(takes_workspace_lints("[package]\nname = \"x\"\n[lints]\nworkspace = true\n"));
        assert!(!takes_workspace_lints("[package]\nname = \"x\"\n[lints.rust]\nunsafe_code = \"allow\"\n"));
        assert!(!takes_workspace_lints("[package]\n"));
    }
}
