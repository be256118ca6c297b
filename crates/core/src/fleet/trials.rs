//! A service has nobody left, and some of those that are down are so by the word of their checks alone: they answer, wrongly.
//! It may be the check that is broken. So one more request than is there already is let through to a few of them, once per
//! contract: a trial. A right answer shows that the checks say nothing, and who was out for them alone comes back with it; a
//! wrong one ends the trial of that backend. Who fell while the checks of others still passed fell for a reason of its own, and
//! does not come back with them: it may be on its way out, and say so.
//!
//! From then on the checks are not believed, until two in a row pass somewhere or requests fail, too. Where a page stands in for a service that
//! is down nobody is tried, and where everybody is asked anyway (`fail_open`) there is no need to.

use std::time::Duration;

use super::Fleet;
use super::state::{Entry, ServiceState};
use crate::effect::Transition;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::snapshot::Trial;
use crate::time::Instant;

/// So many backends of a service are tried at once.
const AT_ONCE: usize = 3;
/// Who was not up when its checks began to be answered wrongly may just be starting, for so many contracts and so long.
const STARTING: (u32, Duration) = (10, Duration::from_secs(10));
/// Requests that were answered 5xx in a row and show that a check is right, whatever counts as failed.
const SURELY_BROKEN: u64 = 10;
/// Who failed a request does not come back with the others for so many contracts and so long.
const FORGIVEN: (u32, Duration) = (30, Duration::from_secs(30));
/// The checks of a service that fail for nothing begin to fail together, within so many contracts and so long.
const TOGETHER: (u32, Duration) = (2, Duration::from_secs(2));
/// Answers below this prove that a backend works: of one that was up, and of one that may be starting.
const PROOF: (u16, u16) = (500, 400);

/// Checks in a row that were answered, wrongly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrong {
    since: Instant,
    /// It was up when they began.
    served: bool,
    /// When a request to it last failed, too.
    failed: Option<Instant>,
}

/// What a service's trials came to.
#[derive(Debug, Default)]
pub(super) struct Trials {
    /// When the next requests are let through.
    next: Instant,
    /// It was told that there are some.
    told: bool,
    /// A request succeeded where the check had failed, and no checks in a row have passed since.
    disproved: bool,
}

impl Fleet {
    /// A probe was judged; `overruled`: it failed often enough to accuse, and was not believed.
    pub(super) fn follow_checks(&mut self, slot: u32, result: Result<(), Fault>, overruled: bool, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let index = entry.service;
        match result {
            Ok(()) if entry.admin == Admin::Enabled && entry.counters.good >= self.services[index].timers.rise => {
                self.believe_checks(index, true);
            }
            Err(fault) if fault.is_answer() && overruled && !self.someone_passes(slot) => {
                self.believe_checks(index, false);
            }
            Err(fault) if fault.is_answer() => self.follow_trials(slot, now),
            _ => {}
        }
    }

    /// A check failed though a request succeeded there, or some passed: are the checks of the service to be believed?
    fn believe_checks(&mut self, index: usize, believed: bool) {
        let service = &mut self.services[index];
        if service.trials.disproved != believed {
            return;
        }
        service.trials.disproved = !believed;
        self.changes.services.insert(index);
        let service = std::sync::Arc::clone(&service.service.name);
        self.changes.notes.push(Transition::Believed { service, believed });
    }

    /// Whether the checks of a service are known to fail for nothing, so that this backend's is not believed either.
    pub(super) fn disproved(&self, entry: &Entry) -> bool {
        self.services[entry.service].trials.disproved && entry.usable() && entry.answers_wrongly()
    }

    /// A request was answered well, or failed. Where the backend was on trial that is what the trial came to.
    pub(super) fn tried(&mut self, slot: u32, result: Result<(), Fault>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let trial = entry.trial.take().is_some();
        let index = entry.service;
        if result.is_err()
            && let Some(wrong) = &mut entry.wrong
        {
            wrong.failed = Some(now);
        }
        if trial {
            self.changes.services.insert(index);
            self.believe_checks(index, result.is_err());
            if result.is_ok() {
                // That holds for the others at once.
                self.services[index].trials.next = now;
            }
        }
    }

    /// A service changed, or it is time for another request: who is on trial from now on.
    pub(super) fn settle_trials(&mut self, index: usize, now: Instant) {
        if self.anyone_usable(index, None) {
            self.end_trials(index);
            let ServiceState { trials, timers, .. } = &mut self.services[index];
            trials.told = false;
            if trials.disproved && now >= trials.next {
                trials.next = now + timers.failover_within;
                self.acquit_accused_by_checks(index, now);
            }
            return;
        }
        if !may_try(&self.services[index]) {
            self.end_trials(index);
            return;
        }
        if now < self.services[index].trials.next {
            return;
        }
        let contract = self.services[index].timers.failover_within;
        let mut able: Vec<(u8, Option<Instant>, u32)> = self
            .accused_by_checks(index, now)
            .filter(|entry| entry.wrong.is_some_and(|w| w.failed.is_none_or(|at| now.since(at) >= contract)))
            .map(|entry| (entry.turn(), entry.wrong.and_then(|wrong| wrong.failed), entry.slot()))
            .collect();
        self.end_trials(index);
        if able.is_empty() {
            return;
        }
        // Who is on trial stays so until it has a request, then who has not failed any, then whose failure is longest ago.
        able.sort_unstable();
        self.services[index].trials.next = now + contract;
        self.changes.services.insert(index);
        for (_, _, slot) in able.into_iter().take(AT_ONCE) {
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            let served = entry.wrong.is_some_and(|wrong| wrong.served);
            let proof = if served { PROOF.0 } else { PROOF.1 };
            entry.trial = Some(Trial { cap: entry.backend.inflight().saturating_add(1), proof });
        }
        if !std::mem::replace(&mut self.services[index].trials.told, true) {
            let service = std::sync::Arc::clone(&self.services[index].service.name);
            self.changes.notes.push(Transition::Trial { service });
        }
    }

