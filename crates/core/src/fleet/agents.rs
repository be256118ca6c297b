//! Agents: programs beside backends that say how much those can take. A third voice beside the evidence and the
//! operator: it can take load away from a backend, but never gives one traffic that one of the others refuses it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Fleet;
use super::agenda::Alarm;
use super::judging::SAVE_EVERY;
use crate::agent::{AgentLine, AgentSaid, AgentWords};
use crate::effect::{Effect, Transition};
use crate::errand::AgentOrder;
use crate::fault::Fault;
use crate::health::Admin;
use crate::time::Instant;

/// An agent's words are forgotten after so many questions in a row without an answer.
const FORGET_AFTER: u32 = 3;
/// Who asks an agent always answers, but where this edge is starved later than the question may take: so much is left to it.
/// After that this edge itself was stopped, which says nothing about the agent.
const GRACE: Duration = Duration::from_secs(2);
/// But after so many questions in a row that nobody here saw the end of, its words are older than anybody should believe.
const UNHEARD: u32 = 30;
/// Changed words are saved at the first answer so long after they were last saved: some change with every answer.
const SOON: Duration = Duration::from_secs(1);
/// Letters of a line that are kept for `status`.
const SHOWN: usize = 200;

/// What is going on with a backend's agent.
#[derive(Debug, Default)]
pub(super) struct AgentState {
    /// The question whose answer has not come yet, and when it was asked.
    pub(super) asked: Option<(u64, Instant)>,
    /// Questions in a row without an answer.
    pub(super) missed: u32,
    /// Questions in a row of which this edge does not know what became.
    pub(super) unheard: u32,
    /// Why the last question that was missed brought nothing, in words.
    trouble: String,
    /// That it is not heard was told, and that it is heard again was not yet.
    told: bool,
    /// Its words changed since they were last saved.
    unsaved: bool,
    /// `None`: nothing, or so long ago that it is forgotten.
    pub(super) said: Option<AgentSaid>,
}

impl AgentState {
    pub(super) fn words(&self) -> Option<&AgentWords> {
        self.said.as_ref().map(|said| &said.words)
    }

    /// Its word beside the operator's.
    pub(super) fn admin(&self) -> Admin {
        self.words().map_or(Admin::Enabled, AgentWords::admin)
    }

    /// Why nothing of it counts, where it has been silent for too long.
    pub(super) fn silent(&self) -> Option<&str> {
        (self.missed >= FORGET_AFTER).then_some(&self.trouble)
    }

    /// Whether it says that its backend is down.
    pub(super) fn says_down(&self) -> bool {
        self.words().is_some_and(|words| words.down.is_some())
    }
}

impl Fleet {
    /// Makes sure that a backend's agent is asked, if its service has one, and is forgotten, if not.
    pub(super) fn follow_agent(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        if self.agent_of(entry.service).is_none() {
            self.agenda.cancel(Alarm::Agent(slot));
            self.forget_agent(slot, now);
            if let Some(entry) = self.entries.get_mut(&slot) {
                (entry.agent.missed, entry.agent.told) = (0, false);
            }
        } else if self.agenda.at(Alarm::Agent(slot)).is_none() {
            self.agenda.set(Alarm::Agent(slot), now);
        }
    }

    /// Its service's agents are declared otherwise than before: the next question is due, and how it was silent before
    /// says nothing.
    pub(super) fn ask_agent_anew(&mut self, slot: u32) {
        self.agenda.cancel(Alarm::Agent(slot));
        if let Some(entry) = self.entries.get_mut(&slot) {
            (entry.agent.asked, entry.agent.missed) = (None, 0);
        }
    }

    fn agent_of(&self, service: usize) -> Option<&relais_config::Agent> {
        self.services[service].forward.as_ref().and_then(|forward| forward.agent.as_ref())
    }

