//! Volumes and binds.

use std::fs;

use anyhow::{Result, ensure};

use hull_conformance::Ground;

pub(crate) fn named_volumes_last(ground: &Ground) -> Result<()> {
    ensure!(ground.ok(&["volume", "create", "--label", "a=b", "kept"])? == "kept");
    ground.sh(&["-v", "kept:/data"], "echo content > /data/file")?;
    ensure!(
        ground.sh(&["-v", "kept:/other:ro"], "cat /other/file; touch /other/x 2>/dev/null || echo ro")?
            == "content\nro"
    );
    let place = ground.ok(&["volume", "inspect", "--format", "{{.Mountpoint}}", "kept"])?;
    ensure!(fs::read_to_string(format!("{place}/file"))? == "content\n");
    ground.lasting(&["--name", "user", "-v", "kept:/data"])?;
    ground.refused(&["volume", "rm", "kept"], 1, "volume is in use")?;
    ensure!(ground.ok(&["volume", "ls", "--format", "{{.Name}} {{.Driver}}"])? == "kept local");
    ensure!(
        ground.inspect("user", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}")?
            == "volume kept /data true"
    );
    ground.ok(&["rm", "-f", "-v", "user"])?;
    ensure!(ground.ok(&["volume", "ls", "-q"])? == "kept", "rm -v took a named volume");
    ensure!(ground.ok(&["volume", "rm", "kept"])? == "kept");
    ground.refused(&["volume", "rm", "kept"], 1, "no such volume")?;
    ground.refused(&["volume", "create", "not/valid"], 1, "volume name")
}

pub(crate) fn anonymous_volumes_go_with_the_container(ground: &Ground) -> Result<()> {
    ground.sh(&["-v", "/data"], "touch /data/x")?;
    ensure!(ground.ok(&["volume", "ls", "-q"])?.is_empty(), "run --rm left its volume");
    ground.lasting(&["--name", "box", "-v", "/data"])?;
    let name = ground.ok(&["volume", "ls", "-q"])?;
    ensure!(name.len() == 64, "{name}");
    ground.ok(&["rm", "-f", "box"])?;
    ensure!(ground.ok(&["volume", "ls", "-q"])? == name);
    ground.ok(&["volume", "rm", &name]).map(drop)
}

pub(crate) fn binds_and_mounts(ground: &Ground) -> Result<()> {
    let shared = ground.host.folder().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("file"), "here")?;
    let path = shared.display().to_string();
    ensure!(ground.sh(&["-v", &format!("{path}:/in")], "cat /in/file; echo there > /in/back")? == "here");
    ensure!(fs::read_to_string(shared.join("back"))? == "there\n");
    let mount = format!("type=bind,source={path},target=/in,readonly");
    let said = ground.call(&["run", "--rm", "--mount", &mount, "busybox", "touch", "/in/x"])?;
    ensure!(said.code == 1 && said.stderr.contains("Read-only file system"), "{said}");
    // -v makes a missing folder; --mount refuses it.
    let missing = ground.host.folder().join("missing").display().to_string();
    let refused = format!("type=bind,source={missing},target=/in");
    ground.refused(
        &["run", "--rm", "--mount", &refused, "busybox"],
        125,
        "bind source path does not exist",
    )?;
    ground.sh(&["-v", &format!("{missing}:/in")], "touch /in/x")?;
    ensure!(fs::exists(format!("{missing}/x"))?);
    let tmpfs = ground.sh(
        &["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"],
        "grep ' /t ' /proc/mounts | grep -c size=1024k",
    )?;
    ensure!(tmpfs == "1", "{tmpfs}");
    let volume = ground.sh(&["--mount", "type=volume,source=made,target=/v"], "touch /v/x; ls /v")?;
    ensure!(volume == "x", "{volume}");
    ground.refused(&["run", "--rm", "-v", "relative/path:/in", "busybox"], 125, "relative/path")
}

pub(crate) fn content_of_the_image_is_copied(ground: &Ground) -> Result<()> {
    ensure!(ground.sh(&["-v", "filled:/etc"], "grep -c ^root /etc/passwd")? == "1");
    ensure!(ground.sh(&["-v", "filled:/v"], "ls /v/group")? == "/v/group");
    ensure!(
        ground.sh(
            &["--mount", "type=volume,source=empty,target=/etc,volume-nocopy"],
            "ls /etc/group 2>/dev/null || echo none"
        )? == "none"
    );
    Ok(())
}
