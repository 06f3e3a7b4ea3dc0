//! Images between engines, registries and archives.

use std::{
    cell::Cell,
    fs,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hull_fixtures::{host::with, wait};

use super::{
    engines::{Engine, quietly},
    memory, room,
    rows::Bench,
    sample::{Figure, Turn, in_turns},
};

/// A registry that keeps what the rows pull.
const KEPT: &str = "127.0.0.1:5000";

/// A registry that is emptied after every push.
const EMPTIED: &str = "127.0.0.1:5001";

/// Images that `image ls` lists.
const LISTED: usize = 500;

/// Six layers made of the room's own files, as an image layout: real names, sizes and contents. Arguments: the folder, and
/// the name of the image.
const BIG: &str = r#"set -e
cd "$1"; mkdir -p big/blobs/sha256; layers= diffs=
put() { d=$(sha256sum "$1" | cut -d' ' -f1); s=$(stat -c %s "$1"); mv "$1" big/blobs/sha256/$d; }
for part in usr/bin usr/sbin usr/lib usr/share usr/libexec var/lib/dpkg; do
    tar -C / --sort=name -cf layer "$part"
    diff=$(sha256sum layer | cut -d' ' -f1); gzip -1 -n layer; put layer.gz
    diffs="$diffs,\"sha256:$diff\""
    layers="$layers,{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"sha256:$d\",\"size\":$s}"
done
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}' "${diffs#,}" > config
put config
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' $d $s "${layers#,}" > manifest
put manifest
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"%s"}}]}' $d $s "$2" > big/index.json
printf '{"imageLayoutVersion":"1.0.0"}' > big/oci-layout"#;

/// docker's registry on an address; it ends when dropped.
struct Registry(Child);

impl Registry {
    /// Starts one; none, and the reason told, where the program is missing.
    fn start(address: &str) -> Result<Option<Self>> {
        let folder = folder(address);
        fs::create_dir_all(&folder)?;
        let settings = format!("{folder}.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {folder}}}}}\nhttp: {{addr: {address}}}\n"
        );
        fs::write(&settings, text)?;
        let mut command = Command::new("docker-registry");
        command.args(["serve", &settings]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!("    left out: docker-registry: {error}");
                return Ok(None);
            }
        };
        let registry = Self(child);
        wait::until("the registry", || std::net::TcpStream::connect(address).ok())?;
        Ok(Some(registry))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a registry keeps its content: on the disk the engines are on.
fn folder(address: &str) -> String {
    format!("/var/lib/hull-bench/registry-{}", address.rsplit(':').next().unwrap_or_default())
}

fn shell(script: &str, arguments: &[&str]) -> Result<()> {
    quietly(with(with(Command::new("bash"), &["-c", script, "bash"]), arguments))
}

/// The client of dockerd's own containerd.
fn ctr(arguments: &[&str]) -> Command {
    let socket = "/run/docker/containerd/containerd.sock";
    with(with(Command::new("ctr"), &["-a", socket, "-n", "bench"]), arguments)
}

/// `pull` or `push` of an image at a registry without TLS.
fn transfer(engine: &Engine, verb: &str, name: &str) -> Result<()> {
    match engine.name {
        "podman" => engine.call(&[verb, "-q", "--tls-verify=false", name]),
        _ => engine.call(&[verb, "-q", name]),
    }
}

impl Bench {
    /// Every row about images; they share an image that takes long to make.
    pub(super) fn images(&mut self) -> Result<()> {
        self.image_list()?;
        let (Some(_kept), Some(emptied)) = (Registry::start(KEPT)?, Registry::start(EMPTIED)?) else {
            return Ok(());
        };
        let place = tempfile::tempdir_in(room::RESULTS)?;
        let place = place.path().to_string_lossy().into_owned();
        let big = format!("{KEPT}/bench/big:1");
        shell(BIG, &[&place, &big])?;
        self.hull.ok(&["load", "-q", "-i", &format!("{place}/big")])?;
        transfer(&self.hull, "push", &big)?;
        self.memory_of_a_pull(&big)?;
        self.small_new_layer(&big)?;
        self.push_big(&big, emptied)?;
        self.save_and_load(&big, &place)?;
        self.engines().into_iter().try_for_each(|engine| engine.call(&["rmi", "-f", &big]))
    }

    /// Samples of what takes seconds.
    fn few(&self) -> usize {
        self.samples.div_ceil(3).max(1)
    }

