//! Durations (`300ms`, `1s`, `2m`, `1h`, `1d`) and sizes (`64KiB`, `10MB`).

use std::time::Duration;

use crate::fault::Fault;

/// The longest duration, so that sums of times and clocks stay in range.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Reads a whole number with its unit.
pub(crate) fn duration(text: &str) -> Result<Duration, Fault> {
    let (number, unit) = split(text);
    if number.is_empty() {
        return Err(not_a_duration(text).help("write a number and its unit, as `500ms`, `2s`, `5m`, `1h` or `1d`"));
    }
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong_unit(text, number, unit)),
    };
    let too_long = || Fault::new(format!("`{text}` is longer than a year")).label("at most `366d`");
    let count: u64 = number.parse().map_err(|_| too_long())?;
    let duration = count.checked_mul(milliseconds).map(Duration::from_millis);
    duration.filter(|duration| *duration <= LONGEST).ok_or_else(too_long)
}

fn not_a_duration(text: &str) -> Fault {
    Fault::new(format!("`{text}` is not a duration")).label("expected a number and its unit")
}

fn wrong_unit(text: &str, number: &str, unit: &str) -> Fault {
    let fault = not_a_duration(text);
    match unit.to_lowercase().as_str() {
        "" => fault.help(format!("write `{number}s`")),
        "msec" | "msecs" | "millis" | "milliseconds" => fault.help(format!("write `{number}ms`")),
        "sec" | "secs" | "second" | "seconds" => fault.help(format!("write `{number}s`")),
        "min" | "mins" | "minute" | "minutes" => fault.help(format!("write `{number}m`")),
        "hr" | "hrs" | "hour" | "hours" => fault.help(format!("write `{number}h`")),
        "day" | "days" => fault.help(format!("write `{number}d`")),
        _ if unit.starts_with('.') => fault.help("write a whole number of a smaller unit, as `1500ms` for 1.5 seconds"),
        _ => fault.help("units: ms, s, m, h, d"),
    }
}

/// Reads a size: a whole number and its unit.
pub(crate) fn size(text: &str) -> Result<u64, Fault> {
    let (number, unit) = split(text);
    let fault = || Fault::new(format!("`{text}` is not a size")).label("expected a number and its unit");
    if number.is_empty() {
        return Err(fault().help("write a number and its unit, as `64KiB` or `10MB`, or a whole number of bytes"));
    }
    let power: (u64, u32) = match unit.to_ascii_lowercase().as_str() {
        "b" => (1, 1),
        "kb" => (1000, 1),
        "mb" => (1000, 2),
        "gb" => (1000, 3),
        "tb" => (1000, 4),
        "kib" => (1024, 1),
        "mib" => (1024, 2),
        "gib" => (1024, 3),
        "tib" => (1024, 4),
        "" => return Err(fault().help(format!("write `{number}B`, or the number without quotes"))),
        "k" | "m" | "g" | "t" => {
            let letter = unit.to_ascii_uppercase();
            return Err(fault().help(format!("write `{number}{letter}iB` (1024) or `{number}{letter}B` (1000)")));
        }
        _ => return Err(fault().help("units: B, kB, MB, GB, TB (1000) and KiB, MiB, GiB, TiB (1024)")),
    };
    let too_large = || Fault::new(format!("`{text}` is too large")).label("more bytes than can be counted");
    let count: u64 = number.parse().map_err(|_| too_large())?;
    let bytes = count.checked_mul(power.0.pow(power.1)).ok_or_else(too_large)?;
    if i64::try_from(bytes).is_ok() { Ok(bytes) } else { Err(too_large()) }
}

/// The digits at the start, and what follows.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

/// A duration as the file would say it: `1s`, `1500ms`, `2m`.
pub(crate) fn shown(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds >= size && milliseconds.is_multiple_of(size) {
            return format!("{}{unit}", milliseconds / size);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, shown, size};

    fn help(result: Result<impl std::fmt::Debug, crate::fault::Fault>) -> String {
        let fault = result.unwrap_err();
        format!("{}; {}", fault.message, fault.help.unwrap_or_default())
    }

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("300ms", 300),
            ("1s", 1000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            ("0s", 0),
            (" 5 s ", 5000),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert_eq!(help(duration("2")), "`2` is not a duration; write `2s`");
        assert_eq!(help(duration("2sec")), "`2sec` is not a duration; write `2s`");
        assert_eq!(help(duration("5 minutes")), "`5 minutes` is not a duration; write `5m`");
        assert_eq!(
            help(duration("1.5s")),
            "`1.5s` is not a duration; write a whole number of a smaller unit, as `1500ms` for 1.5 seconds"
        );
        assert_eq!(help(duration("2y")), "`2y` is not a duration; units: ms, s, m, h, d");
        assert_eq!(help(duration("367d")), "`367d` is longer than a year; ");
        assert_eq!(help(duration("99999999999999999999s")), "`99999999999999999999s` is longer than a year; ");
        for text in ["", "s", "-1s", "fast", "١s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("512B", 512), ("64KiB", 65_536), ("64kib", 65_536), ("10MB", 10_000_000), ("1 GiB", 1 << 30)]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        assert_eq!(help(size("64K")), "`64K` is not a size; write `64KiB` (1024) or `64KB` (1000)");
        assert_eq!(help(size("64")), "`64` is not a size; write `64B`, or the number without quotes");
        assert_eq!(help(size("99999999TiB")), "`99999999TiB` is too large; ");
        for text in ["", "KiB", "-1B", "1.5MB", "1XB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_written() {
        for text in ["300ms", "1s", "1500ms", "90s", "2m", "1h", "1d", "0ms"] {
            assert_eq!(shown(duration(text).unwrap()), text);
        }
    }
}
