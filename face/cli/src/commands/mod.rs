//! The commands, one file each, in their management groups.

pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod formats;
pub(crate) mod image;
pub(crate) mod manifest;
pub(crate) mod network;
pub(crate) mod system;
pub(crate) mod top_level;
pub(crate) mod volume;

use std::io::Write;

use hull_client::Reply;
use hull_docker_api::Filters;

use hull_model::Platform;

use crate::command::Invocation;
use crate::error::{Failure, Result};
use crate::flags::Matches;
use crate::output;

/// Writes an archive to a file, or to standard output when the path is empty. The file appears when it is whole.
async fn write_archive(mut reply: Reply, path: &str) -> Result<()> {
    if path.is_empty() {
        while let Some(chunk) = reply.chunk().await? {
            output::bytes(&chunk);
        }
        return Ok(());
    }
    let failed = |error: std::io::Error| Failure::new(format!("failed to save {path}: {error}"));
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        // A device or pipe takes the archive directly.
        let mut file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?;
        while let Some(chunk) = reply.chunk().await? {
            file.write_all(&chunk).map_err(failed)?;
        }
        return Ok(());
    }
    let temporary = format!("{path}.{}.tmp", std::process::id());
    let mut file = std::fs::File::create(&temporary).map_err(failed)?;
    let copied = async {
        while let Some(chunk) = reply.chunk().await? {
            file.write_all(&chunk).map_err(failed)?;
        }
        std::fs::rename(&temporary, path).map_err(failed)
    };
    let result = copied.await;
    if result.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    result
}

/// A local archive as a request's body; `-` is standard input.
fn read_archive(path: &str) -> Result<hull_client::Payload> {
    use std::io::Read;
    let directory = std::path::Path::new(path);
    if path != "-" && directory.is_dir() {
        return read_layout(directory);
    }
    let mut source: Box<dyn Read + Send> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(|error| {
            Failure::new(format!("open {path}: {}", crate::opts::env::io_reason(&error)))
        })?),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(4);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let chunk = match source.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => Ok(bytes::Bytes::copy_from_slice(&buffer[..len])),
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    Ok(archive_body(receiver))
}

fn archive_body(
    receiver: tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>,
) -> hull_client::Payload {
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    hull_client::stream_body("application/x-tar", chunks)
}

/// An image layout in a directory as the archive the engine takes.
fn read_layout(directory: &std::path::Path) -> Result<hull_client::Payload> {
    if !["index.json", "manifest.json"].iter().any(|name| directory.join(name).is_file()) {
        return Err(Failure::new(format!(
            "{} is no image layout: neither index.json nor manifest.json is in it",
            directory.display()
        )));
    }
    let directory = directory.to_path_buf();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let pipe = std::io::BufWriter::with_capacity(256 * 1024, ChannelWriter(sender.clone()));
        let mut archive = tar::Builder::new(pipe);
        let written = archive.append_dir_all("", &directory).and_then(|()| archive.into_inner()?.flush());
        if let Err(error) = written {
            // Nobody is left to tell when the engine hung up.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(archive_body(receiver))
}

/// Writes into a channel that a request's body is read from.
struct ChannelWriter(tokio::sync::mpsc::Sender<std::io::Result<bytes::Bytes>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let chunk = bytes::Bytes::copy_from_slice(bytes);
        self.0.blocking_send(Ok(chunk)).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Unpacks an archive of images into a directory, which becomes an image layout. The index goes last: a directory
/// that has one is whole.
async fn write_layout(mut reply: Reply, path: &str) -> Result<()> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<bytes::Bytes>>(4);
    let directory = std::path::PathBuf::from(path);
    let unpack = tokio::task::spawn_blocking(move || unpack_layout(receiver, &directory));
    loop {
        match reply.chunk().await {
            Ok(Some(chunk)) => {
                if sender.send(Ok(chunk)).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                let _ = sender.send(Err(std::io::ErrorKind::ConnectionAborted.into())).await;
                drop(sender);
                let _ = unpack.await;
                return Err(error.into());
            }
        }
    }
    drop(sender);
    let unpacked = unpack.await.map_err(|error| Failure::new(error.to_string()))?;
    unpacked.map_err(|error| Failure::new(format!("failed to save {path}: {error}")))
}

fn unpack_layout(
    receiver: tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>,
    directory: &std::path::Path,
) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let mut last = Vec::new();
    let mut archive = tar::Archive::new(ChannelReader { receiver, rest: bytes::Bytes::new() });
    for entry in archive.entries()? {
        let mut entry = entry?;
        if *entry.path()? == *std::path::Path::new("index.json") {
            std::io::Read::read_to_end(&mut entry, &mut last)?;
        } else {
            entry.unpack_in(directory)?;
        }
    }
    std::fs::write(directory.join("index.json"), last)
}

