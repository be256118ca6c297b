//! What is due when: one deadline per alarm, found in the order of time.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Why the fleet wants to be called. The number is a backend's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A probe is due.
    Probe(u32),
    /// A probe that answers a question is due.
    Doubt(u32),
    /// A probe should have been answered long ago.
    Overdue(u32),
    /// A hold-down ends, or an unchecked backend may be tried again.
    Release(u32),
    /// A name is to be looked up.
    Resolve(u32),
    /// An agent is to be asked.
    Agent(u32),
    /// The accusations against a site have grown old. The number is the site's place in the config.
    Acquit(u32),
    /// Nothing more was moved off lost backends of a service. The number is the service's place in the config.
    Settled(u32),
    /// The backends of a service are to be compared. The number is the service's place in the config.
    Compare(u32),
    /// The drill under way must be looked at.
    Drill,
    /// A certificate must be looked at.
    Certificates,
}

/// All deadlines. Setting an alarm again moves it. Probes have lists of their own: they may have to wait for room, the rest
/// must not wait with them, and a question takes turns with those that are only made again.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    probes: BTreeSet<(Instant, u32)>,
    doubts: BTreeSet<(Instant, u32)>,
    /// The last probe was made again only.
    doubts_next: bool,
    by_time: BTreeSet<(Instant, Alarm)>,
    when: BTreeMap<Alarm, Instant>,
    /// Alarms `Overdue`: each is a probe under way.
    under_way: usize,
}

impl Agenda {
    pub(super) fn set(&mut self, alarm: Alarm, at: Instant) {
        self.cancel(alarm);
        self.when.insert(alarm, at);
        match alarm {
            Alarm::Probe(slot) => self.probes.insert((at, slot)),
            Alarm::Doubt(slot) => self.doubts.insert((at, slot)),
            _ => self.by_time.insert((at, alarm)),
        };
        self.under_way += usize::from(matches!(alarm, Alarm::Overdue(_)));
    }

    pub(super) fn cancel(&mut self, alarm: Alarm) {
        let Some(old) = self.when.remove(&alarm) else { return };
        match alarm {
            Alarm::Probe(slot) => self.probes.remove(&(old, slot)),
            Alarm::Doubt(slot) => self.doubts.remove(&(old, slot)),
            _ => self.by_time.remove(&(old, alarm)),
        };
        self.under_way -= usize::from(matches!(alarm, Alarm::Overdue(_)));
    }

    /// Probes whose result has not come yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether any probe is planned or under way.
    pub(super) fn probes(&self) -> bool {
        self.under_way > 0 || !self.probes.is_empty() || !self.doubts.is_empty()
    }

    /// Everything about one backend.
    pub(super) fn cancel_all(&mut self, slot: u32) {
        self.cancel_probing(slot);
        self.cancel(Alarm::Resolve(slot));
        self.cancel(Alarm::Agent(slot));
    }

    /// Everything about the probes of one backend.
    pub(super) fn cancel_probing(&mut self, slot: u32) {
        for alarm in [Alarm::Probe(slot), Alarm::Doubt(slot), Alarm::Overdue(slot), Alarm::Release(slot)] {
            self.cancel(alarm);
        }
    }

    pub(super) fn at(&self, alarm: Alarm) -> Option<Instant> {
        self.when.get(&alarm).copied()
    }

    /// The earliest alarm, where probes may not be sent before `probes`; `None`: not at all for now.
    pub(super) fn next(&self, probes: Option<Instant>) -> Option<Instant> {
        let probe = [self.probes.first(), self.doubts.first()].into_iter().flatten().map(|(at, _)| *at).min();
        let probe = probe.zip(probes).map(|(at, from)| at.max(from));
        self.by_time.first().map(|(at, _)| *at).into_iter().chain(probe).min()
    }

