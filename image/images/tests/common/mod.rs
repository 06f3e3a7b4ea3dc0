//! Images made in memory and a registry whose every answer a test can spoil.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hull_content::{Store, sha256};
use hull_distribution::{Access, Client, Config, Credentials, Repository};
pub use hull_fixtures::made::noise;
use hull_images::{Image, ImageError, ImageStore, Leased, PullEvent, PullProgress, PullRequest};
use hull_layer::Layers;
use hull_layer::tar::{Entry, Kind, Writer};
use hull_model::{Descriptor, Digest, Reference, media_type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A tar with these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (name, data) in files {
        writer.append_bytes(&Entry::new(Kind::File, *name), data).unwrap();
    }
    writer.finish().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Documents and blobs of an image.
#[derive(Clone)]
pub struct Sample {
    pub blobs: HashMap<String, Vec<u8>>,
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub layers: Vec<Digest>,
}

impl Sample {
    /// An image of these layers, given as uncompressed tars and as the blobs that hold them.
    pub fn new(layers: &[(Vec<u8>, Vec<u8>)], architecture: &str) -> Self {
        let mut blobs = HashMap::new();
        let mut add = |kind: &str, bytes: &[u8]| {
            let digest = sha256(bytes);
            blobs.insert(digest.to_string(), bytes.to_vec());
            Descriptor::new(kind, digest, bytes.len() as u64)
        };
        let diff_ids: Vec<_> = layers.iter().map(|(tar, _)| sha256(tar)).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = add(media_type::OCI_CONFIG, &serde_json::to_vec(&config).unwrap());
        let layers: Vec<_> = layers.iter().map(|(_, blob)| add(media_type::OCI_LAYER_GZIP, blob)).collect();
        let digests = layers.iter().map(|l| l.digest.clone()).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        Self { blobs, manifest, media_type: media_type::OCI_MANIFEST.into(), layers: digests }
    }

    /// Two layers of some size.
    pub fn ordinary() -> Self {
        let first = tar(&[("etc/a", b"one"), ("data", &noise(1, 300_000))]);
        let second = tar(&[("etc/b", b"two"), ("etc/.wh.a", b"")]);
        Self::new(&[(first.clone(), gzip(&first)), (second.clone(), gzip(&second))], "amd64")
    }
}

#[derive(Clone, Debug)]
pub struct Req {
    pub method: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
    /// How many requests of this method and path came before.
    pub before: usize,
}

impl Req {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Says another length than it sends.
    pub claimed: Option<usize>,
    pub fault: Fault,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    /// Says nothing, ever.
    Hang,
    /// Closes before the answer.
    Drop,
    /// Closes after so many bytes of the body.
    Truncate(usize),
    /// Stops after so many bytes of the body without closing.
    Stall(usize),
    /// Sends so many bytes every 20 ms.
    Slow(usize),
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn fault(fault: Fault) -> Self {
        Self { fault, ..Self::new(200, "") }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }
}

type Rule = Box<dyn Fn(&Req) -> Option<Reply> + Send + Sync>;

/// A plain HTTP registry holding samples under any repository, tag `latest` being the last one added.
#[derive(Clone)]
pub struct Server {
    pub address: String,
    state: Arc<Mutex<State>>,
    rules: Arc<Mutex<Vec<Rule>>>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    manifests: HashMap<String, (String, Vec<u8>)>,
    log: Vec<Req>,
}

impl Server {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            state: Arc::default(),
            rules: Arc::default(),
        };
        let task = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(task.clone().serve(stream));
            }
        });
        server
    }

    pub fn add(&self, sample: &Sample) {
        let mut state = self.state.lock().unwrap();
        state.blobs.extend(sample.blobs.clone());
        drop(state);
        self.add_manifest(&sample.media_type, &sample.manifest);
    }

    pub fn add_manifest(&self, media_type: &str, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        for name in ["latest".to_owned(), sha256(bytes).to_string()] {
            state.manifests.insert(name, (media_type.into(), bytes.to_vec()));
        }
    }

    /// Asked before the registry's own answer.
    pub fn rule(&self, rule: impl Fn(&Req) -> Option<Reply> + Send + Sync + 'static) {
        self.rules.lock().unwrap().push(Box::new(rule));
    }

    pub fn log(&self) -> Vec<Req> {
        self.state.lock().unwrap().log.clone()
    }

    pub fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|r| r.path.contains(part)).count()
    }

    pub fn reference(&self) -> Reference {
        Reference::parse_default_tag(&format!("{}/some/image", self.address)).unwrap()
    }

    async fn serve(self, mut stream: TcpStream) {
        let Some(request) = read_request(&mut stream).await else {
            // A TLS greeting, which a plain server answers like this.
            let _ = stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
            return;
        };
        let reply = self.answer(request.clone());
        let length = reply.claimed.unwrap_or(reply.body.len());
        let mut head =
            format!("HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let part = match reply.fault {
            Fault::Hang => return std::future::pending().await,
            Fault::Drop => return,
            Fault::Truncate(n) | Fault::Stall(n) => &reply.body[..n.min(reply.body.len())],
            Fault::None | Fault::Slow(_) => &reply.body,
        };
        let _ = stream.write_all(head.as_bytes()).await;
        if request.method != "HEAD" {
            let step = if let Fault::Slow(step) = reply.fault { step } else { usize::MAX };
            for piece in part.chunks(step) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                if step != usize::MAX {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        let _ = stream.flush().await;
        if matches!(reply.fault, Fault::Stall(_)) {
            std::future::pending::<()>().await;
        }
        let _ = stream.shutdown().await;
    }

    fn answer(&self, mut request: Req) -> Reply {
        {
            let mut state = self.state.lock().unwrap();
            let same = |r: &&Req| r.method == request.method && r.path == request.path;
            request.before = state.log.iter().filter(same).count();
            state.log.push(request.clone());
        }
        for rule in self.rules.lock().unwrap().iter() {
            if let Some(reply) = rule(&request) {
                return reply;
            }
        }
        self.own_answer(&request)
    }

    pub fn own_answer(&self, request: &Req) -> Reply {
        let state = self.state.lock().unwrap();
        let unknown = |code: &str| {
            Reply::new(
                404,
                format!(
                    r#"{{"errors":[{{"code":"{code}","message":"{}"}}]}}"#,
                    code.to_lowercase().replace('_', " ")
                ),
            )
        };
        let path = request.path.split('?').next().unwrap_or_default();
        let last = path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/manifests/") {
            return match state.manifests.get(last) {
                Some((kind, bytes)) => Reply::new(200, bytes.clone())
                    .header("Content-Type", kind)
                    .header("Docker-Content-Digest", sha256(bytes)),
                None => unknown("MANIFEST_UNKNOWN"),
            };
        }
        if !request.path.contains("/blobs/") {
            return Reply::new(200, "{}");
        }
        let Some(blob) = state.blobs.get(last) else { return unknown("BLOB_UNKNOWN") };
        let range = request.header("range").strip_prefix("bytes=").and_then(|r| r.split_once('-'));
        let range = range.and_then(|(start, last)| {
            let last = if last.is_empty() { blob.len() - 1 } else { last.parse::<usize>().ok()? };
            Some((start.parse::<usize>().ok()?, last))
        });
        match range {
            Some((start, last)) if start <= last && last < blob.len() => Reply::new(206, &blob[start..=last])
                .header("Content-Range", format!("bytes {start}-{last}/{}", blob.len())),
            _ => Reply::new(200, blob.clone()),
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<Req> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut buffer = [0; 16 << 10];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if bytes.first().is_some_and(|b| !b.is_ascii_uppercase()) {
            return None;
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: HashMap<String, String> = lines
        .filter_map(|l| l.split_once(": "))
        .map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => body.extend_from_slice(&buffer[..n]),
        }
    }
    Some(Req { method, path, headers, body, before: 0 })
}

/// A store in a directory of its own.
pub struct Place {
    pub dir: tempfile::TempDir,
    pub store: ImageStore,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        Self { dir, store }
    }

    /// The text of a file of an image, as its topmost layer that has it says.
    pub fn file(&self, image: &Image, name: &str) -> Option<String> {
        let snapshot = self.store.snapshot(image).unwrap();
        let trees = self.store.layers().trees(&snapshot.lower).unwrap();
        trees.paths().iter().find_map(|dir| std::fs::read_to_string(dir.join(name)).ok())
    }

    /// Number of blobs and layers, and of things half done.
    pub fn counts(&self) -> (usize, usize, usize) {
        let blobs = self.store.content().list().unwrap().len();
        let layers = self.store.layers().list().unwrap().len();
        let half = [".staging", ".trash"]
            .map(|n| std::fs::read_dir(self.store.layers().root().join(n)).unwrap().count());
        (blobs, layers, half.iter().sum())
    }
}

pub fn open(dir: &Path) -> ImageStore {
    ImageStore::new(Store::open(dir.join("content")).unwrap(), Layers::open(dir.join("layers")).unwrap())
}

/// Impatient, so that faults are quick.
pub fn config() -> Config {
    Config {
        retries: 3,
        backoff: Duration::from_millis(2),
        idle_timeout: Duration::from_millis(400),
        ..Config::default()
    }
}

pub fn repository(config: Config, reference: &Reference, credentials: Option<Credentials>) -> Repository {
    Client::new(config).repository(reference, Access::Pull, credentials)
}

pub fn quiet() -> PullProgress {
    Arc::new(|_: PullEvent| ())
}

pub fn request(reference: &Reference) -> PullRequest {
    PullRequest {
        reference: reference.clone(),
        platform: Some("linux/amd64".parse().unwrap()),
        concurrency: 3,
    }
}

pub async fn pull(place: &Place, reference: &Reference) -> Result<Leased<Image>, ImageError> {
    let repository = repository(config(), reference, None);
    place.store.pull(&repository, &request(reference), &quiet()).await
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}
