//! The time of day as log lines and records show it: RFC 3339 in UTC with nine digits of a second.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Length of a formatted time.
pub(crate) const LENGTH: usize = 30;

/// The time of day now.
pub(crate) fn now() -> [u8; LENGTH] {
    format(clock_gettime(ClockId::Realtime))
}

/// [`now`] as text.
pub(crate) fn now_text() -> String {
    now().iter().map(|byte| char::from(*byte)).collect()
}

/// `2026-01-02T03:04:05.123456789Z`.
fn format(time: Timespec) -> [u8; LENGTH] {
    let (days, second) = (time.tv_sec.div_euclid(86400), time.tv_sec.rem_euclid(86400));
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], month);
    digits(&mut text[8..10], day);
    digits(&mut text[11..13], second / 3600);
    digits(&mut text[14..16], second / 60 % 60);
    digits(&mut text[17..19], second % 60);
    digits(&mut text[20..29], time.tv_nsec);
    text
}

fn digits(place: &mut [u8], mut value: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar (H. Hinnant,
/// "chrono-compatible low-level date algorithms": years begin in March, so that the leap day is a year's last).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_known_instants() {
        for (tv_sec, tv_nsec, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_735_689_599, 120, "2024-12-31T23:59:59.000000120Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(std::str::from_utf8(&format(Timespec { tv_sec, tv_nsec })).unwrap(), text);
        }
    }
}
