use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Hash functions a digest may name (OCI image-spec descriptor.md, "registered algorithms").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits.
    Sha256,
    /// SHA-384, 96 hex digits.
    Sha384,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// Its name in a digest: `sha256`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hex digits of its value.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }
}

/// Content's name: `<algorithm>:<lower-case hex>`; always well formed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    text: Box<str>,
}

/// Why a text is no digest; texts are those of Docker's reference library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// Not `algorithm:hex`.
    #[error("invalid checksum digest format")]
    Format,
    /// Right algorithm, wrong number of digits.
    #[error("invalid checksum digest length")]
    Length,
    /// An algorithm nobody registered.
    #[error("unsupported digest algorithm")]
    Algorithm,
}

impl Digest {
    /// From a SHA-256 value.
    pub fn sha256(value: &[u8; 32]) -> Self {
        Self::from_hash(Algorithm::Sha256, value)
    }

    /// From a hash value whose length fits the algorithm (it is the hash function's own output).
    pub fn from_hash(algorithm: Algorithm, value: &[u8]) -> Self {
        debug_assert_eq!(value.len() * 2, algorithm.hex_len());
        let mut text = String::with_capacity(8 + value.len() * 2);
        text.push_str(algorithm.as_str());
        text.push(':');
        push_hex(&mut text, value);
        Self { algorithm, text: text.into() }
    }

    /// The hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The value in hex.
    pub fn hex(&self) -> &str {
        &self.text[self.algorithm.as_str().len() + 1..]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// First 12 digits, as `docker images` shows an id.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

pub(crate) fn push_hex(text: &mut String, value: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in value {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
}

pub(crate) fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Format)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha384" => Algorithm::Sha384,
            "sha512" => Algorithm::Sha512,
            "" => return Err(DigestError::Format),
            _ => return Err(DigestError::Algorithm),
        };
        if hex.is_empty() || !hex.is_ascii() {
            return Err(DigestError::Format);
        }
        if hex.len() != algorithm.hex_len() {
            return Err(DigestError::Length);
        }
        if !is_lower_hex(hex) {
            return Err(DigestError::Format);
        }
        Ok(Self { algorithm, text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|e| serde::de::Error::custom(format_args!("digest {text:?}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_what_is_not_a_digest() {
        let hex = "a".repeat(64);
        for (text, error) in [
            ("", DigestError::Format),
            ("sha256", DigestError::Format),
            (":abc", DigestError::Format),
            ("sha256:", DigestError::Format),
            ("sha256:abc", DigestError::Length),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::Algorithm),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
        assert_eq!(format!("sha256:{}", hex.to_uppercase()).parse::<Digest>(), Err(DigestError::Format));
        assert_eq!(format!("sha256:{}/", &hex[1..]).parse::<Digest>(), Err(DigestError::Format));
        let digest: Digest = format!("sha256:{hex}").parse().unwrap();
        assert_eq!((digest.hex(), digest.short()), (hex.as_str(), "aaaaaaaaaaaa"));
    }

    proptest! {
        #[test]
        fn value_text_value(value: [u8; 32]) {
            let digest = Digest::sha256(&value);
            prop_assert_eq!(digest.as_str().parse::<Digest>().unwrap(), digest);
        }

        #[test]
        fn any_text_parses_or_fails(text in ".{0,140}") {
            let _ = text.parse::<Digest>();
        }
    }
}
