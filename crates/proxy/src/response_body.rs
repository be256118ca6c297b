//! The body of an answer on its way to the client: streamed frame by frame, continued elsewhere where that is possible,
//! and accounted for at its end. What comes from a backend, and how long it is waited for, is in `from_backend`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use http_body::{Body, Frame, SizeHint};
use relais_core::Left;
use tokio::sync::oneshot;

use crate::access::Ticket;
use crate::cut_off::Cut;
use crate::exchange::{Exchange, SecondChance};
use crate::from_backend::{FromBackend, HELD_FOR};
use crate::resume;
use crate::streams::PIECE;

/// The body of an answer.
pub(crate) struct ResponseBody {
    kind: Kind,
    ticket: Option<Box<Ticket>>,
    /// What is left of a frame that is passed on in pieces.
    rest: Option<Bytes>,
    /// It goes to an HTTP/2 stream.
    in_pieces: bool,
}

enum Kind {
    Empty,
    Full(Bytes),
    Backend(Box<FromBackend>),
    /// The stream is given to a tunnel as soon as the head is out.
    Opens(Option<oneshot::Sender<SendStream<Bytes>>>),
    /// The backend is lost, or may be; another one is asked for the rest.
    Resuming(Resuming),
}

struct Resuming {
    /// The ticket is in there.
    search: Pin<Box<dyn Future<Output = (Box<Ticket>, resume::Found)> + Send>>,
    /// What the client gets when nobody has the rest.
    cut: Cut,
    /// What was only doubted goes on then.
    doubted: Option<Box<FromBackend>>,
}

impl ResponseBody {
    fn new(kind: Kind) -> Self {
        Self { kind, ticket: None, rest: None, in_pieces: false }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Kind::Empty)
    }

    /// No body: the stream becomes a tunnel's.
    pub(crate) fn opens(tunnel: oneshot::Sender<SendStream<Bytes>>) -> Self {
        Self::new(Kind::Opens(Some(tunnel)))
    }

    /// The tunnel that the stream is for.
    pub(crate) fn tunnel(&mut self) -> Option<oneshot::Sender<SendStream<Bytes>>> {
        match &mut self.kind {
            Kind::Opens(tunnel) => tunnel.take(),
            _ => None,
        }
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

    /// The part that is still to come from a backend, when it may be held back until it is whole.
    pub(crate) fn small(&mut self) -> Option<&mut FromBackend> {
        match &mut self.kind {
            Kind::Backend(body) if body.is_small() => Some(body),
            _ => None,
        }
    }

    /// Ready when all of a small answer is here, or will never be.
    pub(crate) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        if let Kind::Backend(body) = &mut self.kind
            && let Some(bytes) = ready!(body.poll_whole(cx))?
        {
            *self = Self::full(bytes);
        }
        Poll::Ready(Ok(()))
    }

    /// Keeps the request for a resume, if the answer can be resumed at all.
    pub(crate) fn arm(&mut self, exchange: Box<Exchange>) {
        if let Kind::Backend(body) = &mut self.kind
            && body.plan.is_some()
        {
            body.exchange = Some(exchange);
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
    pub(crate) fn keep(&mut self, mut ticket: Box<Ticket>) {
        if matches!(self.kind, Kind::Empty) {
            ticket.completed();
        }
        self.in_pieces = ticket.version == http::Version::HTTP_2;
        self.ticket = Some(ticket);
    }

    /// The client took nothing for too long, and will get no more.
    pub(crate) fn client_stalled(&mut self) {
        if let Some(ticket) = &mut self.ticket {
            ticket.cut = Some("client_stalled");
        }
    }

    /// The next frame; for an HTTP/2 stream no more at once than a client must be able to take within its deadline.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if !self.in_pieces {
            return self.poll_next(cx);
        }
        let frame = match self.rest.take() {
            Some(data) => Some(Ok(Frame::data(data))),
            None => ready!(self.poll_next(cx)),
        };
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
                Kind::Empty | Kind::Opens(_) => return Poll::Ready(None),
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
                Kind::Resuming(Resuming { search, cut, doubted }) => {
                    let (ticket, found) = ready!(search.as_mut().poll(cx));
                    self.ticket = Some(ticket);
                    match (found, doubted.take()) {
                        (Ok(body), old) => {
                            if let Some(mut old) = old {
                                old.overtaken();
                                leave(&old, Left::Rescued);
                            }
                            self.kind = Kind::Backend(body);
                        }
                        (Err((exchange, plan)), Some(mut old)) => {
                            (old.exchange, old.plan) = (Some(exchange), Some(plan));
                            old.timing.stay(*cut);
                            self.kind = Kind::Backend(old);
                        }
                        (Err(_), None) => {
                            let cut = *cut;
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
        let resumable = body.plan.is_some() && body.exchange.is_some();
        if !over_time && !cut.is_doubt() {
            leave(body, if resumable { Left::Rescued } else { Left::Told });
        }
        let early = cut.is_suspicion() && !body.slot.is_doubted();
        let (Some(mut plan), Some(mut exchange)) = (body.plan.take(), body.exchange.take()) else { return Err(cut) };
        if plan.finished() {
            // The last byte was passed on; only the end was lost with the connection.
            self.kind = Kind::Empty;
            return Ok(());
        }
        let (false, Some(ticket)) = (over_time, self.ticket.take()) else { return Err(cut) };
        // It is not worth a place in the queue: its client would see nothing but a longer silence.
        exchange.second_chance = SecondChance::Never;
        exchange.refresh();
        exchange.tried = body.not_to_ask(&exchange.pool, cut);
        let site = exchange.pool.members.iter().find(|member| member.backend.slot == body.backend.slot);
        exchange.avoid_site = site.map(|member| Arc::clone(&member.backend.id.site));
        // In doubt one contract is enough: this connection may have more to say, soon where nothing else speaks against it.
        let enough = if early { body.contract.min(HELD_FOR) } else { body.contract };
        let soon = cut.is_doubt().then(|| Instant::now() + enough);
        if early {
            plan.leaves_early();
        }
        let until = deadline.into_iter().chain(soon).min();
        let search = Box::pin(resume::resume(exchange, plan, ticket, until, cut));
        let old = std::mem::replace(&mut self.kind, Kind::Empty);
        let doubted = if let (Kind::Backend(old), true) = (old, cut.is_doubt()) { Some(old) } else { None };
        self.kind = Kind::Resuming(Resuming { search, cut, doubted });
        Ok(())
    }

    /// The end is often known with the last frame, and hyper then polls no further.
    fn ended(&mut self) -> bool {
        if self.rest.is_some() {
            return false;
        }
        match &mut self.kind {
            Kind::Empty => true,
            Kind::Full(_) | Kind::Opens(_) | Kind::Resuming(_) => false,
            Kind::Backend(body) => {
                let ended = body.is_end();
                if ended {
                    body.release();
                }
                ended
            }
        }
    }
}

/// A body is waited for no longer at its backend.
fn leave(body: &FromBackend, how: Left) {
    let since = body.timing.blocked().unwrap_or_else(Instant::now);
    body.worker.left(body.backend.slot, since, how);
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
                Some(Err(cut)) => ticket.cut = Some(cut.reason()),
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
            Kind::Full(_) | Kind::Opens(_) | Kind::Resuming(_) => false,
            Kind::Backend(body) => body.is_end(),
        }
    }

    /// Read before the first frame only: `rest` is not in it.
    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Backend(body) => body.size_hint(),
            Kind::Opens(_) | Kind::Resuming(_) => SizeHint::new(),
        }
    }
}
