//! The key sequence that leaves a terminal without ending its process: `ctrl-p,ctrl-q`.

/// The default sequence.
pub(crate) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Reads a sequence: keys separated by commas, each a character or `ctrl-` and one of `a`-`z`, `@`, `[`, `\`, `]`,
/// `^`, `_`.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, String> {
    text.split(',')
        .map(|key| match key.strip_prefix("ctrl-").map(str::as_bytes) {
            None => match key.as_bytes() {
                [byte] => Ok(*byte),
                _ => Err(format!("Unknown character: '{key}'")),
            },
            Some([letter]) if letter.is_ascii_lowercase() => Ok(letter - b'a' + 1),
            Some(b"@") => Ok(0),
            Some(b"[") => Ok(27),
            Some(b"\\") => Ok(28),
            Some(b"]") => Ok(29),
            Some(b"^") => Ok(30),
            Some(b"_") => Ok(31),
            Some(_) => Err(format!("Unknown character: '{key}'")),
        })
        .collect()
}

/// Finds the sequence in what is typed.
#[derive(Debug)]
pub(crate) struct Detector {
    keys: Vec<u8>,
    matched: usize,
}

impl Detector {
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes input; returns what to send, and whether the sequence is complete. Keys that may begin the sequence
    /// are kept back until it is clear that they do not.
    pub(crate) fn feed(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        let mut out = Vec::with_capacity(input.len());
        if self.keys.is_empty() {
            return (input.to_vec(), false);
        }
        for &byte in input {
            if byte != self.keys[self.matched] && self.matched > 0 {
                out.extend_from_slice(&self.keys[..self.matched]);
                self.matched = 0;
            }
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (out, true);
                }
            } else {
                out.push(byte);
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences() {
        assert_eq!(parse(DEFAULT), Ok(vec![16, 17]));
        assert_eq!(parse("a,ctrl-@,ctrl-_"), Ok(vec![b'a', 0, 31]));
        assert_eq!(parse("ctrl-22"), Err("Unknown character: 'ctrl-22'".to_owned()));
    }

    #[test]
    fn keys_are_kept_back_until_it_is_clear() {
        let mut detector = Detector::new(vec![16, 17]);
        assert_eq!(detector.feed(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(detector.feed(&[b'c', 16]), (b"c".to_vec(), false));
        assert_eq!(detector.feed(b"d"), (vec![16, b'd'], false));
        assert_eq!(detector.feed(&[16, 16]), (vec![16], false));
        assert_eq!(detector.feed(&[17, b'x']), (vec![], true));
        assert_eq!(Detector::new(vec![]).feed(&[16, 17]), (vec![16, 17], false));
    }
}
