use std::io::{self, BufRead};

use super::number::{decimal, field, time};
use super::{BLOCK, Entry, Extent, Kind, Time};

/// How much a stream may make the reader hold in memory.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one pax header, long name or sparse map (Go's archive/tar takes 1 MiB too).
    pub header_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { header_bytes: 1 << 20 }
    }
}

/// Why a stream is no good tar.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends inside an entry.
    #[error("archive is truncated")]
    Truncated,
    /// A header's checksum is wrong, or it is no tar at all.
    #[error("archive has an invalid header at byte {0}")]
    Header(u64),
    /// A header field has no sensible value.
    #[error("archive entry {name:?} has an invalid {field}")]
    Field {
        /// Which entry.
        name: String,
        /// Which field.
        field: &'static str,
    },
    /// A kind of entry nobody unpacks.
    #[error("archive entry {name:?} is of unknown type {flag:?}")]
    Type {
        /// Which entry.
        name: String,
        /// Its type flag.
        flag: char,
    },
    /// An extended header bigger than the limit.
    #[error("archive has an extended header of {size} bytes, more than {limit}")]
    HugeHeader {
        /// Its size.
        size: u64,
        /// The most accepted.
        limit: u64,
    },
    /// The stream cannot be read.
    #[error("read archive")]
    Read(#[source] io::Error),
}

/// Reads a tar stream entry by entry. Between [`Reader::next_entry`] and the next call, the entry's bytes are read
/// with [`Reader::chunk`]; what is not read is skipped.
pub struct Reader<R> {
    input: R,
    limits: Limits,
    position: u64,
    data_left: u64,
    padding: u64,
    finished: bool,
}

#[derive(Default)]
struct Extended {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    atime: Option<Time>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: PaxSparse,
}

#[derive(Default)]
struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    map: Option<Vec<u64>>,
}

type Header = [u8; BLOCK];

impl<R: BufRead> Reader<R> {
    /// From the start of a stream.
    pub fn new(input: R, limits: Limits) -> Self {
        Self { input, limits, position: 0, data_left: 0, padding: 0, finished: false }
    }

