//! Wall clock time as text.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, as RFC 3339 in UTC with nanoseconds: `2026-11-22T09:37:39.12345678Z`, without the zeros at the end of the
/// fraction (Go's RFC3339Nano).
pub fn now_rfc3339() -> String {
    shortened(&rfc3339(SystemTime::now()))
}

fn shortened(text: &str) -> String {
    let fraction = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{fraction}Z")
}

/// A time as RFC 3339 in UTC with nanoseconds; a time before 1970 is told as 1970.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let second = seconds % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_nanos()
    )
}

/// Year, month and day of a day since 1970-01-01, in the proleptic Gregorian calendar; the year is taken to
/// begin in March, so that the leap day is its last (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_at_the_end_of_a_fraction_are_left_out() {
        assert_eq!(shortened("2026-11-22T09:37:30.000000000Z"), "2026-11-22T09:37:30Z");
        assert_eq!(shortened("2026-11-22T09:37:30.120000000Z"), "2026-11-22T09:37:30.12Z");
    }

    #[test]
    fn known_instants() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_795_340_259), "2026-11-22T09:37:39.000000000Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59.000000000Z");
    }
}
