use std::io::{self, BufRead, Read};

use crate::LayerError;

/// How a stream is compressed, told by its first bytes: media types lie, magic numbers rarely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// Zstandard (RFC 8878), one or more frames.
    Zstd,
}

impl Compression {
    /// From the first bytes of a stream (4 suffice).
    pub fn detect(start: &[u8]) -> Result<Self, LayerError> {
        match start {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(LayerError::UnsupportedCompression("bzip2")),
            [0xfd, b'7', b'z', b'X', ..] => Err(LayerError::UnsupportedCompression("xz")),
            _ => Ok(Self::None),
        }
    }

    /// Its name for messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Reads the uncompressed bytes of a stream.
pub struct Decompressor<R: BufRead> {
    inner: Inner<R>,
}

enum Inner<R: BufRead> {
    None(R),
    Gzip(Box<flate2::bufread::MultiGzDecoder<R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, R>>),
}

impl<R: Read> Decompressor<io::BufReader<Start<R>>> {
    /// Looks at the first bytes and chooses.
    pub fn new(mut input: R) -> Result<Self, LayerError> {
        let mut start = [0; 6];
        let mut filled = 0;
        while filled < start.len() {
            match input.read(&mut start[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(LayerError::Source(e)),
            }
        }
        let compression = Compression::detect(&start[..filled])?;
        let start = io::Cursor::new(start).take(filled as u64);
        let input = io::BufReader::with_capacity(128 << 10, start.chain(input));
        Ok(Self {
            inner: match compression {
                Compression::None => Inner::None(input),
                Compression::Gzip => Inner::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
                Compression::Zstd => Inner::Zstd(Box::new(
                    zstd::stream::read::Decoder::with_buffer(input).map_err(LayerError::Source)?,
                )),
            },
        })
    }
}

/// The first bytes again, then the rest.
pub type Start<R> = io::Chain<io::Take<io::Cursor<[u8; 6]>>, R>;

impl<R: BufRead> Decompressor<R> {
    /// How the stream is compressed.
    pub fn compression(&self) -> Compression {
        match self.inner {
            Inner::None(_) => Compression::None,
            Inner::Gzip(_) => Compression::Gzip,
            Inner::Zstd(_) => Compression::Zstd,
        }
    }
}

impl<R: BufRead> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::None(r) => r.read(buffer),
            Inner::Gzip(r) => r.read(buffer),
            Inner::Zstd(r) => r.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Decompressor::new(bytes).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn each_form_is_recognised() {
        let plain = vec![42; 100_000];
        let zst = zstd::encode_all(plain.as_slice(), 1).unwrap();
        assert_eq!(all(&plain).unwrap(), plain);
        assert_eq!(all(&gzip(&plain)).unwrap(), plain);
        assert_eq!(all(&zst).unwrap(), plain);
        assert_eq!(all(&[gzip(b"one"), gzip(b"two")].concat()).unwrap(), b"onetwo");
        assert_eq!(all(&[&zst[..], &zst[..]].concat()).unwrap().len(), 200_000);
        assert_eq!(all(b"").unwrap(), b"");
        assert_eq!(all(b"ab").unwrap(), b"ab");
        assert!(matches!(
            Decompressor::new(&b"BZh91AY"[..]),
            Err(LayerError::UnsupportedCompression("bzip2"))
        ));
    }

    #[test]
    fn cuts_and_damage_are_errors() {
        let plain: Vec<u8> = (0..50_000u32).flat_map(|i| i.to_le_bytes()).collect();
        for good in [gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
            for cut in [good.len() - 1, good.len() / 2, 20] {
                assert!(all(&good[..cut]).is_err());
            }
        }
        let mut damaged = gzip(&plain);
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0xff;
        assert!(all(&damaged).is_err());
        assert!(all(&[&gzip(b"x")[..], b"garbage"].concat()).is_err());
    }
}
