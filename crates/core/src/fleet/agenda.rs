//! What is due when: one deadline per alarm, found in the order of time.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Instant;

/// Why the fleet wants to be called. The number is a backend's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A probe is due.
    Probe(u32),
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

/// All deadlines. Setting an alarm again moves it.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    by_time: BTreeSet<(Instant, Alarm)>,
    when: BTreeMap<Alarm, Instant>,
}

impl Agenda {
    pub(super) fn set(&mut self, alarm: Alarm, at: Instant) {
        if let Some(old) = self.when.insert(alarm, at) {
            self.by_time.remove(&(old, alarm));
        }
        self.by_time.insert((at, alarm));
    }

    pub(super) fn cancel(&mut self, alarm: Alarm) {
        if let Some(old) = self.when.remove(&alarm) {
            self.by_time.remove(&(old, alarm));
        }
    }

    /// Everything about one backend.
    pub(super) fn cancel_all(&mut self, slot: u32) {
        self.cancel_probing(slot);
        self.cancel(Alarm::Resolve(slot));
        self.cancel(Alarm::Agent(slot));
    }

    /// Everything about the probes of one backend.
    pub(super) fn cancel_probing(&mut self, slot: u32) {
        for alarm in [Alarm::Probe(slot), Alarm::Overdue(slot), Alarm::Release(slot)] {
            self.cancel(alarm);
        }
    }

    pub(super) fn at(&self, alarm: Alarm) -> Option<Instant> {
        self.when.get(&alarm).copied()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes the earliest alarm that is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Alarm> {
        let (at, alarm) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        self.when.remove(&alarm);
        Some(alarm)
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
        assert_eq!(agenda.next(), Some(Instant(5)));
        assert_eq!(agenda.take_due(Instant(4)), None);
        assert_eq!(agenda.take_due(Instant(10)), Some(Alarm::Probe(1)));
        assert_eq!(agenda.take_due(Instant(10)), Some(Alarm::Probe(2)));
        assert_eq!(agenda.take_due(Instant(10)), None);
        assert_eq!(agenda.at(Alarm::Overdue(1)), Some(Instant(20)));
        agenda.cancel_all(1);
        assert_eq!(agenda.next(), None);
    }
}
