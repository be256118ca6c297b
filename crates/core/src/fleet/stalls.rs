//! Gray failure of those that nobody can be compared with: a preferred site takes all requests, and answers none of them, or
//! nearly all of them wrongly, while its checks pass. The others are not asked, so that nothing is known of them; they are
//! tried.
//!
//! Not answering is held against what a backend itself did before. A service whose answers take long by nature is not
//! accused, and what all have in common ends the search. One by one no more are left than the pool can lose; a preferred tier
//! of which each one fails is left as a whole, however large, as long as somebody behind it is not known to do the same.
//!
//! Where all of a service stand still there is nobody to leave them for. That is said to those who ask then: what waits longer
//! than answers used to take waits in vain. They are asked all the same, and what waits there already shows when that is over.

use std::time::Duration;

use relais_config::Outlier;

use super::Fleet;
use super::outliers::{SLICES, SPANS, TICK};
use super::state::Entry;
use crate::effect::Transition;
use crate::outlier::{Accused, Reason, Tally};
use crate::time::Instant;
use crate::words::short;

/// Looks in a row that must find a backend stalled: a pause of two contracts is nothing yet.
const LOOKS: u32 = 2;
/// Looks in a row, and contracts, after which all of a service surely stand still.
const SURELY: (u32, u32) = (5, 3);
/// It is unusual that a request waits for longer than the contract when one in so many answers took so long.
const FEW: u64 = 20;
/// Fewest requests that say anything of one backend: those that wait in vain, whatever `passive_fall` says, and answers.
const LEAST: u64 = 3;

/// What a backend was doing at the last look.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Response heads until then.
    heads: u64,
    /// Requests that waited for longer than the contract when a head last came, or while it was out: what is usual there.
    usual: u64,
    /// How many looks in a row found requests waiting and no head.
    pub(super) looks: u32,
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

impl Entry {
    /// Has stopped to answer for so many looks, which is unusual by its own past.
    fn stands_still(&self, looks: u32, rule: &Outlier, contract: Duration) -> bool {
        let life = Tally::read(&self.backend.stats);
        let known = life.answers() >= u64::from(rule.volume) && life.seldom_slower_than(contract, FEW);
        self.stall.looks >= looks && self.usable() && known
    }

    /// Lets requests wait, and has answered none lately: whatever it is left for, they need not wait there.
    pub(super) fn keeps_silent(&self) -> bool {
        let newest = self.recently.over(1);
        let answered = self.stall.looks == 0 && (newest.attempts == 0 || newest.answers() > 0);
        !answered && self.backend.stats.overdue.get() > 0
    }

    /// Is worth it that others were left for it.
    pub(super) fn is_better(&self) -> bool {
        self.is_sound(LOOKS)
    }

    /// Can take requests, and is not known to answer none of them (at so many looks) or most of them wrongly.
    fn is_sound(&self, looks: u32) -> bool {
        let lately = self.recently.over(SLICES);
        let wrong = lately.attempts >= LEAST && lately.mostly_wrong() && !self.recently.is_over();
        self.usable() && self.stall.looks < looks && !wrong
    }
}