    /// The next entry, `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let mut extended = Extended::default();
        let mut any_extension = false;
        loop {
            let Some(header) = self.header()? else {
                return if any_extension { Err(TarError::Truncated) } else { Ok(None) };
            };
            any_extension = true;
            match header[156] {
                b'x' | b'X' => {
                    let records = self.extension(&header)?;
                    parse_pax(&records, &mut extended)?;
                }
                // Defaults for the whole archive; Docker and Go pass over them, git writes only a comment there.
                b'g' => drop(self.extension(&header)?),
                b'L' => extended.name = Some(until_nul(&self.extension(&header)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.extension(&header)?).to_vec()),
                _ => return self.entry(&header, extended).map(Some),
            }
            self.skip_data()?;
        }
    }

    /// Some of the current entry's remaining bytes, at most `limit` of them, handed to `sink`; 0 when there are no
    /// more.
    pub fn chunk<E: From<TarError>>(
        &mut self,
        limit: u64,
        sink: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<usize, E> {
        let want = self.data_left.min(limit);
        if want == 0 {
            return Ok(0);
        }
        let buffer = fill(&mut self.input)?;
        if buffer.is_empty() {
            return Err(TarError::Truncated.into());
        }
        let n = buffer.len().min(usize::try_from(want).unwrap_or(usize::MAX));
        sink(&buffer[..n])?;
        self.input.consume(n);
        self.position += n as u64;
        self.data_left -= n as u64;
        Ok(n)
    }

    /// Bytes of the current entry not read yet.
    pub fn data_left(&self) -> u64 {
        self.data_left
    }

    /// The stream, wherever it stands.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn entry(&mut self, header: &Header, extended: Extended) -> Result<Entry, TarError> {
        let flag = header[156];
        let gnu = &header[257..265] == b"ustar  \0";
        let mut name = extended.name.unwrap_or_else(|| plain_name(header, gnu));
        let shown = String::from_utf8_lossy(&name).into_owned();
        let bad = |field: &'static str| TarError::Field { name: shown.clone(), field };
        let kind = kind(flag, &name).ok_or(TarError::Type { name: shown.clone(), flag: flag as char })?;
        let number = |range: std::ops::Range<usize>, what| field(&header[range]).ok_or_else(|| bad(what));
        let stored = match extended.size {
            Some(size) => size,
            None => u64::try_from(number(124..136, "size")?).map_err(|_| bad("size"))?,
        };
        let owner = |range, given: Option<u64>, what| match given {
            Some(id) => u32::try_from(id).map_err(|_| bad(what)),
            None => number(range, what).and_then(|id| u32::try_from(id).map_err(|_| bad(what))),
        };
        let mode = number(100..108, "mode")? as u32 & 0o7777;
        let (uid, gid) = (owner(108..116, extended.uid, "owner")?, owner(116..124, extended.gid, "group")?);
        let mtime = match extended.mtime {
            Some(time) => time,
            None => Time { seconds: number(136..148, "time")?, nanoseconds: 0 },
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => {
                let part =
                    |range| number(range, "device").and_then(|n| u32::try_from(n).map_err(|_| bad("device")));
                (part(329..337)?, part(337..345)?)
            }
            _ => (0, 0),
        };
        // Whatever the field says, only files have bytes (as Go's archive/tar reads it).
        self.begin_data(if kind == Kind::File { stored } else { 0 });
        let mut size = self.data_left;
        let mut sparse = None;
        if flag == b'S' {
            (size, sparse) = self.gnu_sparse(header, &shown).map(|(size, map)| (size, Some(map)))?;
        } else if let Some((real, map)) = self.pax_sparse(&extended.sparse, kind, &shown)? {
            (size, sparse) = (real, Some(map));
            name = extended.sparse.name.unwrap_or(name);
        }
        let link = extended.link.unwrap_or_else(|| until_nul(&header[157..257]).to_vec());
        if name.contains(&0) || link.contains(&0) {
            return Err(bad("name"));
        }
        let (atime, xattrs) = (extended.atime, extended.xattrs);
        Ok(Entry { name, kind, mode, uid, gid, size, mtime, atime, link, device, xattrs, sparse })
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        while self.chunk(u64::MAX, |_| Ok::<(), TarError>(()))? > 0 {}
        self.data_left = std::mem::take(&mut self.padding);
        while self.chunk(u64::MAX, |_| Ok::<(), TarError>(()))? > 0 {}
        Ok(())
    }

    /// The next header block; `None` at the end mark or at the end of the stream between entries.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        if self.finished {
            return Ok(None);
        }
        let start = self.position;
        let Some(block) = self.block()? else {
            self.finished = true;
            return Ok(None);
        };
        if block.iter().all(|b| *b == 0) {
            self.finished = true;
            return match self.block()? {
                Some(second) if second.iter().any(|b| *b != 0) => Err(TarError::Header(start)),
                _ => Ok(None),
            };
        }
        if !checksum_fits(&block) {
            return Err(TarError::Header(start));
        }
        Ok(Some(block))
    }

    /// A whole block; `None` if the stream ends before its first byte.
    fn block(&mut self) -> Result<Option<Header>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = fill(&mut self.input)?;
            if buffer.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated) };
            }
            let n = buffer.len().min(BLOCK - filled);
            block[filled..filled + n].copy_from_slice(&buffer[..n]);
            self.input.consume(n);
            filled += n;
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// The bytes of an extended header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let size = field(&header[124..136]).and_then(|n| u64::try_from(n).ok());
        let size = size.ok_or(TarError::Field { name: "extended header".into(), field: "size" })?;
        self.begin_data(size);
        self.limited(size)
    }

    fn limited(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > self.limits.header_bytes {
            return Err(TarError::HugeHeader { size, limit: self.limits.header_bytes });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        while (bytes.len() as u64) < size {
            let want = size - bytes.len() as u64;
            let n = self.chunk(want, |piece| {
                bytes.extend_from_slice(piece);
                Ok::<(), TarError>(())
            })?;
            if n == 0 {
                return Err(TarError::Truncated);
            }
        }
        Ok(bytes)
    }

    /// Old GNU form: extents in the header and in blocks that follow it.
    fn gnu_sparse(&mut self, header: &Header, name: &str) -> Result<(u64, Vec<Extent>), TarError> {
        let bad = || TarError::Field { name: name.into(), field: "sparse map" };
        let number = |bytes: &[u8]| field(bytes).and_then(|n| u64::try_from(n).ok()).ok_or_else(bad);
        let real = number(&header[483..495])?;
        let mut map = Vec::new();
        let mut table = header[386..482].to_vec();
        let mut more = header[482] != 0;
        loop {
            for pair in table.chunks_exact(24).take_while(|pair| pair[0] != 0) {
                map.push(Extent { offset: number(&pair[..12])?, length: number(&pair[12..])? });
            }
            if !more {
                return checked(map, real, self.data_left).map(|map| (real, map)).ok_or_else(bad);
            }
            if map.len() as u64 * 24 > self.limits.header_bytes {
                return Err(TarError::HugeHeader {
                    size: map.len() as u64 * 24,
                    limit: self.limits.header_bytes,
                });
            }
            let block = self.block()?.ok_or(TarError::Truncated)?;
            more = block[504] != 0;
            table = block[..504].to_vec();
        }
    }

    /// GNU forms 0.0, 0.1 (map in the pax header) and 1.0 (map before the data).
    fn pax_sparse(
        &mut self,
        sparse: &PaxSparse,
        kind: Kind,
        name: &str,
    ) -> Result<Option<(u64, Vec<Extent>)>, TarError> {
        let bad = || TarError::Field { name: name.into(), field: "sparse map" };
        let numbers = match (&sparse.map, sparse.major, sparse.minor) {
            _ if kind != Kind::File => return Ok(None),
            (None, Some(1), Some(0)) => self.sparse_map_in_data().ok_or_else(bad)?,
            (Some(map), ..) => map.clone(),
            _ => return Ok(None),
        };
        let real = sparse.real_size.ok_or_else(bad)?;
        if numbers.len() % 2 != 0 {
            return Err(bad());
        }
        let map = numbers.chunks_exact(2).map(|pair| Extent { offset: pair[0], length: pair[1] }).collect();
        Ok(Some((real, checked(map, real, self.data_left).ok_or_else(bad)?)))
    }

    fn sparse_map_in_data(&mut self) -> Option<Vec<u64>> {
        let mut pending = Vec::new();
        let mut read = 0;
        let mut next = |reader: &mut Self| {
            loop {
                if let Some(end) = pending.iter().position(|b| *b == b'\n') {
                    let value = decimal(&pending[..end]);
                    pending.drain(..=end);
                    return value;
                }
                read += BLOCK as u64;
                if read > reader.limits.header_bytes {
                    return None;
                }
                pending.extend(
                    reader.limited((BLOCK as u64).min(reader.data_left)).ok().filter(|b| !b.is_empty())?,
                );
            }
        };
        let count = next(self)?;
        (0..count.checked_mul(2)?).map(|_| next(self)).collect()
    }
}

