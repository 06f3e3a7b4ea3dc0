//! The layer of the image: a tar stream with one program (ustar, pax(1p)).

use std::io::{Cursor, Read};

const BLOCK: usize = 512;

/// The layer as an uncompressed tar stream: `/hello`, which is the `size` bytes of `program`.
///
/// The same program gives the same bytes, so that the image has the same id each time it is made.
pub fn layer(program: impl Read, size: u64) -> impl Read {
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    let header = Cursor::new(header(super::PROGRAM, size));
    header.chain(program.take(size)).chain(std::io::repeat(0).take(padding + 2 * BLOCK as u64))
}

fn header(name: &str, size: u64) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    put(265, "root");
    put(297, "root");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    fn listed(content: &[u8]) -> String {
        let mut tar = Command::new("tar")
            .args(["-tvf", "-", "--numeric-owner"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stream = Vec::new();
        layer(content, content.len() as u64).read_to_end(&mut stream).unwrap();
        assert_eq!(stream.len() % BLOCK, 0);
        tar.stdin.take().unwrap().write_all(&stream).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn tar_reads_the_layer() {
        for size in [0, 1, 511, 512, 513, 70_000] {
            let line = listed(&vec![7; size]);
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[..3], ["-rwxr-xr-x", "0/0", &size.to_string()], "{line}");
            assert_eq!(words.last(), Some(&"hello"));
        }
    }
}
