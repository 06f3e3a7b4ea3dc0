//! `hull cp`: docker's path rules. A source that ends in `/.` stands for its content; a destination that does not
//! exist takes the source's place under its own name.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use tokio::sync::mpsc;

use hull_client::{Client, Query, Reply, empty, path_part, stream_body};
use hull_docker_api::ContainerPathStat;

use crate::command::{Args, Command, Invocation};
use crate::error::{Failure, Result};
use crate::flags::Flag;
use crate::opts::mount::clean;
use crate::output::{self, human};

pub(crate) static COMMAND: Command = Command {
    name: "cp",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\nSRC_PATH|- CONTAINER:DEST_PATH",
    about: "Copy files/folders between a container and the local filesystem",
    aliases: &["container cp", "cp"],
    args: Args::Exactly(2),
    flags: FLAGS,
    interspersed: true,
    run: |invocation| Box::pin(run(invocation)),
};

const FLAGS: &[Flag] = &[
    Flag::switch("archive", "Archive mode (copy all uid/gid information)").short('a'),
    Flag::switch("follow-link", "Always follow symbol link in SRC_PATH").short('L'),
    Flag::switch("quiet", "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached").short('q'),
];

/// Go's `os.ModeDir` and `os.ModeSymlink`.
const MODE_DIR: u32 = 1 << 31;
const MODE_SYMLINK: u32 = 1 << 27;

async fn run(invocation: Invocation) -> Result<u8> {
    let (source, destination) = (split(invocation.arg(0)), split(invocation.arg(1)));
    match (source, destination) {
        ((Some(_), _), (Some(_), _)) => Err("copying between containers is not supported".into()),
        ((None, _), (None, _)) => Err("must specify at least one container source".into()),
        ((Some(container), from), (None, to)) => copy_from(&invocation, container, from, to).await,
        ((None, from), (Some(container), to)) => copy_to(&invocation, from, container, to).await,
    }
}

/// Splits `CONTAINER:PATH`; a path that begins with `/` or `.` is local.
fn split(argument: &str) -> (Option<&str>, &str) {
    if argument.starts_with('/') {
        return (None, argument);
    }
    match argument.split_once(':') {
        Some((container, path)) if !container.starts_with('.') && !container.is_empty() => {
            (Some(container), path)
        }
        _ => (None, argument),
    }
}

/// A path cleaned, with the `/` or `/.` at its end kept: they say that it must be a directory.
fn clean_keeping_end(path: &str) -> String {
    let cleaned = clean(path);
    if path.ends_with("/.") || path == "." {
        return if cleaned == "/" {
            "/.".to_owned()
        } else if cleaned == "." {
            cleaned
        } else {
            format!("{cleaned}/.")
        };
    }
    if path.ends_with('/') && cleaned != "/" {
        return cleaned + "/";
    }
    cleaned
}

fn asserts_directory(path: &str) -> bool {
    path.ends_with('/') || path.ends_with("/.") || path == "."
}

/// The last name of a path; `.` when it stands for the content.
fn base(path: &str) -> String {
    if path.ends_with("/.") || path == "." {
        return ".".to_owned();
    }
    clean(path).rsplit('/').next().unwrap_or_default().to_owned()
}

fn parent(path: &str) -> String {
    match clean(path).rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
        None => ".".to_owned(),
    }
}

/// Where an archive is unpacked, and the name its root takes there (`None`: as it is).
#[derive(Debug, PartialEq)]
struct Placement {
    directory: String,
    rename: Option<String>,
}

/// docker's rules for a destination that is a directory, a file, or missing.
fn place(source_is_dir: bool, destination: &str, is_dir: Option<bool>) -> Result<Placement> {
    let renamed = || Placement { directory: parent(destination), rename: Some(base(destination)) };
    match is_dir {
        Some(true) => Ok(Placement { directory: destination.to_owned(), rename: None }),
        Some(false) if source_is_dir => Err("cannot copy directory".into()),
        Some(false) if asserts_directory(destination) => Err("not a directory".into()),
        None if !source_is_dir && asserts_directory(destination) => Err("no such directory".into()),
        _ => Ok(renamed()),
    }
}

fn archive_path(container: &str) -> String {
    format!("/containers/{}/archive", path_part(container))
}

fn stat_of(reply: &Reply) -> Result<ContainerPathStat> {
    let header = reply.header("X-Docker-Container-Path-Stat").unwrap_or_default();
    let json = base64::engine::general_purpose::STANDARD
        .decode(header)
        .map_err(|error| Failure::new(format!("unable to decode container path stat header: {error}")))?;
    Ok(serde_json::from_slice(&json)?)
}

async fn stat(client: &Client, container: &str, path: &str) -> Result<ContainerPathStat> {
    let query = Query::new().set("path", path);
    let reply =
        client.send(hull_client::Method::HEAD, &archive_path(container), &query, empty(), &[]).await?;
    let stat = stat_of(&reply)?;
    reply.bytes(client).await?;
    Ok(stat)
}

