//! The body of an answer on its way to the client: streamed frame by frame, timed, and accounted for at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use relais_core::{Event, Fault};

use crate::access::Ticket;
use crate::pool::Slot;
use crate::sender::Held;
use crate::timer::LazyTimer;
use crate::worker::Worker;

/// The body of an answer.
pub(crate) struct ResponseBody {
    kind: Kind,
    ticket: Option<Box<Ticket>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Backend(Box<FromBackend>),
}

/// A body that comes from a backend, with the connection it comes on.
pub(crate) struct FromBackend {
    pub(crate) incoming: Incoming,
    pub(crate) held: Option<Held>,
    pub(crate) slot: Arc<Slot>,
    pub(crate) keep_idle: usize,
    /// Longest silence.
    pub(crate) patience: Duration,
    /// No byte of the answer after this.
    pub(crate) deadline: Option<Instant>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) backend_slot: u32,
    /// Keeps the gate of `Expect: 100-continue` shut until the answer is complete.
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) gate: Option<tokio::sync::oneshot::Sender<()>>,
    pub(crate) timer: LazyTimer,
    pub(crate) blocked: Option<Instant>,
}

/// The answer was cut; the client must see that (no final chunk, or RST_STREAM).
#[derive(Debug)]
pub(crate) struct Cut(&'static str);

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Cut {}

impl FromBackend {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.blocked = None;
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "answer of a backend broke off");
                self.worker.report(Event::Served { slot: self.backend_slot, result: Err(Fault::Reset) });
                Poll::Ready(Some(Err(Cut("backend_broke_off"))))
            }
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let since = *self.blocked.get_or_insert_with(Instant::now);
                let mut until = since + self.patience;
                if let Some(deadline) = self.deadline {
                    until = until.min(deadline);
                }
                match self.timer.poll_expired(cx, until) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(()) => Poll::Ready(Some(Err(Cut("backend_stalled")))),
                }
            }
        }
    }

    /// The answer is complete: the connection may serve the next request.
    fn release(&mut self) {
        if let Some(Held::H1(send)) = self.held.take() {
            self.slot.give_back(send, self.keep_idle);
        }
    }
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Empty, ticket: None }
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, ticket: None }
    }

    pub(crate) fn from_backend(mut body: Box<FromBackend>) -> Self {
        if body.incoming.is_end_stream() {
            body.release();
            return Self::empty();
        }
        Self { kind: Kind::Backend(body), ticket: None }
    }

    /// The ticket is dropped, and so counted and logged, with the body.
    pub(crate) fn with_ticket(mut self, mut ticket: Box<Ticket>) -> Self {
        if matches!(self.kind, Kind::Empty) {
            ticket.completed();
        }
        self.ticket = Some(ticket);
        self
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let frame = match &mut this.kind {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Some(Ok(Frame::data(bytes)))
            }
            Kind::Backend(body) => std::task::ready!(body.poll(cx)),
        };
        if let Some(ticket) = &mut this.ticket {
            match &frame {
                Some(Ok(frame)) => ticket.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(cut)) => ticket.cut = Some(cut.0),
                None => ticket.completed(),
            }
        }
        // The end is often known with the last frame, and hyper then polls no further.
        let ended = match &mut this.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Backend(body) => {
                let ended = body.incoming.is_end_stream();
                if ended {
                    body.release();
                }
                ended
            }
        };
        if ended
            && !matches!(frame, Some(Err(_)))
            && let Some(ticket) = &mut this.ticket
        {
            ticket.completed();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Backend(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Backend(body) => body.incoming.size_hint(),
        }
    }
}
