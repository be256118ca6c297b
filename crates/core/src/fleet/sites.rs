//! The verdict about a whole site: transport faults of different backends together, before each one's own counters.
//!
//! Only silence can take a site down, and any sign of life from it, of a probe or a request, ends the accusation. A
//! slow or wrong answer is such a sign.

use std::time::Duration;

use relais_config::Pace;

use super::Fleet;
use super::agenda::Alarm;
use super::judging::remember;
use super::layout::index_u32;
use super::site_state::{Accusation, SiteState};
use super::state::{Entry, Outstanding};
use crate::effect::Transition;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::time::Instant;
use crate::verdict::{Counters, Evidence};
use crate::words::{count, short};

/// Signs of silence in a row that take a site down on a link that loses nothing.
const SITE_SIGNALS: u32 = 5;
/// However lossy a link: so many are enough.
const MOST_SIGNALS: u32 = 12;
/// A verdict may be wrong by chance this often: one in so many runs of lost packets.
const BY_CHANCE: f64 = 1e-5;
/// A site is looked at as a whole at most once in this time for each [`LOOK_AT`] backends.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOK_AT: usize = 256;
/// Other backends asked at once when one at the site meets silence.
const ASKED: usize = 8;

impl Fleet {
    /// What a failed probe, or without one a failed request, of a backend says about its site.
    pub(super) fn testify(&mut self, slot: u32, fault: Fault, lived: bool, probe: Option<Outstanding>, now: Instant) {
        // Bytes of the application are a sign of life; so is the connect behind a late answer, if it was made since
        // the doubt began: only then has a probe the short deadline.
        let late = fault == Fault::ResponseTimeout;
        let answered = !fault.is_transport() && !late && fault != Fault::Unresolved;
        if lived || answered || (late && probe.is_some_and(|probe| probe.short)) {
            self.site_lives(slot, now);
        } else if fault.is_transport() && !probe.is_some_and(|probe| self.heard_since(slot, probe)) {
            self.accuse(slot, fault, probe.is_some(), now);
        }
    }

    /// Whether a probe that went to a site of very many after this one was answered: then it was no cut of the site that
    /// swallowed this one's. Where few are asked, such a word is rare, and every sign of silence counts.
    fn heard_since(&self, slot: u32, probe: Outstanding) -> bool {
        let Some(site) = self.entries.get(&slot).and_then(|entry| self.sites.get(entry.site)) else { return false };
        site.members.len() > LOOK_AT && site.answered.is_some_and(|sent| sent > probe.sent)
    }

