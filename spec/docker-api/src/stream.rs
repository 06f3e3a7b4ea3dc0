//! Frames of attach, exec and logs streams without a terminal (swagger.yaml, `ContainerAttach`): one byte for the
//! stream, three zero bytes, the payload's length in four bytes big endian, then the payload.

/// Which stream a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// An error of the engine about the stream itself.
    SystemError,
}

/// The eight bytes before a frame's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The stream the payload belongs to.
    pub kind: StreamKind,
    /// Length of the payload in bytes.
    pub len: u32,
}

/// Length of an encoded [`FrameHeader`].
pub const FRAME_HEADER_LEN: usize = 8;

impl FrameHeader {
    /// The header in bytes.
    pub fn encode(self) -> [u8; FRAME_HEADER_LEN] {
        let [a, b, c, d] = self.len.to_be_bytes();
        [self.kind as u8, 0, 0, 0, a, b, c, d]
    }

    /// Reads a header; `None` when the stream number is unknown, which means that the stream is not framed.
    pub fn decode(bytes: [u8; FRAME_HEADER_LEN]) -> Option<Self> {
        let kind = match bytes[0] {
            0 => StreamKind::Stdin,
            1 => StreamKind::Stdout,
            2 => StreamKind::Stderr,
            3 => StreamKind::SystemError,
            _ => return None,
        };
        Some(Self { kind, len: u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) })
    }
}

/// Media type of a stream of frames (API 1.42 and later).
pub const MEDIA_TYPE_MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// Media type of a terminal's stream.
pub const MEDIA_TYPE_RAW: &str = "application/vnd.docker.raw-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_is_stream_and_big_endian_length() {
        let header = FrameHeader { kind: StreamKind::Stderr, len: 0x0102_0304 };
        assert_eq!(header.encode(), [2, 0, 0, 0, 1, 2, 3, 4]);
        assert_eq!(FrameHeader::decode(header.encode()), Some(header));
        assert_eq!(FrameHeader::decode(*b"hello wo"), None);
    }
}