impl Fleet {
    /// Leaves those that have stopped to answer requests though their checks pass, and those that take all requests and answer
    /// most of them wrongly.
    pub(super) fn leave_useless(&mut self, index: usize, rule: &Outlier, now: Instant) {
        self.look_for_stalls(index, rule);
        let Some(tier) = self.usable(index).map(|entry| entry.tier).min() else { return };
        let stalled = self.stalled(index, rule);
        let behind = self.usable(index).any(|entry| entry.tier > tier && entry.is_sound(1));
        let failing = if behind { self.failing(index, tier, &stalled, rule) } else { Vec::new() };
        let charged = |entry: &Entry| {
            let slot = entry.slot();
            stalled.iter().chain(&failing).any(|(one, _)| *one == slot)
        };
        let whole = behind && self.usable(index).filter(|entry| entry.tier == tier).all(charged);
        let charges =
            stalled.into_iter().map(|charge| (charge, true)).chain(failing.into_iter().map(|one| (one, false)));
        for ((slot, accused), stalls) in charges {
            let Some(entry) = self.entries.get(&slot) else { continue };
            let with_tier = whole && entry.tier == tier;
            let better = !stalls || self.others(entry).any(|other| other.usable() && other.stall.looks == 0);
            let spared = !better || !self.can_lose(slot, rule);
            if spared && !with_tier {
                continue;
            }
            self.eject(slot, accused, rule, now);
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.stalled |= stalls;
            }
        }
        if whole {
            self.forgo_tier(index, tier);
        }
    }

    /// A tier was left as a whole: nobody of it is missed, nor those of it that were left before.
    fn forgo_tier(&mut self, index: usize, tier: u32) {
        for slot in &self.services[index].members {
            let Some(entry) = self.entries.get_mut(slot).filter(|entry| entry.is_ejected() && entry.tier <= tier)
            else {
                continue;
            };
            entry.left_for_better = true;
            self.changes.save.insert(*slot);
        }
    }

    /// Whether all that can take requests have stopped to answer, for long enough to be no pause.
    pub(super) fn follow_still(&mut self, index: usize, rule: &Outlier) {
        let contract = self.services[index].timers.failover_within;
        let looks = (contract * SURELY.1).as_micros().div_ceil(contract.clamp(TICK.0, TICK.1).as_micros());
        let looks = u32::try_from(looks).unwrap_or(u32::MAX).max(SURELY.0);
        let surely = |entry: &Entry| entry.stands_still(looks, rule, contract);
        let still = rule.slow_factor > 0 && self.anyone_usable(index, None) && self.usable(index).all(surely);
        self.note_still(index, still);
    }

    pub(super) fn note_still(&mut self, index: usize, still: bool) {
        let state = &mut self.services[index];
        if std::mem::replace(&mut state.still, still) == still {
            return;
        }
        let service = std::sync::Arc::clone(&state.service.name);
        self.changes.services.insert(index);
        self.changes.notes.push(Transition::Still { service, still });
    }

    pub(super) fn look_for_stalls(&mut self, index: usize, rule: &Outlier) {
        let passive_fall = self.services[index].timers.passive_fall;
        let need = if passive_fall == 0 { rule.volume } else { passive_fall };
        for slot in &self.services[index].members {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            entry.look_for_stall(u64::from(need).max(LEAST));
        }
    }

    fn stalled(&self, index: usize, rule: &Outlier) -> Vec<(u32, Accused)> {
        if rule.slow_factor == 0 {
            return Vec::new();
        }
        let contract = self.services[index].timers.failover_within;
        let stalled = self.usable(index).filter(|entry| entry.stands_still(LOOKS, rule, contract));
        stalled
            .map(|entry| {
                let waiting = entry.backend.stats.overdue.get();
                let why = format!("{waiting} requests wait for longer than {}, none was answered", short(contract));
                (entry.slot(), Accused { reason: Reason::Slow, why, weight: 0.0 })
            })
            .collect()
    }

    /// Those of a tier that were asked, if each of them answers wrongly most of the time, and still does: over the span that
    /// shows it of most of them, and the newest of such. Who was not asked is not accused.
    fn failing(&self, index: usize, tier: u32, stalled: &[(u32, Accused)], rule: &Outlier) -> Vec<(u32, Accused)> {
        if rule.errors_percent == 0 {
            return Vec::new();
        }
        let judged = |entry: &&Entry| entry.tier == tier && stalled.iter().all(|(slot, _)| *slot != entry.slot());
        let judged: Vec<&Entry> = self.usable(index).filter(judged).collect();
        let spans = SPANS.iter().rev().filter_map(|span| {
            let asked: Vec<&&Entry> =
                judged.iter().filter(|entry| entry.recently.over(*span).attempts >= LEAST).collect();
            let mut all = Tally::default();
            asked.iter().for_each(|entry| all.add(&entry.recently.over(*span)));
            let wrong = |entry: &&&Entry| entry.recently.over(*span).mostly_wrong() && !entry.recently.is_over();
            (all.attempts >= u64::from(rule.volume) && asked.iter().all(wrong)).then_some((asked, all))
        });
        let Some((asked, all)) = spans.max_by_key(|(asked, _)| asked.len()) else { return Vec::new() };
        let why = format!("{}, of all that were asked", all.told());
        let accused = || Accused { reason: Reason::Errors, why: why.clone(), weight: 0.0 };
        asked.iter().map(|entry| (entry.slot(), accused())).collect()
    }

    pub(super) fn usable(&self, index: usize) -> impl Iterator<Item = &Entry> {
        let members = self.services[index].members.iter().filter_map(|slot| self.entries.get(slot));
        members.filter(|entry| entry.usable())
    }
}
