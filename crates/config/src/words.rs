//! Durations and counts in the words people read: mistakes, logs, `status`, `check`. Touches nothing.

use std::time::Duration;

/// `45 ms`, `0.79 s`, `12 s`, `3 min`, `2 h`: short, never more than three digits of meaning.
#[must_use]
pub fn short(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        0 if !time.is_zero() => format!("{} us", time.as_micros()),
        0..=599 => format!("{millis} ms"),
        600..=9_999 => trimmed(time.as_secs_f64()),
        10_000..=119_999 => format!("{} s", millis / 1000),
        120_000..=7_199_999 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

fn trimmed(seconds: f64) -> String {
    let text = format!("{seconds:.2}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// `1 check`, `2 checks`.
#[must_use]
pub fn count(n: u32, one: &str) -> String {
    if n == 1 { format!("{n} {one}") } else { format!("{n} {one}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        let told = |micros| short(Duration::from_micros(micros));
        assert_eq!(told(400), "400 us");
        assert_eq!(told(330_000), "330 ms");
        assert_eq!(told(790_000), "0.79 s");
        assert_eq!(told(1_000_000), "1 s");
        assert_eq!(told(2_500_000), "2.5 s");
        assert_eq!(told(60_000_000), "60 s");
        assert_eq!(told(600_000_000), "10 min");
        assert_eq!(told(36_000_000_000), "10 h");
        assert_eq!(count(1, "check"), "1 check");
        assert_eq!(count(3, "check"), "3 checks");
    }
}
