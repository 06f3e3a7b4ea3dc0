//! Reading a container's log: json-file with rotated predecessors, from the beginning or the last lines, then
//! following what is written.
//!
//! The monitor writes `container-json.log` and, when it is full, renames it to `.1` (older ones to `.2`, …). A follower
//! waits with inotify on the directory: for data, for a rotation, and it ends when the container does and everything
//! is read.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use hull_docker_api::{FrameHeader, LogConfig, StreamKind};
use jiff::Timestamp;
use rustix::fs::inotify;
use serde::Deserialize;
use tokio::sync::watch;

use super::record::Definition;
use super::{Logs, LogsOptions};
use crate::bytestream::{StreamWriter, produce};
use crate::{Engine, Error, Result};

/// Name of the log inside the container's directory.
pub(crate) const FILE: &str = "container-json.log";

/// Block read at once when looking for the last lines.
const BLOCK: u64 = 64 * 1024;

/// When and how files are rotated.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rotation {
    pub(crate) max_size: Option<u64>,
    pub(crate) max_file: u32,
}

/// Reads `max-size` and `max-file`, with docker's words for nonsense.
pub(crate) fn rotation(config: &LogConfig) -> Result<Rotation> {
    let option =
        |key: &str| config.config.iter().flatten().find(|(name, _)| *name == key).map(|(_, value)| value);
    let mut rotation = Rotation { max_size: None, max_file: 1 };
    if let Some(text) = option("max-size").filter(|text| *text != "-1") {
        let size = parse_size(text).filter(|size| *size > 0);
        rotation.max_size = Some(size.ok_or_else(|| Error::invalid(format!("invalid size: '{text}'")))?);
    }
    if let Some(text) = option("max-file") {
        let count = text
            .parse::<u32>()
            .map_err(|_| Error::invalid(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))?;
        if count < 1 {
            return Err(Error::invalid("max-file cannot be less than 1"));
        }
        if rotation.max_size.is_none() {
            return Err(Error::invalid("max-file set without max-size"));
        }
        rotation.max_file = count;
    }
    Ok(rotation)
}

/// `10m`, `1.5GB`, `512`: powers of 1024 as docker's `units.RAMInBytes` reads them.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let factor = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    Some((number * (1u64 << factor) as f64) as u64)
}

/// `attrs` of every line: the labels and variables that the log options select.
pub(crate) fn attributes(def: &Definition) -> serde_json::Map<String, serde_json::Value> {
    let mut attrs = serde_json::Map::new();
    let option = |key: &str| def.host.log_config.config.as_ref().and_then(|config| config.get(key));
    let names = |key: &str| option(key).map(|list| list.split(',').collect::<Vec<_>>()).unwrap_or_default();
    for label in names("labels") {
        if let Some(value) = def.config.labels.as_ref().and_then(|labels| labels.get(label)) {
            attrs.insert(label.to_owned(), value.clone().into());
        }
    }
    for name in names("env") {
        let found = def.config.env.iter().flatten().filter_map(|variable| variable.split_once('='));
        if let Some((_, value)) = found.into_iter().find(|(key, _)| *key == name) {
            attrs.insert(name.to_owned(), value.into());
        }
    }
    if let Some(tag) = option("tag").filter(|tag| !tag.contains("{{")) {
        attrs.insert("tag".to_owned(), tag.clone().into());
    }
    attrs
}

/// One line of the file.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    log: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    time: std::borrow::Cow<'a, str>,
}

/// Where a reader sends lines: filter, prefix, frame.
struct Sink<'a> {
    out: &'a mut StreamWriter,
    options: &'a LogsOptions,
    framed: bool,
    /// `until` was passed.
    done: bool,
}

