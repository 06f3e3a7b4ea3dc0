//! The bundle for bare crun: what docker asks of a runtime for the same container, on an overlay mounted beforehand.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::engines::{Engine, IMAGE, quietly};
use crate::step::run;

/// Where docker's containerd keeps the configuration of running containers.
const CONFIGURATIONS: &str = "/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby";

/// A bundle whose root is an overlay on the busybox tree.
pub(super) struct Bundle {
    folder: String,
    id: String,
}

impl Bundle {
    /// Makes the bundle `name` that runs `arguments`, from the configuration that docker makes for such a container.
    pub(super) fn new(docker: &Engine, archive: &str, name: &str, arguments: &[&str]) -> Result<Self> {
        let folder = format!("/var/tmp/bundle-{name}");
        let _ = fs::remove_dir_all(&folder);
        for part in ["lower", "upper", "work", "rootfs"] {
            fs::create_dir_all(Path::new(&folder).join(part))?;
        }
        run(Command::new("tar").args(["-xf", archive, "-C"]).arg(format!("{folder}/lower")))?;
        let layers = format!("lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work");
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &layers])
            .arg(format!("{folder}/rootfs")))?;
        let mut spec = docker_configuration(docker)?;
        spec["root"] = json!({"path": "rootfs", "readonly": false});
        spec["process"]["args"] = json!(arguments);
        spec["linux"]["cgroupsPath"] = json!(format!("/bundle-{name}"));
        // The hook is docker's own way to its network namespace.
        spec.as_object_mut().map(|spec| spec.remove("hooks"));
        fs::write(format!("{folder}/config.json"), serde_json::to_vec(&spec)?)?;
        Ok(Self { folder, id: format!("bench-{name}") })
    }

    /// `crun run` to the end.
    pub(super) fn run(&self) -> Result<()> {
        quietly(crun(&["run", "--bundle", &self.folder, &self.id]))
    }

    /// `crun run --detach`.
    pub(super) fn start(&self) -> Result<()> {
        quietly(crun(&["run", "--detach", "--bundle", &self.folder, &self.id]))
    }

    /// `crun exec` of true.
    pub(super) fn exec(&self) -> Result<()> {
        quietly(crun(&["exec", &self.id, "true"]))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = quietly(crun(&["delete", "--force", &self.id]));
        let _ =
            quietly(hull_fixtures::host::with(Command::new("umount"), &[&format!("{}/rootfs", self.folder)]));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn crun(arguments: &[&str]) -> Command {
    let mut command = Command::new("crun");
    command.args(arguments);
    command
}

/// What docker hands to its runtime. The files it binds in are those of a container that is removed at the end, so
/// they are left out.
fn docker_configuration(docker: &Engine) -> Result<Value> {
    let id = docker.ok(&["run", "-d", "--network", "none", IMAGE, "sleep", "100000"])?;
    let text = fs::read_to_string(format!("{CONFIGURATIONS}/{id}/config.json"));
    docker.remove(&[id])?;
    let mut spec: Value = serde_json::from_str(&text.context("docker's configuration of a container")?)?;
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["type"] != "bind");
    }
    Ok(spec)
}
