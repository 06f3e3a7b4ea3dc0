//! The registry beside Debian's docker-registry, in turns: processor time for each gigabyte that parallel pullers get,
//! and pushes of small images per second.
//!
//! Both serve plain HTTP on loopback from the same disk. The load is made here, by threads that throw away what they
//! get without looking at it, so that the registries have the processors.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hull_fixtures::{made::noise, place};
use rustix::{fs::FlockOperation, net::RecvFlags};

use super::sample::Figure;
use crate::{dist, project::Project, step::step};

/// Layers of the image that is pulled, in bytes: those of an image of 845 MB, compressed.
const LAYERS: [usize; 6] = [30 << 20, 40 << 20, 95 << 20, 45 << 20, 14 << 20, 61 << 20];
const PULLERS: usize = 8;
const PUSHERS: usize = 8;
/// Images that each pusher pushes in a sample.
const IMAGES: u64 = 25;
/// Layer and configuration of a small image, in bytes.
const SMALL: (usize, usize) = (20_000, 1_500);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

#[derive(Args, Clone)]
pub(crate) struct Options {
    /// Samples of each measurement
    #[arg(long, default_value_t = 7)]
    samples: usize,
    /// Measure this program instead of building a new one
    #[arg(long)]
    program: Option<PathBuf>,
    /// Measure although another run uses the machine: processor times stay true, rates do not
    #[arg(long)]
    beside: bool,
}

/// Measures both registries.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "measuring needs root, for the peer's file system");
    let root = place::peers();
    ensure!(
        root.join("usr/bin/docker-registry").is_file(),
        "{} has no docker-registry: chroot into it and apt-get install docker-registry",
        root.display()
    );
    let lock = fs::File::create(root.with_extension("lock"))?;
    if !options.beside {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another run measures now")?;
    }
    let program = match &options.program {
        Some(program) => program.canonicalize().with_context(|| format!("{}", program.display()))?,
        None => dist::run(project)?.join("hull-registry"),
    };
    let results = project.target().join("bench");
    fs::create_dir_all(&results)?;
    let place = tempfile::tempdir_in(&results)?;
    let peers = [Peer::hull(&program, place.path())?, Peer::docker(&root, place.path())?];
    let mut figures = step("pulls by eight at once", || pulls(&peers, options.samples))?;
    figures.extend(step("pushes of small images", || pushes(&peers, options.samples))?);
    for peer in &peers {
        figures.push(Figure::new("registry memory", peer.name, "KiB", vec![peer.memory()?], &[]));
    }
    let mut file = fs::File::create(results.join("registry.jsonl"))?;
    println!("\n| | unit | hull | docker-registry | ratio |\n|---|---|---|---|---|");
    for figure in &figures {
        writeln!(file, "{}", serde_json::to_string(figure)?)?;
    }
    for pair in figures.chunks(2) {
        if let [hull, docker] = pair {
            let ratio = hull.median / docker.median;
            println!(
                "| {} | {} | {:.1} | {:.1} | {ratio:.2} |",
                hull.row, hull.unit, hull.median, docker.median
            );
        }
    }
    println!("\nevery sample: {}", results.join("registry.jsonl").display());
    Ok(())
}

/// A registry that runs.
struct Peer {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Peer {
    fn hull(program: &Path, place: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--config", "/dev/null", "--listen"]);
        Self::start("hull", command, |command, address| {
            command.arg(address.to_string()).arg("--root").arg(place.join("hull"));
            Ok(())
        })
    }

