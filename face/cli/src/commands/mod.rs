//! The commands, one file each, in their management groups.

pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod formats;
pub(crate) mod image;
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
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    Ok(hull_client::stream_body("application/x-tar", chunks))
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
