//! Static release binaries in `target/dist`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::elf;

use crate::{
    project::{BINARIES, Project},
    step::{run as command, step},
};

/// Builds the release binaries and returns the folder they are in.
pub(crate) fn run(project: &Project) -> Result<PathBuf> {
    step("release binaries (some minutes when nothing is built yet)", || {
        let mut build = project.cargo(&["build", "--release", "--locked"]);
        command(build.args(BINARIES.iter().flat_map(|binary| ["--package", binary])))
    })?;
    step("static linking", || collect(project))
}

fn collect(project: &Project) -> Result<PathBuf> {
    let place = project.target().join("dist");
    fs::create_dir_all(&place).with_context(|| format!("{}", place.display()))?;
    for binary in BINARIES {
        let built = project.built("release").join(binary);
        verify(&built)?;
        let put = place.join(binary);
        // Removed first: a running program's file can be replaced but not written to.
        let _ = fs::remove_file(&put);
        let size = fs::copy(&built, &put).with_context(|| format!("{}", put.display()))?;
        eprintln!("    {} ({:.1} MiB)", put.display(), size as f64 / f64::from(1 << 20));
    }
    Ok(place)
}

fn verify(program: &Path) -> Result<()> {
    let needs = elf::interpreter(program)?;
    ensure!(
        needs.is_none(),
        "{} is not static: it asks for {}",
        program.display(),
        needs.unwrap_or_default()
    );
    Ok(())
}
