//! As much of DER (X.690) as finding the public key of a certificate needs.

/// A value: its tag and content, and what follows it.
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    /// The value with its tag and length.
    whole: &'a [u8],
    rest: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;

/// A public key: its algorithm, the curve if it has one, and the key itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PublicKey<'a> {
    pub(super) algorithm: &'a [u8],
    pub(super) curve: Option<&'a [u8]>,
    pub(super) key: &'a [u8],
    /// The whole SubjectPublicKeyInfo.
    pub(super) info: &'a [u8],
}

fn value(bytes: &[u8]) -> Option<Value<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let digits = usize::from(first & 0x7f);
        if !(1..=4).contains(&digits) || rest.len() < digits {
            return None;
        }
        let length = rest[..digits].iter().fold(0, |n, digit| n << 8 | usize::from(*digit));
        rest = &rest[digits..];
        length
    };
    if rest.len() < length {
        return None;
    }
    let (content, rest) = rest.split_at(length);
    Some(Value { tag, content, whole: &bytes[..bytes.len() - rest.len()], rest })
}

fn tagged(bytes: &[u8], tag: u8) -> Option<Value<'_>> {
    value(bytes).filter(|value| value.tag == tag)
}

/// Reads a SubjectPublicKeyInfo (RFC 5280 section 4.1).
pub(super) fn public_key(bytes: &[u8]) -> Option<PublicKey<'_>> {
    let info = tagged(bytes, SEQUENCE)?;
    let algorithm = tagged(info.content, SEQUENCE)?;
    let name = tagged(algorithm.content, OBJECT)?;
    let key = tagged(algorithm.rest, BIT_STRING)?;
    let (unused, key) = key.content.split_first()?;
    (*unused == 0).then_some(PublicKey {
        algorithm: name.content,
        curve: tagged(name.rest, OBJECT).map(|curve| curve.content),
        key,
        info: info.whole,
    })
}

/// Finds the public key of a certificate (RFC 5280 section 4.1).
pub(super) fn certificate_key(bytes: &[u8]) -> Option<PublicKey<'_>> {
    let certificate = tagged(bytes, SEQUENCE)?;
    let signed = tagged(certificate.content, SEQUENCE)?;
    let mut at = value(signed.content)?;
    // The version is there in everything but the oldest certificates.
    if at.tag == 0xa0 {
        at = value(at.rest)?;
    }
    // Serial number; then signature, issuer, validity and subject.
    for _ in 0..4 {
        at = value(at.rest)?;
    }
    public_key(at.rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = (public_key(&bytes), certificate_key(&bytes));
        }
    }
}
