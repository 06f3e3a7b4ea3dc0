//! Binaries and systemd units in their places.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    dist,
    project::{BINARIES, Project},
    step::step,
};

/// The units as they lie in the tree; `@BINDIR@` stands for the folder of the programs.
const UNITS: [&str; 3] = ["hulld.service", "hulld.socket", "hull-registry.service"];

#[derive(Args)]
pub(crate) struct Options {
    /// The folder that bin/ and lib/systemd/system/ lie under
    #[arg(long, default_value = "/usr/local")]
    prefix: PathBuf,
    /// Put everything under this folder instead of /, as packagers do
    #[arg(long)]
    destdir: Option<PathBuf>,
}

impl Options {
    /// `path` as it will be on the machine, seen from here.
    fn place(&self, path: &Path) -> PathBuf {
        match &self.destdir {
            Some(destdir) => destdir.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_path_buf(),
        }
    }
}

/// Builds what is to be installed and installs it.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let dist = dist::run(project)?;
    step("install", || {
        let bin = options.prefix.join("bin");
        for binary in BINARIES {
            put(&fs::read(dist.join(binary))?, &options.place(&bin.join(binary)), 0o755)?;
        }
        for unit in UNITS {
            let text = fs::read_to_string(project.path("packaging").join(unit))
                .with_context(|| format!("packaging/{unit}"))?;
            let place = options.prefix.join("lib/systemd/system").join(unit);
            put(with_bindir(&text, &bin).as_bytes(), &options.place(&place), 0o644)?;
        }
        Ok(())
    })?;
    eprintln!("\nTry: systemctl enable --now hulld.socket && hull run --rm hello");
    eprintln!("(Without systemd there is nothing to enable: hull starts its engine by itself.)");
    Ok(())
}

fn with_bindir(unit: &str, bin: &Path) -> String {
    unit.replace("@BINDIR@", &bin.to_string_lossy())
}

/// Writes beside the place and renames, so that a running program or a reader never sees half a file.
fn put(bytes: &[u8], place: &Path, mode: u32) -> Result<()> {
    let folder = place.parent().context("no folder to install into")?;
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    std::io::Write::write_all(&mut beside, bytes)?;
    beside.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    beside.persist(place).with_context(|| format!("{}", place.display()))?;
    eprintln!("    {}", place.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destdir_goes_before_the_prefix() {
        let options = Options { prefix: "/usr".into(), destdir: Some("/tmp/pkg".into()) };
        assert_eq!(options.place(Path::new("/usr/bin/hull")), Path::new("/tmp/pkg/usr/bin/hull"));
        let options = Options { prefix: "/usr".into(), destdir: None };
        assert_eq!(options.place(Path::new("/usr/bin/hull")), Path::new("/usr/bin/hull"));
    }

    #[test]
    fn units_name_the_programs_of_the_prefix() {
        assert_eq!(
            with_bindir("ExecStart=@BINDIR@/hulld", Path::new("/opt/bin")),
            "ExecStart=/opt/bin/hulld"
        );
    }

    #[test]
    fn a_file_is_put_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a/b");
        put(b"x", &place, 0o755).unwrap();
        put(b"y", &place, 0o755).unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"y");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
