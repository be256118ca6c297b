//! Gray failure: who answers, but much worse than the rest of its pool, is left for a while (ejected).
//!
//! Workers only count; once in a while the counts of a pool are compared here. Slices of time are common to a pool and as
//! long as it takes to say something: a second where a lot is asked, half a minute where little is.

use std::time::Duration;

use relais_config::Outlier;

use super::Fleet;
use super::agenda::Alarm;
use super::layout::index_u32;
use super::outdone::Witness;
use super::state::Entry;
use crate::health::{Admin, Health};
use crate::outlier::{Accused, Crowd, Reason, Tally, Terms, differs, goes_on, judge, suspicious};
use crate::time::Instant;

/// Pools are compared once per contract, within these bounds.
pub(super) const TICK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));
/// A slice ends when its backends had so many answers each, or after this time.
const ENOUGH: u64 = 20;
const LONGEST_SLICE: Duration = Duration::from_secs(30);
/// Slices that are remembered: from 12 s to 6 min.
pub(super) const SLICES: usize = 12;
/// How many of the newest slices are judged together. The fewest first: a fault that has just begun shows there.
pub(super) const SPANS: [usize; 5] = [1, 2, 4, 8, SLICES];
/// Nobody goes down for failed requests in a row while this share of what the others got failed, too: one in so many.
const SHARED: u64 = 5;

/// The others are not clean when one in so many of their answers is wrong,
const FEW: u64 = 20;
/// in so many slices.
const LOOK_BACK: usize = 2;
/// Right answers in a row, about, that prove that wrong ones are over.
const PROOF: u64 = 8;

/// What one backend did lately. Whoever was not asked takes next to no memory.
#[derive(Debug, Default)]
pub(super) struct Recently {
    /// Slices since it came, at most [`SLICES`]; the newest is still growing.
    slices: usize,
    /// Those in which anything happened, by their age in slices.
    busy: Vec<(usize, Tally)>,
    /// The counters when they were last looked at.
    seen: Tally,
    /// Attempts and errors of the others when the present run of failed requests began.
    others: (u64, u64),
    /// Some of the others, as they stood then.
    pub(super) witnesses: Vec<Witness>,
    /// When its last errors were seen.
    pub(super) erred: Instant,
    /// In what it is clearly worse than the others while its share grows.
    pub(super) worse: Option<String>,
}

/// Those that are compared, by the number of slices; made when they are asked for.
pub(super) type Crowds = [Option<Crowd>; SLICES + 1];

impl Recently {
    /// How many slices are remembered.
    pub(super) fn slices(&self) -> usize {
        self.slices
    }

    fn look(&mut self, read: Tally, now: Instant) {
        let grown = read.since(&self.seen);
        self.slices = self.slices.max(1);
        if grown.is_empty() {
            return;
        }
        self.seen = read;
        if grown.errors > 0 {
            self.erred = now;
        }
        match self.busy.iter_mut().find(|(age, _)| *age == 0) {
            Some((_, newest)) => newest.add(&grown),
            None => self.busy.push((0, grown)),
        }
    }

    fn begin_slice(&mut self) {
        self.slices = (self.slices + 1).min(SLICES);
        self.busy.iter_mut().for_each(|(age, _)| *age += 1);
        self.busy.retain(|(age, _)| *age < SLICES);
        if self.busy.is_empty() {
            self.busy = Vec::new();
        }
    }

    /// The spans over which it can be judged, the shortest first: nobody is compared with what others did before it came.
    pub(super) fn spans(&self) -> impl Iterator<Item = usize> + use<> {
        let slices = self.slices;
        SPANS.into_iter().map(move |span| slices.min(span))
    }

    pub(super) fn over(&self, span: usize) -> Tally {
        let mut sum = Tally::default();
        self.busy.iter().filter(|(age, _)| *age < span).for_each(|(_, tally)| sum.add(tally));
        sum
    }

    /// The newest slices that hold enough answers to prove something, and how many these are.
    fn telling(&self) -> Option<(usize, Tally)> {
        (1..=self.slices).map(|span| (span, self.over(span))).find(|(_, tally)| tally.attempts >= PROOF)
    }

