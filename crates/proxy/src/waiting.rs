//! The wait for a response head: until it is pointless, because the backend was declared down or is silent for too long.
//! Decides nothing about the request; what is to become of it is the attempt loop's word.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::{Backend, Fault, Member, Overdue, Reach};
use tokio::sync::futures::Notified;

use crate::body::ClientBody;
use crate::exchange::Exchange;
use crate::forward::Outcome;
use crate::hedge::{self, Better, Second};
use crate::interim::Gate;
use crate::pool::{Slot, Verdicts};
use crate::timer::Borrowed;

/// How long a body is held back for the backend's 100 (Continue) before it is sent anyway (RFC 9110 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// A request that may be repeated waits for so many contracts, and so long at least, at a backend that is down.
const LONGEST_AT_DOWN: (u32, Duration) = (10, Duration::from_secs(5));

/// What a wait comes to.
enum News {
    Time,
    Verdict,
    Better(Box<Better>),
}

/// What a wait is for, until its next look.
enum Awaited {
    /// An answer in the usual time. After that the fleet is told that something waits.
    Usual,
    /// A sign that the connection lives: another one there was found dead.
    Acknowledged,
    /// The backend's 100 (Continue).
    Continue,
    /// An answer within the contract.
    InContract,
    /// An answer, for so long at most.
    Answer(Duration),
}

/// Waits until then, for a verdict, or for another backend that was asked beside.
async fn news(
    timer: &mut Borrowed<'_>,
    until: Instant,
    mut verdict: Pin<&mut Notified<'_>>,
    second: &mut Option<Second<'_>>,
) -> News {
    let mut better = None;
    let other = poll_fn(|cx| {
        if let Some(asked) = second
            && let Poll::Ready(came) = asked.as_mut().poll(cx)
        {
            (*second, better) = (None, came);
            return Poll::Ready(());
        }
        verdict.as_mut().poll(cx)
    });
    if timer.rings_first(until, pin!(other)).await {
        return News::Time;
    }
    better.map_or(News::Verdict, |better| News::Better(Box::new(better)))
}

/// The backend was declared down. Another one that was asked beside it is at work already.
async fn rescued(fault: Fault, second: Option<Second<'_>>) -> Outcome {
    let better = match second {
        Some(asked) => asked.await,
        None => None,
    };
    better.map_or(Outcome::Rescued(fault), |better| Outcome::Overtaken(Box::new(Better { dead: true, ..better })))
}

/// The wait for a response head.
pub(crate) struct Wait<'a> {
    exchange: &'a Exchange,
    forward: &'a Forward,
    slot: &'a Slot,
    /// Verdicts on the backend when the attempt began.
    pub(crate) before: Verdicts,
    gate: Option<&'a Gate>,
    asked: Instant,
    asked_first: Instant,
    /// When something of the body had gone last, at the last look.
    seen: Option<Instant>,
    /// The fleet was told that something waits here.
    pressed: bool,
    /// It has waited for longer than the contract.
    overdue: Option<Overdue>,
    backend: &'a Arc<Backend>,
    /// How far away it is, where that matters.
    away: Duration,
    /// The same request waits elsewhere too.
    beside: bool,
    /// It was asked elsewhere because this backend is suspect, or nobody was there.
    asked_in_doubt: bool,
}

impl<'a> Wait<'a> {
    /// For an attempt that begins at `now`.
    pub(crate) fn new(
        exchange: &'a Exchange,
        forward: &'a Forward,
        member: &'a Member,
        slot: &'a Slot,
        before: Verdicts,
        gate: Option<&'a Gate>,
        now: Instant,
    ) -> Self {
        Self {
            exchange,
            forward,
            slot,
            before,
            gate,
            asked: now,
            asked_first: now,
            seen: exchange.body.as_ref().and_then(|body| body.moved()),
            pressed: false,
            overdue: None,
            backend: &member.backend,
            away: member.away,
            beside: false,
            asked_in_doubt: false,
        }
    }