/// The path a symbolic link in a container leads to.
fn link_target(path: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { clean(&format!("{}/{target}", parent(path))) }
}

async fn copy_from(invocation: &Invocation, container: &str, from: &str, to: &str) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let mut source = clean_keeping_end(&format!("/{from}"));
    if from.is_empty() {
        return Err(format!("source can not be empty: {container}:").into());
    }
    let mut name = base(&source);
    if invocation.matches.on("follow-link")
        && let Ok(stat) = stat(&client, container, &source).await
        && stat.mode & MODE_SYMLINK != 0
    {
        source = link_target(&source, &stat.link_target);
        name = base(&source);
    }
    let query = Query::new().set("path", &source);
    let reply = client.send(hull_client::Method::GET, &archive_path(container), &query, empty(), &[]).await?;
    let stat = stat_of(&reply)?;
    if to == "-" {
        crate::commands::write_archive(reply, "").await?;
        return Ok(0);
    }
    let target = clean_keeping_end(to);
    let metadata = std::fs::metadata(&target).ok();
    let placement = place(stat.mode & MODE_DIR != 0, &target, metadata.map(|metadata| metadata.is_dir()))?;
    if !Path::new(&placement.directory).is_dir() {
        return Err(format!("invalid output path: directory {:?} does not exist", placement.directory).into());
    }
    let size = unpack(reply, placement, if name.is_empty() { ".".to_owned() } else { name }).await?;
    report(invocation, size, to);
    Ok(0)
}

fn report(invocation: &Invocation, size: u64, to: &str) {
    if !invocation.matches.on("quiet") && crate::terminal::stdout_is_terminal() {
        output::warn(&format!("Successfully copied {} to {to}", human::size3(size as f64)));
    }
}

/// Unpacks the answer in a thread that may block. What takes another name is unpacked beside its place first, so
/// that nothing in the archive can reach around the directory.
async fn unpack(mut reply: Reply, placement: Placement, root: String) -> Result<u64> {
    let (sender, receiver) = mpsc::channel(4);
    let worker = tokio::task::spawn_blocking(move || unpack_blocking(Pipe::new(receiver), &placement, &root));
    let mut size = 0;
    while let Some(chunk) = reply.chunk().await? {
        size += chunk.len() as u64;
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    worker.await.map_err(|error| Failure::new(error.to_string()))??;
    Ok(size)
}

fn unpack_blocking(pipe: Pipe, placement: &Placement, root: &str) -> Result<()> {
    let mut archive = tar::Archive::new(pipe);
    archive.set_preserve_permissions(true);
    archive.set_overwrite(true);
    let Some(name) = &placement.rename else {
        archive.unpack(&placement.directory)?;
        return drain(archive);
    };
    let directory = Path::new(&placement.directory);
    let staging = directory.join(format!(".hull-cp-{}", std::process::id()));
    std::fs::create_dir(&staging)?;
    let moved = (|| {
        archive.unpack(&staging)?;
        drain(archive)?;
        let unpacked = if root == "." { staging.clone() } else { staging.join(root) };
        std::fs::rename(&unpacked, directory.join(name)).map_err(|error| {
            Failure::new(format!("cannot write {}: {error}", directory.join(name).display()))
        })
    })();
    match std::fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => moved.and(Err(error.into())),
        _ => moved,
    }
}

/// Reads the padding after an archive's end, so that the sender is not cut off.
fn drain(archive: tar::Archive<Pipe>) -> Result<()> {
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok(())
}

