use std::io::{self, Read, Write};

use super::number::put_octal;
use super::{BLOCK, Entry, Kind, Time};

/// Writes a tar stream: ustar headers, with a pax header before those entries that need one (long or non-ASCII
/// names, large numbers, fractions of seconds, extended attributes).
pub struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// To the start of a stream.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// An entry and, for a file, exactly `entry.size` bytes of `data`: a file that shrinks meanwhile is padded with
    /// zeros and one that grows is cut, as GNU tar does. Sparse maps are not written.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        let (mut header, records) = headers(entry, size);
        if !records.is_empty() {
            self.extended(&entry.name, &records)?;
        }
        seal(&mut header);
        self.output.write_all(&header)?;
        let copied = io::copy(&mut data.take(size), &mut self.output)?;
        io::copy(&mut io::repeat(0).take(size - copied), &mut self.output)?;
        self.pad(size)
    }

    /// An entry whose bytes are at hand.
    pub fn append_bytes(&mut self, entry: &Entry, mut bytes: &[u8]) -> io::Result<()> {
        self.append(&Entry { size: bytes.len() as u64, ..entry.clone() }, &mut bytes)
    }

    /// The end mark; returns the stream.
    pub fn finish(mut self) -> io::Result<W> {
        self.output.write_all(&[0; 2 * BLOCK])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn extended(&mut self, name: &[u8], records: &[u8]) -> io::Result<()> {
        let mut header = [0; BLOCK];
        let base = name.rsplit(|b| *b == b'/').find(|part| !part.is_empty()).unwrap_or(b"x");
        let shown: Vec<u8> = base.iter().take(80).map(|b| if b.is_ascii() { *b } else { b'_' }).collect();
        put_text(&mut header[..100], &[b"PaxHeaders.0/", &shown[..]].concat());
        put_octal(&mut header[100..108], 0);
        put_octal(&mut header[108..116], 0);
        put_octal(&mut header[116..124], 0);
        put_octal(&mut header[124..136], records.len() as u64);
        put_octal(&mut header[136..148], 0);
        header[156] = b'x';
        seal(&mut header);
        self.output.write_all(&header)?;
        self.output.write_all(records)?;
        self.pad(records.len() as u64)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let used = (size % BLOCK as u64) as usize;
        if used > 0 { self.output.write_all(&[0; BLOCK][used..]) } else { Ok(()) }
    }
}

/// The ustar header and the pax records for what does not fit it.
fn headers(entry: &Entry, size: u64) -> ([u8; BLOCK], Vec<u8>) {
    let mut header = [0; BLOCK];
    let mut records = Vec::new();
    if !put_name(&mut header, &entry.name) {
        record(&mut records, b"path", &entry.name);
        put_text(&mut header[..100], &entry.name);
    }
    if !entry.link.is_empty() && !put_text(&mut header[157..257], &entry.link) {
        record(&mut records, b"linkpath", &entry.link);
    }
    put_octal(&mut header[100..108], u64::from(entry.mode & 0o7777));
    let mut number = |range: std::ops::Range<usize>, key: &[u8], value: u64| {
        if !put_octal(&mut header[range.clone()], value) {
            put_octal(&mut header[range], 0);
            record(&mut records, key, value.to_string().as_bytes());
        }
    };
    number(108..116, b"uid", u64::from(entry.uid));
    number(116..124, b"gid", u64::from(entry.gid));
    number(124..136, b"size", size);
    let whole = u64::try_from(entry.mtime.seconds).ok();
    if entry.mtime.nanoseconds != 0 || !whole.is_some_and(|s| put_octal(&mut header[136..148], s)) {
        put_octal(&mut header[136..148], whole.filter(|s| *s < 1 << 33).unwrap_or(0));
        record(&mut records, b"mtime", pax_time(entry.mtime).as_bytes());
    }
    if let Some(atime) = entry.atime {
        record(&mut records, b"atime", pax_time(atime).as_bytes());
    }
    put_octal(&mut header[329..337], u64::from(entry.device.0));
    put_octal(&mut header[337..345], u64::from(entry.device.1));
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
    }
    header[156] = flag(entry.kind);
    (header, records)
}

fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// Magic and checksum.
fn seal(header: &mut [u8; BLOCK]) {
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
    put_octal(&mut header[148..155], sum);
}

/// Whole in the name field, or split at a slash into prefix and name; whether either was possible.
fn put_name(header: &mut [u8; BLOCK], name: &[u8]) -> bool {
    if put_text(&mut header[..100], name) {
        return true;
    }
    if !name.is_ascii() || name.len() > 255 {
        return false;
    }
    let split =
        (name.len().saturating_sub(101)..name.len().saturating_sub(1)).find(|i| name[*i] == b'/' && *i > 0);
    match split {
        Some(at) if at <= 155 => {
            header[..100].fill(0);
            put_text(&mut header[345..500], &name[..at]) && put_text(&mut header[..100], &name[at + 1..])
        }
        _ => false,
    }
}

/// Copies as much as fits; whether it was all, and plain ASCII.
fn put_text(field: &mut [u8], text: &[u8]) -> bool {
    let n = text.len().min(field.len());
    field[..n].copy_from_slice(&text[..n]);
    n == text.len() && text.is_ascii()
}

fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    // The length counts its own digits.
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn pax_time(time: Time) -> String {
    let (seconds, nanoseconds) = (time.seconds, time.nanoseconds);
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let text = if seconds < 0 {
        let (whole, fraction) = (seconds + 1, 1_000_000_000 - nanoseconds);
        format!("-{}.{fraction:09}", -whole)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    };
    text.trim_end_matches('0').into()
}