impl Sink<'_> {
    fn line(&mut self, raw: &[u8]) -> io::Result<()> {
        // A torn line can only be the last one before a power cut.
        let Ok(line) = serde_json::from_slice::<Line<'_>>(raw) else { return Ok(()) };
        let kind = if line.stream == "stderr" { StreamKind::Stderr } else { StreamKind::Stdout };
        let wanted = if kind == StreamKind::Stderr { self.options.stderr } else { self.options.stdout };
        if self.options.since.is_some() || self.options.until.is_some() {
            let at = line.time.parse::<Timestamp>().map_or(0, |at| at.as_nanosecond());
            if self.options.since.is_some_and(|since| at < i128::from(since)) {
                return Ok(());
            }
            if self.options.until.is_some_and(|until| at > i128::from(until)) {
                self.done = true;
                return Ok(());
            }
        }
        if !wanted {
            return Ok(());
        }
        let prefix = if self.options.timestamps { format!("{} ", line.time) } else { String::new() };
        if self.framed {
            let len = u32::try_from(prefix.len() + line.log.len()).unwrap_or(u32::MAX);
            self.out.write_all(&FrameHeader { kind, len }.encode())?;
        }
        self.out.write_all(prefix.as_bytes())?;
        self.out.write_all(line.log.as_bytes())
    }
}

impl Engine {
    /// Its log.
    pub async fn container_logs(&self, id: &str, options: LogsOptions) -> Result<Logs> {
        let handle = self.0.containers.registry.find(id)?;
        if !options.stdout && !options.stderr {
            return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
        }
        let now = handle.now();
        let tty = now.def.config.tty;
        if now.def.host.log_config.kind == "none" {
            return Err(Error::internal("configured logging driver does not support reading"));
        }
        let path = self.config().container_dir(&handle.id).join(FILE);
        let running =
            RunningWatch { snapshots: handle.snapshots.clone(), runtime: tokio::runtime::Handle::current() };
        let body = produce(move |out| {
            let mut sink = Sink { out, options: &options, framed: !tty, done: false };
            read_log(&path, &mut sink, running)
        });
        Ok(Logs { tty, body })
    }
}

/// Tells a follower when the container has ended.
struct RunningWatch {
    snapshots: watch::Receiver<std::sync::Arc<super::record::Snapshot>>,
    runtime: tokio::runtime::Handle,
}

impl RunningWatch {
    fn is_up(&self) -> bool {
        let now = self.snapshots.borrow();
        now.state.status.is_up() && !now.removed
    }

    /// Writes to `wake` once the container has ended or the reader is gone.
    fn wake_at_end(&self, wake: std::os::fd::OwnedFd, gone: impl Future<Output = ()> + Send + 'static) {
        let mut snapshots = self.snapshots.clone();
        self.runtime.spawn(async move {
            let ended = async {
                let _ = snapshots.wait_for(|now| !now.state.status.is_up() || now.removed).await;
            };
            tokio::select! { () = ended => {}, () = gone => {} }
            let _ = rustix::io::write(&wake, &1u64.to_ne_bytes());
        });
    }
}

fn read_log(path: &Path, sink: &mut Sink<'_>, running: RunningWatch) -> io::Result<()> {
    let follow = sink.options.follow;
    // Watched before anything is read, so that nothing falls between reading and watching.
    let watch = if follow { Some(Watch::new(path)?) } else { None };
    let mut current = match sink.options.tail {
        Some(0) => at_end(path)?,
        Some(count) => tail(path, count, sink)?,
        None => from_start(path, sink)?,
    };
    sink.out.flush()?;
    if let Some(watch) = watch {
        follow_log(path, &mut current, sink, &watch, &running)?;
    }
    Ok(())
}

/// Rotated files, oldest first, then the current one.
fn files(path: &Path) -> Vec<PathBuf> {
    let rotated = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    let mut all: Vec<PathBuf> = (1..).map(rotated).take_while(|path| path.exists()).collect();
    all.reverse();
    all.push(path.to_owned());
    all
}

/// The current file and how far it was read.
struct Current {
    file: Option<File>,
    inode: u64,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
}

impl Current {
    fn open(path: &Path) -> io::Result<Current> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Current { file: Some(file), inode, partial: Vec::new() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Current { file: None, inode: 0, partial: Vec::new() })
            }
            Err(error) => Err(error),
        }
    }

    /// Sends the whole lines that are there now.
    fn drain(&mut self, sink: &mut Sink<'_>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut reader = BufReader::with_capacity(BLOCK as usize, file);
        loop {
            let read = reader.read_until(b'\n', &mut self.partial)?;
            if read == 0 || self.partial.last() != Some(&b'\n') {
                return Ok(());
            }
            sink.line(&self.partial)?;
            self.partial.clear();
            if sink.done {
                return Ok(());
            }
        }
    }
}

