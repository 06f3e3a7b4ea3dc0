use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::format::BLOCK;

/// Sum over the blocks of an image, each weighed with its place, blocks of zeros with nothing: blocks may be added in any
/// order, one that is written again is taken out and added anew, and holes need not be looked at.
///
/// It finds damage, not malice: who can write the image can write its record too. A cryptographic digest would cost as
/// much processor time again as the layer's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(pub u64);

impl Sum {
    pub(crate) fn add(&mut self, first: u64, blocks: &[u8]) {
        for (block, index) in blocks.chunks(BLOCK).zip(first..) {
            self.0 = self.0.wrapping_add(weight(index, block));
        }
    }

    pub(crate) fn take(&mut self, index: u64, block: &[u8]) {
        self.0 = self.0.wrapping_sub(weight(index, block));
    }

    /// The sum of a file's blocks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(file: &File) -> io::Result<Sum> {
        let mut sum = Sum::default();
        let mut buffer = vec![0; 64 * BLOCK];
        let mut position = 0;
        while let Some((start, end)) = data(file, position)? {
            position = start - start % BLOCK as u64;
            while position < end {
                let filled = read_at(file, &mut buffer, position)?;
                if filled == 0 {
                    return Ok(sum);
                }
                sum.add(position / BLOCK as u64, &buffer[..filled]);
                position += buffer.len() as u64;
            }
        }
        Ok(sum)
    }
}

/// The next range that is no hole.
fn data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The block's CRC-32 and its place, spread over 64 bits (the finalizer of SplitMix64).
fn weight(index: u64, block: &[u8]) -> u64 {
    if block.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let mut crc = flate2::Crc::new();
    crc.update(block);
    let mut mixed = (index << 32) ^ u64::from(crc.sum()) ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