    /// A probe at the site of a backend was answered, rightly or wrongly.
    pub(super) fn note_answered(&mut self, slot: u32, probe: Outstanding) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let site = &mut self.sites[index];
        site.answered = site.answered.max(Some(probe.sent));
    }

    fn accuse(&mut self, slot: u32, fault: Fault, probe: bool, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let (index, checked) = (entry.site, self.services[entry.service].timers.checked);
        let site = &mut self.sites[index];
        if site.health == Health::Down {
            return;
        }
        if site.accusation.as_ref().is_some_and(|old| now.since(old.last) > site.doubts_for()) {
            site.accusation = None;
        }
        if site.accusation.is_none() {
            for slot in &site.members {
                let Some(member) = self.entries.get_mut(slot) else { continue };
                member.site_mark = member.succeeded();
            }
        }
        let old_tunnel = site.tunnel_is_old(now);
        let accusation = site.accusation.get_or_insert_with(|| Accusation::new(now));
        let first_silence = fault.is_silence() && !accusation.silence;
        accusation.last = now;
        accusation.silence |= fault.is_silence();
        let new = accusation.accusers.insert(slot);
        if probe || new || !checked {
            // Requests fail together and late: those of one backend are one sign, where probes can give more.
            accusation.signals += 1;
        }
        let witness = u32::from(old_tunnel);
        let many = accusation.silence
            && accusation.accusers.len() + usize::from(old_tunnel) >= 2
            && accusation.signals + witness + 3 >= signs_needed(site.loss, SITE_SIGNALS);
        self.agenda.set(Alarm::Acquit(index_u32(index)), now + site.doubts_for());
        if first_silence {
            self.ask(index, ASKED, now);
        }
        if !many {
            return;
        }
        let (suspected, confirmed) = (self.sites[index].health == Health::Suspect, self.confirmed(index, witness));
        if suspected && !confirmed && !self.due_for_a_look(index, now) {
            return;
        }
        if self.site_answers(index) {
            self.site_lives(slot, now);
            return;
        }
        if !suspected {
            self.suspect(index, fault, now);
        }
        if confirmed {
            self.bring_down(index, now);
        }
    }

    /// Whether all backends of a site that is suspected already are to be looked at for a sign of life: where there are
    /// thousands, not at the word of each of them.
    fn due_for_a_look(&mut self, index: usize, now: Instant) -> bool {
        let site = &mut self.sites[index];
        let pause = LOOK_EVERY * u32::try_from(site.members.len() / LOOK_AT).unwrap_or(u32::MAX);
        let due = now.since(site.looked) >= pause;
        if due {
            site.looked = now;
        }
        due
    }

    /// Probes backends of a site out of turn. At first only some: a big site needs no crowd to be heard.
    fn ask(&mut self, index: usize, most: usize, now: Instant) {
        let asked: Vec<u32> = self.sites[index]
            .members
            .iter()
            .copied()
            .filter(|slot| self.entries.get(slot).is_some_and(Entry::testifies))
            .collect();
        let start = if asked.is_empty() { 0 } else { now.0 % asked.len() as u64 };
        let start = usize::try_from(start).unwrap_or(0);
        for &slot in asked[start..].iter().chain(&asked[..start]).take(most) {
            self.hurry(slot, now);
        }
    }

    /// Whether requests were answered from a site since the accusation began.
    fn site_answers(&self, index: usize) -> bool {
        let mut members = self.sites[index].members.iter().filter_map(|slot| self.entries.get(slot));
        members.any(|entry| entry.succeeded() > entry.site_mark)
    }

    fn suspect(&mut self, index: usize, fault: Fault, now: Instant) {
        let site = &mut self.sites[index];
        let accusers = site.accusation.as_ref().map_or(0, |a| u32::try_from(a.accusers.len()).unwrap_or(u32::MAX));
        let why = format!("{fault} at {}", count(accusers, "backend"));
        turn_site(site, Health::Suspect, why, &mut self.changes.notes, now);
        self.touch_site(index);
        self.ask(index, usize::MAX, now);
    }

    /// Every backend that has a say has met a transport fault, one at least silence, often enough not to be chance.
    fn confirmed(&self, index: usize, witness: u32) -> bool {
        let site = &self.sites[index];
        let Some(accusation) = &site.accusation else { return false };
        accusation.signals + witness >= signs_needed(site.loss, SITE_SIGNALS)
            && site.members.iter().filter_map(|slot| self.entries.get(slot)).filter(|e| e.testifies()).all(|entry| {
                let refused = entry.counters.bad > 0 && entry.last_fault.is_some_and(Fault::is_transport);
                !self.services[entry.service].timers.checked || entry.counters.silent_probes > 0 || refused
            })
    }

    fn bring_down(&mut self, index: usize, now: Instant) {
        let site = &mut self.sites[index];
        let accusation = site.accusation.take();
        self.agenda.cancel(Alarm::Acquit(index_u32(index)));
        let signals = accusation.map_or(0, |accusation| accusation.signals);
        let why = format!("nothing at the site answers, {} in a row", count(signals, "time"));
        turn_site(site, Health::Down, why.clone(), &mut self.changes.notes, now);
        if site.drill.is_none() {
            remember(&mut site.downs, now);
        }
        for slot in site.members.clone() {
            let Some(entry) = self.entries.get(&slot) else { continue };
            if entry.admin == Admin::Disabled {
                continue;
            }
            self.turn(slot, Health::Down, format!("site {}: {why}", self.sites[index].name), now);
            // Good checks from before count no longer.
            self.end_hold(slot);
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.counters.good = 0;
                entry.dead = true;
                entry.mute = true;
                entry.hung = false;
                self.changes.services.insert(entry.service);
            }
            self.plan(slot, now);
        }
    }

    /// Something at a backend's site answered.
    pub(super) fn site_lives(&mut self, slot: u32, now: Instant) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let site = &mut self.sites[index];
        site.lived = Some(now);
        if site.accusation.take().is_some() {
            self.agenda.cancel(Alarm::Acquit(index_u32(index)));
        }
        if self.sites[index].health != Health::Up {
            self.clear(index, "it answers", now);
        }
    }

    /// The accusations against a site are old.
    pub(super) fn acquit(&mut self, index: u32, now: Instant) {
        let Some(index) = usize::try_from(index).ok().filter(|index| *index < self.sites.len()) else { return };
        self.sites[index].accusation = None;
        if self.sites[index].health == Health::Suspect {
            self.clear(index, "no further sign of silence", now);
        }
    }

    fn clear(&mut self, index: usize, why: &str, now: Instant) {
        let site = &mut self.sites[index];
        let back = site.health == Health::Down;
        turn_site(site, Health::Up, why.to_owned(), &mut self.changes.notes, now);
        self.touch_site(index);
        if back {
            for slot in self.sites[index].members.clone() {
                self.hurry(slot, now);
            }
        }
    }

    /// After a backend's own counters took it down: when no other at its site is left and all met silence, it is the
    /// site that is down.
    pub(super) fn settle_site(&mut self, slot: u32, now: Instant) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let site = &self.sites[index];
        let mut enabled = site
            .members
            .iter()
            .filter_map(|slot| self.entries.get(slot))
            .filter(|entry| entry.admin != Admin::Disabled);
        if site.health == Health::Down || !enabled.all(|entry| entry.health() == Health::Down && entry.dead) {
            return;
        }
        let site = &mut self.sites[index];
        site.accusation = None;
        self.agenda.cancel(Alarm::Acquit(index_u32(index)));
        turn_site(site, Health::Down, "none of its backends answers".to_owned(), &mut self.changes.notes, now);
        if site.drill.is_none() {
            remember(&mut site.downs, now);
        }
        self.touch_site(index);
    }

    pub(super) fn touch_site(&mut self, index: usize) {
        self.changes.services.extend(&self.sites[index].services);
    }

    /// Signs of silence in a row that a backend needs to go down.
    pub(super) fn patience(&self, entry: &Entry) -> u32 {
        let service = &self.services[entry.service];
        if service.forward.as_ref().is_some_and(|forward| forward.health.fall.is_some()) {
            return service.timers.patience;
        }
        let site = &self.sites[entry.site];
        // While the whole site is in doubt its verdict comes first, so that it goes down as one.
        let floor = if site.health == Health::Suspect { SITE_SIGNALS } else { service.timers.patience };
        signs_needed(site.loss, floor)
    }

    /// A backend that met silence and then answered, without its transport having been dead (or its site down, until this
    /// very answer): its link loses packets.
    pub(super) fn learn_loss(&mut self, slot: u32, before: Counters, evidence: Evidence, lived: bool) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if entry.dead || self.sites[entry.site].health == Health::Down {
            return;
        }
        let usual = self.services[entry.service].timers.patience;
        if before.health == Health::Down && before.silent_probes >= usual {
            // It was cut while it was held back, where nobody had to judge that.
            return;
        }
        let lost = match evidence {
            Evidence::Probe(Ok(())) => before.silent_probes,
            Evidence::Probe(Err(fault)) if fault.is_silence() && lived => 1,
            Evidence::Probe(Err(fault)) if !fault.is_silence() && fault != Fault::Unresolved => before.silent_probes,
            Evidence::Probe(Err(_)) | Evidence::Request(_) => return,
        };
        let site = &mut self.sites[entry.site];
        for _ in 0..lost.min(MOST_SIGNALS) {
            site.loss += (1.0 - site.loss) / 16.0;
        }
        site.loss -= site.loss / 64.0;
    }
}

