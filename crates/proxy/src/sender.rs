//! One connection to a backend, ready to take a request: HTTP/1.1 one at a time, HTTP/2 many at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use relais_core::Fault;

use crate::body::{BodyFault, SendBody};

/// A connection to a backend.
pub(crate) enum Sender {
    /// HTTP/1.1: exclusive until the answer is complete.
    H1(http1::SendRequest<SendBody>),
    /// HTTP/2: shared.
    H2(H2Sender),
}

/// A shared HTTP/2 connection and how many streams it carries.
#[derive(Clone)]
pub(crate) struct H2Sender {
    pub(crate) send: http2::SendRequest<SendBody>,
    streams: Arc<AtomicUsize>,
    /// Streams the backend allows; kept up to date by the task that drives the connection.
    allowed: Arc<AtomicUsize>,
}

impl H2Sender {
    pub(crate) fn new(send: http2::SendRequest<SendBody>, allowed: Arc<AtomicUsize>) -> Self {
        Self { send, streams: Arc::default(), allowed }
    }

    /// Whether another stream fits into what the backend allows.
    pub(crate) fn has_room(&self) -> bool {
        !self.send.is_closed() && self.streams.load(Relaxed) < self.allowed.load(Relaxed).max(1)
    }

    /// Counts a stream in; it is counted out when the guard drops.
    pub(crate) fn enter(&self) -> Stream {
        self.streams.fetch_add(1, Relaxed);
        Stream(Arc::clone(&self.streams))
    }
}

/// One stream on a shared connection.
#[derive(Debug)]
pub(crate) struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why sending failed.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The connection was closed before the request was written: nothing was sent.
    NotSent,
    /// Something may have been sent.
    Sent(Fault),
    /// The client's body failed, not the backend.
    Client(BodyFault),
}

/// What a hyper error on an attempt means.
pub(crate) fn judge(error: TrySendError<http::Request<SendBody>>) -> SendFailure {
    let mut error = error;
    if error.take_message().is_some() {
        return SendFailure::NotSent;
    }
    classify(error.error())
}

fn classify(error: &hyper::Error) -> SendFailure {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(fault) = cause.downcast_ref::<BodyFault>() {
            return SendFailure::Client(*fault);
        }
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return SendFailure::Sent(io_fault(io));
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            // The peer's word that it did nothing with the stream (RFC 9113 6.8 and 8.7): refused, or beyond the last
            // one it takes before going away.
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            let beyond = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            if h2.is_remote() && (refused || beyond) {
                return SendFailure::NotSent;
            }
            return SendFailure::Sent(h2.get_io().map_or(Fault::Reset, io_fault));
        }
        source = cause.source();
    }
    if error.is_parse() {
        return SendFailure::Sent(Fault::Malformed);
    }
    if error.is_timeout() {
        return SendFailure::Sent(Fault::Unacknowledged);
    }
    SendFailure::Sent(Fault::Reset)
}

/// What an I/O error on an established connection means.
pub(crate) fn io_fault(error: &std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::TimedOut => Fault::Unacknowledged,
        std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => Fault::Unreachable,
        _ => Fault::Reset,
    }
}

/// A connection that carried a request, kept until its answer is complete.
pub(crate) enum Held {
    /// To be given back to the pool when the answer is complete.
    H1(http1::SendRequest<SendBody>),
    /// To be counted out.
    H2(#[allow(dead_code, reason = "held for its Drop")] Stream),
}

impl Sender {
    /// Sends one request and waits for the response head.
    pub(crate) async fn send(
        self,
        request: http::Request<SendBody>,
    ) -> Result<(http::Response<Incoming>, Held), SendFailure> {
        match self {
            Sender::H1(mut send) => match send.try_send_request(request).await {
                Ok(response) => Ok((response, Held::H1(send))),
                Err(error) => Err(judge(error)),
            },
            Sender::H2(mut shared) => {
                let stream = shared.enter();
                match shared.send.try_send_request(request).await {
                    Ok(response) => Ok((response, Held::H2(stream))),
                    Err(error) => Err(judge(error)),
                }
            }
        }
    }

    /// HTTP/2 wants absolute targets and no `Host`; HTTP/1.1 the reverse.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self, Sender::H2(_))
    }
}
