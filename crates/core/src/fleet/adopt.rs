//! A config becomes state: at start beside what was saved, later as a difference to what is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relais_config::Config;

use super::agenda::Alarm;
use super::layout::Difference;
use super::state::{DOWNS, Entry, Word};
use super::{Fleet, probing};
use crate::backend::BackendId;
use crate::effect::{BackendRecord, Record, RecordKey, Saved, Transition};
use crate::health::{Admin, Health};
use crate::history::DrillEnd;
use crate::router::Router;
use crate::time::Instant;
use crate::timers::Timers;
use crate::words::short;

/// Saved health is believed for so long after evidence for it was last seen.
const TRUSTED: Duration = Duration::from_secs(60);

impl Fleet {
    /// The first config, beside what the store held. The config wins.
    pub(super) fn start(&mut self, saved: Saved, now: Instant) {
        let mut remembered: BTreeMap<BackendId, BackendRecord> = BTreeMap::new();
        for record in saved.records {
            match record {
                Record::Backend(record) => {
                    remembered.insert(record.id.clone(), record);
                }
                Record::Admin(record) => {
                    let word = Word { word: record.word, since: record.since.min(now), reason: record.reason };
                    self.words.insert(record.target, word);
                }
                Record::Failover(_) | Record::Drill(_) => self.past.take(record),
                // Taken by `certs` already.
                Record::Certificate(_) | Record::Authority(_) => {}
            }
        }
        self.past.order();
        let config = Arc::clone(&self.config);
        let known = self.known(&config);
        let difference = self.lay_out(&config, &known, now);
        self.forget_unnamed_words();
        self.refresh_admin(&difference.services);
        let first_probes = probing::first_probes(difference.added.len());
        for &slot in &difference.added {
            let Some(entry) = self.entries.get(&slot) else { continue };
            let record = remembered.remove(&entry.backend.id);
            self.begin(slot, record, first_probes, now);
        }
        self.follow_all(&difference, now);
        self.changes.forget.extend(remembered.into_keys().map(RecordKey::Backend));
    }

    /// A new config. What it does not change keeps everything it has.
    pub(super) fn reload(&mut self, config: &Arc<Config>, now: Instant) {
        let mut difference = Difference::default();
        let known = self.known(config);
        if self.is_as_before(config, &known) {
            difference.kept = self.entries.len();
        } else {
            self.abandon_drill(DrillEnd::Reload, now);
            self.settle_all();
            difference = self.lay_out(config, &known, now);
            let servers = config.edge.nameservers != self.config.edge.nameservers;
            self.config = Arc::clone(config);
            if difference.routes {
                self.router = Arc::new(Router::new(config));
            }
            self.certs.reload(config, now);
            self.forget_unnamed_words();
            self.refresh_admin(&difference.services);
            let first_probes = probing::first_probes(difference.added.len());
            for &slot in &difference.added {
                if let Some(entry) = self.entries.get_mut(&slot) {
                    entry.cold = true;
                }
                self.begin(slot, None, first_probes, now);
            }
            for &slot in &difference.rechecked {
                self.recheck(slot, now);
            }
            if servers {
                self.follow_names_anew(now);
            }
            self.follow_all(&difference, now);
        }
        self.changes.notes.push(Transition::Reloaded {
            added: difference.added.len(),
            removed: difference.removed.len(),
            kept: difference.kept,
        });
        self.changes.forget.extend(difference.removed.into_iter().map(RecordKey::Backend));
    }

    /// Looks up names, asks agents and compares backends from now on, where there are any. The backends of services that
    /// stayed as they were are followed already; to compare them is planned by a service's place, which may be another.
    fn follow_all(&mut self, difference: &Difference, now: Instant) {
        for &index in &difference.services {
            for slot in self.services[index].members.clone() {
                self.follow_name(slot, now);
                self.follow_agent(slot, now);
            }
        }
        for &index in difference.services.iter().chain(&difference.moved) {
            self.follow_outliers(index, now);
        }
    }

