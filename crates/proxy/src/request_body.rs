//! The body of a request as it comes from a client, over whichever version of HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::body::BodyFault;
use crate::conn_state::ConnState;
use crate::headers;
use crate::stream_body::StreamBody;
use crate::streams::Reply;

/// The body of a request.
#[derive(Debug)]
pub(crate) enum RequestBody {
    H1(Delimited),
    H2(Streamed),
}

/// The body that comes on an HTTP/1 connection. hyper asks for what an `Expect: 100-continue` holds back when it is first read.
#[derive(Debug)]
pub(crate) struct Delimited {
    incoming: Incoming,
    /// Told when all of it was read; `None`: it was, or there is nothing to read.
    state: Option<Arc<ConnState>>,
}

/// The body that comes on one HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Streamed {
    /// `None`: the bytes of its stream are none of a body.
    body: Option<StreamBody>,
    /// The client waits for 100 (Continue).
    expects_continue: bool,
    reply: Arc<Reply>,
}

impl RequestBody {
    /// The body on a connection.
    pub(crate) fn on_connection(incoming: Incoming, state: &Arc<ConnState>) -> Self {
        let comes = !incoming.is_end_stream();
        state.unread.store(comes, Relaxed);
        Self::H1(Delimited { incoming, state: comes.then(|| Arc::clone(state)) })
    }

    /// The body on a stream, whose client is told by `reply` when it is wanted.
    pub(crate) fn on_stream(receive: RecvStream, fields: &HeaderMap, reply: &Arc<Reply>) -> Self {
        let body = StreamBody::new(receive, fields);
        let expects_continue = !body.is_end_stream() && headers::has_token(fields, &header::EXPECT, "100-continue");
        Self::H2(Streamed { body: Some(body), expects_continue, reply: Arc::clone(reply) })
    }

    /// Where an HTTP/2 client gets interim answers.
    pub(crate) fn reply(&self) -> Option<&Arc<Reply>> {
        match self {
            RequestBody::H1(_) => None,
            RequestBody::H2(streamed) => Some(&streamed.reply),
        }
    }

    /// The stream under it, for what is no body.
    pub(crate) fn take_stream(&mut self) -> Option<RecvStream> {
        match self {
            RequestBody::H1(_) => None,
            RequestBody::H2(streamed) => streamed.body.take().map(StreamBody::into_stream),
        }
    }
}

impl Delimited {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let last = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers() || self.incoming.is_end_stream(),
            Poll::Ready(None) => true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if last && let Some(state) = self.state.take() {
            state.unread.store(false, Relaxed);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(|_| BodyFault::Broken)))
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = body.poll_frame(cx) else {
            // Somebody wants the body and none of it is here: only now is it asked for (RFC 9110 10.1.1).
            if std::mem::take(&mut self.expects_continue) {
                self.reply.tell(StatusCode::CONTINUE, HeaderMap::new());
            }
            return Poll::Pending;
        };
        self.expects_continue = false;
        if frame.is_none() || body.is_end_stream() {
            self.reply.unread.store(false, Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| broken(&error))))
    }
}

impl Drop for Streamed {
    /// What has come already may be all: then nobody is still sending.
    fn drop(&mut self) {
        let Some(body) = &mut self.body else { return };
        let mut cx = Context::from_waker(Waker::noop());
        while self.reply.unread.load(Relaxed)
            && let Poll::Ready(frame) = body.poll_frame(&mut cx)
        {
            let last = frame.is_none_or(|frame| frame.is_err()) || body.is_end_stream();
            self.reply.unread.store(!last, Relaxed);
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
            RequestBody::H1(delimited) => delimited.poll(cx),
            RequestBody::H2(streamed) => streamed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::H1(delimited) => delimited.incoming.is_end_stream(),
            RequestBody::H2(streamed) => streamed.body.as_ref().is_none_or(StreamBody::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::H1(delimited) => delimited.incoming.size_hint(),
            RequestBody::H2(streamed) => streamed.body.as_ref().map_or(SizeHint::with_exact(0), StreamBody::size_hint),
        }
    }
}
