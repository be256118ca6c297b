//! A request waits for longer than usual, or an answer pauses: does anything live there? The probe under way may have more time than the answer is
//! worth, so a shorter one takes its place; it still counts when its answer comes.

use relais_config::CheckKind;

use super::Fleet;
use super::agenda::Alarm;
use super::state::{Entry, Outstanding};
use crate::fault::Fault;
use crate::health::Health;
use crate::time::Instant;

/// What a service knows of its checks, so that who is late need not look at all the others.
#[derive(Debug, Default)]
pub(super) struct Comparing {
    /// The two whose checks passed last, and when, latest first.
    passed: [Option<(u32, Instant)>; 2],
    /// When another was last asked as one was late, and which.
    asked: Option<(Instant, Option<u32>)>,
}

impl Comparing {
    /// A check passed.
    pub(super) fn pass(&mut self, slot: u32, now: Instant) {
        let [last, before] = &mut self.passed;
        if last.is_none_or(|(known, _)| known != slot) {
            *before = *last;
        }
        *last = Some((slot, now));
    }
}

impl Fleet {
    /// A worker waits there longer than usual: asks at once whether anything answers.
    pub(super) fn press(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if entry.health() != Health::Up {
            return;
        }
        match entry.probe {
            None => {
                if let Some(entry) = self.entries.get_mut(&slot) {
                    entry.pressed = true;
                }
                self.hurry(slot, now);
            }
            Some(probe) if self.replaceable(entry, probe, now) => {
                let unusual = self.unusual(entry, probe);
                if unusual <= now {
                    self.replace(slot, now);
                    return;
                }
                if let Some(probe) = self.entries.get_mut(&slot).and_then(|entry| entry.probe.as_mut()) {
                    probe.pressed = true;
                }
                self.agenda.set(Alarm::Overdue(slot), unusual);
            }
            Some(probe) if now.since(probe.sent) >= self.services[entry.service].timers.confirm_timeout => {
                self.ask_better(slot, now);
            }
            Some(_) => {}
        }
    }

    /// Whether a probe has more time than the question that a waiting request asks: does anything live there? A program of
    /// the operator's is not started twice; where no check has passed yet nobody knows how long one takes; and in doubt each
    /// answer is waited for.
    pub(super) fn replaceable(&self, entry: &Entry, probe: Outstanding, now: Instant) -> bool {
        let kind = self.services[entry.service].forward.as_ref().map(|forward| &forward.health.kind);
        let ours = kind.is_some_and(|kind| !matches!(kind, CheckKind::Exec(_)));
        let usual = !probe.short && !probe.whole && !entry.counters.in_doubt();
        let only = entry.replaced.is_none_or(|replaced| replaced.lost <= now);
        // Both take a file descriptor.
        let room = self.room_for_twice();
        ours && usual && only && room && entry.health() == Health::Up && !entry.fastest.is_zero()
    }

    /// From when on the answer to a probe takes unusually long.
    pub(super) fn unusual(&self, entry: &Entry, probe: Outstanding) -> Instant {
        let fast = self.services[entry.service].timers.fast_interval;
        (probe.sent + (entry.slowest * 2).max(fast)).min(probe.lost)
    }

    /// A probe takes unusually long, and perhaps too long: whether another backend does better must be known by then, or the
    /// next late answer of this one would be waited for as long as a contract.
    pub(super) fn compare_late(&mut self, slot: u32, probe: Outstanding, now: Instant) {
        let Some(entry) = self.entries.get(&slot).filter(|entry| entry.health() == Health::Up) else { return };
        let index = entry.service;
        let service = &self.services[index];
        // When many are late at once one question is for all, but for whom it was asked.
        let asked = service.comparing.asked.filter(|(at, _)| now.since(*at) < service.timers.fast_interval);
        let known = asked.is_some_and(|(_, other)| other != Some(slot));
        // A program is not run out of turn; a timeout by hand is no longer than it says, whoever does better.
        let may_ask = service.forward.as_ref().is_some_and(|forward| {
            forward.health.timeout.is_none() && !matches!(forward.health.kind, CheckKind::Exec(_))
        });
        if !known && may_ask && !self.sibling_passed(entry, probe.sent) {
            let other = self.ask_better(slot, now);
            self.services[index].comparing.asked = Some((now, other));
        }
    }

    /// Whether the check of another usable backend of the service has passed since then.
    pub(super) fn sibling_passed(&self, entry: &Entry, since: Instant) -> bool {
        let service = &self.services[entry.service];
        let others = service.comparing.passed.iter().flatten().filter(|(slot, _)| *slot != entry.slot());
        for (slot, at) in others {
            if *at <= since {
                return false;
            }
            if self.entries.get(slot).is_some_and(|other| other.usable() && other.last_good == Some(*at)) {
                return true;
            }
        }
        let members = service.members.iter().filter_map(|slot| self.entries.get(slot));
        members
            .filter(|other| other.slot() != entry.slot() && other.usable())
            .any(|other| other.last_good.is_some_and(|at| at > since))
    }

    /// Asks anew, with the short deadline, before the answer to a probe that takes unusually long; it still counts when it
    /// comes.
    pub(super) fn replace(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        (entry.replaced, entry.pressed) = (entry.probe.take(), true);
        self.agenda.cancel(Alarm::Overdue(slot));
        self.hurry(slot, now);
        self.ask_better(slot, now);
    }

    /// Asks another backend of the service, the one most likely to answer: only when one does, the next late answer of
    /// this one need not be waited for as long as a contract. Says which.
    pub(super) fn ask_better(&mut self, slot: u32, now: Instant) -> Option<u32> {
        let entry = self.entries.get(&slot)?;
        let others = self.services[entry.service].members.iter().filter_map(|slot| self.entries.get(slot));
        let able = others.filter(|other| other.slot() != slot && other.usable() && !other.counters.in_doubt());
        // Who is late itself may hang too.
        let prompt = |other: &Entry| other.probe.is_none_or(|probe| now < self.unusual(other, probe));
        let best = able.max_by_key(|other| (prompt(other), other.site != entry.site, other.last_good));
        let best = best.map(Entry::slot)?;
        self.hurry(best, now);
        Some(best)
    }

    /// A shorter probe was answered, or late: the one that it took the place of is waited for alone. Where nothing lives, or the
    /// answer was wrong, there is no point in that.
    pub(super) fn go_on_with_replaced(&mut self, slot: u32, shorter: Result<(), Fault>) -> bool {
        let Some(entry) = self.entries.get_mut(&slot) else { return false };
        let lives = matches!(shorter, Ok(()) | Err(Fault::ResponseTimeout));
        let Some(replaced) = entry.replaced.take_if(|_| lives) else { return false };
        entry.probe = Some(Outstanding { whole: true, ..replaced });
        self.agenda.set(Alarm::Overdue(slot), replaced.lost);
        true
    }
}
