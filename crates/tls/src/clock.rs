//! The wall clock, and spans of time in words. Certificates live by the wall clock: this room may read it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relais_core::Instant;

/// Now, by the wall clock.
pub(crate) fn now() -> Instant {
    Instant::default() + SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// From seconds since the Unix epoch; times before it become the epoch.
pub(crate) fn from_unix(seconds: i64) -> Instant {
    Instant::default() + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// `2026-11-20 10:22 UTC`.
#[must_use]
pub fn date(at: Instant) -> String {
    stamp(at, "%Y-%m-%d %H:%M UTC")
}

/// `2026-11-20T10-22-33Z`: sorts by time and suits a file name.
pub(crate) fn file_date(at: Instant) -> String {
    stamp(at, "%Y-%m-%dT%H-%M-%SZ")
}

fn stamp(at: Instant, format: &str) -> String {
    let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_microsecond(micros).unwrap_or(jiff::Timestamp::MAX).strftime(format).to_string()
}

/// `3 days`, `1 hour`, `12 minutes`: the largest unit that is whole, rounded down.
pub(crate) fn words(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        60.. => (seconds / 60, "minute"),
        _ => (seconds, "second"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_their_largest_unit() {
        let said = |seconds| words(Duration::from_secs(seconds));
        assert_eq!(said(0), "0 seconds");
        assert_eq!(said(1), "1 second");
        assert_eq!(said(119), "1 minute");
        assert_eq!(said(7_200), "2 hours");
        assert_eq!(said(86_400), "1 day");
        assert_eq!(said(3 * 86_400 + 5), "3 days");
    }

    #[test]
    fn dates_are_utc_and_never_fail() {
        assert_eq!(date(from_unix(1_795_170_153)), "2026-11-20 10:22 UTC");
        assert_eq!(file_date(from_unix(1_795_170_153)), "2026-11-20T10-22-33Z");
        assert_eq!(from_unix(-5), Instant::default());
        assert!(date(Instant(u64::MAX)).starts_with("9999-12-30"), "{}", date(Instant(u64::MAX)));
    }
}
