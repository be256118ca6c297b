//! `Date` of answers (RFC 9110 6.6.1), written once a second.

use std::cell::RefCell;
use std::time::SystemTime;

use http::HeaderValue;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

/// Second since 1970 and how it is written.
type Written = (u64, HeaderValue);

thread_local! {
    static LAST: RefCell<Written> = const { RefCell::new((0, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"))) };
}

/// The date now.
pub(crate) fn now() -> HeaderValue {
    let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| {
        if last.0 != second
            && let Some(written) = write(second)
        {
            *last = (second, written);
        }
        last.1.clone()
    })
}

/// `None`: beyond the year 9999.
fn write(second: u64) -> Option<HeaderValue> {
    let timestamp = Timestamp::from_second(i64::try_from(second).ok()?).ok()?;
    let text = DateTimePrinter::new().timestamp_to_rfc9110_string(&timestamp).ok()?;
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_wants_it() {
        assert_eq!(write(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(write(0).unwrap(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(write(u64::MAX), None);
    }

    #[test]
    fn the_date_now_is_that_of_the_clock() {
        let (before, date, after) = (write_now(), now(), write_now());
        assert!(date == before || date == after, "{date:?}");
        assert_eq!(date.len(), 29);
    }

    fn write_now() -> HeaderValue {
        write(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap()
    }
}