/// Reads what a channel brings, on a blocking thread.
struct ChannelReader {
    receiver: tokio::sync::mpsc::Receiver<std::io::Result<bytes::Bytes>>,
    rest: bytes::Bytes,
}

impl std::io::Read for ChannelReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let n = self.rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.rest.split_to(n));
        Ok(n)
    }
}

/// The value of a platform flag as the API takes it, JSON; empty when it was not given.
fn platform(matches: &Matches, flag: &str) -> Result<String> {
    match matches.text(flag) {
        "" => Ok(String::new()),
        text => platform_json(text),
    }
}

/// A platform (`linux/arm64/v8`) as JSON.
fn platform_json(text: &str) -> Result<String> {
    let platform: Platform = text
        .parse()
        .map_err(|error: hull_model::PlatformError| Failure::new(format!("invalid platform: {error}")))?;
    Ok(serde_json::to_string(&platform)?)
}

/// Checks that an archive can be written to a path, before the engine is asked for it.
fn check_output(what: &str, path: &str) -> Result<()> {
    let invalid = |reason: String| Failure::new(format!("failed to {what}: invalid output path: {reason}"));
    let path = std::path::Path::new(path);
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => std::path::Path::new("."),
    };
    if let Err(error) = std::fs::metadata(directory) {
        let reason = crate::opts::env::io_reason(&error);
        return Err(invalid(format!("stat {}: {reason}", directory.display())));
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(invalid(format!("{} is a directory", path.display()))),
        _ => Ok(()),
    }
}

/// Whether a prune may go on: `--force`, or a yes to the question.
fn confirmed(invocation: &Invocation, question: &str) -> Result<bool> {
    if invocation.matches.on("force") {
        return Ok(true);
    }
    Ok(output::confirm(question))
}

/// The filters of a prune: the flag's and the configuration's `pruneFilters`.
fn prune_filters(invocation: &Invocation) -> Filters {
    let mut filters = invocation.matches.filters("filter");
    let configured = invocation.engine.config().value("pruneFilters").and_then(|value| value.as_array());
    for filter in configured.into_iter().flatten().filter_map(|value| value.as_str()) {
        if let Some((field, value)) = filter.split_once('=') {
            filters.add(field, value);
        }
    }
    filters
}

/// A time for `--since` and `--until`: seconds since 1970, RFC 3339, a date, or how long ago (`10m`).
fn timestamp(text: &str) -> Result<String, ()> {
    if let Ok(ago) = crate::opts::duration(text)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
    {
        let now = jiff::Timestamp::now().as_nanosecond() - i128::from(ago);
        return Ok(format!("{}.{:09}", now.div_euclid(1_000_000_000), now.rem_euclid(1_000_000_000)));
    }
    if text.parse::<f64>().is_ok() && !text.contains('e') {
        return Ok(text.to_owned());
    }
    let nanoseconds = |at: jiff::Timestamp| {
        let nanos = at.as_nanosecond();
        format!("{}.{:09}", nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000))
    };
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(nanoseconds(at));
    }
    let utc = |text: String| text.parse::<jiff::Timestamp>().map(nanoseconds).map_err(drop);
    match text.len() {
        10 => utc(format!("{text}T00:00:00Z")),
        16 => utc(format!("{text}:00Z")),
        _ => utc(format!("{text}Z")),
    }
}

/// Fields of JSON that were added by newer engines are ignored; a list that is `null` is empty.
fn or_empty<T>(list: Option<Vec<T>>) -> Vec<T> {
    list.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times() {
        assert_eq!(super::timestamp("1136073845").as_deref(), Ok("1136073845"));
        assert_eq!(super::timestamp("2006-01-02T15:04:05Z").as_deref(), Ok("1136214245.000000000"));
        assert_eq!(super::timestamp("2006-01-02").as_deref(), Ok("1136160000.000000000"));
        assert!(super::timestamp("10m").is_ok() && super::timestamp("nonsense").is_err());
    }
}
