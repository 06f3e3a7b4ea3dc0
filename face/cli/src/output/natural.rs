//! Order of names as people expect it: digits compare by number (`web9` before `web10`).

use std::cmp::Ordering;

/// Compares two names.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a_rest, mut b_rest) = (a.as_bytes(), b.as_bytes());
    loop {
        let (Some(&x), Some(&y)) = (a_rest.first(), b_rest.first()) else {
            return a_rest.len().cmp(&b_rest.len()).then_with(|| a.cmp(b));
        };
        if !x.is_ascii_digit() || !y.is_ascii_digit() {
            if x != y {
                return x.cmp(&y);
            }
            (a_rest, b_rest) = (&a_rest[1..], &b_rest[1..]);
            continue;
        }
        let (x, y);
        (x, a_rest) = number(a_rest);
        (y, b_rest) = number(b_rest);
        // Without leading zeros the longer number is the greater one.
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// The number at the beginning, without leading zeros, and the rest.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let zeros = text[..end].iter().position(|byte| *byte != b'0').unwrap_or(end);
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["web10", "web9", "a", "web", "web09x", "web009"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["a", "web", "web009", "web9", "web09x", "web10"]);
    }
}
