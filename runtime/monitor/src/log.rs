//! Docker's `json-file` log: one JSON object a line, `{"log":"…\n","stream":"stdout","time":"…"}`.
//!
//! What is read from the container in one go is written in one go, so a line is in the file before the next read.
//! The time of a line is the time of its read. Text without a line end is kept until its end comes, the stream
//! ends, or it is 16 KiB long, as docker's own log does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::config::{JsonFileConfig, LogConfig};

/// Longest text in one log line; longer ones are split.
const LONGEST: usize = 16 * 1024;
/// What is collected for one write when the log is rotated by size.
const BATCH: usize = 256 * 1024;

/// An output stream of a process, numbered as in docker's frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Stream {
    Stdout = 1,
    Stderr = 2,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// A container's log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    file: Option<JsonFile>,
}

impl Log {
    /// Opens or continues the log.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub(crate) fn open(config: &LogConfig) -> io::Result<Self> {
        let file = match config {
            LogConfig::None => None,
            LogConfig::JsonFile(config) => Some(JsonFile::open(config.clone())?),
        };
        Ok(Self { file })
    }

    /// Logs what was read from `stream`. A log that cannot be written (a full disk) loses lines: the container is
    /// not stopped for it.
    pub(crate) fn write(&mut self, stream: Stream, data: &[u8]) {
        if let Some(file) = &mut self.file {
            file.write(stream, data);
        }
    }

    /// Logs what is kept back of `stream`, at its end.
    pub(crate) fn end(&mut self, stream: Stream) {
        if let Some(file) = &mut self.file {
            file.end(stream);
        }
    }

    /// Gives back memory that only a busy log needs.
    pub(crate) fn rest(&mut self) {
        if let Some(file) = &mut self.file {
            file.batch = Vec::new();
        }
    }
}

#[derive(Debug)]
struct JsonFile {
    config: JsonFileConfig,
    file: File,
    size: u64,
    /// `,"attrs":{…}`, or nothing.
    attrs: String,
    /// Text without its line end, of stdout and stderr.
    kept: [Vec<u8>; 2],
    /// Lines not yet written.
    batch: Vec<u8>,
}

/// How every line of one batch goes on after its text.
struct Tails {
    line: Vec<u8>,
    partial: Vec<u8>,
}

impl Tails {
    fn new(stream: Stream, attrs: &str) -> Self {
        let mut partial = Vec::with_capacity(64 + attrs.len());
        partial.extend_from_slice(b"\",\"stream\":\"");
        partial.extend_from_slice(stream.name().as_bytes());
        partial.push(b'"');
        partial.extend_from_slice(attrs.as_bytes());
        partial.extend_from_slice(b",\"time\":\"");
        partial.extend_from_slice(&clock::now());
        partial.extend_from_slice(b"\"}\n");
        let line = [&b"\\n"[..], &partial].concat();
        Self { line, partial }
    }
}

impl JsonFile {
    fn open(config: JsonFileConfig) -> io::Result<Self> {
        let file = open(&config.path, false)?;
        let size = file.metadata()?.len();
        let attrs = match config.attrs.is_empty() {
            true => String::new(),
            false => format!(",\"attrs\":{}", serde_json::to_string(&config.attrs)?),
        };
        Ok(Self { config, file, size, attrs, kept: Default::default(), batch: Vec::new() })
    }

