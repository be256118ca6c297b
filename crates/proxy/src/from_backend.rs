//! The part of an answer's body that comes from one backend: the next frame, or why waiting for one has no point. What is
//! then done about it is `response_body`'s business.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use relais_core::{Backend, Event, Fault, Health, Member, Pool};
use tokio::sync::futures::OwnedNotified;

use crate::backend_body::BackendBody;
use crate::body::ClientBody;
use crate::cut_off::Cut;
use crate::exchange::Exchange;
use crate::pool::{Slot, Verdicts};
use crate::resume::Plan;
use crate::sender::Held;
use crate::timer::LazyTimer;
use crate::worker::Worker;

/// What is buffered for a client may hide the silence of a backend for so many contracts.
const HIDDEN: u32 = 10;

/// Longest body that may be held back until it is whole, bytes.
const HELD: u64 = 64 << 10;
/// And longest time, however long the contract.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(1);
/// And in so many pieces: each has its own price.
const PIECES: usize = 256;

/// A silence is looked at again after this part of it.
const LOOK_AGAIN: u32 = 4;

/// A body that comes from a backend, with the connection it comes on.
pub(crate) struct FromBackend {
    pub(crate) incoming: BackendBody,
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
    /// After so long a silence the fleet is asked whether the backend lives.
    pub(crate) overdue: Duration,
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
    /// Its head counts as a success: what goes wrong after it makes a failure of it, once.
    pub(crate) well: bool,
    /// It is among the errors of its backend: once.
    pub(crate) counted: bool,
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
    /// When this silence was last looked at because of its length, and whether what is not here by now did not come: the first
    /// look may be late because the edge stood still, and what came meanwhile not be read yet.
    looked: Option<(Instant, bool)>,
    /// When nobody else could be asked for the rest.
    unasked: Option<Instant>,
    /// Nobody else has the rest: only this connection's own end, or a verdict, ends the wait.
    alone: bool,
    /// What came while the answer was held back.
    early: VecDeque<Frame<Bytes>>,
    hold: Option<Hold>,
    /// The status that it is a right answer by, once it is whole.
    right: Option<u16>,
}

/// A small answer is held back until it is whole: as long as its client has nothing of it, it can still be asked for
/// elsewhere, or refused.
struct Hold {
    /// Not after this.
    until: Instant,
    /// It may be asked for elsewhere.
    movable: bool,
}

impl Timing {
    /// Since when no frame has come.
    pub(crate) fn blocked(&self) -> Option<Instant> {
        self.blocked
    }

    /// It was looked for elsewhere in vain: a moment's suspicion does not say that it is nowhere.
    pub(crate) fn stay(&mut self, doubt: Cut) {
        self.alone |= !doubt.is_suspicion();
        self.unasked = Some(Instant::now());
    }
}

