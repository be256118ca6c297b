//! Gray failure of those that nobody can be compared with: a preferred site takes all requests, and answers none of them, or
//! nearly all of them wrongly, while its checks pass. The others are not asked, so that nothing is known of them; they are
//! tried.
//!
//! Not answering is held against what a backend itself did before. A service whose answers take long by nature is not
//! accused, and what all have in common ends the search: never more are left than the pool can lose.

use relais_config::Outlier;

use super::Fleet;
use super::outliers::{SLICES, SPANS};
use super::state::Entry;
use crate::outlier::{Accused, Reason, Tally};
use crate::time::Instant;
use crate::words::short;

/// Looks in a row that must find a backend stalled: a pause of two contracts is nothing yet.
const LOOKS: u32 = 2;
/// It is unusual that a request waits for longer than the contract when one in so many answers took so long.
const FEW: u64 = 20;
/// Fewest requests that wait in vain, whatever `passive_fall` says.
const LEAST: u64 = 3;

/// What a backend was doing at the last look.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Response heads until then.
    heads: u64,
    /// Requests that waited for longer than the contract when a head last came, or while it was out: what is usual there.
    usual: u64,
    /// How many looks in a row found requests waiting and no head.
    looks: u32,
}

impl Entry {
    /// Takes a look, `need`: so many waiting requests are no accident.
    fn look_for_stall(&mut self, need: u64) {
        let (heads, waiting) = (Tally::read(&self.backend.stats).answers(), self.backend.stats.overdue.get());
        // What was left waiting there while it was out says nothing when it is back.
        let out = !self.usable();
        let stall = &mut self.stall;
        if out || heads != stall.heads {
            *stall = Stall { heads, usual: waiting, looks: 0 };
        } else if waiting >= stall.usual.saturating_mul(2).saturating_add(need) {
            stall.looks = stall.looks.saturating_add(1);
        } else {
            stall.looks = 0;
        }
    }
}

impl Fleet {
    /// Leaves those that have stopped to answer requests though their checks pass, if somebody has not.
    pub(super) fn leave_stalled(&mut self, index: usize, rule: &Outlier, now: Instant) {
        let timers = &self.services[index].timers;
        let (contract, passive_fall) = (timers.failover_within, timers.passive_fall);
        let need = if passive_fall == 0 { rule.volume } else { passive_fall };
        let members = self.services[index].members.clone();
        for slot in &members {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            entry.look_for_stall(u64::from(need).max(LEAST));
        }
        if rule.slow_factor == 0 {
            return;
        }
        let known = |entry: &Entry| {
            let life = Tally::read(&entry.backend.stats);
            life.answers() >= u64::from(rule.volume) && life.seldom_slower_than(contract, FEW)
        };
        for slot in members {
            let Some(entry) = self.entries.get(&slot) else { continue };
            if entry.stall.looks < LOOKS || !entry.usable() || !known(entry) {
                continue;
            }
            let others = self.others(entry).any(|other| other.usable() && other.stall.looks == 0);
            if !others || !self.can_lose(slot, rule) {
                continue;
            }
            let waiting = entry.backend.stats.overdue.get();
            let why = format!("{waiting} requests wait for longer than {}, none was answered", short(contract));
            self.eject(slot, Accused { reason: Reason::Slow, why, weight: 0.0 }, rule, now);
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.stalled = true;
            }
        }
    }

    /// Leaves a tier that takes all requests and answers most of them wrongly, if there is another one that is not known to
    /// do the same.
    pub(super) fn leave_failing_tier(&mut self, index: usize, rule: &Outlier, now: Instant) {
        if rule.errors_percent == 0 {
            return;
        }
        let usable: Vec<&Entry> = self.usable(index).collect();
        let Some(tier) = usable.iter().map(|entry| entry.tier).min() else { return };
        let (front, behind): (Vec<&Entry>, Vec<&Entry>) = usable.into_iter().partition(|entry| entry.tier == tier);
        if behind.is_empty() {
            return;
        }
        let behind = sum(&behind, SLICES);
        if behind.attempts >= LEAST && behind.mostly_wrong() {
            return;
        }
        let spans = SPANS.iter().map(|span| (*span, sum(&front, *span)));
        let failing = spans.filter(|(span, _)| each_is_wrong(&front, *span));
        let Some(all) = failing.map(|(_, all)| all).find(|all| all.attempts >= u64::from(rule.volume)) else { return };
        let slots: Vec<u32> = front.iter().map(|entry| entry.slot()).collect();
        let why = format!("{} of {} answers were errors, of all that were asked", all.errors, all.attempts);
        for slot in slots {
            if self.can_lose(slot, rule) {
                self.eject(slot, Accused { reason: Reason::Errors, why: why.clone(), weight: 0.0 }, rule, now);
            }
        }
    }

    fn usable(&self, index: usize) -> impl Iterator<Item = &Entry> {
        let members = self.services[index].members.iter().filter_map(|slot| self.entries.get(slot));
        members.filter(|entry| entry.usable())
    }
}

/// What several did together.
fn sum(entries: &[&Entry], span: usize) -> Tally {
    let mut all = Tally::default();
    entries.iter().for_each(|entry| all.add(&entry.recently.over(span)));
    all
}

/// Each of them that was asked answers wrongly most of the time, and still does.
fn each_is_wrong(entries: &[&Entry], span: usize) -> bool {
    let wrong = |entry: &&Entry| entry.recently.over(span).mostly_wrong() && !entry.recently.is_over();
    entries.iter().filter(|entry| entry.recently.over(span).attempts > 0).all(wrong)
}