    fn write(&mut self, stream: Stream, data: &[u8]) {
        let tails = Tails::new(stream, &self.attrs);
        let plain = is_plain(data);
        let mut kept = std::mem::take(&mut self.kept[stream as usize - 1]);
        let mut rest = data;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (text, after) = (&rest[..end], &rest[end + 1..]);
            if kept.is_empty() {
                self.text(text, &tails, true, plain);
            } else {
                kept.extend_from_slice(text);
                self.text(&kept, &tails, true, false);
                kept.clear();
            }
            rest = after;
        }
        kept.extend_from_slice(rest);
        let split = self.split(&kept, &tails);
        kept.drain(..split);
        if kept.is_empty() {
            kept = Vec::new();
        }
        self.kept[stream as usize - 1] = kept;
        self.flush();
    }

    fn end(&mut self, stream: Stream) {
        let kept = std::mem::take(&mut self.kept[stream as usize - 1]);
        if !kept.is_empty() {
            let tails = Tails::new(stream, &self.attrs);
            self.text(&kept, &tails, false, false);
            self.flush();
        }
    }

    /// One text of the container, with or without its line end; in several lines if it is long.
    fn text(&mut self, text: &[u8], tails: &Tails, ended: bool, plain: bool) {
        let rest = &text[self.split(text, tails)..];
        self.line(rest, if ended { &tails.line } else { &tails.partial }, plain);
    }

    /// Logs whole pieces of a text that is too long; returns how much that was.
    fn split(&mut self, text: &[u8], tails: &Tails) -> usize {
        let mut done = 0;
        while text.len() - done >= LONGEST {
            let piece = &text[done..done + LONGEST];
            let piece = &piece[..whole_characters(piece)];
            self.line(piece, &tails.partial, false);
            done += piece.len();
        }
        done
    }

    fn line(&mut self, text: &[u8], tail: &[u8], plain: bool) {
        if let Some(limit) = self.config.max_size
            && self.size + self.batch.len() as u64 >= limit
        {
            self.flush();
            // Lines go on into the old file when there cannot be a new one.
            let _ = self.rotate();
        }
        self.batch.extend_from_slice(b"{\"log\":\"");
        if plain {
            self.batch.extend_from_slice(text);
        } else {
            escape(text, &mut self.batch);
        }
        self.batch.extend_from_slice(tail);
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        match self.file.write_all(&self.batch) {
            Ok(()) => self.size += self.batch.len() as u64,
            // A line cut off in the middle would spoil the next one, too.
            Err(_) => drop(self.file.set_len(self.size)),
        }
        self.batch.clear();
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let oldest = self.config.max_file.max(1) - 1;
        for number in (1..=oldest).rev() {
            let from =
                if number == 1 { self.config.path.clone() } else { numbered(&self.config.path, number - 1) };
            match std::fs::rename(from, numbered(&self.config.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open(&self.config.path, true)?;
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path, empty: bool) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
    if empty {
        file.set_len(0)?;
    }
    Ok(file)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Whether `data` consists of bytes that stand for themselves in a JSON string, and line ends. Eight bytes at a time by
/// hand: a program that is built for size has no loops made parallel for it, and this one would take most of a busy
/// monitor's own time.
fn is_plain(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<8>();
    words.iter().all(|word| special_bytes(u64::from_le_bytes(*word)) == 0)
        && !rest.iter().any(|byte| is_special(*byte))
}

/// [`is_special`] of each of eight bytes, told by the highest bit of each. No step carries from one byte to the next.
fn special_bytes(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    let low = word & !HIGH;
    let is = |byte: u64| {
        let differs = low ^ (byte * EACH);
        !(differs + 0x7f * EACH) & HIGH & !word
    };
    let control = !(low + (0x80 - 0x20) * EACH) & HIGH & !word;
    control & !is(0x0a) | is(0x22) | is(0x5c) | is(0x7f) | word & HIGH
}

fn is_special(byte: u8) -> bool {
    (byte < 0x20) & (byte != b'\n') | (byte == b'"') | (byte == b'\\') | (byte >= 0x7f)
}

/// How much of `text` is left when an incomplete character at its end is cut off.
fn whole_characters(text: &[u8]) -> usize {
    let last = text.len().saturating_sub(3);
    let begin = text[last..].iter().rposition(|byte| *byte >= 0xc0).map(|at| last + at);
    match begin {
        Some(begin) => {
            let needs = match text[begin] {
                0xc0..=0xdf => 2,
                0xe0..=0xef => 3,
                _ => 4,
            };
            if text.len() - begin < needs { begin } else { text.len() }
        }
        None => text.len(),
    }
}

/// Appends `text` as the inside of a JSON string. What is not UTF-8 becomes U+FFFD, as JSON can hold nothing else.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn escape_valid(mut text: &[u8], out: &mut Vec<u8>) {
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\' || *byte == 0x7f;
    while let Some(at) = text.iter().position(special) {
        out.extend_from_slice(&text[..at]);
        match text[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
        text = &text[at + 1..];
    }
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(dir: &Path, max_size: Option<u64>, max_file: u32) -> Log {
        let config = JsonFileConfig { path: dir.join("log"), max_size, max_file, ..Default::default() };
        Log::open(&LogConfig::JsonFile(config)).unwrap()
    }

    #[test]
    fn eight_bytes_at_once_are_told_apart_as_one_by_one() {
        for byte in 0..=u8::MAX {
            for (place, around) in
                (0..8).flat_map(|place| [0, 0x0a, 0x20, 0x7f, 0xff].map(|around| (place, around)))
            {
                let mut bytes = [around; 8];
                bytes[place] = byte;
                let told = special_bytes(u64::from_le_bytes(bytes)).to_le_bytes();
                assert_eq!(told, bytes.map(|byte| if is_special(byte) { 0x80 } else { 0 }), "{bytes:x?}");
            }
        }
    }

    fn lines(path: &Path) -> Vec<(String, String)> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(value["time"].as_str().unwrap().len(), clock::LENGTH);
                (value["stream"].as_str().unwrap().into(), value["log"].as_str().unwrap().into())
            })
            .collect()
    }

    #[test]
    fn lines_are_written_at_once_and_partial_text_waits() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), None, 0);
        log.write(Stream::Stdout, b"one\ntw");
        log.write(Stream::Stderr, b"err \"x\"\n");
        let path = dir.path().join("log");
        let pair = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
        assert_eq!(lines(&path), [pair("stdout", "one\n"), pair("stderr", "err \"x\"\n")]);
        log.write(Stream::Stdout, b"o\n\nend");
        log.end(Stream::Stdout);
        log.end(Stream::Stderr);
        assert_eq!(lines(&path)[2..], [pair("stdout", "two\n"), pair("stdout", "\n"), pair("stdout", "end")]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), None, 0);
        let text = "x".to_owned() + &"é".repeat(10_000) + "\n";
        for piece in text.as_bytes().chunks(1000) {
            log.write(Stream::Stdout, piece);
        }
        log.write(Stream::Stdout, &[b'y'; LONGEST]);
        log.write(Stream::Stdout, b"\n");
        let lines: Vec<String> = lines(&dir.path().join("log")).into_iter().map(|(_, text)| text).collect();
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [LONGEST - 1, 3619, LONGEST, 1]);
        assert_eq!(lines[..2].concat(), text);
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), Some(1000), 3);
        for number in 0..100 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["log", "log.1", "log.2"]);
        let all: Vec<String> = ["log.2", "log.1", "log"]
            .iter()
            .flat_map(|name| {
                let path = dir.path().join(name);
                let length = path.metadata().unwrap().len();
                assert!(length < 1100, "{length}");
                lines(&path)
            })
            .map(|(_, text)| text)
            .collect();
        let first = 100 - all.len();
        assert!(all.len() > 20);
        assert!(all.iter().enumerate().all(|(index, text)| *text == format!("line {}\n", first + index)));
    }

    #[test]
    fn one_file_of_limited_size_is_begun_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = log(dir.path(), Some(500), 1);
        let text: String = (0..50).map(|number| format!("line {number}\n")).collect();
        log.write(Stream::Stdout, text.as_bytes());
        let lines = lines(&dir.path().join("log"));
        assert!(lines.len() < 12);
        assert_eq!(lines.last().unwrap().1, "line 49\n");
        assert!(!dir.path().join("log.1").exists());
    }

    #[test]
    fn attributes_are_in_every_line_and_a_log_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = JsonFileConfig { path: dir.path().join("log"), ..Default::default() };
        config.attrs.insert("a\"".into(), "b".into());
        for _ in 0..2 {
            let mut log = Log::open(&LogConfig::JsonFile(config.clone())).unwrap();
            log.write(Stream::Stdout, b"x\n");
        }
        let text = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            assert!(
                line.starts_with(r#"{"log":"x\n","stream":"stdout","attrs":{"a\"":"b"},"time":""#),
                "{line}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_byte_string_comes_back(
            data in prop::collection::vec(prop_oneof![
                Just(b'\n'), Just(b'"'), Just(b'\\'), Just(0x7f), any::<u8>(), 0x20u8..0x7f,
            ], 0..400),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = log(dir.path(), None, 0);
            let mut rest = &data[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                log.write(Stream::Stdout, now);
                rest = later;
            }
            log.end(Stream::Stdout);
            let read: String = lines(&dir.path().join("log")).into_iter().map(|(_, text)| text).collect();
            // Line by line, because a replaced sequence never reaches over a line end.
            let expected: String = data.split_inclusive(|byte| *byte == b'\n')
                .map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