    /// Asks an agent.
    pub(super) fn ask_agent(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let Some(agent) = self.agent_of(entry.service) else { return };
        let (interval, port) = (agent.interval, agent.port);
        let lost = entry.agent.asked.map(|(_, at)| at + interval + GRACE);
        let muzzled = self.effective(&entry.backend.id) == Admin::Disabled;
        if let Some(lost) = lost.filter(|lost| now < *lost && !muzzled) {
            self.agenda.set(Alarm::Agent(slot), lost);
            return;
        }
        self.agenda.set(Alarm::Agent(slot), now + interval);
        if lost.is_some() {
            self.agent_unheard(slot, now);
        }
        if muzzled {
            // What the operator switched off is left alone, and nothing old is believed when it comes back.
            self.forget_agent(slot, now);
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.agent.missed = 0;
            }
            return;
        }
        let id = self.next_question;
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let Some(check) = self.services[entry.service].forward.clone() else { return };
        if entry.addresses.is_empty() {
            return;
        }
        self.next_question += 1;
        entry.agent.asked = Some((id, now));
        let addresses = entry.addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
        let order = AgentOrder { id, backend: Arc::clone(&entry.backend), addresses, check, timeout: interval };
        self.changes.probes.push(Effect::Agent(order));
    }

    /// What an agent answered. Any but the latest answer is ignored.
    pub(super) fn agent_said(&mut self, slot: u32, id: u64, line: Result<String, Fault>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let Some((_, at)) = entry.agent.asked.take_if(|(asked, _)| *asked == id) else { return };
        let service = entry.service;
        if let Some(interval) = self.agent_of(service).map(|agent| agent.interval) {
            self.agenda.set(Alarm::Agent(slot), now.max(at + interval));
        }
        if line == Err(Fault::Unwatched) {
            // That the edge did not look says nothing about the agent.
            self.agent_unheard(slot, now);
            return;
        }
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let read = line.map_err(|fault| fault.to_string()).and_then(|text| match AgentLine::read(&text) {
            Some(line) => Ok((line, plain(&text))),
            None => Err(format!("no word of an agent in `{}`", plain(&text))),
        });
        let (line, text) = match read {
            Ok(read) => read,
            Err(why) => {
                self.agent_silent(slot, why, now);
                return;
            }
        };
        if std::mem::take(&mut entry.agent.told) {
            self.changes.notes.push(Transition::AgentSilent { id: entry.backend.id.clone(), why: None });
        }
        (entry.agent.missed, entry.agent.unheard) = (0, 0);
        let before = entry.agent.words().cloned().unwrap_or_default();
        let words = before.after(line);
        let same_words = entry.agent.said.as_ref().filter(|_| words == before).map(|said| said.since);
        let since = same_words.unwrap_or(now);
        entry.agent.said = Some(AgentSaid { words, line: text, since, heard: now });
        entry.agent.unsaved |= same_words.is_none();
        if now.since(entry.saved) >= if entry.agent.unsaved { SOON } else { SAVE_EVERY } {
            entry.agent.unsaved = false;
            self.changes.save.insert(slot);
        }
        self.follow_words(slot, &before, now);
    }

    fn agent_unheard(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.agent.unheard = entry.agent.unheard.saturating_add(1);
        if entry.agent.unheard >= UNHEARD {
            self.forget_agent(slot, now);
        }
    }

    fn agent_silent(&mut self, slot: u32, why: String, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.agent.asked = None;
        entry.agent.missed = entry.agent.missed.saturating_add(1);
        entry.agent.unheard = 0;
        entry.agent.trouble = why;
        if entry.agent.missed == FORGET_AFTER {
            entry.agent.told = true;
            let why = Some(entry.agent.trouble.clone());
            self.changes.notes.push(Transition::AgentSilent { id: entry.backend.id.clone(), why });
        }
        if entry.agent.missed >= FORGET_AFTER {
            self.forget_agent(slot, now);
        }
    }

    fn forget_agent(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.agent.asked = None;
        if let Some(said) = entry.agent.said.take() {
            self.follow_words(slot, &said.words, now);
        }
    }

    /// Carries what an agent says now, and did not before, to its backend.
    fn follow_words(&mut self, slot: u32, before: &AgentWords, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let words = entry.agent.words().cloned().unwrap_or_default();
        if words == *before {
            return;
        }
        let service = entry.service;
        self.changes.services.insert(service);
        // Weights change all the time: that is no news.
        if (words.admin(), &words.down) != (before.admin(), &before.down) {
            self.changes.save.insert(slot);
            let said = entry.agent.said.as_ref().map(|said| said.line.clone());
            let takes = words.down.is_none() && words.admin() == Admin::Enabled;
            self.changes.notes.push(Transition::Agent { id: entry.backend.id.clone(), said, takes });
        }
        self.obey(slot, now);
        let back = before.down.is_some() && words.down.is_none();
        if back
            && self.anyone_usable(service, Some(slot))
            && let Some(entry) = self.entries.get_mut(&slot)
        {
            entry.ramp_from = Some(now);
            self.changes.save.insert(slot);
        }
    }
}

/// The first line of what an agent said, short and without anything a terminal would obey.
fn plain(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim().chars().take(SHOWN);
    line.map(|letter| if letter.is_control() { '.' } else { letter }).collect()
}
