//! Points in time as clients write them in queries.

use crate::error::HttpError;

/// Nanoseconds since 1970 from `1700000000`, `1700000000.5` or RFC 3339; nothing for an absent, empty or zero value.
///
/// The docker CLI turns its own forms (`10m`, dates) into the first two before it asks.
pub(crate) fn parse(name: &str, text: Option<&str>) -> Result<Option<i64>, HttpError> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty() && *text != "0") else {
        return Ok(None);
    };
    let nanoseconds = from_seconds(text).or_else(|| from_rfc3339(text));
    match nanoseconds {
        Some(nanoseconds) => Ok(Some(nanoseconds)),
        None => {
            Err(HttpError::bad_request(format!("invalid value for {name:?}: {text:?} is not a timestamp")))
        }
    }
}

fn from_seconds(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = seconds.starts_with('-');
    let seconds: i64 = seconds.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanoseconds: i64 = padded.parse().ok()?;
    let nanoseconds = if negative { -nanoseconds } else { nanoseconds };
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn from_rfc3339(text: &str) -> Option<i64> {
    i64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_fractions_and_dates() {
        let time = |text| parse("since", Some(text)).unwrap();
        assert_eq!(time("1700000000"), Some(1_700_000_000_000_000_000));
        assert_eq!(time("1700000000.000000005"), Some(1_700_000_000_000_000_005));
        assert_eq!(time("1.5"), Some(1_500_000_000));
        assert_eq!(time("1970-01-01T00:00:01.5Z"), Some(1_500_000_000));
        assert_eq!(time("0"), None);
        assert_eq!(parse("since", None).unwrap(), None);
        assert_eq!(parse("since", Some("yesterday")).unwrap_err().status(), 400);
        assert_eq!(parse("since", Some("1.x")).unwrap_err().status(), 400);
    }
}