/// Chunks of an answer as a blocking reader.
struct Pipe {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Pipe {
    fn new(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self { receiver, current: Bytes::new() }
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let len = buffer.len().min(self.current.len());
        buffer[..len].copy_from_slice(&self.current.split_to(len));
        Ok(len)
    }
}

async fn copy_to(invocation: &Invocation, from: &str, container: &str, to: &str) -> Result<u8> {
    let client = invocation.engine.client().await?;
    let mut target = clean_keeping_end(&format!("/{to}"));
    if to.is_empty() {
        return Err(format!("destination can not be empty: {container}:").into());
    }
    let mut found = stat(&client, container, &target).await;
    if let Ok(stat_of_link) = &found
        && stat_of_link.mode & MODE_SYMLINK != 0
    {
        target = link_target(&target, &stat_of_link.link_target);
        found = stat(&client, container, &target).await;
    }
    let is_dir = match found {
        Ok(stat) => Some(stat.mode & MODE_DIR != 0),
        Err(failure) if failure.is_not_found() && failure.message.contains("No such container") => {
            return Err(failure);
        }
        Err(_) => None,
    };
    let mut query = Query::new().set("noOverwriteDirNonDir", "true");
    if invocation.matches.on("archive") {
        query = query.set("copyUIDGID", "true");
    }
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(4);
    let size = Arc::new(AtomicU64::new(0));
    let written = Arc::clone(&size);
    let directory = if from == "-" {
        if is_dir != Some(true) {
            return Err(format!("destination \"{container}:{to}\" must be a directory").into());
        }
        tokio::task::spawn_blocking(move || {
            std::io::copy(&mut std::io::stdin().lock(), &mut Chunks { sender, size: written })
        });
        target
    } else {
        let source = clean_keeping_end(from);
        let follow = invocation.matches.on("follow-link") || asserts_directory(&source);
        let metadata = if follow { std::fs::metadata(&source) } else { std::fs::symlink_metadata(&source) };
        let metadata =
            metadata.map_err(|error| format!("lstat {source}: {}", crate::opts::env::io_reason(&error)))?;
        let placement = place(metadata.is_dir(), &target, is_dir)?;
        let name = placement.rename.unwrap_or_else(|| match base(&source) {
            name if name.is_empty() => ".".to_owned(),
            name => name,
        });
        tokio::task::spawn_blocking(move || {
            pack(&PathBuf::from(source), &name, follow, Chunks { sender, size: written })
        });
        placement.directory
    };
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let query = query.set("path", &directory);
    let payload = stream_body("application/x-tar", chunks);
    let reply = client.send(hull_client::Method::PUT, &archive_path(container), &query, payload, &[]).await?;
    reply.bytes(&client).await?;
    report(invocation, size.load(Ordering::Relaxed), &format!("{container}:{to}"));
    Ok(0)
}

/// Writes a file or directory as an archive whose root is `name`.
fn pack(source: &Path, name: &str, follow: bool, chunks: Chunks) -> std::io::Result<()> {
    let failed = chunks.sender.clone();
    let mut builder = tar::Builder::new(std::io::BufWriter::with_capacity(128 * 1024, chunks));
    builder.follow_symlinks(false);
    let packed = (|| {
        let metadata = if follow { std::fs::metadata(source)? } else { std::fs::symlink_metadata(source)? };
        if metadata.is_dir() {
            builder.append_dir_all(name, source)?;
        } else {
            builder.follow_symlinks(follow);
            builder.append_path_with_name(source, name)?;
        }
        builder.into_inner()?.flush()
    })();
    if let Err(error) = &packed {
        // The request fails with this error instead of ending as if the archive were whole.
        let _ = failed.blocking_send(Err(std::io::Error::new(error.kind(), error.to_string())));
    }
    packed
}

/// A writer whose output becomes a request's body.
struct Chunks {
    sender: mpsc::Sender<std::io::Result<Bytes>>,
    size: Arc<AtomicU64>,
}

impl Write for Chunks {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.size.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.sender
            .blocking_send(Ok(Bytes::copy_from_slice(data)))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        assert_eq!(split("web:/etc/hosts"), (Some("web"), "/etc/hosts"));
        assert_eq!(split("/a:b"), (None, "/a:b"));
        assert_eq!(split("./a:b"), (None, "./a:b"));
        assert_eq!(split("-"), (None, "-"));
        assert_eq!(clean_keeping_end("/a//b/."), "/a/b/.");
        assert_eq!(clean_keeping_end("a/"), "a/");
        assert_eq!((base("/a/b/."), base("/a/b/"), base("/")), (".".into(), "b".into(), String::new()));
        assert_eq!(link_target("/a/b", "../c"), "/c");
    }

    #[test]
    fn destinations() {
        let placed = |source_is_dir, to: &str, is_dir| match place(source_is_dir, to, is_dir) {
            Ok(Placement { directory, rename }) => format!("{directory} {}", rename.unwrap_or_default()),
            Err(failure) => failure.message,
        };
        assert_eq!(placed(true, "/d", Some(true)), "/d ");
        assert_eq!(placed(true, "/d/x", None), "/d x");
        assert_eq!(placed(false, "/d/x", Some(false)), "/d x");
        assert_eq!(placed(false, "x", None), ". x");
        assert_eq!(placed(true, "/f", Some(false)), "cannot copy directory");
        assert_eq!(placed(false, "/d/", None), "no such directory");
    }

    #[test]
    fn an_archive_cannot_leave_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let inside = directory.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.as_gnu_mut().unwrap().name[..7].copy_from_slice(b"../evil");
        header.set_cksum();
        builder.append(&header, &b"x"[..]).unwrap();
        let (sender, receiver) = mpsc::channel(4);
        sender.blocking_send(Bytes::from(builder.into_inner().unwrap())).unwrap();
        drop(sender);
        let placement = Placement { directory: inside.to_string_lossy().into_owned(), rename: None };
        let _ = unpack_blocking(Pipe::new(receiver), &placement, "x");
        assert!(!directory.path().join("evil").exists());
    }
}
