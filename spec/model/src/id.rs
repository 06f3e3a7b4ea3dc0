use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{is_lower_hex, push_hex};

/// Name of a container, network or exec: 64 lower-case hex digits, random.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

/// The text is not 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid id: not 64 hexadecimal digits")]
pub struct IdError;

impl Id {
    /// A new id from the kernel's random numbers. Its short form is never all decimal digits, so that it can
    /// be used as a host name (Docker's stringid.GenerateRandomID).
    pub fn random() -> Self {
        loop {
            let mut text = String::with_capacity(64);
            push_hex(&mut text, &random_bytes());
            if text[..12].bytes().any(|b| b.is_ascii_alphabetic()) {
                return Self(text.into());
            }
        }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// First 12 digits.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // getrandom(2) without flags fails only with EINTR, and a request of up to 256 bytes not even with that.
        if let Ok(n) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            filled += n;
        }
    }
    bytes
}

/// Whether the text could be the beginning of an id (1 to 64 lower-case hex digits).
pub fn is_short_id(text: &str) -> bool {
    (1..=64).contains(&text.len()) && is_lower_hex(text)
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.len() == 64 && is_lower_hex(text) { Ok(Self(text.into())) } else { Err(IdError) }
    }
}

impl AsRef<str> for Id {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Id {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_differ_and_parse() {
        let (a, b) = (Id::random(), Id::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<Id>().unwrap(), a);
        assert_eq!(a.short().len(), 12);
        assert!(is_short_id(a.short()) && !is_short_id("") && !is_short_id("xyz"));
        assert!(a.short().parse::<Id>().is_err());
    }
}
