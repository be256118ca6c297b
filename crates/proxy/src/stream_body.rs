//! What comes on one HTTP/2 stream, as a body: data, for which room is made as it is read, then trailers.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

/// Streams that this end reset or gave up are remembered, so that what is still on its way to them is no mistake of the other
/// end: so many, and for so long. Beyond them each piece counts as one, and a thousand end a connection with all it carries.
pub(crate) const REMEMBERED: (usize, Duration) = (4096, Duration::from_secs(4));

/// The body that comes on a stream.
#[derive(Debug)]
pub(crate) struct StreamBody {
    receive: RecvStream,
    /// Bytes still to come, when the other end said how many.
    left: Option<u64>,
    /// Nothing but trailers can come.
    data_ended: bool,
    /// Nothing ever came.
    empty: bool,
}

impl StreamBody {
    /// `fields`: the head it belongs to.
    pub(crate) fn new(receive: RecvStream, fields: &HeaderMap) -> Self {
        let empty = receive.is_end_stream();
        let left = if empty { Some(0) } else { stated_length(fields) };
        Self { receive, left, data_ended: false, empty }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data_ended {
            match ready!(self.receive.poll_data(cx)) {
                Some(Ok(data)) => {
                    // What is read makes room for more. Refused only where the stream has ended.
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.data_ended = true,
            }
        }
        ready!(self.receive.poll_trailers(cx)).map(|trailers| trailers.map(Frame::trailers)).transpose().into()
    }

    /// Whether an error only says that the other end wants nothing more of us (RFC 9113 8.1), and all that it promised came.
    /// An end that was said before is not undone by a reset: it is no error at all.
    pub(crate) fn is_whole(&self, error: &h2::Error) -> bool {
        error.reason() == Some(Reason::NO_ERROR) && error.is_remote() && self.left == Some(0)
    }

    /// The stream itself.
    pub(crate) fn into_stream(self) -> RecvStream {
        self.receive
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.empty || self.receive.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// `Content-Length`, if all of them say the same.
fn stated_length(fields: &HeaderMap) -> Option<u64> {
    let mut all = fields.get_all(header::CONTENT_LENGTH).iter();
    let number = |value: &http::HeaderValue| -> Option<u64> {
        let digits = value.as_bytes();
        // `parse` would take a sign.
        digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
    };
    let first = number(all.next()?)?;
    all.all(|other| number(other) == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_counts_only_where_nothing_contradicts_it() {
        for (values, length) in [
            (&["12"][..], Some(12)),
            (&["12", "12"], Some(12)),
            (&["12", "13"], None),
            (&["+12"], None),
            (&[""], None),
            (&["99999999999999999999"], None),
            (&[], None),
        ] {
            let mut fields = HeaderMap::new();
            for value in values {
                fields.append(header::CONTENT_LENGTH, value.parse().unwrap());
            }
            assert_eq!(stated_length(&fields), length, "{values:?}");
        }
    }
}
