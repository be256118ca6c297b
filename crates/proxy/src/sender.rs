//! One connection to a backend, ready to take a request: HTTP/1.1 one at a time, HTTP/2 many at once.

use http::Request;
use hyper::client::conn::{TrySendError, http1};
use relais_core::Fault;

use crate::body::{BodyFault, SendBody};
use crate::h2_client::{H2Sender, InUse};
use crate::interim::Hear;

/// A connection to a backend.
pub(crate) enum Sender {
    /// HTTP/1.1: exclusive until the answer is complete.
    H1(http1::SendRequest<SendBody>),
    /// HTTP/2: shared.
    H2(H2Sender),
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

/// Has hyper tell of interim answers.
pub(crate) fn listen(request: &mut Request<SendBody>, hear: Option<Hear>) {
    if let Some(hear) = hear {
        hyper::ext::on_informational(request, move |interim| hear.hear(interim.status(), interim.headers()));
    }
}

/// What a hyper error on an attempt means.
pub(crate) fn judge(error: TrySendError<Request<SendBody>>) -> SendFailure {
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
        source = cause.source();
    }
    if error.is_parse() {
        return SendFailure::Sent(Fault::Malformed);
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
    H2(InUse),
}

impl Sender {
    /// HTTP/2 wants absolute targets and no `Host`; HTTP/1.1 the reverse.
    pub(crate) fn is_h2(&self) -> bool {
        matches!(self, Sender::H2(_))
    }
}
