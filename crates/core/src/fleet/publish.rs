//! State becomes a snapshot for readers, records for the store and lines for people: once per call, in this order.

use std::sync::Arc;

use super::Fleet;
use super::state::{Entry, admin_record};
use crate::balancer::Order;
use crate::effect::{Effect, Record, Transition};
use crate::health::Health;
use crate::snapshot::{Member, Pool, Snapshot};
use crate::time::Instant;

impl Fleet {
    /// Turns what one call changed into effects.
    pub(super) fn flush(&mut self, now: Instant) {
        let touched: Vec<usize> = self.changes.services.iter().copied().collect();
        for &service in &touched {
            self.settle_service(service, now);
            self.settle_trials(service, now);
            self.readmit(service, now);
            self.note_availability(service, now);
        }
        self.settle_crowd();
        self.publish(&touched);
        self.follow_sites(&touched, now);
        self.open_failovers(now);
        self.collect_certificates();
        let changes = std::mem::take(&mut self.changes);
        for slot in changes.save {
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            entry.saved = now;
            self.effects.push_back(Effect::Save(Record::Backend(entry.record())));
        }
        for target in changes.words {
            let Some(word) = self.words.get(&target) else { continue };
            self.effects.push_back(Effect::Save(Record::Admin(admin_record(&target, word))));
        }
        self.effects.extend(changes.records.into_iter().map(Effect::Save));
        self.effects.extend(changes.forget.into_iter().map(Effect::Forget));
        self.effects.extend(changes.notes.into_iter().map(Effect::Note));
        self.effects.extend(changes.probes);
    }

    /// Publishes when a reader would see something new.
    fn publish(&mut self, touched: &[usize]) {
        let mut changed = self.changes.config || self.snapshot.is_none();
        for &index in touched {
            let members = self.members(index);
            let service = &mut self.services[index];
            let same = service.pool.as_ref().is_some_and(|pool| {
                Arc::ptr_eq(&pool.service, &service.service)
                    && pool.timers == service.timers
                    && pool.still == service.still
                    && same_members(&pool.members, &members)
            });
            if same {
                continue;
            }
            changed = true;
            let balance = service.forward.as_ref().map(|forward| forward.balance.clone());
            let before = service.pool.as_deref();
            let order = balance.map_or_else(Order::default, |balance| Order::new(&members, &balance, before));
            service.pool = Some(Arc::new(Pool {
                service: Arc::clone(&service.service),
                timers: service.timers.clone(),
                members,
                still: service.still,
                stats: Arc::clone(&service.stats),
                shared: Arc::clone(&service.shared),
                order,
            }));
        }
        if !changed {
            return;
        }
        let snapshot = Arc::new(Snapshot {
            generation: self.snapshot.as_ref().map_or(1, |old| old.generation + 1),
            config: Arc::clone(&self.config),
            pools: self.services.iter().filter_map(|service| service.pool.clone()).collect(),
            router: Arc::clone(&self.router),
            stats: Arc::clone(&self.stats),
        });
        self.snapshot = Some(Arc::clone(&snapshot));
        self.effects.push_back(Effect::Publish(snapshot));
    }

    /// A service's backends as readers shall see them.
    fn members(&self, service: usize) -> Vec<Member> {
        let entries = self.services[service].members.iter().filter_map(|slot| self.entries.get(slot));
        let elsewhere = self.anyone_usable(service, None);
        entries
            .map(|entry| Member {
                backend: Arc::clone(&entry.backend),
                tier: entry.tier,
                addresses: Arc::clone(&entry.addresses),
                weight: entry.weight,
                percent: entry.agent.words().map_or(100, |words| words.percent),
                cap: entry.agent.words().and_then(|words| words.cap),
                health: self.shown(entry),
                admin: entry.admin,
                ramp_from: entry.ramp_from,
                dead: entry.dead,
                mute: entry.mute && entry.health() == Health::Down,
                hung: entry.hung && entry.health() == Health::Down && elsewhere,
                stalled: entry.stalled && entry.health() == Health::Down,
                away: self.away(entry),
                drill: self.sites[entry.site].drill,
                trial: entry.trial.filter(|_| entry.health() == Health::Down),
            })
            .collect()
    }

    /// Health as readers see it: doubt about the whole site is doubt about each backend there, and a backend whose
    /// agent says that it is down is.
    pub(super) fn shown(&self, entry: &Entry) -> Health {
        match entry.health() {
            _ if entry.agent.says_down() => Health::Down,
            Health::Up if self.sites[entry.site].health == Health::Suspect => Health::Suspect,
            health => health,
        }
    }

    fn note_availability(&mut self, index: usize, now: Instant) {
        let service = &self.services[index];
        if service.members.is_empty() {
            return;
        }
        let usable = self.anyone_usable(index, None);
        let waiting = service
            .members
            .iter()
            .filter_map(|slot| self.entries.get(slot))
            .any(|entry| entry.admin == crate::health::Admin::Enabled && entry.health() == Health::Probing);
        let before = service.available;
        let after = match (usable, waiting, before) {
            (true, _, _) => Some(true),
            (false, true, _) => before,
            (false, false, _) => Some(false),
        };
        if after == before {
            return;
        }
        self.services[index].available = after;
        if after == Some(false) {
            if let Some(episode) = &mut self.services[index].episode {
                episode.nobody_left = true;
            }
            self.hurry_service(index, now);
        }
        if after == Some(false) || before == Some(false) {
            let service = Arc::clone(&self.services[index].service.name);
            self.changes.notes.push(Transition::Service { service, available: usable });
        }
    }
}

fn same_members(old: &[Member], new: &[Member]) -> bool {
    let same = |(old, new): (&Member, &Member)| {
        Arc::ptr_eq(&old.backend, &new.backend)
            && old.tier == new.tier
            && old.addresses == new.addresses
            && (old.weight, old.percent, old.cap) == (new.weight, new.percent, new.cap)
            && old.health == new.health
            && old.admin == new.admin
            && old.ramp_from == new.ramp_from
            && old.dead == new.dead
            && old.mute == new.mute
            && old.hung == new.hung
            && old.stalled == new.stalled
            && old.away == new.away
            && old.drill == new.drill
            && old.trial == new.trial
    };
    old.len() == new.len() && old.iter().zip(new).all(same)
}
