//! Other engines with this runtime in place of theirs: podman, docker and containerd as the distribution has them.
//!
//! They run on a copy, under mounts that end with the test, of the Debian root that `cargo xtask bench` makes
//! (`HULL_BENCH_ROOT`). What is done is told by `callers/script.sh`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{Ran, host::apart, image, place, skip};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/callers").join(name)
}

/// An archive of a root file system: busybox and a link for each of its commands.
fn root_archive(folder: &Path) -> Result<PathBuf> {
    let busybox = image::busybox_program()?;
    let mut archive = tar::Builder::new(fs::File::create(folder.join("root.tar"))?);
    for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
        archive.append_dir(name, folder)?;
    }
    archive.append_path_with_name(&busybox, "bin/busybox")?;
    let mut command = Command::new(&busybox);
    command.arg("--list");
    for name in Ran::new(command)?.ok()?.lines().filter(|name| *name != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    archive.finish()?;
    Ok(folder.join("root.tar"))
}

fn called_by(caller: &str) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip(caller, "needs root");
        return Ok(());
    }
    let root = place::peers();
    if !root.join("usr/bin").is_dir() {
        skip(caller, &format!("there is no Debian root at {} (cargo xtask bench makes it)", root.display()));
        return Ok(());
    }
    let scratch = place::scratch()?;
    let mut command = apart();
    command.arg("sh");
    command.arg(script("room.sh")).arg(&root).arg(place::program("hull-runtime")?);
    command.arg(root_archive(scratch.path())?).arg(script("script.sh")).arg(caller);
    let ran = Ran::new(command).context("room.sh")?;
    if let Some(why) = ran.stdout.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        skip(caller, why);
        return Ok(());
    }
    ensure!(ran.code == 0 && ran.stdout.trim_end().ends_with("DONE"), "{ran}");
    Ok(())
}

#[test]
fn podman() -> Result<()> {
    called_by("podman")
}

#[test]
fn docker() -> Result<()> {
    called_by("docker")
}

#[test]
fn containerd() -> Result<()> {
    called_by("containerd")
}