impl FromBackend {
    /// The next frame for the client, or why there will be none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let next = match self.timing.early.pop_front() {
            Some(frame) => Some(Ok(frame)),
            None => ready!(self.poll_incoming(cx)),
        };
        if let (Some(plan), Some(Ok(frame))) = (&mut self.plan, &next)
            && let Some(data) = frame.data_ref()
        {
            plan.passed(data.len());
        }
        Poll::Ready(next)
    }

    /// Whether it may be held back: short, of a stated length, and nothing waits for its end.
    pub(crate) fn is_small(&self) -> bool {
        let length = self.incoming.size_hint().exact();
        length.is_some_and(|length| length <= HELD) && !self.events && self.gate.is_none()
    }

    /// Ready when all of it is here, and none of it passed on. Gives it out when it is one piece.
    pub(crate) fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Cut>> {
        while !self.incoming.is_end_stream() {
            let Some(frame) = ready!(self.poll_incoming(cx)).transpose()? else { break };
            let only = self.timing.early.is_empty() && self.incoming.is_end_stream();
            match frame.into_data() {
                Ok(data) if only => {
                    self.release();
                    return Poll::Ready(Ok(Some(data)));
                }
                Ok(data) if data.is_empty() => {}
                Ok(data) => self.timing.early.push_back(Frame::data(data)),
                Err(other) => self.timing.early.push_back(other),
            }
            if self.timing.early.len() >= PIECES {
                self.timing.hold = None;
                return Poll::Ready(Ok(None));
            }
        }
        self.release();
        Poll::Ready(Ok(None))
    }

    /// Nothing failed at its backend, if it is whole: with its head alone it may be as broken as those before it.
    pub(crate) fn serve(&mut self, status: u16) {
        match self.held {
            Some(_) => self.timing.right = Some(status),
            None => self.backend.stats.serve(status),
        }
    }

    /// Holds it back from now on.
    pub(crate) fn hold(&mut self, movable: bool) {
        let until = Instant::now() + self.contract.min(HELD_FOR);
        self.timing.hold = Some(Hold { until, movable });
    }

    /// Holds it back no longer. Whether nothing at all came meanwhile.
    pub(crate) fn let_go(&mut self) -> bool {
        let held = self.contract.min(HELD_FOR);
        self.timing.hold = None;
        self.timing.blocked.is_some_and(|since| since.elapsed() >= held)
    }

    /// All of it was passed on.
    pub(crate) fn is_end(&self) -> bool {
        self.timing.early.is_empty() && self.incoming.is_end_stream()
    }

    /// What is still to be passed on.
    pub(crate) fn size_hint(&self) -> SizeHint {
        let mut hint = self.incoming.size_hint();
        let early: usize = self.timing.early.iter().filter_map(|frame| Some(frame.data_ref()?.len())).sum();
        if early > 0 {
            let exact = hint.exact().map(|left| left + early as u64);
            hint = exact.map_or_else(SizeHint::new, SizeHint::with_exact);
        }
        hint
    }

    /// The next frame from the backend.
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.timing.looked = None;
                if self.timing.blocked.take().is_some() {
                    self.backend.comes(self.worker.now());
                }
                if self.events {
                    self.backend.hear(self.worker.now());
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(%error, "answer of a backend broke off");
                if self.upload.as_ref().is_none_or(|body| body.fault().is_none()) {
                    if self.spoil() {
                        self.backend.stats.break_off();
                    }
                    self.worker.report(Event::BrokeOff { slot: self.backend.slot, fault: Fault::Reset });
                }
                Poll::Ready(Some(Err(Cut::new("backend_broke_off"))))
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
                return Poll::Ready(Cut::new("backend_dead"));
            }
            // It does not answer, though its host lives. What can be continued elsewhere is; the rest may still come.
            if now.downs != self.before.downs && self.is_movable() {
                return Poll::Ready(Cut::new("backend_down"));
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
        loop {
            let (at, reason) = self.limit(since);
            ready!(self.timing.timer.poll_expired(cx, at));
            if reason == Cut::OVERDUE {
                let again = self.timing.looked.is_some();
                let now = Instant::now();
                let in_time = now < at + self.overdue / LOOK_AGAIN;
                self.timing.looked = Some((now, again || in_time));
                if !again {
                    self.worker.press(&self.slot, self.backend.slot, self.overdue);
                }
                continue;
            }
            if Cut::new(reason).is_doubt() && !self.may_ask_elsewhere(since, Cut::new(reason)) {
                self.timing.unasked = Some(Instant::now());
                continue;
            }
            // Other silence is the transport's, or not the backend's own.
            let own = reason == "backend_stalled" && !self.events && !self.over_time();
            if own && self.upload.as_ref().is_none_or(|body| body.is_read()) {
                self.fell_silent();
            }
            return Poll::Ready(Cut::new(reason));
        }
    }

    /// When waiting for the next frame has lost its point, and why.
    fn limit(&self, since: Instant) -> (Instant, &'static str) {
        let until = self.deadline.into_iter().fold(since + self.patience, Instant::min);
        let hung_until = (self.events && self.slot.is_hung()).then(|| self.silent_until(since));
        // What can be continued elsewhere does not wait on a connection whose neighbour was found dead, nor for long on any.
        let from = self.timing.unasked.map_or(since, |at| at.max(since));
        let exchange = self.exchange.as_ref().filter(|_| !self.timing.alone);
        let dead_until = exchange
            .map(|_| from + if self.neighbour_died(since) { self.contract } else { self.contract.max(HELD_FOR) });
        // Nor for more than a moment where it is suspect, or all else stands still there too; once in each silence.
        let unasked = exchange.is_some() && from == since;
        let suspect = unasked && (self.slot.is_doubted() || self.stands_still(since));
        let suspect_until = suspect.then_some(since + self.overdue);
        // Looked at again and again, ever more rarely: what else waits there is overdue a little later.
        let overdue_until = match self.timing.looked {
            None => self.is_movable().then_some(since + self.overdue),
            Some((at, _)) => (unasked && !suspect).then(|| at + at.saturating_duration_since(since) / LOOK_AGAIN),
        };
        let reasons = [
            (overdue_until, Cut::OVERDUE),
            (self.timing.drained_at, "drained"),
            (hung_until, "backend_down"),
            (suspect_until, Cut::SUSPECT),
            (dead_until, Cut::DOUBT),
            (self.timing.hold.as_ref().map(|hold| hold.until), Cut::LATE),
            (Some(until), "backend_stalled"),
        ];
        let first = reasons.into_iter().filter_map(|(at, reason)| Some((at?, reason))).min_by_key(|(at, _)| *at);
        first.unwrap_or((until, "backend_stalled"))
    }

    /// Somebody else could be asked for it, or for the rest of it.
    fn is_movable(&self) -> bool {
        self.exchange.is_some() || self.timing.hold.as_ref().is_some_and(|hold| hold.movable)
    }

    /// Whether all else that comes from the backend stands still as well.
    fn stands_still(&self, since: Instant) -> bool {
        let sure = self.timing.looked.is_some_and(|(_, sure)| sure);
        sure && self.plan.as_ref().is_some_and(Plan::may_leave_early) && self.is_still(&self.backend, since)
    }

    /// Whom not to ask for the rest of this: itself, and in a moment's suspicion who stands still too.
    pub(crate) fn not_to_ask(&self, pool: &Pool, cut: Cut) -> Vec<u32> {
        let since = self.timing.blocked().filter(|_| cut.is_suspicion());
        let slow =
            since.into_iter().flat_map(|since| pool.members.iter().filter(move |m| self.is_still(&m.backend, since)));
        let slow = slow.map(|member| member.backend.slot).filter(|slot| *slot != self.backend.slot);
        std::iter::once(self.backend.slot).chain(slow).collect()
    }

    /// Whether nothing else comes from a backend, this one or another, since then.
    fn is_still(&self, backend: &Backend, since: Instant) -> bool {
        backend.stands_still(self.worker.shared.anchor.at(since), self.overdue, self.worker.now())
    }

    /// Whether another backend may be asked for the rest, and it can be afforded where nothing is known to be dead. Where this
    /// one is suspect, or stands still, the other may not be, or not stand still too: then all wait for the same.
    fn may_ask_elsewhere(&self, since: Instant, doubt: Cut) -> bool {
        let well = |member: &Member| member.health == Health::Up && !self.is_still(&member.backend, since);
        let fit = |member: &Member| !doubt.is_suspicion() || well(member);
        let Some(exchange) = self.exchange.as_ref().filter(|exchange| exchange.has_fit(self.backend.slot, fit)) else {
            return false;
        };
        let relais_core::config::Action::Forward(forward) = &exchange.service.action else { return false };
        (self.neighbour_died(since) && !doubt.is_suspicion()) || exchange.afford(forward, Instant::now())
    }

    /// Another backend had the rest, which was waited for here in vain; in doubt not long enough to hold that against anybody.
    pub(crate) fn overtaken(&mut self) {
        let long = |since: &Instant| since.elapsed() >= self.contract;
        if self.timing.blocked.filter(long).is_some_and(|since| !self.neighbour_died(since)) {
            self.fell_silent();
        }
    }

    /// It was waited for in vain in its middle.
    pub(crate) fn fell_silent(&mut self) {
        if self.spoil() {
            self.backend.stats.errors.inc();
        }
        self.worker.fell_silent(&self.backend);
    }

    /// Whether it is an error only now.
    fn spoil(&mut self) -> bool {
        let well = std::mem::take(&mut self.well);
        self.backend.stats.spoiled.add(well.into());
        !std::mem::replace(&mut self.counted, true)
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
    pub(crate) fn release(&mut self) {
        let Some(held) = self.held.take() else { return };
        self.backend.stats.whole.inc();
        if let Some(status) = self.timing.right {
            self.backend.stats.serve(status);
        }
        match held {
            Held::H1(send) => self.slot.give_back(send, self.keep_idle, self.before.moves),
            Held::H2(used) => used.complete(),
        }
    }

    /// The time for the whole request is over.
    pub(crate) fn over_time(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
