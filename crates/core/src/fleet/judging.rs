//! Evidence becomes health: what the pure verdict needs to know is gathered here, and what it says is carried out.

use std::time::Duration;

use super::Fleet;
use super::state::{DOWNS, Entry, Outstanding};
use crate::effect::Transition;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::outlier::{Accused, Reason};
use crate::time::Instant;
use crate::verdict::{Evidence, Given, Verdict, unanswered, verdict};

/// `verified` is written again at most so often while nothing changes.
pub(super) const SAVE_EVERY: Duration = Duration::from_secs(20);
/// Real successes excuse a failing check for so many contracts after the last one.
const EXCUSED_FOR: u32 = 30;
/// Silent probes in a row after which the transport of a backend that is down for its silence counts as dead: no haste.
const DEAD_WHILE_DOWN: u32 = 24;

/// Where a piece of evidence comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Probe(Outstanding),
    /// A request that waited for the head of its answer.
    Head,
    /// An answer that was on its way.
    Body,
}

impl Fleet {
    /// The result of a real request.
    pub(super) fn served(&mut self, slot: u32, result: Result<(), Fault>, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if entry.admin == Admin::Disabled {
            return;
        }
        self.tried(slot, result, now);
        self.request(slot, result, Source::Head, now);
    }

    /// An answer broke off on its way. Where backends are compared that decides, as it holds for longer. Where they are
    /// not, only answers that came to their end speak against it: its head was a success.
    pub(super) fn broke_off(&mut self, slot: u32, fault: Fault, now: Instant) {
        let Some(entry) = self.entries.get(&slot).filter(|entry| entry.admin != Admin::Disabled) else { return };
        if self.outlier_rule(entry.service).is_none() {
            self.request(slot, Err(fault), Source::Body, now);
        } else if fault.is_transport() {
            self.request(slot, Err(fault), Source::Head, now);
        }
    }

    fn request(&mut self, slot: u32, result: Result<(), Fault>, from: Source, now: Instant) {
        self.weigh(slot, Evidence::Request(result), from, now);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.request_mark = entry.succeeded();
        entry.whole_mark = entry.backend.stats.whole.get();
        let Err(fault) = result else { return };
        if fault.is_transport() {
            self.hurry(slot, now);
        }
        self.halt_ramp(slot, fault, now);
    }

    /// Judges one piece of evidence about a backend, then what it says about its site.
    pub(super) fn weigh(&mut self, slot: u32, evidence: Evidence, from: Source, now: Instant) {
        let probe = if let Source::Probe(probe) = from { Some(probe) } else { None };
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        observe(entry, evidence, probe.map(|probe| probe.sent), now);
        if matches!(evidence, Evidence::Probe(Ok(()))) {
            self.services[entry.service].comparing.pass(slot, now);
        }
        if entry.trial.is_some_and(|_| !entry.answers_wrongly()) {
            entry.trial = None;
            self.changes.services.insert(entry.service);
        }
        let testified = entry.testifies();
        let gone = entry.dead || self.sites[entry.site].health == Health::Down;
        let before = entry.counters;
        let Some(entry) = self.entries.get(&slot) else { return };
        let lived = lived(entry, from);
        let given = self.given(entry, evidence, (from, lived), now);
        let said = verdict(before, evidence, &given);
        let ready = said.ready;
        let overruled = given.excused && before.health != Health::Down && said.counters.bad >= given.timers.fall;
        self.carry_out(slot, evidence, said, now);
        if let Evidence::Probe(result) = evidence {
            self.follow_checks(slot, result, overruled, now);
        }
        if matches!(evidence, Evidence::Request(Err(_))) && (lived || before.failed == 0) {
            self.begin_run(slot);
        } else if matches!(evidence, Evidence::Request(Err(_))) && self.lacks_witnesses(slot) {
            self.call_witnesses(slot);
        }
        if !gone {
            self.learn_loss(slot, before, evidence, lived);
        }
        match evidence {
            Evidence::Probe(Ok(())) | Evidence::Request(Ok(())) => self.site_lives(slot, now),
            Evidence::Probe(Err(fault)) | Evidence::Request(Err(fault)) if testified => {
                // The head of an answer came: its site lives.
                self.testify(slot, fault, lived || from == Source::Body, probe, now);
            }
            Evidence::Probe(Err(_)) | Evidence::Request(Err(_)) => {}
        }
        if ready {
            self.come_back(slot, now);
        }
        if let Evidence::Probe(_) = evidence {
            self.end_probe(slot);
        }
    }