fn at_end(path: &Path) -> io::Result<Current> {
    let mut current = Current::open(path)?;
    if let Some(file) = &mut current.file {
        file.seek(SeekFrom::End(0))?;
    }
    Ok(current)
}

fn from_start(path: &Path, sink: &mut Sink<'_>) -> io::Result<Current> {
    let mut last = Current::open(path)?;
    let mut older = files(path);
    older.pop();
    for older in older {
        Current::open(&older)?.drain(sink)?;
        if sink.done {
            return Ok(last);
        }
    }
    last.drain(sink)?;
    Ok(last)
}

/// The last lines that pass the stream filter, found from the end.
fn tail(path: &Path, count: usize, sink: &mut Sink<'_>) -> io::Result<Current> {
    let mut current = Current::open(path)?;
    let mut lines: VecDeque<Vec<u8>> = VecDeque::new();
    for path in files(path).into_iter().rev() {
        let Ok(mut file) = File::open(&path) else { continue };
        last_lines(&mut file, count, sink.options, &mut lines)?;
        if lines.len() >= count {
            break;
        }
    }
    if let Some(file) = &mut current.file {
        // Reading goes on behind the last whole line.
        let end = end_of_last_line(file)?;
        file.seek(SeekFrom::Start(end))?;
    }
    for line in &lines {
        sink.line(line)?;
    }
    Ok(current)
}

/// Puts lines before those collected, from the end of the file, until there are `count`.
fn last_lines(
    file: &mut File,
    count: usize,
    options: &LogsOptions,
    lines: &mut VecDeque<Vec<u8>>,
) -> io::Result<()> {
    let mut position = end_of_last_line(file)?;
    let mut rest: Vec<u8> = Vec::new();
    while position > 0 && lines.len() < count {
        let size = BLOCK.min(position);
        position -= size;
        let mut block = vec![0u8; usize::try_from(size).unwrap_or_default()];
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&rest);
        // What stands before the first newline may have its beginning in the block before.
        let first = if position == 0 {
            0
        } else {
            block.iter().position(|b| *b == b'\n').map_or(block.len(), |n| n + 1)
        };
        for line in block[first..].split_inclusive(|byte| *byte == b'\n').rev() {
            if lines.len() == count {
                break;
            }
            if wanted(line, options) {
                lines.push_front(line.to_vec());
            }
        }
        block.truncate(first);
        rest = block;
    }
    Ok(())
}

fn wanted(line: &[u8], options: &LogsOptions) -> bool {
    if options.stdout && options.stderr {
        return true;
    }
    serde_json::from_slice::<Line<'_>>(line)
        .is_ok_and(|line| if line.stream == "stderr" { options.stderr } else { options.stdout })
}

/// Offset behind the last newline.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut byte = [0u8; 1];
    while end > 0 {
        file.seek(SeekFrom::Start(end - 1))?;
        file.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            break;
        }
        end -= 1;
    }
    Ok(end)
}

/// Waits for changes of the log's directory, or to be woken.
struct Watch {
    inotify: std::os::fd::OwnedFd,
    wake: std::os::fd::OwnedFd,
}

impl Watch {
    fn new(path: &Path) -> io::Result<Watch> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let events =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, path.parent().unwrap_or(Path::new("/")), events)?;
        let flags = rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags)?;
        Ok(Watch { inotify, wake })
    }

    /// Waits; true when it was woken.
    fn wait(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        loop {
            match poll(&mut fds, None) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let woken = !fds[1].revents().is_empty();
        let mut buffer = [0u8; 4096];
        while matches!(rustix::io::read(&self.inotify, &mut buffer), Ok(1..)) {}
        Ok(woken)
    }
}

fn follow_log(
    path: &Path,
    current: &mut Current,
    sink: &mut Sink<'_>,
    watch: &Watch,
    running: &RunningWatch,
) -> io::Result<()> {
    running.wake_at_end(watch.wake.try_clone()?, sink.out.closed());
    loop {
        // Asked before reading: what was written before the end is then read below.
        let up = running.is_up();
        current.drain(sink)?;
        reopen_if_rotated(path, current, sink)?;
        sink.out.flush()?;
        if sink.done || !up || sink.out.is_closed() {
            return Ok(());
        }
        watch.wait()?;
    }
}

