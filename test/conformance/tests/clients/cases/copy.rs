//! `cp`.

use std::{fs, os::unix::fs::PermissionsExt};

use anyhow::{Context, Result, ensure};
use hull_fixtures::Ran;

use hull_conformance::Ground;

pub(crate) fn in_and_out(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    let here = ground.host.folder().join("copy");
    fs::create_dir_all(here.join("tree/below"))?;
    fs::write(here.join("tree/below/file"), "content")?;
    fs::set_permissions(here.join("tree/below/file"), fs::Permissions::from_mode(0o750))?;
    std::os::unix::fs::symlink("below/file", here.join("tree/link"))?;
    let at = |path: &str| here.join(path).display().to_string();
    // Into a folder that is there, and one that is not.
    ground.ok(&["cp", &at("tree"), "box:/tmp"])?;
    ground.ok(&["cp", &at("tree"), "box:/new"])?;
    ground.ok(&["cp", &at("tree/."), "box:/etc"])?;
    let said = ground.ok(&[
        "exec",
        "box",
        "sh",
        "-c",
        "cat /tmp/tree/link /new/link /etc/link; stat -c %a /new/below/file",
    ])?;
    ensure!(said == "contentcontentcontent750", "{said}");
    ground.ok(&["cp", &at("tree/below/file"), "box:/tmp/renamed"])?;
    ground.ok(&["exec", "box", "test", "-f", "/tmp/renamed"])?;
    ground.ok(&["cp", "box:/tmp/tree", &at("back")])?;
    ensure!(fs::read_to_string(here.join("back/link"))? == "content");
    ground.ok(&["cp", "box:/tmp/renamed", &at(".")])?;
    ensure!(fs::metadata(here.join("renamed"))?.permissions().mode() & 0o777 == 0o750);
    Ok(())
}

pub(crate) fn streams(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    let mut tar = tar::Builder::new(Vec::new());
    hull_fixtures::image::add_file(&mut tar, "piped", 0o600, b"through")?;
    let bytes = tar.into_inner()?;
    Ran::with_input(ground.command(&["cp", "-", "box:/tmp"]), &bytes)?.ok()?;
    ensure!(ground.ok(&["exec", "box", "cat", "/tmp/piped"])? == "through");
    let mut command = ground.command(&["cp", "box:/tmp/piped", "-"]);
    command.stdin(std::process::Stdio::null());
    let output = command.output()?;
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    let entry = archive.entries()?.next().context("an empty archive")??;
    ensure!(entry.path()?.display().to_string() == "piped" && entry.size() == 7);
    Ok(())
}

pub(crate) fn a_stopped_container(ground: &Ground) -> Result<()> {
    ground.ok(&["create", "--name", "box", "busybox", "cat", "/tmp/file"])?;
    let file = ground.host.folder().join("file");
    fs::write(&file, "early")?;
    ground.ok(&["cp", &file.display().to_string(), "box:/tmp/file"])?;
    ensure!(ground.ok(&["start", "-a", "box"])? == "early");
    let back = ground.host.folder().join("back");
    ground.ok(&["cp", "box:/tmp/file", &back.display().to_string()])?;
    ensure!(fs::read_to_string(back)? == "early");
    Ok(())
}

pub(crate) fn what_is_not_there(ground: &Ground) -> Result<()> {
    ground.lasting(&["--name", "box"])?;
    let to = ground.host.folder().join("x").display().to_string();
    ground.refused(&["cp", "box:/no/such", &to], 1, "Could not find the file /no/such in container box")?;
    ground.refused(&["cp", "nosuch:/etc", &to], 1, "No such container: nosuch")?;
    ground.refused(&["cp", "/no/such", "box:/tmp"], 1, "no such file or directory")?;
    // A link of the container that points out of it leads nowhere on the machine.
    ground.ok(&["exec", "box", "ln", "-s", "/../../../../etc/hostname", "/tmp/out"])?;
    ground.ok(&["exec", "box", "sh", "-c", "rm -f /etc/hostname2; ln -s / /tmp/root"])?;
    let secret = ground.host.folder().join("only-on-the-machine");
    fs::write(&secret, "secret")?;
    let through = format!("box:/tmp/root{}", secret.display());
    ground.refused(&["cp", &through, &to], 1, "Could not find the file")
}
