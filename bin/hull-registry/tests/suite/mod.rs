//! A registry that runs, and requests to it.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A registry of the program under test.
pub(crate) struct Registry {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Registry {
    /// Starts one on a free port.
    pub(crate) fn start(root: &Path, flags: &[&str]) -> Self {
        Self::start_at(root, "127.0.0.1:0", Path::new("/dev/null"), flags)
    }

    /// Starts one with a configuration file.
    pub(crate) fn start_with(root: &Path, config: &Path) -> Self {
        Self::start_at(root, "127.0.0.1:0", config, &[])
    }

    pub(crate) fn start_at(root: &Path, listen: &str, config: &Path, flags: &[&str]) -> Self {
        let mut command = command();
        command
            .args(["serve", "--listen", listen, "--config"])
            .arg(config)
            .arg("--root")
            .arg(root)
            .args(flags);
        Self::spawn(command).expect("the registry ended")
    }

    /// Starts one whose root is a small disk of its own, in mounts of its own; none if that cannot be made.
    pub(crate) fn start_on_small_disk(root: &Path, size: &str) -> Option<Self> {
        let mut command = Command::new("unshare");
        let enter = "mount -t tmpfs -o size=$1 tmpfs \"$2\" && exec \"$3\" serve --listen 127.0.0.1:0 --config /dev/null --root \"$2\"";
        command
            .args(["--mount", "sh", "-c", enter, "sh", size])
            .arg(root)
            .arg(env!("CARGO_BIN_EXE_hull-registry"));
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Option<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().ok()?;
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let address = loop {
            line.clear();
            if log.read_line(&mut line).unwrap() == 0 {
                let _ = child.wait();
                return None;
            }
            let plain: String = strip_colours(&line);
            if let Some((_, rest)) = plain.split_once("addresses=\"") {
                break rest.split(['"', ' ']).next().unwrap().parse().unwrap();
            }
        };
        // Somebody has to read on, or the registry waits for it.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Some(Self { child, address })
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to end, and waits for it.
    pub(crate) fn stop(mut self) -> bool {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.child.wait().unwrap().success()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        try_ask(self.address, method, path, headers, body).unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    /// Bytes as they are, and all that comes back.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        // A registry that has heard enough may close before all is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Pushes a blob; returns its digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        assert_eq!(self.ask("POST", &path, &[], bytes).status, 201);
        digest
    }

    /// Pushes an image of one layer; returns its digest.
    pub(crate) fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> String {
        let config = self.push_blob(repository, b"{}");
        let layer_digest = self.push_blob(repository, layer);
        let text = manifest(&config, 2, &layer_digest, layer.len());
        let answer =
            self.ask("PUT", &format!("/v2/{repository}/manifests/{tag}"), &[MANIFEST], text.as_bytes());
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest(text.as_bytes())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const MANIFEST: &str = "Content-Type: application/vnd.oci.image.manifest.v1+json";

pub(crate) fn manifest(config: &str, config_size: usize, layer: &str, layer_size: usize) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":{layer_size}}}]}}"#
    )
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hull-registry"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    hull_content::sha256(bytes).to_string()
}

fn strip_colours(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The code of an error.
    pub(crate) fn code(&self) -> String {
        let text = self.text();
        let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next());
        code.unwrap_or_default().to_owned()
    }
}

/// One request on a connection of its own, which may fail.
pub(crate) fn try_ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("content-length")) {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    // Refused early, the rest cannot be sent; the answer counts.
    let _ = stream.write_all(body);
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    read_answer(&all).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

fn read_answer(all: &[u8]) -> Option<Answer> {
    let end = all.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let answer = Answer { status, headers, body: all[end + 4..].to_vec() };
    let length = answer.header("content-length").parse::<usize>().unwrap_or(0);
    (answer.body.len() >= length || answer.body.is_empty()).then_some(answer)
}
