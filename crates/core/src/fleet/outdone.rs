//! Who fails all that it is asked, or most of it, while another of its pool answers well: it is left at once, however many do
//! the same. Where most fail, their median does not tell who is worse; and what a pool can lose is a limit for what its
//! backends have in common, not for this.
//!
//! The one that does well must have been seen to since the other's failures began, or a fault that all have would take one
//! after the other out. When it begins to fail or to be slow under what it takes over, or has no place for it, those
//! that were left come back.

use std::time::Duration;

use relais_config::Outlier;

use super::Fleet;
use super::outliers::{SLICES, SPANS};
use super::state::{Entry, ServiceState};
use crate::health::Health;
use crate::outlier::{Accused, Reason, Tally, outdoes};
use crate::time::Instant;

/// So many others are watched while the requests of one fail in a row.
const WITNESSES: usize = 8;
/// For so many contracts nobody is left for one that could not carry what it took over.
const BREATHES: u32 = 3;

/// Another backend, and how it stood when the failures of this one began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Witness {
    slot: u32,
    attempts: u64,
    errors: u64,
}

impl Fleet {
    /// Requests of a backend begin to fail in a row, or nobody who was watched meanwhile does well any more: from here on
    /// others are watched.
    pub(super) fn call_witnesses(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let members = &self.services[entry.service].members;
        let place = members.iter().position(|one| *one == slot).unwrap_or_default();
        let others = members[place..].iter().chain(&members[..place]).filter(|one| **one != slot);
        let well = others.filter_map(|slot| self.entries.get(slot)).filter(|other| other.may_testify());
        let witnesses: Vec<Witness> = well.take(WITNESSES).map(Witness::of).collect();
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.recently.witnesses = witnesses;
        }
    }

    /// Whether none of those that are watched does well any more.
    pub(super) fn lacks_witnesses(&self, slot: u32) -> bool {
        let Some(entry) = self.entries.get(&slot) else { return false };
        let mut watched = entry.recently.witnesses.iter().filter_map(|witness| self.entries.get(&witness.slot));
        !watched.any(Entry::may_testify)
    }

    /// Whether so many failed requests in a row are surely worse than what another did meanwhile, which did well.
    pub(super) fn is_outdone(&self, entry: &Entry, failed: u32, now: Instant) -> bool {
        let service = &self.services[entry.service];
        let leaves = self.outlier_rule(entry.service).is_some_and(|rule| rule.errors_percent > 0);
        if !leaves || now < service.breathes_until || failed < service.timers.passive_fall {
            return false;
        }
        let own = Tally { attempts: failed.into(), errors: failed.into(), ..Tally::default() };
        let outdone = entry.recently.witnesses.iter().any(|witness| {
            let Some(other) = self.entries.get(&witness.slot).filter(|other| other.may_testify()) else { return false };
            // What it did before says nothing of a fault that all may have since.
            outdoes(&witness.meanwhile(other), &own)
        });
        outdone && !self.overburdened(entry.service, entry.tier, Some(entry.slot()))
    }

    /// Whether all that share the load of a tier have more to do than they can; `but` one, which is not to share it.
    pub(super) fn overburdened(&self, index: usize, tier: u32, but: Option<u32>) -> bool {
        self.all_burdened(index, |peer| peer.tier == tier && Some(peer.slot()) != but)
    }

    /// Whether all of these, and one at least, have more to do than they can.
    pub(super) fn all_burdened(&self, index: usize, these: impl Fn(&Entry) -> bool) -> bool {
        let Some(rule) = self.outlier_rule(index) else { return false };
        let service = &self.services[index];
        let mut peers = self.usable(index).filter(|peer| these(peer)).peekable();
        let contract = service.timers.failover_within;
        peers.peek().is_some() && peers.all(|peer| peer.is_full(service) || peer.is_strained(&rule, contract))
    }

    /// A backend is left for another that does well, whatever the pool can lose.
    pub(super) fn leave_for_better(&mut self, slot: u32, accused: Accused, rule: &Outlier, now: Instant) {
        self.eject(slot, accused, rule, now);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.left_for_better = true;
        }
    }

    /// Leaves those of which most answers are wrong while another did well in the same time.
    pub(super) fn leave_outdone(&mut self, index: usize, rule: &Outlier, now: Instant) {
        if rule.errors_percent == 0 || now < self.services[index].breathes_until {
            return;
        }
        let mut best: [Option<Option<Tally>>; SLICES + 1] = [None; SLICES + 1];
        let mut best_over = |span: usize| {
            *best[span].get_or_insert_with(|| {
                let others = self.usable(index).filter(|other| other.may_testify());
                let well = others.map(|other| other.recently.over(span)).filter(Tally::does_well);
                well.max_by_key(|tally| tally.attempts)
            })
        };
        let outdone = self.usable(index).filter(|entry| !entry.recently.is_over()).filter_map(|entry| {
            let span = SPANS.iter().map(|span| entry.recently.slices().min(*span)).find(|span| {
                let own = entry.recently.over(*span);
                let many = own.attempts >= u64::from(rule.volume) && own.mostly_wrong();
                many && best_over(*span).is_some_and(|other| outdoes(&other, &own))
            })?;
            let why = format!("{}, while another answers well", entry.recently.over(span).told());
            Some((entry.slot(), Accused { reason: Reason::Errors, why, weight: 0.0 }))
        });
        let outdone: Vec<(u32, Accused)> = outdone.collect();
        for (slot, accused) in outdone {
            let Some(tier) = self.entries.get(&slot).map(|entry| entry.tier) else { continue };
            // Two may outdo each other, over spans of different length. And who is left for one that cannot carry its load would be
            // back at once.
            if !self.anyone_usable(index, Some(slot)) || self.overburdened(index, tier, Some(slot)) {
                continue;
            }
            self.leave_for_better(slot, accused, rule, now);
        }
    }

    /// Those that were left for a better one stay so while there is one; and while it carries what it took over from them, if
    /// they would share that with it.
    pub(super) fn follow_better(&mut self, index: usize, now: Instant) {
        let contract = self.services[index].timers.failover_within;
        let anyone = self.usable(index).any(Entry::is_better);
        let members = self.services[index].members.iter().filter_map(|slot| self.entries.get(slot));
        let left = members.filter(|entry| entry.left_for_better);
        let back: Vec<u32> = left
            .filter(|entry| !anyone || self.overburdened(index, entry.tier, None))
            .map(|entry| entry.slot())
            .collect();
        if back.is_empty() {
            return;
        }
        self.services[index].breathes_until = now + contract * BREATHES;
        self.changes.services.insert(index);
        for slot in back {
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            entry.left_for_better = false;
            self.changes.save.insert(slot);
        }
    }
}

