//! Access lines as JSON, one for each request: the same text as the general formatter's, written in a third of its time. All
//! other events go to that formatter.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Target of the one line per request.
pub(crate) const ACCESS: &str = "access";

/// Room for a line: most fit.
const ROOM: usize = 768;

/// Formats events as lines of JSON.
#[derive(Debug)]
pub(crate) struct Lines(Format<Json>);

impl Lines {
    pub(crate) fn new() -> Self {
        let general = tracing_subscriber::fmt::format().json();
        Self(general.flatten_event(true).with_current_span(false).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target() != ACCESS {
            return self.0.format_event(context, writer, event);
        }
        let mut line = Line(String::with_capacity(ROOM));
        line.0.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(&mut line.0))?;
        line.0.push_str("\",\"level\":\"");
        line.0.push_str(metadata.level().as_str());
        line.0.push('"');
        event.record(&mut line);
        line.0.push_str(",\"target\":\"access\"}\n");
        writer.write_str(&line.0)
    }
}

/// A line of which the beginning is written.
struct Line(String);

impl Line {
    fn key(&mut self, field: &Field) {
        self.0.push_str(",\"");
        // Names of fields are our own words.
        self.0.push_str(field.name());
        self.0.push_str("\":");
    }

    /// Numbers are written by `Display` as JSON wants them.
    fn number(&mut self, field: &Field, number: impl fmt::Display) {
        self.key(field);
        // A string refuses nothing.
        let _ = write!(self.0, "{number}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        self.0.push('"');
        escape(&mut self.0, value);
        self.0.push('"');
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.key(field);
        self.0.push('"');
        let _ = write!(Escaping(&mut self.0), "{value:?}");
        self.0.push('"');
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    /// JSON has no infinity.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.key(field);
        let _ = if value.is_finite() { write!(self.0, "{value:?}") } else { self.0.write_str("null") };
    }
}

/// Escapes what is formatted into it.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

/// Appends a text as it stands between the quotes of a JSON string (RFC 8259, section 7).
fn escape(line: &mut String, text: &str) {
    let mut rest = text;
    // All that must be escaped is ASCII: no cut goes through a character.
    while let Some(at) = rest.bytes().position(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        line.push_str(&rest[..at]);
        let byte = rest.as_bytes()[at];
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            _ => "",
        };
        line.push_str(short);
        if short.is_empty() {
            let _ = write!(line, "\\u{byte:04x}");
        }
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// What a formatter makes of our events, from behind the time.
    fn written<F>(format: F) -> Vec<String>
    where
        F: FormatEvent<tracing_subscriber::Registry, JsonFields> + Send + Sync + 'static,
    {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(JsonFields::new()).event_format(format);
        let subscriber = tracing_subscriber::registry().with(layer.with_writer(kept.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let odd: String = (0_u8..0x80).map(char::from).chain("é€😀\u{2028}".chars()).collect();
            tracing::info!(target: "access", plain = "a/b?c=d", odd, debug = ?odd, shown = %odd, empty = "");
            tracing::info!(target: "access", large = u64::MAX, small = i64::MIN, yes = true, status = 200_u16);
            tracing::info!(target: "access", ms = 0.25, none = 0.0, long = 123_456.789, nan = f64::NAN, third = 1.0 / 3.0);
            tracing::warn!(target: "access", version = ?http::Version::HTTP_2, "and a message \"quoted\"");
            tracing::info!(target: "other", text = "as ever");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| {
            let (time, rest) = line.split_once("\",").unwrap();
            assert!(time.starts_with("{\"timestamp\":\"2") && time.ends_with('Z'), "{line}");
            serde_json::from_str::<serde_json::Value>(line).unwrap();
            rest.to_owned()
        });
        lines.collect()
    }

    #[test]
    fn lines_are_those_of_the_general_formatter() {
        let (ours, general) = (written(Lines::new()), written(Lines::new().0));
        assert_eq!(ours.len(), 5);
        assert_eq!(ours, general);
    }
}