impl SiteState {
    /// A sign of silence is remembered for so long: two of them must fall into it, also where each takes longer than a contract.
    pub(super) fn doubts_for(&self) -> Duration {
        let path = self.path.round_trip.smoothed().unwrap_or_default();
        self.contract.max(Pace::least_wait(self.contract, path) * 2)
    }
}

/// So many signs of silence in a row are not chance on a link with this loss; at least `floor`.
fn signs_needed(loss: f64, floor: u32) -> u32 {
    let loss = loss.clamp(0.01, 0.99);
    let enough = (BY_CHANCE.ln() / loss.ln()).ceil();
    // The quotient lies between 2.5 and 1146.
    floor.max((enough as u32).min(MOST_SIGNALS))
}

fn turn_site(site: &mut SiteState, to: Health, why: String, notes: &mut Vec<Transition>, now: Instant) {
    let from = std::mem::replace(&mut site.health, to);
    let after = now.since(site.since);
    notes.push(Transition::Site {
        site: std::sync::Arc::clone(&site.name),
        from,
        to,
        why: if from == Health::Up || after < Duration::from_millis(1) {
            why.clone()
        } else {
            format!("{why}, after {}", short(after))
        },
    });
    site.since = now;
    site.why = why;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lossy_link_needs_more_signs_but_never_endlessly_many() {
        assert_eq!(signs_needed(0.0, 3), 3);
        assert_eq!(signs_needed(0.0, 5), 5);
        assert_eq!(signs_needed(0.06, 3), 5, "after one lost packet");
        assert_eq!(signs_needed(0.2, 3), 8);
        assert_eq!(signs_needed(0.36, 3), 12);
        assert_eq!(signs_needed(0.9, 3), MOST_SIGNALS);
    }
}