    /// The newest slices that hold enough answers to prove something hold no wrong one.
    pub(super) fn is_over(&self) -> bool {
        self.telling().is_some_and(|(_, tally)| tally.errors == 0)
    }

    /// From now on only what comes counts.
    fn forget(&mut self, now: Tally) {
        self.clear();
        self.seen = now;
    }

    fn clear(&mut self) {
        (self.slices, self.busy, self.worse) = (0, Vec::new(), None);
    }
}

impl Fleet {
    /// Makes sure that a service's backends are compared, if that makes sense.
    pub(super) fn follow_outliers(&mut self, index: usize, now: Instant) {
        let alarm = Alarm::Compare(index_u32(index));
        if self.outlier_rule(index).is_none() {
            self.pardon(index, now);
        }
        if self.rule_for_all(index).is_none() {
            self.agenda.cancel(alarm);
            self.note_still(index, false);
        } else if self.agenda.at(alarm).is_none() {
            self.agenda.set(alarm, now + self.tick(index));
        }
    }

    /// From one look at the backends of a service to the next.
    pub(super) fn tick(&self, index: usize) -> Duration {
        self.services[index].timers.failover_within.clamp(TICK.0, TICK.1)
    }

    /// The rule of a service whose backends are looked at, each by itself.
    fn rule_for_all(&self, index: usize) -> Option<Outlier> {
        let service = self.services.get(index)?;
        let rule = &service.forward.as_ref()?.outlier;
        (rule.is_on() && !service.members.is_empty()).then(|| rule.clone())
    }

    /// The rule of a service whose backends can be compared.
    pub(super) fn outlier_rule(&self, index: usize) -> Option<Outlier> {
        self.rule_for_all(index).filter(|_| self.services[index].members.len() > 1)
    }

    /// The rule of a backend's service.
    pub(super) fn rule_of(&self, slot: u32) -> Option<Outlier> {
        self.outlier_rule(self.entries.get(&slot)?.service)
    }

    /// The rule is gone: whoever is ejected comes back as soon as its checks pass; at once where there are none, or
    /// nobody else.
    fn pardon(&mut self, index: usize, now: Instant) {
        let checked = self.services[index].timers.checked;
        for slot in self.services[index].members.clone() {
            let alone = !self.anyone_usable(index, Some(slot));
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            entry.recently.clear();
            if entry.is_ejected() && entry.answers() && (alone || !checked) {
                self.lift(slot, "ejected, but no longer compared with others", now);
            } else if entry.ejected.take().is_some() {
                entry.held_until = None;
            }
        }
    }

