use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

const PIECE: usize = 128 << 10;
const DEPTH: usize = 16;

/// Sending end of a bounded pipe of byte pieces between two threads; buffers travel back and are used again.
pub(crate) struct PipeWriter {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

/// Receiving end.
pub(crate) struct PipeReader<L> {
    /// Sees every piece once.
    look: L,
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    piece: Vec<u8>,
    position: usize,
}

pub(crate) fn pipe<L: FnMut(&[u8])>(look: L) -> (PipeWriter, PipeReader<L>) {
    let (full, received) = sync_channel(DEPTH);
    let (returned, empty) = channel();
    (
        PipeWriter { full, empty },
        PipeReader { look, full: received, empty: returned, piece: Vec::new(), position: 0 },
    )
}

impl PipeWriter {
    /// Fills one piece from `input` and sends it; 0 at the end of the input or when nobody receives any more.
    pub(crate) fn send_from(&self, input: &mut impl Read) -> io::Result<usize> {
        let mut piece = self.empty.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
        piece.resize(PIECE, 0);
        let mut filled = 0;
        while filled < PIECE {
            match input.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        piece.truncate(filled);
        Ok(if filled > 0 && self.full.send(piece).is_ok() { filled } else { 0 })
    }
}

impl<L: FnMut(&[u8])> Read for PipeReader<L> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = self.fill_buf()?;
        let n = there.len().min(buffer.len());
        buffer[..n].copy_from_slice(&there[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl<L: FnMut(&[u8])> BufRead for PipeReader<L> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.piece.len()
            && let Ok(next) = self.full.recv()
        {
            let used = std::mem::replace(&mut self.piece, next);
            self.position = 0;
            (self.look)(&self.piece);
            if !used.is_empty() {
                // The writer may be gone already; then the buffer is simply dropped.
                let _ = self.empty.send(used);
            }
        }
        Ok(&self.piece[self.position..])
    }

    fn consume(&mut self, n: usize) {
        self.position += n;
    }
}