    fn end_trials(&mut self, index: usize) {
        for slot in &self.services[index].members {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            if entry.trial.take().is_some() {
                self.changes.services.insert(index);
            }
        }
    }

    /// A check was answered wrongly: whether that is the moment to let a request through.
    fn follow_trials(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let service = &self.services[entry.service];
        let open = service.available == Some(false) || service.trials.disproved;
        if open && entry.health() == Health::Down && entry.wrong.is_some() && now >= service.trials.next {
            self.changes.services.insert(entry.service);
        }
    }

    /// The checks of a service are not believed: who is down for them alone comes back.
    fn acquit_accused_by_checks(&mut self, index: usize, now: Instant) {
        let least = (self.services[index].timers.failover_within * FORGIVEN.0).max(FORGIVEN.1);
        let forgiven = |wrong: &Wrong| wrong.failed.is_none_or(|at| now.since(at) >= least);
        let innocent = self.accused_by_checks(index, now).filter(|entry| entry.wrong.as_ref().is_some_and(forgiven));
        let slots: Vec<u32> = innocent.filter(|entry| self.fell_together(entry)).map(Entry::slot).collect();
        for slot in slots {
            self.lift(slot, "its check fails as that of another does, where requests succeed", now);
        }
    }

    /// Whether no other's check passed any more when this one's had failed for a moment.
    fn fell_together(&self, entry: &Entry) -> bool {
        let service = &self.services[entry.service];
        let slack = (service.timers.failover_within * TOGETHER.0).max(TOGETHER.1);
        let others = service.members.iter().filter(|slot| **slot != entry.slot());
        let mut passed = others.filter_map(|slot| self.entries.get(slot)?.last_good);
        entry.bad_since.is_some_and(|since| passed.all(|at| at <= since + slack))
    }

    /// Whether the last check of another usable backend of the service passed.
    fn someone_passes(&self, slot: u32) -> bool {
        let Some(entry) = self.entries.get(&slot) else { return false };
        let others = self.services[entry.service].members.iter().filter(|other| **other != slot);
        let mut others = others.filter_map(|other| self.entries.get(other));
        others.any(|other| other.usable() && other.last_good.is_some() && other.bad_since.is_none())
    }

    /// Those that are down and would be up by all but their checks, which they answer.
    fn accused_by_checks(&self, index: usize, now: Instant) -> impl Iterator<Item = &Entry> {
        let service = &self.services[index];
        let starting = (service.timers.failover_within * STARTING.0).max(STARTING.1);
        let members = service.members.iter().filter_map(|slot| self.entries.get(slot));
        members.filter(move |entry| entry.is_accused_by_checks(starting, now))
    }
}

impl Entry {
    /// A probe brought this. Notes for how long it was answered, and wrongly.
    pub(super) fn note_answer(&mut self, result: Result<(), Fault>, now: Instant) {
        match result {
            Err(fault) if fault.is_answer() => {
                let served = matches!(self.health(), Health::Up | Health::Suspect);
                self.wrong.get_or_insert(Wrong { since: now, served, failed: None });
            }
            // Nothing listens there: what does next may be new, and just be starting.
            Ok(()) | Err(Fault::Refused | Fault::Reset) => self.wrong = None,
            // Late or lost is not wrong, nor is who meets that now and then new.
            Err(_) => {}
        }
    }

    /// When it is to be tried: 0 for who is on trial and waits for its request, 2 for who has had it and does not answer.
    fn turn(&self) -> u8 {
        match self.trial {
            Some(trial) if self.backend.inflight() < trial.cap => 0,
            Some(_) => 2,
            None => 1,
        }
    }

    fn is_accused_by_checks(&self, starting: Duration, now: Instant) -> bool {
        let Some(wrong) = self.wrong else { return false };
        let free = self.admin == Admin::Enabled && !self.agent.says_down() && !self.is_nowhere();
        let ejected = self.ejected.is_some_and(|until| until > now);
        let known = wrong.served || now.since(wrong.since) >= starting;
        self.health() == Health::Down && self.answers_wrongly() && free && !ejected && known
    }

    /// Its last check was answered, wrongly.
    pub(super) fn answers_wrongly(&self) -> bool {
        self.recent.back().and_then(|probe| probe.fault).is_some_and(Fault::is_answer)
    }

    /// So many requests in a row were answered 5xx that it is broken.
    pub(super) fn is_surely_broken(&self) -> bool {
        self.backend.stats.streak.get() >= SURELY_BROKEN
    }

    /// It goes down, and its last request failed as well: it is not tried at once.
    pub(super) fn note_fall(&mut self, now: Instant) {
        let fails = self.backend.fails();
        if let Some(wrong) = &mut self.wrong {
            wrong.failed = fails.then_some(now);
        }
    }
}

/// Whether requests may be let through when nobody is left.
fn may_try(service: &ServiceState) -> bool {
    let open = |forward: &relais_config::Forward| !forward.fail_open && forward.maintenance.is_none();
    service.timers.checked && service.forward.as_ref().is_some_and(|forward| open(forward))
}
