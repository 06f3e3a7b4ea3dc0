//! Lists of numbers as `0-3,7`.

/// Most numbers a list may speak of: the kernel's own bound on CPUs and memory nodes is below.
const MOST: usize = 8192;

/// The numbers as a mask of bits; `None` when the text is no list.
pub(crate) fn bits(text: &str) -> Option<Vec<u64>> {
    let mut mask: Vec<u64> = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return None;
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        (first..=last).for_each(|number| mask[number / 64] |= 1 << (number % 64));
    }
    Some(mask)
}

#[cfg(test)]
mod tests {
    #[test]
    fn ranges_and_single_numbers() {
        assert_eq!(super::bits("0-3,7"), Some(vec![0b1000_1111]));
        assert_eq!(super::bits("64"), Some(vec![0, 1]));
        for bad in ["", "a", "3-1", "1,,2", "-1", "99999999"] {
            assert_eq!(super::bits(bad), None, "{bad}");
        }
    }
}
