//! The body of an answer on its way to the client: streamed frame by frame, timed, continued elsewhere where that is
//! possible, and accounted for at its end.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use relais_core::{Backend, Event, Fault, Left};
use tokio::sync::futures::OwnedNotified;

use crate::access::Ticket;
use crate::body::ClientBody;
use crate::exchange::Exchange;
use crate::pool::{Slot, Verdicts};
use crate::resume::{self, Plan};
use crate::sender::Held;
use crate::streams::{PIECE, Turn};
use crate::timer::LazyTimer;
use crate::worker::Worker;

/// What is buffered for a client may hide the silence of a backend for so many contracts.
const HIDDEN: u32 = 10;

/// The body of an answer.
pub(crate) struct ResponseBody {
    kind: Kind,
    ticket: Option<Box<Ticket>>,
    /// What is left of a frame that is passed on in pieces.
    rest: Option<Bytes>,
    /// Of the HTTP/2 stream this goes to.
    turn: Option<Arc<Turn>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Backend(Box<FromBackend>),
    /// The backend is lost; another one is asked for the rest. The ticket is in there.
    Resuming(Resuming),
}

type Resuming = Pin<Box<dyn Future<Output = (Box<Ticket>, Result<Box<FromBackend>, Cut>)> + Send>>;

/// A body that comes from a backend, with the connection it comes on.
pub(crate) struct FromBackend {
    pub(crate) incoming: Incoming,
    pub(crate) held: Option<Held>,
    pub(crate) slot: Arc<Slot>,
    /// Verdicts on the backend when the attempt began.
    pub(crate) before: Verdicts,
    pub(crate) keep_idle: usize,
    /// Longest silence.
    pub(crate) patience: Duration,
    /// No byte of the answer after this.
    pub(crate) deadline: Option<Instant>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) backend: Arc<Backend>,
    /// Longest silence of an event stream whose backend hangs.
    pub(crate) contract: Duration,
    /// Keeps the gate of `Expect: 100-continue` shut until the answer is complete.
    #[allow(dead_code, reason = "held for its Drop")]
    pub(crate) gate: Option<tokio::sync::oneshot::Sender<()>>,
    /// How to continue elsewhere, and with what request.
    pub(crate) plan: Option<Plan>,
    pub(crate) exchange: Option<Box<Exchange>>,
    /// The request's body, which may still be on its way: if it breaks, that is not the backend's fault.
    pub(crate) upload: Option<Arc<ClientBody>>,
    /// An event stream: a drain ends it, and a backend that hangs, as nothing else would.
    pub(crate) events: bool,
    pub(crate) timing: Timing,
}

/// The wait for the next frame.
#[derive(Default)]
pub(crate) struct Timing {
    timer: LazyTimer,
    blocked: Option<Instant>,
    verdict: Option<Pin<Box<OwnedNotified>>>,
    /// When a drained event stream ends.
    drained_at: Option<Instant>,
}

