//! Where the project lies and what cargo knows of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The target triple of everything Hull ships, named in `.cargo/config.toml` too.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs that `dist` and `install` deliver.
pub(crate) const BINARIES: [&str; 4] = ["hull", "hulld", "hull-runtime", "hull-registry"];

/// Those of them that an engine needs.
pub(crate) const ENGINE: [&str; 3] = ["hull", "hulld", "hull-runtime"];

/// The work tree that this task was built from.
pub(crate) struct Project {
    root: PathBuf,
}

impl Project {
    /// Finds the work tree from the place of this crate's sources.
    pub(crate) fn locate() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in no work tree")?;
        Ok(Self { root: root.to_path_buf() })
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// The folder that cargo builds into; the program of `profile` is `<it>/<profile>/<name>`.
    pub(crate) fn built(&self, profile: &str) -> PathBuf {
        self.target().join(TARGET).join(profile)
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// A `cargo` command in the work tree.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// The workspace's own packages.
    pub(crate) fn packages(&self) -> Result<Vec<Package>> {
        let output = self
            .cargo(&["metadata", "--format-version=1", "--no-deps", "--locked"])
            .output()
            .context("cargo metadata cannot be run")?;
        ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata's answer")?;
        Ok(metadata.packages)
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A package of the workspace as `cargo metadata` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
}

/// An arrow from a package to another.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// None for an ordinary dependency, else "dev" or "build".
    pub(crate) kind: Option<String>,
    /// Set for packages of the workspace.
    pub(crate) path: Option<PathBuf>,
}