/// After a rotation the file of that name is another one.
fn reopen_if_rotated(path: &Path, current: &mut Current, sink: &mut Sink<'_>) -> io::Result<()> {
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    if metadata.ino() == current.inode {
        return Ok(());
    }
    // The last lines may have been written between the last read and the rename.
    current.drain(sink)?;
    *current = Current::open(path)?;
    current.drain(sink)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn line(n: usize, stream: &str) -> String {
        format!(
            "{{\"log\":\"line {n}\\n\",\"stream\":\"{stream}\",\"time\":\"2026-01-01T00:00:{:02}.5Z\"}}\n",
            n % 60
        )
    }

    fn write(path: &Path, range: std::ops::Range<usize>) {
        let stream = |n: usize| if n.is_multiple_of(2) { "stdout" } else { "stderr" };
        let text: String = range.map(|n| line(n, stream(n))).collect();
        std::fs::write(path, text).expect("write");
    }

    fn both() -> LogsOptions {
        LogsOptions { stdout: true, stderr: true, ..LogsOptions::default() }
    }

    async fn read(path: &Path, options: LogsOptions) -> String {
        let path = path.to_owned();
        let mut stream = produce(move |out| {
            let mut sink = Sink { out, options: &options, framed: false, done: false };
            match sink.options.tail {
                Some(0) => at_end(&path)?,
                Some(count) => tail(&path, count, &mut sink)?,
                None => from_start(&path, &mut sink)?,
            };
            Ok(())
        });
        let mut text = Vec::new();
        while let Some(chunk) = stream.next().await {
            text.extend_from_slice(&chunk.expect("chunk"));
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn rotated_files_come_first_and_tails_reach_back_into_them() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(FILE);
        write(&dir.path().join(format!("{FILE}.2")), 0..3);
        write(&dir.path().join(format!("{FILE}.1")), 3..6);
        write(&path, 6..9);
        let all: String = (0..9).map(|n| format!("line {n}\n")).collect();
        assert_eq!(read(&path, both()).await, all);
        let tail = |count| LogsOptions { tail: Some(count), ..both() };
        assert_eq!(read(&path, tail(0)).await, "");
        assert_eq!(read(&path, tail(1)).await, "line 8\n");
        assert_eq!(read(&path, tail(5)).await, "line 4\nline 5\nline 6\nline 7\nline 8\n");
        assert_eq!(read(&path, tail(99)).await, all);
        let errors = LogsOptions { stderr: true, tail: Some(2), ..LogsOptions::default() };
        assert_eq!(read(&path, errors).await, "line 5\nline 7\n");
    }

    #[tokio::test]
    async fn a_tail_of_a_large_file_and_a_torn_last_line() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(FILE);
        write(&path, 0..5000);
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(b"{\"log\":\"torn").expect("append");
        let text = read(&path, LogsOptions { tail: Some(2500), ..both() }).await;
        assert_eq!(text.lines().count(), 2500);
        assert!(text.starts_with("line 2500\n") && text.ends_with("line 4999\n"));
        assert_eq!(read(&path, both()).await.lines().count(), 5000);
    }

    #[tokio::test]
    async fn since_until_and_timestamps() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join(FILE);
        write(&path, 0..10);
        let at =
            |text: &str| text.parse::<Timestamp>().ok().and_then(|at| i64::try_from(at.as_nanosecond()).ok());
        let options = LogsOptions {
            since: at("2026-01-01T00:00:03Z"),
            until: at("2026-01-01T00:00:05Z"),
            timestamps: true,
            ..both()
        };
        assert_eq!(
            read(&path, options).await,
            "2026-01-01T00:00:03.5Z line 3\n2026-01-01T00:00:04.5Z line 4\n"
        );
        assert_eq!(read(&dir.path().join("missing"), both()).await, "");
    }

    #[test]
    fn rotation_options_are_read_as_docker_does() {
        let config = |options: &[(&str, &str)]| LogConfig {
            kind: "json-file".to_owned(),
            config: Some(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        };
        let parsed = rotation(&config(&[("max-size", "10m"), ("max-file", "3")])).expect("valid");
        assert_eq!(parsed, Rotation { max_size: Some(10 << 20), max_file: 3 });
        assert!(rotation(&config(&[("max-size", "many")])).is_err());
        assert!(rotation(&config(&[("max-file", "3")])).is_err());
        assert_eq!(parse_size("1.5kb"), Some(1536));
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
    }
}
