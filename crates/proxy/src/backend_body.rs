//! The body of an answer as it comes from a backend, over whichever version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::h2_client::Line;
use crate::hush;
use crate::stream_body::StreamBody;

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum BackendBody {
    H1(Incoming),
    H2(Received),
}

/// The body that comes on one HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Received {
    body: StreamBody,
    line: Arc<Line>,
}

impl Received {
    pub(crate) fn new(receive: RecvStream, fields: &HeaderMap, line: Arc<Line>) -> Self {
        Self { body: StreamBody::new(receive, fields), line }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let frame = ready!(self.body.poll_frame(cx));
        if let Some(Err(error)) = &frame
            && self.body.is_whole(error)
        {
            return Poll::Ready(None);
        }
        self.line.note_heard();
        Poll::Ready(frame)
    }
}

/// Why an answer broke off.
#[derive(Debug)]
pub(crate) enum Broken {
    H1(hyper::Error),
    H2(h2::Error),
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Broken::H1(error) => error.fmt(f),
            Broken::H2(error) => error.fmt(f),
        }
    }
}

impl Body for BackendBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            BackendBody::H1(incoming) => {
                hush::poll_frame(incoming, cx).map(|frame| frame.map(|frame| frame.map_err(Broken::H1)))
            }
            BackendBody::H2(received) => received.poll(cx).map(|frame| frame.map(|frame| frame.map_err(Broken::H2))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            BackendBody::H1(incoming) => incoming.is_end_stream(),
            BackendBody::H2(received) => received.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            BackendBody::H1(incoming) => incoming.size_hint(),
            BackendBody::H2(received) => received.body.size_hint(),
        }
    }
}