    /// The most memory engines have while they pull, without their clients'.
    fn memory_of_a_pull(&mut self, big: &str) -> Result<()> {
        let mut figures = Vec::new();
        for engine in [&self.hull, &self.docker] {
            // The image may be there: nothing of it must be.
            let _ = engine.call(&["rmi", "-f", big]);
            let done = AtomicBool::new(false);
            let peak = std::thread::scope(|scope| {
                let watch = scope.spawn(|| {
                    let mut peak = 0;
                    while !done.load(Ordering::Relaxed) {
                        peak = peak.max(memory::pss(engine.own));
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    peak
                });
                let pulled = transfer(engine, "pull", big);
                done.store(true, Ordering::Relaxed);
                pulled.map(|()| watch.join().unwrap_or_default())
            })?;
            figures.push(Figure::new("memory of a pull", engine.name, "KiB", vec![peak as f64], &[]));
        }
        self.keep(figures)
    }

    /// A pull of an image whose layers are all there but a small one.
    fn small_new_layer(&mut self, big: &str) -> Result<()> {
        let name = format!("{KEPT}/bench/more:1");
        let hull = &self.hull;
        hull.ok(&["create", "--name", "more", "--network", "none", big, "/none"])?;
        hull.ok(&["cp", "/etc/passwd", "more:/new-file"])?;
        hull.ok(&["commit", "more", &name])?;
        hull.ok(&["rm", "-f", "more"])?;
        transfer(hull, "push", &name)?;
        hull.ok(&["rmi", "-f", &name])?;
        transfer(&self.podman, "pull", big)?;
        let name = name.as_str();
        let turns = self.engines().map(|engine| {
            let remove = move || engine.call(&["rmi", name]);
            Turn::new(engine.name, move || transfer(engine, "pull", name)).then(remove)
        });
        let figures = in_turns("pull of a small layer", &turns, self.samples, 1)?;
        drop(turns);
        self.keep(figures)
    }

    /// A push to an empty registry of an image as it was pulled.
    fn push_big(&mut self, big: &str, emptied: Registry) -> Result<()> {
        let name = format!("{EMPTIED}/bench/big:1");
        self.engines().into_iter().try_for_each(|engine| engine.call(&["tag", big, &name]))?;
        quietly(ctr(&["images", "pull", "--plain-http", big]))?;
        quietly(ctr(&["images", "tag", big, &name]))?;
        let registry = Cell::new(Some(emptied));
        let empty = || {
            drop(registry.take());
            fs::remove_dir_all(folder(EMPTIED)).context("emptying the registry")?;
            registry.set(Registry::start(EMPTIED)?);
            Ok(())
        };
        let name = name.as_str();
        let mut turns: Vec<Turn> = Vec::new();
        for engine in self.engines() {
            turns.push(Turn::new(engine.name, move || transfer(engine, "push", name)).then(empty));
        }
        turns.push(Turn::new("ctr", || quietly(ctr(&["images", "push", "--plain-http", name]))).then(empty));
        let figures = in_turns("push of a big image", &turns, self.few(), 1)?;
        drop(turns);
        self.engines().into_iter().try_for_each(|engine| engine.call(&["rmi", name]))?;
        quietly(ctr(&["images", "rm", name, big]))?;
        self.keep(figures)
    }

    fn save_and_load(&mut self, big: &str, place: &str) -> Result<()> {
        let given = format!("{place}/given.tar");
        self.hull.ok(&["save", "-o", &given, big])?;
        let (given, saved) = (given.as_str(), format!("{place}/saved.tar"));
        let saved = saved.as_str();
        let turns = self.engines().map(|engine| {
            let save = move || match engine.name {
                "podman" => engine.call(&["save", "-q", "-o", saved, big]),
                _ => engine.call(&["save", "-o", saved, big]),
            };
            Turn::new(engine.name, save).then(move || Ok(fs::remove_file(saved)?))
        });
        let figures = in_turns("save of a big image", &turns, self.few(), 1)?;
        drop(turns);
        self.keep(figures)?;
        self.engines().into_iter().try_for_each(|engine| engine.call(&["rmi", "-f", big]))?;
        let turns = self.engines().map(|engine| {
            let load = move || engine.call(&["load", "-q", "-i", given]);
            Turn::new(engine.name, load).then(move || engine.call(&["rmi", "-f", big]))
        });
        let figures = in_turns("load of a big image", &turns, self.few(), 1)?;
        drop(turns);
        self.hull.ok(&["load", "-q", "-i", given])?;
        self.engines()[1..].iter().try_for_each(|engine| engine.call(&["load", "-q", "-i", given]))?;
        self.keep(figures)
    }

    fn image_list(&mut self) -> Result<()> {
        self.import()?;
        for engine in self.engines() {
            eprintln!("    {LISTED} images for {}", engine.name);
            // Images of their own, as each import has its date; a repository and a tag for each.
            for number in 0..LISTED {
                let name = format!("localhost/listed/image{number}:1");
                engine.ok(&["import", "-m", &number.to_string(), &self.archive, &name])?;
            }
            ensure!(engine.ok(&["images", "-q"])?.lines().count() >= LISTED, "{} lacks images", engine.name);
        }
        let turns =
            self.engines().map(|engine| Turn::new(engine.name, move || engine.call(&["image", "ls"])));
        let figures = in_turns("image ls of 500", &turns, self.samples, 2)?;
        drop(turns);
        for engine in self.engines() {
            let ids = engine.ok(&["images", "-q", "--filter", "reference=localhost/listed/*"])?;
            let mut arguments = vec!["rmi", "-f"];
            arguments.extend(ids.lines());
            engine.call(&arguments)?;
        }
        self.import()?;
        self.keep(figures)
    }
}