/// The answer was cut; the client must see that (no final chunk, or RST_STREAM).
#[derive(Debug, Clone, Copy)]
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
                self.timing.blocked = None;
                if self.events {
                    self.backend.hear(self.worker.now());
                }
                if let (Some(plan), Some(data)) = (&mut self.plan, frame.data_ref()) {
                    plan.passed(data.len());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "answer of a backend broke off");
                if self.upload.as_ref().is_none_or(|body| body.fault().is_none()) {
                    self.backend.stats.errors.inc();
                    self.worker.report(Event::Served { slot: self.backend.slot, result: Err(Fault::Reset) });
                }
                Poll::Ready(Some(Err(Cut("backend_broke_off"))))
            }
            Poll::Ready(None) => {
                self.release();
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_lost(cx).map(|cut| Some(Err(cut))),
        }
    }

    /// No frame now: is there any point in waiting for one?
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        loop {
            let verdict =
                self.timing.verdict.get_or_insert_with(|| Box::pin(Arc::clone(&self.slot.verdict).notified_owned()));
            let changed = verdict.as_mut().poll(cx).is_ready();
            let now = self.slot.verdicts();
            if now.deaths != self.before.deaths {
                return Poll::Ready(Cut("backend_dead"));
            }
            // It does not answer, though its host lives. What can be continued elsewhere is; the rest may still come.
            if now.downs != self.before.downs && self.exchange.is_some() {
                return Poll::Ready(Cut("backend_down"));
            }
            if self.events && now.drains != self.before.drains && self.timing.drained_at.is_none() {
                self.timing.drained_at = Some(Instant::now() + self.worker.drain_delay());
            }
            if !changed {
                break;
            }
            self.timing.verdict = None;
        }
        let since = *self.timing.blocked.get_or_insert_with(Instant::now);
        let until = self.deadline.into_iter().fold(since + self.patience, Instant::min);
        let hung_until = (self.events && self.slot.is_hung()).then(|| self.silent_until(since));
        // What can be continued elsewhere, if there is one, does not wait on a connection whose neighbour was found dead.
        let doubted = self.neighbour_died(since)
            && self.exchange.as_ref().is_some_and(|exchange| exchange.has_elsewhere(self.backend.slot));
        let dead_until = doubted.then(|| since + self.contract);
        let reasons = [
            (self.timing.drained_at, "drained"),
            (hung_until, "backend_down"),
            (dead_until, "backend_stalled"),
            (Some(until), "backend_stalled"),
        ];
        let first = reasons.into_iter().filter_map(|(at, reason)| Some((at?, reason))).min_by_key(|(at, _)| *at);
        let (at, reason) = first.unwrap_or((until, "backend_stalled"));
        ready!(self.timing.timer.poll_expired(cx, at));
        // Other silence is the transport's, or not the backend's own.
        if at == until && !self.events && !self.over_time() && self.upload.as_ref().is_none_or(|body| body.is_read()) {
            self.backend.stats.errors.inc();
        }
        Poll::Ready(Cut(reason))
    }

    /// Whether another connection to this backend was found dead, since this one fell silent or not long before: what its
    /// client had not taken yet hid the silence.
    fn neighbour_died(&self, since: Instant) -> bool {
        let ago = self.worker.now().since(self.slot.distrusted());
        ago <= since.elapsed() + self.contract * HIDDEN
    }

    /// When a backend that hangs has been silent for a contract: here, and on every other stream from it.
    fn silent_until(&self, since: Instant) -> Instant {
        let heard = self.worker.now().since(self.backend.heard());
        Instant::now() + self.contract.saturating_sub(heard.min(since.elapsed()))
    }

    /// The answer is complete: the connection may serve the next request.
    fn release(&mut self) {
        if let Some(Held::H1(send)) = self.held.take() {
            self.slot.give_back(send, self.keep_idle, self.before.moves);
        }
    }

    fn over_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

