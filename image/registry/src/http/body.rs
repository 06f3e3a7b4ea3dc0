//! A request's body.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::head::{Framing, Head};

/// Longest line of a chunk's length, and all trailers together, in bytes.
const LINE_MAX: usize = 256;
const TRAILERS_MAX: usize = 8 << 10;
/// What a limit of time is for: this many bytes, or the end.
const PIECE: usize = 64 << 10;
/// Rest of a body that is read so that the connection can be used again.
const DRAIN: usize = 64 << 10;

/// Why a body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The client went away in the middle.
    #[error("the body ended early")]
    Short,
    /// Nothing came for too long.
    #[error("the body came too slowly")]
    Slow,
    /// Its chunks break the grammar.
    #[error("malformed chunk")]
    Malformed,
    /// It has more bytes than are taken.
    #[error("the body is too large")]
    TooLarge,
    /// The connection failed.
    #[error("connection")]
    Io(#[from] io::Error),
}

/// A request's body, read as it is needed.
#[derive(Debug)]
pub struct Body<'c> {
    connection: &'c mut Connection,
    state: State,
    expects_continue: bool,
    limit: Duration,
    /// Bytes handed out.
    received: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// This many bytes follow.
    Left(u64),
    /// A chunk's length follows.
    ChunkHead,
    /// This many bytes of a chunk follow, and a line's end.
    Chunk(u64),
    End,
    /// What follows is not known.
    Broken,
}

impl<'c> Body<'c> {
    pub(super) fn new(connection: &'c mut Connection, head: &Head) -> Self {
        let state = match head.framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Left(length),
            Framing::Chunked => State::ChunkHead,
        };
        let limit = connection.limits.body_time;
        Self { connection, state, expects_continue: head.expects_continue, limit, received: 0 }
    }

    /// Bytes read so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Reads until the buffer holds `want` bytes or the body is at its end; `false` at the end.
    pub async fn fill(&mut self, buffer: &mut Vec<u8>, want: usize) -> Result<bool, BodyError> {
        if self.expects_continue && self.state != State::End {
            self.expects_continue = false;
            self.connection.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        while buffer.len() < want && self.state != State::End {
            let piece = want.min(buffer.len() + PIECE);
            let deadline = Instant::now() + self.limit;
            match timeout_at(deadline, self.fill_piece(buffer, piece, want)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.state = State::Broken;
                    return Err(error);
                }
                Err(_) => {
                    self.state = State::Broken;
                    return Err(BodyError::Slow);
                }
            }
        }
        Ok(self.state != State::End)
    }

    /// Reads until the buffer holds `piece` bytes, and perhaps up to `want`.
    async fn fill_piece(&mut self, buffer: &mut Vec<u8>, piece: usize, want: usize) -> Result<(), BodyError> {
        while buffer.len() < piece {
            match self.state {
                State::End => return Ok(()),
                State::Broken => return Err(BodyError::Short),
                State::Left(left) => {
                    let read = self.take(buffer, want, left).await?;
                    self.state = if read == left { State::End } else { State::Left(left - read) };
                }
                State::ChunkHead => self.chunk_head().await?,
                State::Chunk(0) => {
                    self.line_end().await?;
                    self.state = State::ChunkHead;
                }
                State::Chunk(left) => {
                    let read = self.take(buffer, want, left).await?;
                    self.state = State::Chunk(left - read);
                }
            }
        }
        // The length of the last chunk tells that it was the last.
        if self.state == State::Chunk(0) {
            self.line_end().await?;
            self.state = State::ChunkHead;
        }
        Ok(())
    }

    /// Moves at most `left` bytes, and as fit, into the buffer: what was read ahead first, then from the connection.
    async fn take(&mut self, buffer: &mut Vec<u8>, want: usize, left: u64) -> Result<u64, BodyError> {
        let room = (want - buffer.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        let ahead = self.connection.ahead();
        let read = if ahead.is_empty() {
            if room >= PIECE / 4 {
                self.connection.read_into(buffer, room).await?
            } else {
                self.connection.read_ahead().await?;
                return Ok(0);
            }
        } else {
            let read = ahead.len().min(room);
            buffer.extend_from_slice(&ahead[..read]);
            self.connection.consume(read);
            read
        };
        if read == 0 {
            return Err(BodyError::Short);
        }
        self.received += read as u64;
        Ok(read as u64)
    }

    async fn chunk_head(&mut self) -> Result<(), BodyError> {
        let line = self.line(LINE_MAX).await?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let valid = !digits.is_empty() && digits.len() <= 15 && digits.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(digits).ok().filter(|_| valid);
        let size =
            size.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(BodyError::Malformed)?;
        if size > 0 {
            self.state = State::Chunk(size);
            return Ok(());
        }
        let mut trailers = 0;
        loop {
            let line = self.line(TRAILERS_MAX).await?;
            trailers += line.len();
            if trailers > TRAILERS_MAX {
                return Err(BodyError::Malformed);
            }
            if line.is_empty() {
                self.state = State::End;
                return Ok(());
            }
        }
    }

    async fn line_end(&mut self) -> Result<(), BodyError> {
        if self.line(2).await?.is_empty() { Ok(()) } else { Err(BodyError::Malformed) }
    }

    /// A line without its end, which is CRLF and nothing else.
    async fn line(&mut self, max: usize) -> Result<Vec<u8>, BodyError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', self.connection.ahead()) {
                let line = self.connection.ahead()[..end].to_vec();
                self.connection.consume(end + 1);
                return match line.strip_suffix(b"\r") {
                    Some(line) if line.len() <= max && !line.contains(&b'\r') => Ok(line.to_vec()),
                    _ => Err(BodyError::Malformed),
                };
            }
            if self.connection.ahead().len() > max + 2 {
                return Err(BodyError::Malformed);
            }
            self.connection.read_ahead().await?;
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub async fn read(&mut self, limit: usize) -> Result<Vec<u8>, BodyError> {
        if let State::Left(length) = self.state
            && length > limit as u64
        {
            return Err(BodyError::TooLarge);
        }
        let mut buffer = Vec::new();
        while self.fill(&mut buffer, limit.saturating_add(1)).await? {
            if buffer.len() > limit {
                return Err(BodyError::TooLarge);
            }
        }
        if buffer.len() > limit { Err(BodyError::TooLarge) } else { Ok(buffer) }
    }

    /// Reads what is left if that is little; whether the connection can carry another request.
    pub(super) async fn finish(mut self) -> bool {
        if self.state == State::End {
            return true;
        }
        // The client may or may not send a body that it was not told to send.
        if self.expects_continue || matches!(self.state, State::Left(left) if left > DRAIN as u64) {
            return false;
        }
        let mut rest = Vec::new();
        matches!(self.fill(&mut rest, DRAIN).await, Ok(false))
    }
}