    /// What evidence about a backend is judged by, beside what it is.
    fn given<'a>(
        &'a self,
        entry: &'a Entry,
        evidence: Evidence,
        (from, lived): (Source, bool),
        now: Instant,
    ) -> Given<'a> {
        let before = entry.counters;
        let failed = matches!(evidence, Evidence::Probe(Err(_)) | Evidence::Request(Err(_)));
        let shared = match evidence {
            Evidence::Request(Err(fault)) => {
                let comparable = fault.is_answer() || fault == Fault::ResponseTimeout || from == Source::Body;
                comparable && self.shared(entry)
            }
            _ => false,
        };
        let run = if lived { 1 } else { before.failed.saturating_add(1) };
        let outdone = match evidence {
            Evidence::Request(Err(fault)) if !fault.is_silence() => self.is_outdone(entry, run, now),
            _ => false,
        };
        let probe = if let Source::Probe(probe) = from { Some(probe) } else { None };
        Given {
            timers: &self.services[entry.service].timers,
            patience: self.patience(entry),
            lived,
            excused: failed && self.excused(entry, now),
            spare: matches!(evidence, Evidence::Request(Err(_))) && self.spare(entry),
            shared,
            outdone,
            needed: before.health == Health::Down && !failed && !self.anyone_usable(entry.service, Some(entry.slot())),
            short: probe.is_some_and(|probe| probe.short),
            said: probe.and(entry.recent.back()).and_then(|probe| probe.said.as_deref()),
        }
    }

    /// A probe was judged: what requests show after it counts from here.
    fn end_probe(&mut self, slot: u32) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.probe_mark = entry.succeeded();
        if entry.is_ejected() {
            // Whether it answers shows whether its site lives.
            self.changes.sites.insert(entry.site);
        }
    }

    fn carry_out(&mut self, slot: u32, evidence: Evidence, said: Verdict, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let (from, to) = (entry.health(), said.counters.health);
        entry.counters = said.counters;
        entry.counters.health = from;
        entry.verified = now;
        if to != from {
            entry.overruled = false;
            if let (true, Some(rule)) = (said.outdone, self.rule_of(slot)) {
                let why = said.why.unwrap_or_default();
                let accused = Accused { reason: Reason::Errors, why, weight: 0.0 };
                self.leave_for_better(slot, accused, &rule, now);
                return;
            }
            self.turn(slot, to, said.why.unwrap_or_default(), now);
            return;
        }
        if now.since(entry.saved) >= SAVE_EVERY {
            self.changes.save.insert(slot);
        }
        if from == Health::Down {
            self.stay_down(slot, evidence, now);
        } else if let Some(why) = said.why {
            entry.overruled = true;
            entry.why = why;
        } else if entry.overruled && evidence == Evidence::Probe(Ok(())) {
            entry.overruled = false;
            "check passed again".clone_into(&mut entry.why);
        }
    }

    /// A backend that is down stays so: a failed check ends its way back. An answer shows that its transport lives,
    /// long silence that it is dead.
    fn stay_down(&mut self, slot: u32, evidence: Evidence, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let patience = self.patience(entry).max(self.services[entry.service].timers.fall);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let fault = match evidence {
            Evidence::Probe(Err(fault)) => fault,
            Evidence::Request(Err(_)) => return,
            Evidence::Probe(Ok(())) | Evidence::Request(Ok(())) => {
                if std::mem::take(&mut entry.dead) {
                    self.changes.services.insert(entry.service);
                }
                return;
            }
        };
        // Who is down for what it answered has streams and answers under way, like one that is up.
        let enough = if entry.mute { DEAD_WHILE_DOWN } else { patience };
        if !entry.dead && entry.counters.silent_probes >= enough {
            entry.dead = true;
            entry.why = format!("{fault}, for {}", crate::words::short(now.since(entry.since)));
            self.changes.services.insert(entry.service);
            self.settle_site(slot, now);
        }
        self.end_hold(slot);
    }

    /// Changes a backend's health, with all that hangs on it.
    pub(super) fn turn(&mut self, slot: u32, to: Health, why: String, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let from = entry.health();
        if from == to {
            return;
        }
        self.changes.notes.push(Transition::Health {
            id: entry.backend.id.clone(),
            from,
            to,
            why: why.clone(),
            after: now.since(entry.since),
        });
        entry.counters.health = to;
        (entry.stalled, entry.left_for_better) = (false, false);
        entry.trial = None;
        entry.since = now;
        if from == Health::Down {
            entry.returned = now;
        }
        entry.why = why;
        self.changes.save.insert(slot);
        self.changes.services.insert(entry.service);
        match to {
            Health::Down => {
                entry.counters.good = 0;
                entry.note_fall(now);
                entry.dead = from != Health::Probing && entry.last_fault.is_some_and(Fault::is_silence);
                entry.mute = entry.last_fault.is_some_and(|fault| !fault.is_answer());
                entry.hung = entry.counters.bad > 0 && entry.last_fault == Some(Fault::ResponseTimeout);
                entry.ramp_from = None;
                // Only a backend that had traffic can flap.
                if from == Health::Probing {
                    // It may have been taken at its first word: whether its transport is dead is still to be seen.
                    entry.counters.silent_probes = entry.counters.silent_probes.min(1);
                } else {
                    // Nor has it flapped when it was cut on purpose.
                    if self.sites[entry.site].drill.is_none() {
                        remember(&mut entry.downs, now);
                    }
                    self.changes.fallen.push(slot);
                }
                if !self.services[entry.service].timers.checked {
                    self.hold_unchecked(slot, now);
                }
                self.settle_site(slot, now);
            }
            Health::Up => {
                entry.counters.failed = 0;
                entry.dead = false;
                if std::mem::take(&mut entry.cold) {
                    entry.ramp_from = Some(now);
                }
            }
            Health::Probing | Health::Suspect => {}
        }
    }

    /// Whether any backend of a service, but for one, can be picked.
    pub(super) fn anyone_usable(&self, service: usize, but: Option<u32>) -> bool {
        let members = &self.services[service].members;
        members.iter().any(|slot| Some(*slot) != but && self.entries.get(slot).is_some_and(Entry::usable))
    }

    /// Whether a failing check is not to be believed: requests have lately succeeded and do not fail, and the check of
    /// no other backend has been seen to pass since this one began to fail. Then the check may be broken rather than
    /// the backends; and if it is the backend, nobody else is known to be better. What requests showed of one holds for all
    /// whose checks are answered, and for as long as no check passes.
    fn excused(&self, entry: &Entry, now: Instant) -> bool {
        let service = &self.services[entry.service];
        let Some(bad_since) = entry.bad_since else { return false };
        let serving = entry
            .lived_at
            .is_some_and(|at| at >= bad_since && now.since(at) < service.timers.failover_within * EXCUSED_FOR);
        let failing = service.timers.passive_fall > 0 && entry.counters.failed >= service.timers.passive_fall;
        // Where nobody else is left who is broken is as good as who is down.
        let broken = entry.is_surely_broken() && self.anyone_usable(entry.service, Some(entry.slot()));
        let failing = (failing && entry.backend.fails()) || broken;
        !failing && (self.disproved(entry) || (serving && !self.sibling_passed(entry, bad_since)))
    }

    /// Whether a service keeps at least one other backend, and half of its enabled ones, without this one.
    fn spare(&self, entry: &Entry) -> bool {
        let members = self.services[entry.service].members.iter().filter_map(|slot| self.entries.get(slot));
        let (mut usable, mut enabled) = (0_usize, 0_usize);
        for other in members.filter(|other| other.admin == Admin::Enabled) {
            enabled += 1;
            usable += usize::from(other.slot() != entry.slot() && other.usable());
        }
        usable > 0 && usable * 2 >= enabled
    }
}

