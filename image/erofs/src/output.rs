//! Blocks on their way to the file: those of files one after the other, and runs of blocks reserved between them that
//! inodes are packed into.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::error::{Error, Result};
use crate::format::{BLOCK, SLOT};
use crate::sum::Sum;

/// What is written at once.
const FLUSH: usize = 1 << 20;
/// What the disk is asked to write at once, while more arrives.
const WRITE_BACK: u64 = 8 << 20;
/// Blocks of inodes open at the same time: enough that little of each stays empty.
const RUN: usize = 16;

#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    /// Not written yet; begins at block `start`.
    buffer: Vec<u8>,
    start: u64,
    run: Option<Run>,
    sum: Sum,
    /// Up to here the disk was asked to begin.
    written_back: u64,
}

/// Blocks reserved for small records.
#[derive(Debug)]
struct Run {
    start: u64,
    bytes: Vec<u8>,
    used: [usize; RUN],
}

impl Output {
    /// Block 0 is left for the end.
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            buffer: Vec::with_capacity(FLUSH + BLOCK),
            start: 1,
            run: None,
            sum: Sum::default(),
            written_back: 0,
        }
    }

    /// The block that comes next. Only between files, when no block is half full.
    pub(crate) fn position(&self) -> Result<u32> {
        let block = self.start + (self.buffer.len() / BLOCK) as u64;
        u32::try_from(block)
            .ok()
            .filter(|block| *block != u32::MAX)
            .ok_or(Error::Limit { what: "blocks", limit: u32::MAX.into() })
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = (FLUSH - self.buffer.len()).min(bytes.len());
            self.buffer.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if self.buffer.len() == FLUSH {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Fills the last block.
    pub(crate) fn pad(&mut self) -> Result<()> {
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        if self.buffer.len() >= FLUSH { self.flush() } else { Ok(()) }
    }

    /// Leaves blocks out: a hole of the file, which reads as zeros.
    pub(crate) fn skip(&mut self, blocks: u64) -> Result<()> {
        self.flush()?;
        self.start = self.start.saturating_add(blocks);
        self.position().map(drop)
    }

    fn flush(&mut self) -> Result<()> {
        write(&self.file, &mut self.sum, self.start, &self.buffer)?;
        self.start += (self.buffer.len() / BLOCK) as u64;
        self.buffer.clear();
        let length = (self.start - self.written_back) * BLOCK as u64;
        if length >= WRITE_BACK {
            hull_sys::fd::start_writeback(&self.file, self.written_back * BLOCK as u64, length);
            self.written_back = self.start;
        }
        Ok(())
    }

    /// Stores a record where it does not cross the end of a block, or from the start of one if it is longer; gives back
    /// its place in the image. Only between files.
    pub(crate) fn record(&mut self, record: &[u8]) -> Result<u64> {
        if record.len() > BLOCK {
            let place = u64::from(self.position()?) * BLOCK as u64;
            self.append(record)?;
            self.pad()?;
            return Ok(place);
        }
        if let Some(place) = self.run.as_mut().and_then(|run| run.put(record)) {
            return Ok(place);
        }
        self.close_run()?;
        self.flush()?;
        self.position()?;
        let mut run = Run { start: self.start, bytes: vec![0; RUN * BLOCK], used: [0; RUN] };
        self.start += RUN as u64;
        // An empty block takes any.
        let place = run.put(record).unwrap_or(run.start * BLOCK as u64);
        self.run = Some(run);
        Ok(place)
    }

    fn close_run(&mut self) -> Result<()> {
        match self.run.take() {
            Some(run) => write(&self.file, &mut self.sum, run.start, &run.bytes),
            None => Ok(()),
        }
    }

    /// Writes all that is left; afterwards only [`Output::patch`] and [`Output::put_first`].
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.close_run()?;
        self.flush()
    }

    /// Changes a few bytes within one block of what was written.
    pub(crate) fn patch(&mut self, place: u64, bytes: &[u8]) -> Result<()> {
        let (index, at) = (place / BLOCK as u64, (place % BLOCK as u64) as usize);
        let mut block = [0; BLOCK];
        self.file.read_exact_at(&mut block, index * BLOCK as u64).map_err(Error::Write)?;
        self.sum.take(index, &block);
        block[at..at + bytes.len()].copy_from_slice(bytes);
        write(&self.file, &mut self.sum, index, &block)
    }

    /// Writes block 0, which makes an image of the file; gives back its sum and size.
    pub(crate) fn put_first(mut self, block: &[u8]) -> Result<(Sum, u64)> {
        write(&self.file, &mut self.sum, 0, block)?;
        let size = self.start * BLOCK as u64;
        // The last blocks may be a hole.
        self.file.set_len(size).map_err(Error::Write)?;
        Ok((self.sum, size))
    }
}

impl Run {
    /// Puts a record in the fullest block that has room.
    fn put(&mut self, record: &[u8]) -> Option<u64> {
        let fits = |used: &usize| used + record.len() <= BLOCK;
        let (index, used) =
            self.used.iter_mut().enumerate().filter(|(_, used)| fits(used)).max_by_key(|(_, used)| **used)?;
        let at = index * BLOCK + *used;
        self.bytes[at..at + record.len()].copy_from_slice(record);
        *used = (*used + record.len()).next_multiple_of(SLOT);
        Some(self.start * BLOCK as u64 + at as u64)
    }
}

fn write(file: &File, sum: &mut Sum, first: u64, blocks: &[u8]) -> Result<()> {
    sum.add(first, blocks);
    file.write_all_at(blocks, first * BLOCK as u64).map_err(Error::Write)
}
