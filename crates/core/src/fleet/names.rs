//! Names of backends: when they are looked up, and what an answer changes. An answer is used as long as it says, and the
//! last good one stays in use while no new one comes: a name server in trouble takes nobody down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_config::Address;

use super::Fleet;
use super::agenda::Alarm;
use super::state::Entry;
use crate::effect::{Effect, Transition};
use crate::errand::ResolveOrder;
use crate::event::Resolved;
use crate::fault::Fault;
use crate::health::Health;
use crate::time::Instant;

/// However short an answer is good for, nobody is asked more often.
const LEAST: Duration = Duration::from_secs(1);
/// However long an answer is good for, it is looked at again after this: `/etc/hosts` has no such time.
const MOST: Duration = Duration::from_secs(60);
/// Longest pause after a failed look-up while there is no address at all.
const MOST_WITHOUT: Duration = Duration::from_secs(5);
/// Longest pause after a failed look-up while an old answer is in use.
const MOST_WITH_OLD: Duration = Duration::from_secs(30);

impl Fleet {
    /// Makes sure that a backend's name, if it has one, is looked up.
    pub(super) fn follow_name(&mut self, slot: u32, now: Instant) {
        let named = |entry: &Entry| matches!(entry.backend.address, Address::Name(..));
        if self.entries.get(&slot).is_some_and(named) && self.agenda.at(Alarm::Resolve(slot)).is_none() {
            self.agenda.set(Alarm::Resolve(slot), now);
        }
    }

    /// Looks up every name now: other servers are to be asked.
    pub(super) fn follow_names_anew(&mut self, now: Instant) {
        for slot in self.entries.keys().copied().collect::<Vec<u32>>() {
            self.agenda.cancel(Alarm::Resolve(slot));
            self.follow_name(slot, now);
        }
    }

    /// Has a name looked up.
    pub(super) fn resolve(&mut self, slot: u32, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let Address::Name(host, port) = &entry.backend.address else { return };
        let id = self.next_question;
        self.next_question += 1;
        let order = ResolveOrder { id, slot, host: host.as_str().into(), port: *port };
        entry.name.asked = Some(id);
        self.changes.probes.push(Effect::Resolve(order));
        // Should the answer be lost, it is asked for again.
        self.agenda.set(Alarm::Resolve(slot), now + MOST);
    }

    /// The answer to a look-up. Any but the latest is ignored.
    pub(super) fn resolved(&mut self, slot: u32, id: u64, result: Result<Resolved, String>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot).filter(|entry| entry.name.asked == Some(id)) else { return };
        entry.name.asked = None;
        match result {
            Ok(Resolved { addresses, .. }) if addresses.is_empty() => {
                self.unresolved(slot, "it has no address".to_owned(), now)
            }
            Ok(Resolved { addresses, good_for }) => {
                self.agenda.set(Alarm::Resolve(slot), now + good_for.clamp(LEAST, MOST));
                self.use_addresses(slot, addresses, now);
            }
            Err(why) => self.unresolved(slot, why, now),
        }
    }

    fn use_addresses(&mut self, slot: u32, mut addresses: Vec<SocketAddr>, now: Instant) {
        // Answers come in any order; that is no change.
        addresses.sort_by_key(|address| (address.is_ipv6(), *address));
        addresses.dedup();
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.name.failures = 0;
        entry.name.trouble = None;
        if *entry.addresses == *addresses {
            return;
        }
        let from = std::mem::replace(&mut entry.addresses, addresses.into());
        let to = Arc::clone(&entry.addresses);
        self.changes.notes.push(Transition::Addresses { id: entry.backend.id.clone(), from: Arc::clone(&from), to });
        self.changes.services.insert(entry.service);
        self.changes.save.insert(slot);
        if !self.services[entry.service].timers.checked {
            match entry.health() {
                Health::Probing => self.turn(slot, Health::Up, "its name resolves, not checked".to_owned(), now),
                Health::Down if from.is_empty() => self.lift(slot, "its name resolves, not checked", now),
                Health::Down | Health::Up | Health::Suspect => {}
            }
        } else if from.is_empty() {
            self.send_probe(slot, now);
        } else {
            self.hurry(slot, now);
        }
    }

    fn unresolved(&mut self, slot: u32, why: String, now: Instant) {
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let most = if entry.addresses.is_empty() { MOST_WITHOUT } else { MOST_WITH_OLD };
        let pause = LEAST.saturating_mul(1 << entry.name.failures.min(8)).min(most);
        entry.name.failures = entry.name.failures.saturating_add(1);
        self.agenda.set(Alarm::Resolve(slot), now + pause);
        let news = entry.name.trouble.as_ref() != Some(&why);
        entry.name.trouble = Some(why.clone());
        if !entry.addresses.is_empty() {
            if news {
                self.changes.notes.push(Transition::Unresolved { id: entry.backend.id.clone(), why });
            }
            return;
        }
        let why = format!("{}: {why}", Fault::Unresolved);
        entry.last_fault = Some(Fault::Unresolved);
        if entry.health() == Health::Down {
            entry.why = why;
        } else {
            self.turn(slot, Health::Down, why, now);
        }
    }
}
