//! Images from a registry on the loopback device: pulled into an empty store, and removed.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use hull_fixtures::wait;

use super::{
    engines::{Engine, quietly},
    room,
    sample::{Figure, Turn, in_turns},
};

const REGISTRY: &str = "127.0.0.1:5000";

/// Directories of the room's own tree, each a layer of `big`; the first, of many small files, is `slim`.
const LAYERS: [&str; 5] = ["usr/share", "usr/lib", "usr/sbin", "usr/libexec", "usr/bin"];

/// A registry with the two images, and where its data stays for the next run.
pub(super) struct Registry(Child);

impl Registry {
    pub(super) fn start(docker: &Engine) -> Result<Self> {
        let store = format!("{}/registry", room::RESULTS);
        let filled = Path::new(&store).join("filled");
        let text = format!(
            "version: 0.1\nlog: {{level: warn, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {store}}}}}\nhttp: {{addr: {REGISTRY}}}\n"
        );
        fs::create_dir_all(&store)?;
        fs::write("/run/registry.yml", text)?;
        let mut command = Command::new("docker-registry");
        command.args(["serve", "/run/registry.yml"]).stdin(Stdio::null()).stdout(Stdio::null());
        let registry = Self(command.stderr(Stdio::null()).spawn().context("docker-registry")?);
        wait::until("the registry", || std::net::TcpStream::connect(REGISTRY).ok())?;
        if !filled.exists() {
            fill(docker)?;
            fs::write(filled, "")?;
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fill(docker: &Engine) -> Result<()> {
    eprintln!("    images for the registry");
    let context = tempfile::tempdir_in(room::RESULTS)?;
    let place = |name: &str| context.path().join(name).display().to_string();
    let mut file = String::from("FROM scratch\n");
    for (number, folder) in LAYERS.iter().enumerate() {
        let name = format!("{number}.tar");
        let mut tar = Command::new("tar");
        tar.args(["-C", "/", "-cf", &place(&name), folder]);
        quietly(tar)?;
        file += &format!("ADD {name} /\n");
        if number == 0 {
            fs::write(place("slim"), &file)?;
        }
    }
    fs::write(place("big"), &file)?;
    for name in ["slim", "big"] {
        let image = image(name);
        let folder = context.path().display().to_string();
        docker.call(&["build", "--network", "none", "-f", &place(name), "-t", &image, &folder])?;
        docker.call(&["push", &image])?;
        docker.call(&["rmi", &image])?;
    }
    docker.call(&["builder", "prune", "-af"])
}

fn image(name: &str) -> String {
    format!("{REGISTRY}/{name}")
}

fn pull(engine: &Engine, image: &str) -> Result<()> {
    match engine.name {
        "podman" => engine.call(&["pull", "--tls-verify=false", image]),
        _ => engine.call(&["pull", image]),
    }
}

/// Pulls of both images and removals of the large one, in turns.
pub(super) fn measure(engines: [&Engine; 3], docker: &Engine, samples: usize) -> Result<Vec<Figure>> {
    let _registry = Registry::start(docker)?;
    let mut figures = Vec::new();
    let (slim, big) = (image("slim"), image("big"));
    for (row, image, rounds) in
        [("pull slim", &slim, samples), ("pull big", &big, samples.div_ceil(3).max(1))]
    {
        let turn = |engine| {
            let remove = move || Engine::call(engine, &["rmi", "-f", image]);
            Turn::new(engine.name, move || pull(engine, image)).then(remove)
        };
        figures.extend(in_turns(row, &engines.map(turn), rounds, 1)?);
    }
    engines.into_iter().try_for_each(|engine| pull(engine, &big))?;
    let image = &big;
    let turn = |engine| {
        let again = move || pull(engine, image);
        Turn::new(engine.name, move || Engine::call(engine, &["rmi", "-f", image])).then(again)
    };
    figures.extend(in_turns("rmi big", &engines.map(turn), samples.div_ceil(3).max(1), 0)?);
    engines.into_iter().try_for_each(|engine| engine.call(&["rmi", "-f", &big]))?;
    Ok(figures)
}