    /// Takes the earliest alarm that is due, and says when it was; probes only where they may be sent.
    pub(super) fn take_due(&mut self, now: Instant, probes: bool) -> Option<(Instant, Alarm)> {
        let first = |list: &BTreeSet<(Instant, u32)>| list.first().copied().filter(|(at, _)| probes && *at <= now);
        let again = first(&self.probes).map(|(at, slot)| (at, Alarm::Probe(slot)));
        let doubt = first(&self.doubts).map(|(at, slot)| (at, Alarm::Doubt(slot)));
        let probe = if self.doubts_next { doubt.or(again) } else { again.or(doubt) };
        let due = self.by_time.first().copied().filter(|(at, _)| *at <= now);
        let (at, alarm) = due.into_iter().chain(probe).min()?;
        match alarm {
            Alarm::Probe(_) => self.doubts_next = true,
            Alarm::Doubt(_) => self.doubts_next = false,
            _ => {}
        }
        self.cancel(alarm);
        Some((at, alarm))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_come_in_order_once_and_can_be_moved_or_cancelled() {
        let mut agenda = Agenda::default();
        agenda.set(Alarm::Probe(1), Instant(30));
        agenda.set(Alarm::Probe(2), Instant(10));
        agenda.set(Alarm::Overdue(1), Instant(20));
        agenda.set(Alarm::Probe(1), Instant(5));
        let at_once = Some(Instant(0));
        assert_eq!(agenda.next(at_once), Some(Instant(5)));
        assert_eq!(agenda.take_due(Instant(4), true), None);
        assert_eq!(agenda.take_due(Instant(10), true), Some((Instant(5), Alarm::Probe(1))));
        assert_eq!(agenda.take_due(Instant(10), true), Some((Instant(10), Alarm::Probe(2))));
        assert_eq!(agenda.take_due(Instant(10), true), None);
        assert_eq!(agenda.at(Alarm::Overdue(1)), Some(Instant(20)));
        agenda.cancel_all(1);
        assert_eq!(agenda.next(at_once), None);
    }

    #[test]
    fn probes_without_room_hold_up_nothing_else() {
        let mut agenda = Agenda::default();
        agenda.set(Alarm::Probe(1), Instant(10));
        agenda.set(Alarm::Release(2), Instant(20));
        assert_eq!(agenda.next(None), Some(Instant(20)));
        assert_eq!(agenda.next(Some(Instant(15))), Some(Instant(15)));
        assert_eq!(agenda.take_due(Instant(30), false), Some((Instant(20), Alarm::Release(2))));
        assert_eq!(agenda.take_due(Instant(30), false), None);
        assert_eq!(agenda.take_due(Instant(30), true), Some((Instant(10), Alarm::Probe(1))));
    }

    #[test]
    fn questions_take_turns_with_what_was_due_long_ago() {
        let mut agenda = Agenda::default();
        for slot in 0..4 {
            agenda.set(Alarm::Probe(slot), Instant(10));
            agenda.set(Alarm::Doubt(10 + slot), Instant(20));
        }
        let taken: Vec<bool> = std::iter::from_fn(|| agenda.take_due(Instant(30), true))
            .map(|(_, alarm)| matches!(alarm, Alarm::Doubt(_)))
            .collect();
        assert_eq!(taken, [false, true, false, true, false, true, false, true]);
    }

    #[test]
    fn probes_under_way_are_counted_however_they_end() {
        let mut agenda = Agenda::default();
        for slot in 0..3 {
            agenda.set(Alarm::Overdue(slot), Instant(10));
            agenda.set(Alarm::Overdue(slot), Instant(20));
        }
        assert_eq!(agenda.under_way(), 3);
        agenda.cancel(Alarm::Overdue(0));
        agenda.cancel(Alarm::Overdue(0));
        agenda.cancel_all(1);
        assert_eq!(agenda.under_way(), 1);
        assert!(agenda.take_due(Instant(20), true).is_some());
        assert_eq!(agenda.under_way(), 0);
    }
}
