//! Images.

use anyhow::{Context, Result, ensure};
use hull_fixtures::{debian, registry::Registry, skip};
use serde_json::Value;

use hull_conformance::Ground;

pub(crate) fn tag_list_inspect_history_remove(ground: &Ground) -> Result<()> {
    ground.ok(&["tag", "busybox", "other:v1"])?;
    let listed = ground.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    ensure!(listed == ["busybox:latest", "other:v1"], "{listed:?}");
    ensure!(ground.ok(&["images", "-q", "--no-trunc"])?.lines().all(|id| id.starts_with("sha256:")));
    ensure!(ground.ok(&["images"])?.starts_with("REPOSITORY"));
    let history = ground.ok(&["history", "--format", "{{.Comment}}", "busybox"])?;
    ensure!(history.to_lowercase().contains("imported from"), "{history}");
    let image: Value = serde_json::from_str(&ground.ok(&["image", "inspect", "other:v1"])?)?;
    ensure!(image[0]["Config"]["Cmd"] == serde_json::json!(["sh"]) && image[0]["Os"] == "linux", "{image}");
    ensure!(image[0]["RootFS"]["Layers"].as_array().map(Vec::len) == Some(1), "{image}");
    let removed = ground.ok(&["rmi", "other:v1"])?;
    ensure!(removed == "Untagged: other:v1", "{removed}");
    ground.refused(&["rmi", "nosuch"], 1, "No such image: nosuch")?;
    ground.refused(&["tag", "nosuch", "x"], 1, "No such image: nosuch")?;
    ground.refused(&["tag", "busybox", "Not Valid"], 1, "not a valid")
}

pub(crate) fn save_and_load(ground: &Ground) -> Result<()> {
    let file = ground.host.folder().join("saved.tar").display().to_string();
    let id = ground.ok(&["images", "-q", "--no-trunc", "busybox"])?;
    ground.ok(&["save", "-o", &file, "busybox"])?;
    ground.ok(&["rmi", "busybox"])?;
    ensure!(ground.ok(&["images", "-q"])?.is_empty());
    let said = ground.ok(&["load", "-i", &file])?;
    ensure!(said.contains("Loaded image: busybox:latest"), "{said}");
    ensure!(ground.ok(&["images", "-q", "--no-trunc", "busybox"])? == id, "the id changed on its way");
    ensure!(ground.sh(&[], "echo works")? == "works");
    Ok(())
}

pub(crate) fn import_with_changes(ground: &Ground) -> Result<()> {
    let file = ground.host.folder().join("busybox.tar").display().to_string();
    let change = [
        "-c",
        "ENTRYPOINT [\"/bin/echo\"]",
        "-c",
        "CMD [\"a\", \"b\"]",
        "-c",
        "WORKDIR /tmp",
        "-c",
        "LABEL l=1",
        "-c",
        "USER user",
        "-c",
        "EXPOSE 80",
    ];
    let id = ground.ok(&[&["import"], &change[..], &["-m", "why", &file, "changed:1"]].concat())?;
    ensure!(id.starts_with("sha256:"), "{id}");
    ensure!(ground.ok(&["run", "--rm", "changed:1"])? == "a b");
    ensure!(
        ground.ok(&["run", "--rm", "--entrypoint", "sh", "changed:1", "-c", "pwd; id -u"])? == "/tmp\n1000"
    );
    let exposed = ground.ok(&[
        "image",
        "inspect",
        "--format",
        "{{json .Config.ExposedPorts}} {{.Config.Labels.l}}",
        "changed:1",
    ])?;
    ensure!(exposed == "{\"80/tcp\":{}} 1", "{exposed}");
    ground.ok(&["rmi", "changed:1"]).map(drop)
}

pub(crate) fn push_and_pull(ground: &Ground) -> Result<()> {
    if debian::cached("docker-registry", "usr/bin/docker-registry").is_none() {
        skip("registry", "the package docker-registry was not fetched (cargo xtask test does)");
        return Ok(());
    }
    let registry = Registry::start(ground.host)?;
    let name = format!("{}/some/box:v1", Registry::ADDRESS);
    ground.ok(&["tag", "busybox", &name])?;
    ground.ok(&["push", &name])?;
    let digest = ground.ok(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &name])?;
    ensure!(digest.contains("@sha256:"), "{digest}");
    ground.ok(&["rmi", &name, "busybox"])?;
    let said = ground.ok(&["pull", &name])?;
    ensure!(said.contains("Status: Downloaded newer image for ") && said.ends_with(&name), "{said}");
    let again = ground.ok(&["pull", &name])?;
    ensure!(again.contains("Status: Image is up to date for "), "{again}");
    ensure!(ground.ok(&["run", "--rm", &name, "echo", "pulled"])? == "pulled");
    ground.ok(&["rmi", &name])?;
    // By digest, and on demand.
    let (_, hex) = digest.split_once("@sha256:").context("no digest")?;
    let by_digest = format!("{}/some/box@sha256:{hex}", Registry::ADDRESS);
    let ran = ground.call(&["run", "--rm", &by_digest, "echo", "pulled"])?;
    ensure!(
        ran.code == 0 && ran.stdout == "pulled\n" && ran.stderr.contains("Unable to find image"),
        "{ran}"
    );
    let nosuch = format!("{}/nosuch", Registry::ADDRESS);
    let refused = ground.call(&["pull", &nosuch])?;
    ensure!(
        refused.code == 1 && refused.stderr.to_lowercase().contains("not found")
            || refused.stderr.contains("manifest unknown"),
        "{refused}"
    );
    drop(registry);
    Ok(())
}

pub(crate) fn an_image_in_use(ground: &Ground) -> Result<()> {
    let id = ground.lasting(&[])?;
    let refused = ground.call(&["rmi", "busybox"])?;
    ensure!(refused.code == 1 && refused.stderr.contains(&id[..12]), "{refused}");
    ensure!(ground.sh(&[], "echo works")? == "works");
    Ok(())
}
