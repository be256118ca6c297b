//! The request body on its way to a backend: counted, timed, limited and, where the request may be repeated, kept.
//!
//! A body is read from the client once. What was read is kept in memory and then on disk (see `kept`), so that a
//! second attempt starts from the first byte. A body that outgrew the limits is streamed on, but the request is then
//! no longer replayable.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::kept::{Allowance, Kept, Position};
use crate::request_body::RequestBody;
use crate::timer::LazyTimer;

/// Why a request body could not be read to its end. The fault is the client's, never the backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// More bytes than the service allows.
    TooLarge,
    /// The client sent nothing for too long.
    Stalled,
    /// The client went away, or sent nonsense.
    Broken,
    /// What was kept for another attempt is gone. Not the client's fault, but no attempt can have the body.
    Lost,
}

impl std::fmt::Display for BodyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BodyFault::TooLarge => "request body too large",
            BodyFault::Stalled => "request body stalled",
            BodyFault::Broken => "request body broken",
            BodyFault::Lost => "request body not kept",
        })
    }
}

impl std::error::Error for BodyFault {}

/// The client's body, shared by the attempts of one request. Only one attempt reads at a time.
#[derive(Debug)]
pub(crate) struct ClientBody {
    inner: Mutex<Source>,
    patience: Duration,
    limit: u64,
    size: SizeHint,
}

#[derive(Debug)]
struct Source {
    incoming: RequestBody,
    timer: LazyTimer,
    blocked: Option<Instant>,
    kept: Kept,
    trailers: Option<HeaderMap>,
    read: u64,
    moved: Option<Instant>,
    done: bool,
    fault: Option<BodyFault>,
    /// Which attempt may read: an attempt that lost its turn (its connection still runs) gets an error.
    turn: u32,
}

impl ClientBody {
    /// `keep`: how much to keep for another attempt. `limit`: bytes allowed. `patience`: longest silence of the client.
    pub(crate) fn new(incoming: RequestBody, keep: Allowance, limit: u64, patience: Duration) -> Arc<Self> {
        let size = incoming.size_hint();
        let source = Source {
            incoming,
            timer: LazyTimer::default(),
            blocked: None,
            kept: Kept::new(keep, size.exact()),
            trailers: None,
            read: 0,
            moved: None,
            done: false,
            fault: None,
            turn: 0,
        };
        Arc::new(Self { inner: Mutex::new(source), patience, limit, size })
    }

    /// Whether an attempt can still have the whole body.
    pub(crate) fn replayable(&self) -> bool {
        let source = self.inner.lock();
        (source.kept.whole() || source.read == 0) && source.fault.is_none()
    }

    /// Whether the next bytes are the client's to send: its silence is not the backend's.
    pub(crate) fn waits_for_client(&self) -> bool {
        let source = self.inner.lock();
        // Longer than its patience it is not waited for: then nobody reads, because the backend takes nothing.
        !source.done && source.blocked.is_some_and(|since| since.elapsed() <= self.patience)
    }

    /// Whether the client owes none of it.
    pub(crate) fn is_read(&self) -> bool {
        self.fault().is_none() && !self.waits_for_client()
    }

    /// The answer has begun: no further attempt will come.
    pub(crate) fn release(&self) {
        self.inner.lock().kept.release();
    }

    /// What the client did wrong, if anything.
    pub(crate) fn fault(&self) -> Option<BodyFault> {
        self.inner.lock().fault
    }

    /// Bytes read from the client.
    pub(crate) fn read(&self) -> u64 {
        self.inner.lock().read
    }

    /// When an attempt last took something of it: bytes, also such as are kept for it, or word of its end.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.inner.lock().moved
    }

    /// The body for one attempt, from the first byte.
    pub(crate) fn begin(self: &Arc<Self>) -> SendBody {
        let mut source = self.inner.lock();
        source.turn += 1;
        SendBody(Kind::Shared {
            body: Arc::clone(self),
            turn: source.turn,
            position: Position::default(),
            ended: false,
        })
    }
}

impl Source {
    fn fail(&mut self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.fault = Some(fault);
        Poll::Ready(Some(Err(fault)))
    }

    /// The next frame that no attempt has seen yet.
    fn poll_fresh(
        &mut self,
        cx: &mut Context<'_>,
        body: &ClientBody,
        position: &mut Position,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(fault) = self.fault {
            return Poll::Ready(Some(Err(fault)));
        }
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let since = *self.blocked.get_or_insert_with(Instant::now);
                ready!(self.timer.poll_expired(cx, since + body.patience));
                return self.fail(BodyFault::Stalled);
            }
        };
        self.blocked = None;
        match frame {
            None => {
                self.done = true;
                self.timer.clear();
                Poll::Ready(None)
            }
            Some(Err(_)) => self.fail(BodyFault::Broken),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    self.read += data.len() as u64;
                    if self.read > body.limit {
                        return self.fail(BodyFault::TooLarge);
                    }
                    self.kept.append(&data, position);
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        self.trailers = Some(trailers.clone());
                        self.done = true;
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Poll::Ready(None)
                }
            },
        }
    }
}

/// The body of one attempt, as hyper's client takes it.
#[derive(Debug)]
pub(crate) struct SendBody(Kind);

#[derive(Debug)]
enum Kind {
    Empty,
    Shared { body: Arc<ClientBody>, turn: u32, position: Position, ended: bool },
    Gated { gate: tokio::sync::oneshot::Receiver<()>, body: Box<SendBody> },
}

impl SendBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Holds the body back until the gate opens (`Expect: 100-continue`). A gate that goes away unopened means that the
    /// answer came without the body: it is not read, so the client is never asked for it.
    pub(crate) fn gated(self, gate: tokio::sync::oneshot::Receiver<()>) -> Self {
        Self(Kind::Gated { gate, body: Box::new(self) })
    }
}

impl Body for SendBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        let this = self.get_mut();
        match &mut this.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Gated { gate, body } => {
                if ready!(Pin::new(gate).poll(cx)).is_err() {
                    return Poll::Ready(Some(Err(BodyFault::Broken)));
                }
                let inner = std::mem::replace(body.as_mut(), SendBody::empty());
                *this = inner;
                Pin::new(this).poll_frame(cx)
            }
            Kind::Shared { body, turn, position, ended } => {
                if *ended {
                    return Poll::Ready(None);
                }
                let mut source = body.inner.lock();
                if source.turn != *turn {
                    return Poll::Ready(Some(Err(BodyFault::Broken)));
                }
                match ready!(source.kept.poll_replay(cx, position)) {
                    Ok(Some(data)) => {
                        source.moved = Some(Instant::now());
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(None) if position.taken == source.read => {}
                    Ok(None) | Err(()) => return Poll::Ready(Some(Err(BodyFault::Lost))),
                }
                if source.done {
                    (*ended, source.moved) = (true, Some(Instant::now()));
                    return Poll::Ready(source.trailers.clone().map(|trailers| Ok(Frame::trailers(trailers))));
                }
                let frame = ready!(source.poll_fresh(cx, body, position));
                source.moved = Some(Instant::now());
                *ended = !matches!(&frame, Some(Ok(frame)) if frame.is_data());
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Shared { ended, .. } => *ended,
            Kind::Gated { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Shared { body, .. } => body.size,
            Kind::Gated { body, .. } => body.size_hint(),
        }
    }
}
