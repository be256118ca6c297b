//! The wait for a response head: until it is pointless, because the backend was declared down or is silent for too long.
//! Decides nothing about the request; what is to become of it is the attempt loop's word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_core::config::Forward;
use relais_core::{Backend, Fault, Overdue};

use crate::exchange::Exchange;
use crate::forward::Outcome;
use crate::interim::Gate;
use crate::pool::{Slot, Verdicts};

/// How long a body is held back for the backend's 100 (Continue) before it is sent anyway (RFC 9110 10.1.1).
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// The wait for a response head.
pub(crate) struct Wait<'a> {
    exchange: &'a Exchange,
    forward: &'a Forward,
    slot: &'a Slot,
    before: Verdicts,
    gate: Option<&'a Gate>,
    asked: Instant,
    asked_first: relais_core::Instant,
    /// Body bytes read at the last look.
    seen: u64,
    /// The fleet was told that something waits here.
    pressed: bool,
    /// It has waited for longer than the contract.
    overdue: Option<Overdue>,
    backend: &'a Arc<Backend>,
}

impl<'a> Wait<'a> {
    /// For an attempt that begins at `now`.
    pub(crate) fn new(
        exchange: &'a Exchange,
        forward: &'a Forward,
        backend: &'a Arc<Backend>,
        slot: &'a Slot,
        before: Verdicts,
        gate: Option<&'a Gate>,
        now: Instant,
    ) -> Self {
        let asked_first = exchange.client.worker.shared.anchor.at(now);
        Self {
            exchange,
            forward,
            slot,
            before,
            gate,
            asked: now,
            asked_first,
            seen: 0,
            pressed: false,
            overdue: None,
            backend,
        }
    }

    /// Ends when waiting any longer is pointless: the backend was declared down, or is silent for too long.
    pub(crate) async fn given_up(&mut self) -> Outcome {
        let mut timer = self.exchange.client.worker.timers.borrow();
        loop {
            let verdict = self.slot.verdict.notified();
            tokio::pin!(verdict);
            verdict.as_mut().enable();
            if let Some(fault) = self.declared() {
                return Outcome::Rescued(fault);
            }
            let contract = self.exchange.pool.timers.failover_within;
            let enough = self.exchange.pool.timers.unacknowledged();
            // Another connection there was found dead meanwhile: after as long this one counts as dead too, if the request
            // has somewhere to go.
            let news = self.slot.distrusted() > self.asked_first;
            let doubted = news && self.may_leave();
            if doubted && self.asked.elapsed() >= enough {
                if !self.still_sending() {
                    return Outcome::Rescued(Fault::Unacknowledged);
                }
                self.asked = Instant::now();
            }
            let gated = self.gate.is_some_and(|gate| gate.lock().is_some());
            let tells = self.overdue.is_none() && contract < self.forward.timeout.response;
            let patience = match () {
                () if !self.pressed => self.exchange.pool.timers.overdue(),
                () if doubted => enough,
                () if gated => CONTINUE_PATIENCE,
                () if tells => contract,
                () => self.forward.timeout.response,
            };
            if !timer.rings_first(self.asked + patience, verdict.as_mut()).await {
                continue;
            }
            if !self.pressed {
                self.pressed = true;
                timer.waits_long();
                self.exchange.client.worker.press(self.slot, self.backend.slot, patience);
                continue;
            }
            if doubted {
                continue;
            }
            if gated {
                if let Some(open) = self.gate.and_then(|gate| gate.lock().take()) {
                    let _ = open.send(());
                }
            } else if !self.still_sending() {
                if tells {
                    self.overdue = Some(self.backend.wait_long());
                    continue;
                }
                return Outcome::Failed(Fault::ResponseTimeout);
            }
            self.asked = Instant::now();
        }
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
        let read = body.read();
        std::mem::replace(&mut self.seen, read) != read || body.waits_for_client()
    }
}