    fn docker(root: &Path, place: &Path) -> Result<Self> {
        let mut command = Command::new("unshare");
        // Mounts of its own, gone with it: the store of the peer is on the same disk as ours.
        let enter = "mount --make-rprivate / && mount --bind \"$2\" \"$1/mnt\" && exec chroot \"$1\" docker-registry serve /mnt/config.yml";
        command.args(["--mount", "sh", "-c", enter, "sh"]).arg(root);
        Self::start("docker-registry", command, |command, address| {
            let folder = place.join("docker");
            fs::create_dir_all(&folder)?;
            let config = format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
                 storage: {{filesystem: {{rootdirectory: /mnt/store}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{address}'}}\n"
            );
            fs::write(folder.join("config.yml"), config)?;
            command.arg(folder);
            Ok(())
        })
    }

    fn start(
        name: &'static str,
        mut command: Command,
        finish: impl Fn(&mut Command, SocketAddr) -> Result<()>,
    ) -> Result<Self> {
        // A port that was free a moment ago.
        let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        finish(&mut command, address)?;
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context(name)?;
        let peer = Self { name, child, address };
        hull_fixtures::wait::until(name, || TcpStream::connect(address).ok())?;
        Ok(peer)
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        Ok((ticks(11) + ticks(12)) / rustix::param::clock_ticks_per_second() as f64)
    }

    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pulls(peers: &[Peer; 2], samples: usize) -> Result<Vec<Figure>> {
    let mut blobs = Vec::new();
    for (seed, size) in LAYERS.iter().enumerate() {
        let layer = noise(seed as u64 + 1, *size);
        let digest = hull_content::sha256(&layer).to_string();
        for peer in peers {
            Connection::open(peer.address)?.push_blob("big", &digest, &layer)?;
        }
        blobs.push(format!("/v2/big/blobs/{digest}"));
    }
    let gigabytes = (LAYERS.iter().sum::<usize>() * PULLERS) as f64 / 1e9;
    let mut cpu = [Vec::new(), Vec::new()];
    let mut rate = [Vec::new(), Vec::new()];
    for round in 0..=samples {
        for (index, peer) in peers.iter().enumerate() {
            let (before, begun) = (peer.cpu()?, Instant::now());
            in_threads(PULLERS, |_| {
                let mut connection = Connection::open(peer.address)?;
                blobs.iter().try_for_each(|path| connection.pull(path))
            })?;
            // The first round warms up.
            if round > 0 {
                cpu[index].push((peer.cpu()? - before) * 1e3 / gigabytes);
                rate[index].push(gigabytes * 1e3 / begun.elapsed().as_secs_f64());
            }
        }
    }
    Ok(figures(peers, [("pull: processor time", "ms/GB", cpu), ("pull: rate", "MB/s", rate)]))
}

fn pushes(peers: &[Peer; 2], samples: usize) -> Result<Vec<Figure>> {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let mut rate = [Vec::new(), Vec::new()];
    let mut cpu = [Vec::new(), Vec::new()];
    let images = IMAGES as f64 * PUSHERS as f64;
    for round in 0..=samples {
        for (index, peer) in peers.iter().enumerate() {
            let (before, begun) = (peer.cpu()?, Instant::now());
            in_threads(PUSHERS, |thread| {
                let mut connection = Connection::open(peer.address)?;
                (0..IMAGES).try_for_each(|_| {
                    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
                    connection.push_image(&format!("small{thread}"), serial)
                })
            })?;
            if round > 0 {
                rate[index].push(images / begun.elapsed().as_secs_f64());
                cpu[index].push((peer.cpu()? - before) * 1e3 / images);
            }
        }
    }
    Ok(figures(peers, [("push: small images", "1/s", rate), ("push: processor time each", "ms", cpu)]))
}

type Samples = [Vec<f64>; 2];

fn figures(peers: &[Peer; 2], rows: [(&str, &str, Samples); 2]) -> Vec<Figure> {
    let row = |(row, unit, samples): (&str, &str, Samples)| {
        let pairs = peers.iter().zip(samples);
        pairs.map(|(peer, samples)| Figure::new(row, peer.name, unit, samples, &[])).collect::<Vec<_>>()
    };
    rows.into_iter().flat_map(row).collect()
}

fn in_threads(count: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a client failed")))
    })
}

/// A client that does as docker does.
struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Connection {
    fn open(host: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        Ok(Self { stream: BufReader::with_capacity(16 << 10, stream), host })
    }

    /// Sends a request; returns status, location and the length of the body, which is still to be read.
    fn send(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<(u16, String, u64)> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if method != "GET" && method != "HEAD" {
            head += &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let stream = self.stream.get_mut();
        if body.len() < 64 << 10 {
            let mut all = head.into_bytes();
            all.extend_from_slice(body);
            stream.write_all(&all)?;
        } else {
            stream.write_all(head.as_bytes())?;
            stream.write_all(body)?;
        }
        let (mut status, mut location, mut length) = (0, String::new(), 0);
        loop {
            let mut line = String::new();
            ensure!(self.stream.read_line(&mut line)? > 0, "{method} {path}: the connection ended");
            let line = line.trim_end();
            if status == 0 {
                status = line.split(' ').nth(1).and_then(|text| text.parse().ok()).context("no status")?;
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "location" => location = value.to_owned(),
                    "content-length" if method != "HEAD" => length = value.parse()?,
                    _ => {}
                }
            }
        }
        Ok((status, location, length))
    }

    /// A request whose answer has a small body.
    fn ask(&mut self, method: &str, path: &str, kind: &str, body: &[u8], wanted: u16) -> Result<String> {
        let (status, location, length) = self.send(method, path, kind, body)?;
        let mut text = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut text)?;
        ensure!(status == wanted, "{method} {path}: {status} {}", String::from_utf8_lossy(&text));
        let (_, path) = location.split_once("://").unwrap_or(("", &location));
        Ok(path.find("/v2/").map_or_else(String::new, |at| path[at..].to_owned()))
    }