    /// A backend's first moment: from memory as far as it is young, else without a verdict. Its first probe comes within
    /// `first`.
    fn begin(&mut self, slot: u32, record: Option<BackendRecord>, first: Duration, now: Instant) {
        let spread = self.random.below(first);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let timers = &self.services[entry.service].timers;
        if let Some(record) = record {
            recall(entry, record, timers, now);
            self.believe_agent(slot);
        }
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let timers = &self.services[entry.service].timers;
        if entry.is_nowhere() {
            "its name is looked up".clone_into(&mut entry.why);
        }
        if !timers.checked {
            if entry.health() == Health::Probing && !entry.is_nowhere() {
                entry.counters.health = Health::Up;
                entry.why = "not checked".to_owned();
                entry.ramp_from = entry.cold.then_some(now);
            } else if entry.health() == Health::Down {
                self.hold_unchecked(slot, now);
            }
        } else if entry.admin != Admin::Disabled {
            self.agenda.set(Alarm::Probe(slot), now + spread);
        }
    }

    /// The way a known backend is checked has changed.
    fn recheck(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        if entry.admin == Admin::Disabled {
            return;
        }
        if self.services[entry.service].timers.checked {
            self.agenda.cancel(Alarm::Release(slot));
            entry.held_until = None;
            self.hurry(slot, now);
            return;
        }
        (entry.probe, entry.replaced) = (None, None);
        self.agenda.cancel_probing(slot);
        match entry.health() {
            _ if entry.is_nowhere() => {}
            Health::Down => self.hold_unchecked(slot, now),
            Health::Up => {}
            Health::Probing | Health::Suspect => self.turn(slot, Health::Up, "not checked".to_owned(), now),
        }
    }
}

/// What the store remembers of a backend, believed as far as it is young.
fn recall(entry: &mut Entry, record: BackendRecord, timers: &Timers, now: Instant) {
    if !record.addresses.is_empty() && entry.is_nowhere() {
        entry.addresses = record.addresses.into();
    }
    entry.downs = record.downs.into_iter().filter(|at| *at <= now).collect();
    entry.downs.sort_unstable();
    let surplus = entry.downs.len().saturating_sub(DOWNS);
    entry.downs.drain(..surplus);
    (entry.ejected_until, entry.ejections) = (record.ejected_until, record.ejections);
    entry.agent.said = record.agent.filter(|said| said.heard <= now && now.since(said.heard) < TRUSTED);
    let age = now.since(record.verified);
    let fresh = record.verified <= now && age < TRUSTED;
    match record.health {
        Health::Probing => {}
        Health::Up | Health::Suspect if fresh && !entry.is_nowhere() => {
            // One whose share does not grow begins a little later than now.
            entry.ramp_from = record.ramp_from.map(|from| from.min(now)).filter(|from| now.since(*from) < timers.ramp);
            believe(entry, Health::Up, record.since, record.verified, record.why, now);
        }
        Health::Down if fresh => {
            entry.ejected = record.ejected_until.filter(|until| *until > now);
            entry.left_for_better = record.left_for_better && entry.ejected.is_some();
            believe(entry, Health::Down, record.since, record.verified, record.why, now);
        }
        Health::Up | Health::Suspect => {}
        Health::Down => {
            // Known dead, but long ago: no request goes there before a check passed, and one failed check is enough.
            entry.counters.bad = timers.fall.saturating_sub(1);
            entry.counters.silent_probes = timers.patience.saturating_sub(1);
            entry.counters.failed = timers.passive_fall.saturating_sub(1);
            entry.why = format!("was down when last seen, {} ago", short(age));
        }
    }
}

fn believe(entry: &mut Entry, health: Health, since: Instant, verified: Instant, why: String, now: Instant) {
    entry.counters.health = health;
    entry.since = since.min(now);
    entry.verified = verified;
    entry.saved = verified;
    entry.why = why;
}