    /// It waits beside another one: the two are enough.
    pub(crate) fn as_second(&mut self) {
        self.beside = true;
    }

    /// Ends when waiting any longer is pointless: the backend was declared down, or is silent for too long.
    pub(crate) async fn given_up(&mut self) -> Outcome {
        let exchange = self.exchange;
        let mut timer = exchange.client.worker.timers.borrow();
        // When another backend is asked beside this one, and its answer.
        let (mut ask_after, mut second): (Option<Duration>, Option<Second<'a>>) = (None, None);
        loop {
            let verdict = self.slot.verdict.notified();
            tokio::pin!(verdict);
            verdict.as_mut().enable();
            if let Some(fault) = self.declared() {
                return rescued(fault, second).await;
            }
            second = second.or_else(|| self.elsewhere_in_doubt());
            let distrusted = self.is_distrusted();
            if distrusted && self.asked.elapsed() >= self.reach().unacknowledged() {
                if !self.still_sending() {
                    return Outcome::Rescued(Fault::Unacknowledged);
                }
                self.asked = self.asked_anew();
            }
            let (awaited, patience) = self.awaited(distrusted, ask_after);
            match news(&mut timer, self.asked + patience, verdict, &mut second).await {
                News::Time => {}
                News::Verdict => continue,
                News::Better(better) => return Outcome::Overtaken(better),
            }
            match awaited {
                Awaited::Usual => {
                    self.pressed = true;
                    timer.waits_long();
                    self.tell_overdue(patience);
                    continue;
                }
                Awaited::Acknowledged => continue,
                Awaited::Continue => self.open_gate(),
                Awaited::InContract | Awaited::Answer(_) if self.still_sending() => {}
                Awaited::InContract => {
                    self.overdue = Some(self.backend.wait_long());
                    ask_after = hedge::unusual_after(exchange, self.forward).filter(|_| !self.beside);
                    continue;
                }
                Awaited::Answer(response) => {
                    if let Some(after) = ask_after.take().filter(|after| *after < response) {
                        second = second.or_else(|| hedge::elsewhere_if_late(exchange, self.forward, self.backend));
                        // Nobody was there, or it could not be afforded: a contract later it may be otherwise.
                        ask_after = second.is_none().then(|| after + exchange.pool.timers.failover_within);
                    } else if let Some(outcome) = self.ends(response) {
                        return outcome;
                    }
                    continue;
                }
            }
            self.asked = self.asked_anew();
        }
    }

    /// It waits longer than usual: the fleet shall ask whether the backend lives, and other answers from there see it. What is
    /// not sent yet, or may wait for an event, says nothing about that.
    fn tell_overdue(&self, patience: Duration) {
        let worker = &self.exchange.client.worker;
        let moves = |body: &ClientBody| body.moved().is_some_and(|moved| moved.elapsed() < patience / 2);
        let sent = self.exchange.body.as_ref().is_none_or(|body| body.is_read() && !moves(body));
        if !self.exchange.stream && sent {
            self.backend.found_overdue(worker.now());
        }
        worker.press(self.slot, self.backend.slot, patience);
    }

    /// Another connection there was found dead meanwhile: after as long this one counts as dead too, if the request has
    /// somewhere to go.
    fn is_distrusted(&self) -> bool {
        self.slot.distrusted_after(|| self.asked_first()) && self.may_leave()
    }

    /// What it waits for next, and for how long.
    fn awaited(&self, distrusted: bool, ask_after: Option<Duration>) -> (Awaited, Duration) {
        let (contract, response) = (self.exchange.pool.timers.failover_within, self.longest());
        match () {
            () if !self.pressed => (Awaited::Usual, self.reach().overdue()),
            () if distrusted => (Awaited::Acknowledged, self.reach().unacknowledged()),
            () if self.gate.is_some_and(|gate| gate.lock().is_some()) => (Awaited::Continue, CONTINUE_PATIENCE),
            () if self.overdue.is_none() && contract < response => (Awaited::InContract, contract),
            () => (Awaited::Answer(response), ask_after.unwrap_or(response).min(response)),
        }
    }

    /// The timers that its distance gives this backend.
    fn reach(&self) -> Reach {
        self.exchange.pool.timers.reach(self.forward, self.away)
    }

    /// From when the time counts anew: from when something of the body went last, or from now where the client owes the rest.
    fn asked_anew(&self) -> Instant {
        let body = self.exchange.body.as_ref().filter(|body| !body.waits_for_client());
        body.and_then(|body| body.moved()).filter(|moved| *moved > self.asked).unwrap_or_else(Instant::now)
    }

    /// The body is sent although no 100 came.
    fn open_gate(&self) {
        if let Some(open) = self.gate.and_then(|gate| gate.lock().take()) {
            let _ = open.send(());
        }
    }

    /// It has waited for `response`. `None`: that is no longer enough, as it answers again.
    fn ends(&self, response: Duration) -> Option<Outcome> {
        if self.in_vain().is_some() {
            return Some(Outcome::InVain);
        }
        (self.longest() <= response).then_some(Outcome::Failed(Fault::ResponseTimeout))
    }

    /// Asks elsewhere when it has waited a moment at a backend that is suspect: once.
    fn elsewhere_in_doubt(&mut self) -> Option<Second<'a>> {
        if !self.pressed || !self.slot.is_doubted() || self.beside || std::mem::replace(&mut self.asked_in_doubt, true)
        {
            return None;
        }
        let may = hedge::may_ask_beside(self.exchange, self.forward);
        may.then(|| hedge::elsewhere(self.exchange, self.forward, self.backend))?
    }

