//! The growing share of who is back: it grows while all goes well.
//!
//! Errors are compared with the others', as for an ejection, but far less of them is enough: who is given little still serves,
//! and a mistake costs it no more than one growth. What all have in common keeps nobody small.

use std::time::Duration;

use relais_config::Outlier;

use super::Fleet;
use super::outliers::Crowds;
use super::state::Entry;
use crate::fault::Fault;
use crate::outlier::{Reason, Terms, errs, worse};
use crate::time::Instant;

/// So many ramps after its last errors nobody is kept small for them.
const PATIENCE: u32 = 2;

impl Fleet {
    /// A request failed at a backend whose share is growing: the growth starts again, not more than a few times per ramp.
    /// Errors that a comparison counts are left to it.
    pub(super) fn halt_ramp(&mut self, slot: u32, fault: Fault, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if fault.is_gray() && self.outlier_rule(entry.service).is_some_and(|rule| rule.errors_percent > 0) {
            return;
        }
        let ramp = self.services[entry.service].timers.ramp;
        let grown = entry.ramp_from.map(|from| now.since(from));
        if grown.is_some_and(|grown| grown < ramp && grown >= ramp / 5) {
            self.ramp_anew(slot, now);
        }
    }

    /// The backends of a service have just been looked at: who is back and clearly worse than the others has the smallest share
    /// until the next look.
    pub(super) fn halt_ramps(&mut self, index: usize, rule: &Outlier, crowds: &mut Crowds, now: Instant) {
        let next = now + self.tick(index);
        let members = self.services[index].members.clone();
        for slot in &members {
            let why = self.worse_than_others(*slot, rule, crowds, now);
            if let Some(entry) = self.entries.get_mut(slot) {
                entry.recently.worse = why;
            }
        }
        // All are known before one of them is let grow: who is worse is no place for what the others cannot take.
        let worse =
            members.iter().filter_map(|slot| self.entries.get(slot)).filter(|entry| entry.recently.worse.is_some());
        let (needed, small): (Vec<&Entry>, Vec<&Entry>) = worse.partition(|entry| self.is_needed(entry));
        let slots = |entries: Vec<&Entry>| entries.into_iter().map(Entry::slot).collect::<Vec<u32>>();
        let (needed, small) = (slots(needed), slots(small));
        for slot in needed {
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.recently.worse = None;
            }
        }
        small.into_iter().for_each(|slot| self.ramp_anew(slot, next));
    }

    /// Whether the others have more to do than they can: then all that this one can do is needed. Who is worse like it counts
    /// only where nobody else shares the load.
    fn is_needed(&self, entry: &Entry) -> bool {
        let (index, tier) = (entry.service, entry.tier);
        let well = |peer: &Entry| peer.tier == tier && peer.recently.worse.is_none();
        if self.usable(index).any(well) {
            return self.all_burdened(index, well);
        }
        self.overburdened(index, tier, Some(entry.slot()))
    }

    /// In what a backend is clearly worse than the others, if its share grows or has been whole for less than a look.
    fn worse_than_others(&self, slot: u32, rule: &Outlier, crowds: &mut Crowds, now: Instant) -> Option<String> {
        let entry = self.entries.get(&slot)?;
        let ramp = self.services[entry.service].timers.ramp;
        let grows = entry.ramp_from.is_some_and(|from| now.since(from) < ramp + self.tick(entry.service));
        // Where little is asked, what was long ago would be all that is known.
        let erred = now.since(entry.recently.erred) < ramp * PATIENCE;
        if !grows || !erred || !entry.usable() {
            return None;
        }
        let why = entry.recently.spans().find_map(|span| {
            let own = entry.recently.over(span);
            errs(&own, rule).then(|| worse(&own, self.crowd(entry.service, span, crowds))).flatten()
        })?;
        let terms = Terms { rule, excused: Duration::ZERO };
        self.goes_on(entry, Reason::Errors, crowds, &terms).then_some(why)
    }

    fn ramp_anew(&mut self, slot: u32, from: Instant) {
        let Some(entry) = self.entries.get_mut(&slot).filter(|entry| entry.usable()) else { return };
        entry.ramp_from = Some(from);
        self.changes.services.insert(entry.service);
        self.changes.save.insert(slot);
    }
}

impl Entry {
    /// Why its share does not grow.
    pub(super) fn why_small(&self) -> Option<String> {
        let errors = self.recently.worse.as_ref()?;
        Some(format!("its share does not grow: {errors}"))
    }
}