    /// Looks at what the backends of a service did, and ejects who is much worse than the others.
    pub(super) fn compare(&mut self, index: u32, now: Instant) {
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.services.len()) else { return };
        self.follow_outliers(index, now);
        let Some(rule) = self.rule_for_all(index) else { return };
        if self.outlier_rule(index).is_some() {
            self.compare_members(index, &rule, now);
        } else {
            self.look_for_stalls(index, &rule);
        }
        self.follow_still(index, &rule);
    }

    fn compare_members(&mut self, index: usize, rule: &Outlier, now: Instant) {
        let members = self.services[index].members.clone();
        for slot in &members {
            let Some(entry) = self.entries.get_mut(slot) else { continue };
            let read = Tally::read(&entry.backend.stats);
            entry.recently.look(read, now);
        }
        let mut crowds: Crowds = std::array::from_fn(|_| None);
        let mut accused: Vec<(u32, Accused)> =
            members.iter().filter_map(|slot| Some((*slot, self.accused(*slot, rule, &mut crowds)?))).collect();
        accused.sort_by(|(_, a), (_, b)| b.weight.total_cmp(&a.weight));
        for (slot, accused) in accused {
            if self.can_lose(slot, rule) {
                self.eject(slot, accused, rule, now);
            }
        }
        self.leave_outdone(index, rule, now);
        self.leave_useless(index, rule, now);
        self.follow_better(index, now);
        self.halt_ramps(index, rule, &mut crowds, now);
        self.end_slice(index, now);
    }

    /// What a backend is accused of, over the shortest span that shows it. The pool of each span is looked at once, and
    /// only when somebody in it can be accused.
    fn accused(&self, slot: u32, rule: &Outlier, pools: &mut Crowds) -> Option<Accused> {
        let entry = self.entries.get(&slot)?;
        if entry.admin != Admin::Enabled || !matches!(entry.health(), Health::Up | Health::Suspect) {
            return None;
        }
        let service = &self.services[entry.service];
        let path = self.sites[entry.site].path.round_trip.smoothed().unwrap_or_default();
        let terms = Terms { rule, excused: service.timers.failover_within / 10 + path * 2 };
        entry.recently.spans().find_map(|span| {
            let own = entry.recently.over(span);
            if !suspicious(&own, &terms) {
                return None;
            }
            judge(&own, self.crowd(entry.service, span, pools), &terms)
                .filter(|accused| self.goes_on(entry, accused.reason, pools, &terms))
        })
    }

    /// Those that are compared, over a span: made once.
    pub(super) fn crowd<'a>(&self, index: usize, span: usize, pools: &'a mut Crowds) -> &'a mut Crowd {
        let members = self.services[index].members.iter().filter_map(|slot| self.entries.get(slot));
        let serving = members.filter(|one| one.health() != Health::Down);
        pools[span].get_or_insert_with(|| Crowd::new(serving.map(|one| one.recently.over(span))))
    }

    /// Whether the newest slices tell the same, as far as they tell anything: what a longer span holds may be of a fault
    /// that is over, or one that all have, of which the others had more good answers before.
    pub(super) fn goes_on(&self, entry: &Entry, reason: Reason, pools: &mut Crowds, terms: &Terms<'_>) -> bool {
        let Some((span, newest)) = entry.recently.telling() else { return true };
        goes_on(reason, &newest, self.crowd(entry.service, span, pools), terms)
    }

    pub(super) fn others<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Entry> {
        let members = self.services[entry.service].members.iter().filter_map(|slot| self.entries.get(slot));
        members.filter(|other| other.slot() != entry.slot())
    }

    /// Begins a new slice, for all backends of a service at once, when the present one says enough.
    fn end_slice(&mut self, index: usize, now: Instant) {
        let service = &self.services[index];
        let entries = service.members.iter().filter_map(|slot| self.entries.get(slot));
        let answers: u64 = entries.map(|entry| entry.recently.over(1).attempts).sum();
        let enough = ENOUGH * service.members.len() as u64;
        if answers < enough && now.since(service.slice_from) < LONGEST_SLICE {
            return;
        }
        self.services[index].slice_from = now;
        for slot in &self.services[index].members {
            if let Some(entry) = self.entries.get_mut(slot) {
                entry.recently.begin_slice();
            }
        }
    }

    /// Whether enough others are left: somebody, and not too few of the enabled ones.
    pub(super) fn can_lose(&self, slot: u32, rule: &Outlier) -> bool {
        let Some(entry) = self.entries.get(&slot) else { return false };
        let usable = self.others(entry).filter(|other| other.usable()).count();
        usable > 0 && !self.too_few(entry.service, usable, rule)
    }

    /// Whether more of a service's enabled backends are out than the rule allows when so many are usable.
    fn too_few(&self, service: usize, usable: usize, rule: &Outlier) -> bool {
        let members = self.services[service].members.iter().filter_map(|slot| self.entries.get(slot));
        // Who was left for a better one is not missed, unless it has died since.
        let fall = self.services[service].timers.fall;
        let missed = |entry: &&Entry| !entry.left_for_better || entry.counters.bad >= fall;
        let enabled = members.filter(|entry| entry.admin == Admin::Enabled).filter(missed).count();
        let most = usize::try_from(rule.max_ejected_percent).unwrap_or_default();
        enabled.saturating_sub(usable) * 100 > enabled * most
    }

    pub(super) fn eject(&mut self, slot: u32, accused: Accused, rule: &Outlier, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let Accused { reason, why, .. } = accused;
        let well_for = entry.ejected_until.map_or(Duration::ZERO, |until| now.since(until));
        let forgotten = well_for.as_micros() / rule.max_hold.as_micros().max(1);
        let before = entry.ejections.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        let hold = rule.hold.saturating_mul(1 << before.min(16)).min(rule.max_hold);
        entry.ejections = before.saturating_add(1);
        entry.ejected_until = Some(now + hold);
        entry.ejected = entry.ejected_until;
        // It answers: what waits there may finish, and its transport is not dead, whatever was met before.
        entry.last_fault = None;
        entry.backend.stats.ejections[reason.index()].inc();
        let silent = entry.keeps_silent();
        self.turn(slot, Health::Down, why, now);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.stalled = silent;
        }
    }

    /// A backend is up again: its past is not held against it, but for the length of the next ejection.
    pub(super) fn acquit_backend(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if entry.ejected.take().is_some() {
            entry.ejected_until = entry.ejected_until.map(|until| until.min(now));
        }
        let read = Tally::read(&entry.backend.stats);
        entry.recently.forget(read);
    }

    /// Others went down since: when more are out than may be, those that at least answer come back, one by one; those that
    /// were left for a better one only when nobody else is left.
    pub(super) fn readmit(&mut self, index: usize, now: Instant) {
        let Some(rule) = self.outlier_rule(index) else { return };
        loop {
            let members = self.services[index].members.iter().filter_map(|slot| self.entries.get(slot));
            let usable = members.clone().filter(|entry| entry.usable()).count();
            let stays = |entry: &Entry| usable > 0 && entry.left_for_better;
            let ejected = members.filter(|entry| entry.is_ejected() && entry.answers() && !stays(entry));
            let Some((_, slot)) = ejected.map(|entry| (entry.ejected, entry.slot())).min() else { return };
            if usable > 0 && !self.too_few(index, usable, &rule) {
                return;
            }
            self.lift(slot, "ejected, but too few others are left", now);
        }
    }

    /// A request failed at a backend, the first of a run: notes how the others stand, to compare later.
    pub(super) fn begin_run(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let others = self.others_sum(entry);
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.recently.others = others;
        }
        self.call_witnesses(slot);
    }

    /// Whether the others of the pool fail like this one since its requests began to fail in a row: then it is what
    /// they all have in common, and leaving one of them helps nobody.
    pub(super) fn shared(&self, entry: &Entry) -> bool {
        let (attempts, errors) = self.others_sum(entry);
        let (attempts_before, errors_before) = entry.recently.others;
        let errors = errors.saturating_sub(errors_before);
        if errors > 0 && errors * SHARED >= attempts.saturating_sub(attempts_before) {
            return true;
        }
        // The run may be a matter of luck: a longer look, where the others are not clean.
        let mut others = Tally::default();
        let serving = self.others(entry).filter(|other| other.health() != Health::Down);
        serving.for_each(|other| others.add(&other.lately(LOOK_BACK)));
        others.errors * FEW >= others.attempts.max(1) && !differs(&entry.lately(LOOK_BACK), &others)
    }

    fn others_sum(&self, entry: &Entry) -> (u64, u64) {
        self.others(entry).fold((0, 0), |(attempts, errors), other| {
            let stats = &other.backend.stats;
            (attempts + stats.succeeded.get() + stats.failed.get(), errors + stats.errors.get())
        })
    }
}

impl Entry {
    /// It is down because its answers were much worse than those of its pool.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.is_some() && self.health() == Health::Down
    }

    /// What it did in the newest slices, up to this moment.
    fn lately(&self, slices: usize) -> Tally {
        let mut sum = self.recently.over(slices);
        sum.add(&Tally::read(&self.backend.stats).since(&self.recently.seen));
        sum
    }

    /// Nothing speaks against it but its ejection.
    pub(super) fn answers(&self) -> bool {
        self.admin == Admin::Enabled && self.counters.bad == 0 && !self.agent.says_down() && !self.is_nowhere()
    }
}