/// Whether something succeeded there since evidence of this kind came last.
fn lived(entry: &Entry, from: Source) -> bool {
    match from {
        Source::Probe(_) => entry.succeeded() > entry.probe_mark,
        Source::Head => entry.succeeded() > entry.request_mark,
        Source::Body => entry.backend.stats.whole.get() > entry.whole_mark,
    }
}

/// Books what the evidence shows by itself, before it is judged.
/// `asked`: when the probe was sent that the evidence is of.
fn observe(entry: &mut Entry, evidence: Evidence, asked: Option<Instant>, now: Instant) {
    let succeeded = entry.succeeded();
    if succeeded > entry.seen_mark {
        let grown = succeeded - entry.seen_mark;
        entry.seen_mark = succeeded;
        // Answers that are errors have succeeded only in so far as they came.
        let right = entry.backend.stats.streak.get() < grown;
        // What succeeded before the check was sent says nothing against what no longer answers or listens. Where wrong
        // answers end the check, failing requests show it themselves.
        let unanswered = matches!(evidence, Evidence::Probe(Err(fault)) if unanswered(fault) || fault.is_transport());
        if right && (succeeded > entry.probe_mark || !unanswered) {
            entry.lived_at = Some(now);
        }
    }
    if let Evidence::Probe(result) = evidence {
        entry.note_answer(result, now);
    }
    match evidence {
        Evidence::Probe(Ok(())) => {
            entry.last_good = Some(now);
            entry.bad_since = None;
        }
        Evidence::Probe(Err(fault)) => {
            entry.last_fault = Some(fault);
            entry.bad_since = entry.bad_since.or(asked).or(Some(entry.last_sent));
        }
        Evidence::Request(Err(fault)) => entry.last_fault = Some(fault),
        Evidence::Request(Ok(())) => entry.lived_at = Some(now),
    }
}

/// Adds an outage to a flap history.
pub(super) fn remember(downs: &mut Vec<Instant>, now: Instant) {
    if downs.len() == DOWNS {
        downs.remove(0);
    }
    downs.push(now);
}
