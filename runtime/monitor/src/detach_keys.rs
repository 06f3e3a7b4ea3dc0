//! Docker's detach key sequences: `ctrl-p,ctrl-q`, `a`, `ctrl-[`, ...

/// Docker's default, `ctrl-p,ctrl-q`.
pub const DEFAULT: [u8; 2] = [16, 17];

/// A key sequence that cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("Unknown character: '{0}'")]
pub struct ParseError(pub String);

/// The bytes of a comma separated key sequence. A key is one ASCII character or `ctrl-` and one of `a`-`z`, `@`,
/// `[`, `\`, `]`, `^`, `_` (docker's `detachKeys`).
///
/// # Errors
/// [`ParseError`] with the key that is none.
pub fn parse(keys: &str) -> Result<Vec<u8>, ParseError> {
    keys.split(',').map(|key| key_byte(key).ok_or_else(|| ParseError(key.to_owned()))).collect()
}

fn key_byte(key: &str) -> Option<u8> {
    let (key, control) = match key.strip_prefix("ctrl-") {
        Some(rest) => (rest, true),
        None => (key, false),
    };
    let &[byte] = key.as_bytes() else { return None };
    match byte {
        b'a'..=b'z' if control => Some(byte - b'a' + 1),
        b'@' if control => Some(0),
        b'['..=b'_' if control => Some(byte - b'@'),
        _ if control => None,
        0..=127 => Some(byte),
        _ => None,
    }
}

/// Looks for the sequence in what a client types.
///
/// Bytes that may begin the sequence are held back until it is clear that they do not.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    keys: Vec<u8>,
    matched: usize,
}

impl Matcher {
    /// A matcher for `keys`; an empty sequence never matches.
    pub fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Appends to `out` what of `input` goes to the process. Returns whether the sequence was completed; what
    /// follows it in `input` is dropped.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.keys.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for &byte in input {
            if byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return true;
                }
                continue;
            }
            self.give_back(byte, out);
        }
        false
    }

    /// After a mismatch: gives out the held bytes that cannot begin the sequence any more.
    fn give_back(&mut self, byte: u8, out: &mut Vec<u8>) {
        let mut held = self.keys[..self.matched].to_vec();
        held.push(byte);
        while !held.is_empty() && !self.keys.starts_with(&held) {
            out.push(held.remove(0));
        }
        self.matched = held.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_docker_syntax() {
        assert_eq!(parse("ctrl-p,ctrl-q").unwrap(), DEFAULT);
        assert_eq!(parse("a,ctrl-@,ctrl-[,ctrl-_,Z").unwrap(), [b'a', 0, 27, 31, b'Z']);
        assert_eq!(parse("ctrl-A").unwrap_err(), ParseError("ctrl-A".into()));
        assert!(parse("").is_err());
        assert!(parse("ab").is_err());
    }

    #[test]
    fn holds_back_only_what_may_match() {
        let mut matcher = Matcher::new(vec![1, 1, 2]);
        let mut out = Vec::new();
        assert!(!matcher.feed(&[1, 1, 1], &mut out));
        assert_eq!(out, [1]);
        assert!(!matcher.feed(b"x", &mut out));
        assert_eq!(out, [1, 1, 1, b'x']);
        assert!(matcher.feed(&[b'y', 1, 1, 2, b'z'], &mut out));
        assert_eq!(out, [1, 1, 1, b'x', b'y']);
    }

    proptest::proptest! {
        #[test]
        fn forwards_everything_before_the_sequence(
            keys in proptest::collection::vec(0u8..3, 1..4),
            input in proptest::collection::vec(0u8..4, 0..60),
            cut in 0usize..60,
        ) {
            let found = input.windows(keys.len()).position(|window| window == keys);
            let mut matcher = Matcher::new(keys.clone());
            let mut out = Vec::new();
            let (a, b) = input.split_at(cut.min(input.len()));
            let matched = matcher.feed(a, &mut out) || matcher.feed(b, &mut out);
            proptest::prop_assert_eq!(matched, found.is_some());
            let expected = match found { Some(at) => at, None => input.len() - matcher.matched };
            proptest::prop_assert_eq!(&out[..], &input[..expected]);
        }
    }
}
