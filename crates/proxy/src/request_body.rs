//! The body of a request as it comes from a client, over whichever version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyFault;
use crate::headers;
use crate::streams::Reply;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// hyper asks for what an `Expect: 100-continue` holds back when it is first read.
    H1(Incoming),
    H2(Streamed),
}

/// The body that comes on one HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Streamed {
    receive: RecvStream,
    /// Bytes still to come, when the client said how many.
    left: Option<u64>,
    /// Nothing but trailers can come.
    data_ended: bool,
    /// The client waits for 100 (Continue).
    expects_continue: bool,
    reply: Arc<Reply>,
}

impl RequestBody {
    /// The body on a stream, whose client is told by `reply` when it is wanted.
    pub(crate) fn on_stream(receive: RecvStream, fields: &HeaderMap, reply: &Arc<Reply>) -> Self {
        let ended = receive.is_end_stream();
        Self::H2(Streamed {
            left: if ended { Some(0) } else { stated_length(fields) },
            data_ended: false,
            expects_continue: !ended && headers::has_token(fields, &header::EXPECT, "100-continue"),
            reply: Arc::clone(reply),
            receive,
        })
    }

    /// Where an HTTP/2 client gets interim answers.
    pub(crate) fn reply(&self) -> Option<&Arc<Reply>> {
        match self {
            RequestBody::H1(_) => None,
            RequestBody::H2(streamed) => Some(&streamed.reply),
        }
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

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if !self.data_ended {
            let Poll::Ready(data) = self.receive.poll_data(cx) else {
                // Somebody wants the body and none of it is here: only now is it asked for (RFC 9110 10.1.1).
                if std::mem::take(&mut self.expects_continue) {
                    self.reply.tell(StatusCode::CONTINUE, HeaderMap::new());
                }
                return Poll::Pending;
            };
            self.expects_continue = false;
            match data {
                Some(Ok(data)) => {
                    // What is read makes room for more. Refused only where the stream has ended.
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(&error)))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.receive.poll_trailers(cx)) {
            Ok(trailers) => Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(broken(&error)))),
        }
    }
}

/// A reset is no end of a body, whatever its reason.
fn broken(error: &h2::Error) -> BodyFault {
    tracing::debug!(%error, "request body of a client broke off");
    BodyFault::Broken
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        match self.get_mut() {
            RequestBody::H1(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(|_| BodyFault::Broken)))
            }
            RequestBody::H2(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::H1(incoming) => incoming.is_end_stream(),
            RequestBody::H2(streamed) => streamed.receive.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::H1(incoming) => incoming.size_hint(),
            RequestBody::H2(streamed) => streamed.left.map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
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