fn fill<R: BufRead>(input: &mut R) -> Result<&[u8], TarError> {
    // A second call returns the same buffer; the first only waits out interruptions (the borrow checker does not
    // let a loop return the buffer itself).
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(TarError::Read(e)),
        }
    }
    input.fill_buf().map_err(TarError::Read)
}

/// Extents ascending, within the file, together as long as the stored data.
fn checked(map: Vec<Extent>, real: u64, stored: u64) -> Option<Vec<Extent>> {
    let mut end = 0;
    let mut total = 0u64;
    for extent in &map {
        if extent.offset < end {
            return None;
        }
        end = extent.offset.checked_add(extent.length)?;
        total = total.checked_add(extent.length)?;
    }
    (end <= real && total == stored).then_some(map)
}

fn kind(flag: u8, name: &[u8]) -> Option<Kind> {
    Some(match flag {
        // Before POSIX a directory was a file whose name ends in a slash.
        0 | b'0' if name.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

fn plain_name(header: &Header, gnu: bool) -> Vec<u8> {
    let name = until_nul(&header[..100]);
    let prefix = until_nul(&header[345..500]);
    if gnu || &header[257..262] != b"ustar" || prefix.is_empty() {
        return name.to_vec();
    }
    [prefix, b"/", name].concat()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len())]
}

/// Sum of all bytes with the checksum field as blanks; some old writers summed signed bytes.
fn checksum_fits(header: &Header) -> bool {
    let byte = |(i, b): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *b };
    let unsigned: i64 = header.iter().enumerate().map(|x| i64::from(byte(x))).sum();
    let signed: i64 = header.iter().enumerate().map(|x| i64::from(byte(x) as i8)).sum();
    field(&header[148..156]).is_some_and(|sum| sum == unsigned || sum == signed)
}

/// Records `"<length> <key>=<value>\n"`, the length counting the whole record.
fn parse_pax(mut bytes: &[u8], extended: &mut Extended) -> Result<(), TarError> {
    let bad = |field| TarError::Field { name: "extended header".into(), field };
    while !bytes.is_empty() && bytes[0] != 0 {
        let blank = bytes.iter().position(|b| *b == b' ').ok_or(bad("record"))?;
        let length = decimal(&bytes[..blank]).and_then(|n| usize::try_from(n).ok()).ok_or(bad("record"))?;
        if length <= blank + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(bad("record"));
        }
        let record = &bytes[blank + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=').ok_or(bad("record"))?;
        pax_record(&record[..equals], &record[equals + 1..], extended).ok_or(bad("record"))?;
        bytes = &bytes[length..];
    }
    Ok(())
}

fn pax_record(key: &[u8], value: &[u8], extended: &mut Extended) -> Option<()> {
    let sparse = &mut extended.sparse;
    match key {
        // An empty value takes a setting back.
        b"path" => extended.name = (!value.is_empty()).then(|| value.to_vec()),
        b"linkpath" => extended.link = (!value.is_empty()).then(|| value.to_vec()),
        b"size" | b"uid" | b"gid" | b"mtime" | b"atime" if value.is_empty() => {}
        b"size" => extended.size = Some(decimal(value)?),
        b"uid" => extended.uid = Some(decimal(value)?),
        b"gid" => extended.gid = Some(decimal(value)?),
        b"mtime" => extended.mtime = Some(time(value)?),
        b"atime" => extended.atime = Some(time(value)?),
        b"GNU.sparse.major" => sparse.major = Some(decimal(value)?),
        b"GNU.sparse.minor" => sparse.minor = Some(decimal(value)?),
        b"GNU.sparse.name" => sparse.name = Some(value.to_vec()),
        b"GNU.sparse.realsize" | b"GNU.sparse.size" => sparse.real_size = Some(decimal(value)?),
        b"GNU.sparse.map" => {
            let numbers = value.split(|b| *b == b',').filter(|n| !n.is_empty());
            sparse.map = Some(numbers.map(decimal).collect::<Option<_>>()?);
        }
        b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
            sparse.map.get_or_insert_default().push(decimal(value)?);
        }
        _ => {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                extended.xattrs.push((name.to_vec(), value.to_vec()));
            }
        }
    }
    Some(())
}
