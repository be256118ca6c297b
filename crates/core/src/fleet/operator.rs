//! The operator's words. They are obeyed at once, outlive reload and restart, and end with the config that names them.

use super::Fleet;
use super::state::{Entry, Word};
use crate::backend::BackendId;
use crate::effect::{RecordKey, Transition};
use crate::event::{Command, Target};
use crate::health::{Admin, Health};
use crate::time::Instant;
use crate::verdict::Counters;

impl Fleet {
    /// Obeys one word.
    pub(super) fn command(&mut self, command: Command, now: Instant) {
        let Command { target, word, reason } = command;
        if !self.names(&target) {
            return;
        }
        let old = self.words.get(&target).cloned();
        let from = old.as_ref().map_or(Admin::Enabled, |old| old.word);
        if from == word && old.as_ref().is_none_or(|old| old.reason == reason) {
            return;
        }
        let since = old.filter(|old| old.word == word).map_or(now, |old| old.since);
        self.words.insert(target.clone(), Word { word, since, reason: reason.clone() });
        self.changes.words.insert(target.clone());
        if from == word {
            return;
        }
        for slot in self.slots_of(&target) {
            self.obey(slot, now);
        }
        self.changes.notes.push(Transition::Admin { target, from, to: word, reason });
    }

    /// Whether the config still names a target.
    fn names(&self, target: &Target) -> bool {
        match target {
            Target::Site(name) => self.sites.iter().any(|site| site.name == *name),
            Target::Backend(id) => self.slots.contains_key(id),
        }
    }

    fn slots_of(&self, target: &Target) -> Vec<u32> {
        match target {
            Target::Site(name) => {
                let site = self.sites.iter().find(|site| site.name == *name);
                site.map(|site| site.members.clone()).unwrap_or_default()
            }
            Target::Backend(id) => self.slots.get(id).copied().into_iter().collect(),
        }
    }

    /// The stricter of a backend's own word and its site's.
    pub(super) fn effective(&self, id: &BackendId) -> Admin {
        if self.words.is_empty() {
            return Admin::Enabled;
        }
        let said = |target: &Target| self.words.get(target).map_or(Admin::Enabled, |word| word.word);
        said(&Target::Backend(id.clone())).max(said(&Target::Site(id.site.clone())))
    }

    /// The strictest word about a backend, whoever said it.
    fn strictest(&self, entry: &Entry) -> Admin {
        self.effective(&entry.backend.id).max(entry.agent.admin())
    }

    /// Carries a changed word, of the operator or of an agent, to one backend.
    pub(super) fn obey(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let (old, new) = (entry.admin, self.strictest(entry));
        if old == new {
            return;
        }
        self.changes.services.insert(entry.service);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.admin = new;
        if new == Admin::Draining {
            entry.drained = Some(now);
        }
        if new == Admin::Disabled {
            (entry.probe, entry.replaced) = (None, None);
            entry.held_until = None;
            self.agenda.cancel_probing(slot);
        } else if old == Admin::Disabled {
            self.wake(slot, now);
        } else if new == Admin::Enabled {
            self.warm_up(slot, now);
        }
    }

    /// What came up while it was drained has served nobody yet: its share grows from now on.
    fn warm_up(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let fresh = entry.usable() && entry.drained.is_some_and(|drained| entry.since > drained);
        if fresh
            && self.anyone_usable(entry.service, Some(slot))
            && let Some(entry) = self.entries.get_mut(&slot)
        {
            entry.ramp_from = Some(now);
            self.changes.save.insert(slot);
        }
    }

    /// Nobody asked it while it was disabled: what was known of it is no longer believed.
    fn wake(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let timers = &self.services[entry.service].timers;
        let was_down = entry.health() == Health::Down;
        entry.counters = Counters { health: entry.counters.health, ..Counters::new(Health::Probing) };
        entry.bad_since = None;
        entry.overruled = false;
        entry.dead = false;
        entry.ejected = None;
        entry.cold = true;
        if entry.is_nowhere() {
            self.turn(slot, Health::Probing, "enabled, its name is looked up".to_owned(), now);
            self.resolve(slot, now);
            return;
        }
        if !timers.checked {
            self.turn(slot, Health::Up, "enabled, not checked".to_owned(), now);
            return;
        }
        if was_down {
            // One failed check is enough to say that it still is.
            entry.counters.bad = timers.fall.saturating_sub(1);
            entry.counters.silent_probes = timers.patience.saturating_sub(1);
        }
        self.turn(slot, Health::Probing, "enabled, no verdict yet".to_owned(), now);
        self.send_probe(slot, now);
    }

    /// What an agent had said before this edge began holds from its first moment, not from the agent's next word.
    pub(super) fn believe_agent(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let (word, since) = (self.strictest(entry), self.draining_since(entry));
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.admin = word;
            entry.drained = since.or(entry.drained);
        }
    }

    /// Since when somebody says that a backend is to be drained; some of it may be from before this edge began.
    fn draining_since(&self, entry: &Entry) -> Option<Instant> {
        let id = &entry.backend.id;
        let targets = [Target::Backend(id.clone()), Target::Site(id.site.clone())];
        let words = targets.iter().filter_map(|target| self.words.get(target));
        let operator = words.filter(|word| word.word == Admin::Draining).map(|word| word.since);
        let agent = entry.agent.said.iter().filter(|said| said.words.admin() == Admin::Draining);
        operator.chain(agent.map(|said| said.since)).min()
    }

    /// Works out the words of backends anew, after a config or the store brought some. `services`: places of those that the
    /// config changed; for the others a word holds as long as their site, and so they, stay.
    pub(super) fn refresh_admin(&mut self, services: &[usize]) {
        let word = |entry: &Entry| (entry.slot(), self.strictest(entry), self.draining_since(entry));
        let slots = services.iter().flat_map(|index| &self.services[*index].members);
        let entries = slots.filter_map(|slot| self.entries.get(slot));
        let changed: Vec<_> = entries.filter(|entry| entry.admin != self.strictest(entry)).map(word).collect();
        for (slot, word, since) in changed {
            if let Some(entry) = self.entries.get_mut(&slot) {
                entry.admin = word;
                entry.drained = since.or(entry.drained);
                self.changes.services.insert(entry.service);
            }
        }
    }

    /// Drops the words about targets the config does not name.
    pub(super) fn forget_unnamed_words(&mut self) {
        let unnamed: Vec<Target> = self.words.keys().filter(|target| !self.names(target)).cloned().collect();
        for target in unnamed {
            self.words.remove(&target);
            self.changes.words.remove(&target);
            self.changes.forget.insert(RecordKey::Admin(target));
        }
    }
}
