//! The governed return: good checks, then a wait that doubles with every further outage, then a growing share.
//!
//! Availability comes first: when a service has nobody else, one good check is enough and nobody waits.

use std::time::Duration;

use super::Fleet;
use super::agenda::Alarm;
use super::state::{Entry, FLAP_MEMORY};
use crate::health::{Admin, Health};
use crate::time::Instant;
use crate::words::{count, short};

impl Fleet {
    /// A backend that is down has passed its checks: up now, or when its hold-down ends.
    pub(super) fn come_back(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if entry.health() != Health::Down {
            return;
        }
        if !self.anyone_usable(entry.service, Some(slot)) {
            self.lift(slot, "answers again, nothing else is left", now);
            return;
        }
        let until = entry.held_until.unwrap_or_else(|| now + self.hold(entry, now));
        if until <= now {
            self.rise(slot, now);
            return;
        }
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if entry.held_until.is_none() {
            entry.held_until = Some(until);
            self.agenda.set(Alarm::Release(slot), until);
        }
    }

    /// A hold-down ends.
    pub(super) fn release(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if entry.health() != Health::Down || entry.admin == Admin::Disabled || entry.is_nowhere() {
            return;
        }
        let timers = &self.services[entry.service].timers;
        if !timers.checked {
            // Nobody asks it: the next request does, and one failure is enough to send it back.
            let passive_fall = timers.passive_fall;
            self.lift(slot, "tried again", now);
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.counters.failed = passive_fall.saturating_sub(1);
                entry.counters.silent_requests = 0;
            }
        } else if entry.counters.good >= timers.rise {
            self.rise(slot, now);
        }
    }

    fn rise(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let mut why = format!("{} passed in a row", count(entry.counters.good, "check"));
        if entry.ejected.is_some() {
            why = format!("{why}, {} after its ejection", short(now.since(entry.since)));
        } else if let Some(until) = entry.held_until {
            why = format!("{why}, held back until {} after its fall", short(until.since(entry.since)));
        }
        self.lift(slot, &why, now);
    }

    /// Up again, with a ramp unless it must carry the service alone.
    pub(super) fn lift(&mut self, slot: u32, why: &str, now: Instant) {
        let Some(service) = self.entries.get(&slot).map(|entry| entry.service) else { return };
        let alone = !self.anyone_usable(service, Some(slot));
        self.end_hold(slot);
        self.acquit_backend(slot, now);
        self.turn(slot, Health::Up, why.to_owned(), now);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.ramp_from = (!alone).then_some(now);
        }
    }

    /// Ends a hold-down without a return.
    pub(super) fn end_hold(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if self.services[entry.service].timers.checked {
            entry.held_until = None;
            self.agenda.cancel(Alarm::Release(slot));
        }
    }

    /// A backend nobody checks went down: it is tried again after a while.
    pub(super) fn hold_unchecked(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let least = self.services[entry.service].timers.failover_within;
        let until = now + self.hold(entry, now).max(least);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.held_until = Some(until);
        }
        self.agenda.set(Alarm::Release(slot), until);
    }

    /// How long a return is held back: by flaps or by an ejection, whichever is longer.
    fn hold(&self, entry: &Entry, now: Instant) -> Duration {
        let ejected = entry.ejected.map_or(Duration::ZERO, |until| until.since(now));
        self.flap_hold(entry, now).max(ejected)
    }

    /// Not at all after the first outage in ten minutes, then doubling.
    fn flap_hold(&self, entry: &Entry, now: Instant) -> Duration {
        let timers = &self.services[entry.service].timers;
        let recent = |downs: &[Instant]| downs.iter().filter(|at| now.since(**at) < FLAP_MEMORY).count();
        let outages = recent(&entry.downs).max(recent(&self.sites[entry.site].downs));
        let doublings = u32::try_from(outages).unwrap_or(u32::MAX).saturating_sub(1).min(16);
        if doublings == 0 {
            return Duration::ZERO;
        }
        timers.failover_within.saturating_mul(1 << doublings).min(timers.max_hold_down)
    }

    /// A service changed: when it has nobody left, whoever has answered at all since it went down comes back at once.
    pub(super) fn settle_service(&mut self, service: usize, now: Instant) {
        if self.services[service].members.is_empty() || self.anyone_usable(service, None) {
            return;
        }
        let waiting: Vec<u32> = self.services[service]
            .members
            .iter()
            .copied()
            .filter(|slot| self.entries.get(slot).is_some_and(answered_while_down))
            .collect();
        for slot in waiting {
            self.lift(slot, "answers, and nothing else is left", now);
        }
    }
}

fn answered_while_down(entry: &Entry) -> bool {
    let answered = entry.counters.good > 0 || (entry.is_ejected() && entry.counters.bad == 0);
    entry.admin == Admin::Enabled && entry.health() == Health::Down && answered
}