    /// Gets a body and throws it away; the kernel does not copy it for us (MSG_TRUNC, tcp(7)).
    fn pull(&mut self, path: &str) -> Result<()> {
        let (status, _, length) = self.send("GET", path, "", b"")?;
        ensure!(status == 200, "GET {path}: {status}");
        let ahead = self.stream.buffer().len();
        self.stream.consume(ahead);
        let mut left = length - ahead as u64;
        let mut buffer = Vec::new();
        while left > 0 {
            let stream = self.stream.get_ref();
            let wanted = usize::try_from(left)?.min(1 << 20);
            let got = discard(stream, &mut buffer, wanted)?;
            ensure!(got > 0, "GET {path}: the connection ended");
            left -= got as u64;
        }
        Ok(())
    }

    fn push_blob(&mut self, repository: &str, digest: &str, bytes: &[u8]) -> Result<()> {
        let kind = "application/octet-stream";
        self.ask("HEAD", &format!("/v2/{repository}/blobs/{digest}"), "", b"", 404)?;
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), kind, b"", 202)?;
        let next = self.ask("PATCH", &begun, kind, bytes, 202)?;
        let sign = if next.contains('?') { '&' } else { '?' };
        self.ask("PUT", &format!("{next}{sign}digest={digest}"), kind, b"", 201).map(drop)
    }

    fn push_image(&mut self, repository: &str, serial: u64) -> Result<()> {
        let (layer, config) = (noise(serial * 2, SMALL.0), noise(serial * 2 + 1, SMALL.1));
        let (layer_digest, config_digest) = (hull_content::sha256(&layer), hull_content::sha256(&config));
        self.push_blob(repository, layer_digest.as_str(), &layer)?;
        self.push_blob(repository, config_digest.as_str(), &config)?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest.as_str(),
                "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer_digest.as_str(),
                "size": layer.len() }] });
        let path = format!("/v2/{repository}/manifests/v{serial}");
        self.ask("PUT", &path, MANIFEST, manifest.to_string().as_bytes(), 201).map(drop)
    }
}

/// Reads and throws away at most `wanted` bytes.
fn discard(stream: &TcpStream, buffer: &mut Vec<u8>, wanted: usize) -> Result<usize> {
    buffer.resize(wanted, 0);
    // How many there were; none of them is in the buffer.
    let (_, got) = rustix::net::recv(stream.as_fd(), &mut buffer[..], RecvFlags::TRUNC)?;
    Ok(got)
}
