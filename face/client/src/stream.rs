//! Streams the engine answers with: lines of JSON, and frames of standard output and error.

use bytes::{Buf, Bytes, BytesMut};
use serde::de::DeserializeOwned;

use hull_docker_api::{FRAME_HEADER_LEN, FrameHeader, StreamKind};

use crate::{Error, Reply};

/// JSON values that come one after another, as pull progress, events and stats do.
pub struct JsonLines {
    reply: Reply,
    buffer: BytesMut,
}

impl JsonLines {
    /// The values in an answer's body.
    pub fn new(reply: Reply) -> Self {
        Self { reply, buffer: BytesMut::new() }
    }

    /// The next value, `None` at the end of the stream.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        loop {
            let mut values = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<T>();
            match values.next() {
                Some(Ok(value)) => {
                    let used = values.byte_offset();
                    self.buffer.advance(used);
                    return Ok(Some(value));
                }
                Some(Err(error)) if !error.is_eof() => {
                    return Err(Error::Decode { request: "a stream".to_owned(), source: error });
                }
                _ => {}
            }
            match self.reply.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

/// Takes a stream of frames apart.
#[derive(Debug, Default)]
pub struct Demux {
    header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    frame: Option<(StreamKind, usize)>,
}

impl Demux {
    /// A stream at the beginning of a frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of one frame's payload out of `input`; `Ok(None)` when more input is needed.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<(StreamKind, Bytes)>, std::io::Error> {
        loop {
            if let Some((kind, left)) = self.frame {
                if left == 0 {
                    self.frame = None;
                    continue;
                }
                if input.is_empty() {
                    return Ok(None);
                }
                let piece = input.split_to(left.min(input.len()));
                self.frame = Some((kind, left - piece.len()));
                return Ok(Some((kind, piece)));
            }
            let wanted = (FRAME_HEADER_LEN - self.header_len).min(input.len());
            self.header[self.header_len..self.header_len + wanted].copy_from_slice(&input[..wanted]);
            self.header_len += wanted;
            input.advance(wanted);
            if self.header_len < FRAME_HEADER_LEN {
                return Ok(None);
            }
            self.header_len = 0;
            let Some(header) = FrameHeader::decode(self.header) else {
                let text = format!("Unrecognized input header: {}", self.header[0]);
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
            };
            self.frame = Some((header.kind, header.len as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let mut stream = Vec::new();
        for (kind, text) in
            [(StreamKind::Stdout, "hello"), (StreamKind::Stderr, ""), (StreamKind::Stderr, "oops")]
        {
            stream.extend(FrameHeader { kind, len: text.len() as u32 }.encode());
            stream.extend(text.as_bytes());
        }
        for cut in 1..stream.len() {
            let (mut demux, mut out, mut err) = (Demux::new(), Vec::new(), Vec::new());
            for piece in stream.chunks(cut) {
                let mut input = Bytes::copy_from_slice(piece);
                while let Some((kind, data)) = demux.next(&mut input).unwrap() {
                    match kind {
                        StreamKind::Stderr => err.extend(data),
                        _ => out.extend(data),
                    }
                }
            }
            assert_eq!((out.as_slice(), err.as_slice()), (&b"hello"[..], &b"oops"[..]), "cut {cut}");
        }
        assert!(Demux::new().next(&mut Bytes::from_static(b"not framed")).is_err());
    }
}
