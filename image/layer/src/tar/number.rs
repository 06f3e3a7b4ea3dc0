use super::Time;

/// Value of a numeric header field: octal digits with blanks around, or base 256 when the top bit is set.
pub(super) fn field(bytes: &[u8]) -> Option<i64> {
    if bytes.first()? & 0x80 != 0 { base256(bytes) } else { octal(bytes) }
}

fn octal(bytes: &[u8]) -> Option<i64> {
    let start = bytes.iter().position(|b| !matches!(b, b' ' | 0)).unwrap_or(bytes.len());
    let digits = &bytes[start..];
    let end = digits.iter().position(|b| matches!(b, b' ' | 0)).unwrap_or(digits.len());
    digits[..end].iter().try_fold(0i64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

fn base256(bytes: &[u8]) -> Option<i64> {
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { i64::from(bytes[0] | 0x80) - 256 } else { i64::from(bytes[0] & 0x3f) };
    bytes[1..].iter().try_fold(first, |value, b| value.checked_mul(256)?.checked_add(i64::from(*b)))
}

/// Decimal digits of a pax record.
pub(super) fn decimal(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `seconds[.fraction]` of a pax record, perhaps negative.
pub(super) fn time(bytes: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut nanoseconds = 0;
    for position in 0..9 {
        nanoseconds = nanoseconds * 10 + fraction.as_bytes().get(position).map_or(0, |b| u32::from(b - b'0'));
    }
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds });
    }
    Some(Time { seconds, nanoseconds })
}

/// Writes `value` in octal with a closing NUL; whether it fits.
pub(super) fn put_octal(field: &mut [u8], value: u64) -> bool {
    let width = field.len() - 1;
    let text = format!("{value:0width$o}");
    if text.len() > width {
        return false;
    }
    field[..width].copy_from_slice(text.as_bytes());
    field[width] = 0;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        assert_eq!(field(b"0000644\0"), Some(0o644));
        assert_eq!(field(b"   644 \0"), Some(0o644));
        assert_eq!(field(b"\0\0\0\0"), Some(0));
        assert_eq!(field(b"12x4567\0"), None);
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(field(&[0xff; 8]), Some(-1));
        assert_eq!(field(&[0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn times() {
        let t = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        assert_eq!(time(b"12.5"), t(12, 500_000_000));
        assert_eq!(time(b"12"), t(12, 0));
        assert_eq!(time(b"1.1234567899"), t(1, 123_456_789));
        assert_eq!(time(b"-1.25"), t(-2, 750_000_000));
        assert_eq!(time(b"-0.25"), t(-1, 750_000_000));
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }
}
