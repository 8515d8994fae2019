//! Points in time as RFC 3339 text in UTC with nanoseconds, which is what logs and records carry.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// Now, from the real-time clock.
    pub fn now() -> Self {
        // A clock before 1970 is a machine without a clock: the epoch is as good as any answer.
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// From the time since the epoch.
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// This long ago; the epoch if that is before it.
    pub fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(ago))
    }

    /// How long ago `earlier` was, seen from here.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// `2026-11-22T09:55:16.123456789Z`, always 30 bytes until the year 10000.
    pub fn write_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.to_string().as_bytes());
    }

    /// Reads RFC 3339 with `Z` or an offset and up to nine digits of a second.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let mut date = date.splitn(3, '-').map(digits);
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let (clock, offset) = split_offset(rest)?;
        let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut clock = clock.splitn(3, ':').map(digits);
        let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
        let valid = (1970..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second <= 60;
        if !valid || fraction.len() > 9 {
            return None;
        }
        let nanos = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<9}"))? };
        let seconds =
            days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?)))
    }
}

/// Reads decimal digits and nothing else.
fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

/// `09:55:16.1+02:00` into the clock and the offset in seconds.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = text.rfind(['+', '-'])?;
    let (hours, minutes) = text.get(at + 1..)?.split_once(':')?;
    let seconds = digits(hours)? * 3600 + digits(minutes)? * 60;
    Some((text.get(..at)?, if text.as_bytes()[at] == b'-' { -seconds } else { seconds }))
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = i64::try_from(self.0.as_secs()).unwrap_or(i64::MAX);
        let (days, clock) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
        let nanos = self.0.subsec_nanos();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an RFC 3339 time"))
    }
}

/// Days since 1970 of a date; the proleptic Gregorian calendar counted in eras of 400 years that begin
/// on 1 March, so that the leap day is the last of a year (Howard Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (1_795_341_316, "2026-11-22T09:55:16.000000000Z"),
        ] {
            let time = Timestamp::from_unix(Duration::from_secs(unix));
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::parse(text), Some(time));
        }
    }

    #[test]
    fn parses_offsets_and_fractions() {
        let at = |text| Timestamp::parse(text).unwrap().to_string();
        assert_eq!(at("2026-01-01T01:00:00+02:00"), "2025-12-31T23:00:00.000000000Z");
        assert_eq!(at("2026-01-01T01:00:00.5-01:30"), "2026-01-01T02:30:00.500000000Z");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in
            ["", "now", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00Z", "x-01-01T00:00:00Z"]
        {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }
}