impl Witness {
    fn of(other: &Entry) -> Self {
        let stats = &other.backend.stats;
        let attempts = stats.succeeded.get() + stats.failed.get();
        Self { slot: other.slot(), attempts, errors: stats.errors.get() }
    }

    /// What the backend did since.
    fn meanwhile(&self, other: &Entry) -> Tally {
        let now = Self::of(other);
        let attempts = now.attempts.saturating_sub(self.attempts);
        Tally { attempts, errors: now.errors.saturating_sub(self.errors), ..Tally::default() }
    }
}

impl Entry {
    /// It takes requests, has not failed the last one and does not stand still: what it answers can be held against others.
    fn may_testify(&self) -> bool {
        self.health() == Health::Up && self.usable() && !self.backend.fails() && self.stall.looks == 0
    }

    /// It has as many requests as it may have, and others wait for a place or, where none may wait, are turned away.
    fn is_full(&self, service: &ServiceState) -> bool {
        let Some(forward) = &service.forward else { return false };
        let told = self.agent.words().and_then(|words| words.cap);
        let Some(cap) = forward.max_inflight.into_iter().chain(told).min() else { return false };
        // A place that has just become free is soon taken by one of those that wait.
        service.stats.waiting.get() > 0 || (forward.max_queue == 0 && self.backend.inflight() >= cap)
    }

    /// It fails, or answers later than it used to, as who has more to do than it can.
    fn is_strained(&self, rule: &Outlier, contract: Duration) -> bool {
        let newest = SPANS.iter().map(|span| self.recently.over(*span));
        let Some(newest) = newest.into_iter().find(|tally| tally.attempts >= u64::from(rule.volume)) else {
            return false;
        };
        let fails = newest.errors * 100 >= newest.attempts * u64::from(rule.errors_percent.max(1));
        let late = !newest.seldom_slower_than(contract, 2);
        fails || (late && Tally::read(&self.backend.stats).seldom_slower_than(contract, 2))
    }
}