impl ResponseBody {
    fn new(kind: Kind) -> Self {
        Self { kind, ticket: None, rest: None, turn: None }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::new(if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) })
    }

    pub(crate) fn from_backend(mut body: Box<FromBackend>) -> Self {
        if body.incoming.is_end_stream() {
            body.release();
            return Self::empty();
        }
        Self::new(Kind::Backend(body))
    }

    /// Keeps the request for a resume, if the answer can be resumed at all.
    pub(crate) fn arm(&mut self, exchange: Exchange) {
        if let Kind::Backend(body) = &mut self.kind
            && body.plan.is_some()
        {
            body.exchange = Some(Box::new(exchange));
        }
    }

    /// The answer to a HEAD has no body, only its length (RFC 9110 9.3.2). hyper sees to that over HTTP/1.1, not over HTTP/2.
    pub(crate) fn only_head(response: &mut http::Response<ResponseBody>) {
        if let Kind::Full(bytes) = &response.body().kind {
            let length = http::HeaderValue::from(bytes.len());
            response.headers_mut().insert(http::header::CONTENT_LENGTH, length);
            response.body_mut().kind = Kind::Empty;
        }
    }

    /// The ticket is dropped, and so counted and logged, with the body.
    pub(crate) fn with_ticket(mut self, mut ticket: Box<Ticket>) -> Self {
        if matches!(self.kind, Kind::Empty) {
            ticket.completed();
        }
        self.ticket = Some(ticket);
        self.turn = Turn::current();
        self
    }

    /// The next frame; for an HTTP/2 stream no more at once than a client must be able to take within its deadline.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let Some(turn) = self.turn.clone() else { return self.poll_next(cx) };
        let frame = match self.rest.take() {
            Some(data) => Some(Ok(Frame::data(data))),
            None => {
                let Poll::Ready(frame) = self.poll_next(cx) else {
                    turn.backend();
                    return Poll::Pending;
                };
                frame
            }
        };
        turn.client();
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) if data.len() > PIECE => {
                self.rest = Some(data.split_off(PIECE));
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(other) => other,
        })))
    }

    /// The next frame, from whichever backend has it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        loop {
            match &mut self.kind {
                Kind::Empty => return Poll::Ready(None),
                Kind::Full(bytes) => {
                    let bytes = std::mem::take(bytes);
                    self.kind = Kind::Empty;
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Kind::Backend(body) => match ready!(body.poll(cx)) {
                    Some(Err(cut)) => match self.resume(cut) {
                        Ok(()) => {}
                        Err(cut) => return Poll::Ready(Some(Err(cut))),
                    },
                    frame => return Poll::Ready(frame),
                },
                Kind::Resuming(resuming) => {
                    let (ticket, result) = ready!(resuming.as_mut().poll(cx));
                    self.ticket = Some(ticket);
                    match result {
                        Ok(body) => self.kind = Kind::Backend(body),
                        Err(cut) => {
                            self.kind = Kind::Empty;
                            return Poll::Ready(Some(Err(cut)));
                        }
                    }
                }
            }
        }
    }

    /// The backend is lost: begins to look for another one that has the rest.
    fn resume(&mut self, cut: Cut) -> Result<(), Cut> {
        let Kind::Backend(body) = &mut self.kind else { return Err(cut) };
        let (over_time, deadline) = (body.over_time(), body.deadline);
        let (resumable, since) = (body.plan.is_some() && body.exchange.is_some(), body.timing.blocked);
        if !over_time {
            let how = if resumable { Left::Rescued } else { Left::Told };
            body.worker.left(body.backend.slot, since.unwrap_or_else(Instant::now), how);
        }
        let (Some(plan), Some(mut exchange)) = (body.plan.take(), body.exchange.take()) else { return Err(cut) };
        if plan.finished() {
            // The last byte was passed on; only the end was lost with the connection.
            self.kind = Kind::Empty;
            return Ok(());
        }
        let (false, Some(ticket)) = (over_time, self.ticket.take()) else { return Err(cut) };
        exchange.tried = vec![body.backend.slot];
        exchange.refresh();
        let site = exchange.pool.members.iter().find(|member| member.backend.slot == body.backend.slot);
        exchange.avoid_site = site.map(|member| Arc::clone(&member.backend.id.site));
        self.kind = Kind::Resuming(Box::pin(resume::resume(exchange, plan, cut, ticket, deadline)));
        Ok(())
    }

    /// The end is often known with the last frame, and hyper then polls no further.
    fn ended(&mut self) -> bool {
        if self.rest.is_some() {
            return false;
        }
        match &mut self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Resuming(_) => false,
            Kind::Backend(body) => {
                let ended = body.incoming.is_end_stream();
                if ended {
                    body.release();
                }
                ended
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(ticket), Some(turn)) = (&mut self.ticket, &self.turn)
            && turn.is_late()
        {
            ticket.cut = Some("client_stalled");
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        let frame = ready!(this.poll_piece(cx));
        let ended = this.ended();
        if let Some(ticket) = &mut this.ticket {
            match &frame {
                Some(Ok(frame)) => ticket.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(cut)) => ticket.cut = Some(cut.0),
                None => ticket.completed(),
            }
            if ended && !matches!(frame, Some(Err(_))) {
                ticket.completed();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        if self.rest.is_some() {
            return false;
        }
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Resuming(_) => false,
            Kind::Backend(body) => body.incoming.is_end_stream(),
        }
    }

    /// Read before the first frame only: `rest` is not in it.
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Backend(body) => body.incoming.size_hint(),
            Kind::Resuming(_) => SizeHint::new(),
        }
    }
}