    /// How long it waits for a head at most. Where it was sent to one that does not answer its checks, or wrongly, as nobody
    /// else is left (`fail_open`, a trial), not as long as it would elsewhere: another one may answer.
    fn longest(&self) -> Duration {
        let (pool, response) = (&self.exchange.pool, self.forward.timeout.response);
        // Few get that far, and only they need to know.
        if !self.pressed || !self.exchange.replayable() {
            return response;
        }
        if let Some(enough) = self.in_vain() {
            return response.min(enough);
        }
        let doubtful = |member: &Member| member.trial.is_some() || (self.forward.fail_open && member.mute);
        let mut members = pool.members.iter();
        if members.any(|member| member.backend.slot == self.backend.slot && doubtful(member)) {
            response.min((pool.timers.failover_within * LONGEST_AT_DOWN.0).max(LONGEST_AT_DOWN.1))
        } else {
            response
        }
    }

    /// After how long it waits in vain: nobody answered any more when it was sent, and none of them does by now. What was sent
    /// before goes on waiting, and shows when that is over.
    fn in_vain(&self) -> Option<Duration> {
        let (exchange, pool) = (self.exchange, &self.exchange.pool);
        if !pool.still || !exchange.newest().still || self.backend.latency_at() > self.asked_first().0 {
            return None;
        }
        hedge::unusual(exchange).map(|time| time.max(pool.timers.wait))
    }

    /// When it was sent, as core counts time.
    fn asked_first(&self) -> relais_core::Instant {
        self.exchange.client.worker.shared.anchor.at(self.asked_first)
    }

    /// What the fleet has said about the backend since the attempt began, if it is a reason to go.
    fn declared(&self) -> Option<Fault> {
        let now = self.slot.verdicts();
        if now.deaths != self.before.deaths {
            return Some(Fault::Unacknowledged);
        }
        let stalled = self.slot.is_stalled() && self.may_leave();
        (now.downs != self.before.downs || stalled).then_some(Fault::ResponseTimeout)
    }

    fn may_leave(&self) -> bool {
        self.exchange.may_leave(self.backend.slot, self.forward)
    }

    /// The time for the head counts from the end of the request: a body that still moves is no silence.
    fn still_sending(&mut self) -> bool {
        let Some(body) = &self.exchange.body else { return false };
        let moved = body.moved();
        std::mem::replace(&mut self.seen, moved) != moved || body.waits_for_client()
    }
}
