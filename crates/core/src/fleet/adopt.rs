//! A config becomes state: at start beside what was saved, later as a difference to what is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relais_config::{Action, BackendDecl, CheckKind, Config, Forward, Service};

use super::agenda::Alarm;
use super::outliers::Recently;
use super::state::{DOWNS, Entry, ServiceState, SiteState, Word, id_of};
use super::{Fleet, probing};
use crate::backend::{Backend, BackendId};
use crate::effect::{BackendRecord, Record, RecordKey, Saved, Transition};
use crate::health::{Admin, Health};
use crate::history::DrillEnd;
use crate::router::Router;
use crate::snapshot::Shared;
use crate::stats::ServiceStats;
use crate::time::Instant;
use crate::timers::Timers;
use crate::words::short;

/// Saved health is believed for so long after evidence for it was last seen.
const TRUSTED: Duration = Duration::from_secs(60);

/// What a config changed.
#[derive(Default)]
struct Difference {
    added: Vec<u32>,
    kept: Vec<u32>,
    /// Kept, but the way they are checked is another.
    rechecked: Vec<u32>,
    removed: Vec<BackendId>,
}

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
        let difference = self.lay_out(&config, now);
        self.forget_unnamed_words();
        self.refresh_admin();
        for slot in difference.added {
            let Some(entry) = self.entries.get(&slot) else { continue };
            let record = remembered.remove(&entry.backend.id);
            self.begin(slot, record, now);
        }
        self.follow_all(now);
        self.changes.forget.extend(remembered.into_keys().map(RecordKey::Backend));
    }

    /// A new config. What it does not change keeps everything it has.
    pub(super) fn reload(&mut self, config: &Arc<Config>, now: Instant) {
        let mut difference = Difference { kept: self.entries.keys().copied().collect(), ..Difference::default() };
        if **config != *self.config {
            self.abandon_drill(DrillEnd::Reload, now);
            self.settle_all();
            difference = self.lay_out(config, now);
            let servers = config.edge.nameservers != self.config.edge.nameservers;
            self.config = Arc::clone(config);
            self.router = Arc::new(Router::new(config));
            self.certs.reload(config, now);
            self.forget_unnamed_words();
            self.refresh_admin();
            for &slot in &difference.added {
                if let Some(entry) = self.entries.get_mut(&slot) {
                    entry.cold = true;
                }
                self.begin(slot, None, now);
            }
            for &slot in &difference.rechecked {
                self.recheck(slot, now);
            }
            if servers {
                self.follow_names_anew(now);
            }
            self.follow_all(now);
        }
        self.changes.notes.push(Transition::Reloaded {
            added: difference.added.len(),
            removed: difference.removed.len(),
            kept: difference.kept.len(),
        });
        self.changes.forget.extend(difference.removed.into_iter().map(RecordKey::Backend));
    }

    /// Builds sites, services and entries as the config lists them, around the state of those that stay.
    fn lay_out(&mut self, config: &Arc<Config>, now: Instant) -> Difference {
        self.changes.config = true;
        self.lay_out_sites(config, now);
        let mut old_services: BTreeMap<Arc<str>, ServiceState> =
            std::mem::take(&mut self.services).into_iter().map(|s| (Arc::clone(&s.service.name), s)).collect();
        let mut old_entries = std::mem::take(&mut self.entries);
        let old_slots = std::mem::take(&mut self.slots);
        let mut difference = Difference::default();
        for (index, service) in config.services.iter().enumerate() {
            let old = old_services.remove(&service.name);
            let old_health = old.as_ref().and_then(|o| o.forward.clone());
            let mut state = service_state(config, service, old, now);
            let Some(forward) = state.forward.clone() else {
                self.services.push(state);
                continue;
            };
            let rechecked = old_health.is_some_and(|old| {
                old.health != forward.health
                    || Timers::solve(&old) != Timers::solve(&forward)
                    || old.host != forward.host
            });
            let mut decls: Vec<&BackendDecl> = forward.backends.iter().collect();
            decls.sort_by_key(|decl| decl.tier);
            for decl in decls {
                let id = id_of(&service.name, decl);
                if self.slots.contains_key(&id) {
                    continue;
                }
                let old = old_slots.get(&id).and_then(|slot| old_entries.remove(slot));
                let (slot, kept) = self.place(id, decl, old, now);
                if kept {
                    difference.kept.push(slot)
                } else {
                    difference.added.push(slot)
                }
                if kept && rechecked {
                    difference.rechecked.push(slot);
                }
                self.settle_in(slot, index, service, &forward, decl);
                state.members.push(slot);
            }
            self.services.push(state);
        }
        for entry in old_entries.into_values() {
            self.agenda.cancel_all(entry.slot());
            difference.removed.push(entry.backend.id.clone());
        }
        self.lay_out_members();
        for index in 0..self.services.len() {
            self.stretch(index);
        }
        difference
    }

    fn lay_out_sites(&mut self, config: &Config, now: Instant) {
        let mut old: BTreeMap<Arc<str>, SiteState> = BTreeMap::new();
        for (index, site) in std::mem::take(&mut self.sites).into_iter().enumerate() {
            self.agenda.cancel(Alarm::Acquit(index_u32(index)));
            old.insert(Arc::clone(&site.name), site);
        }
        for declared in &config.sites {
            let mut state =
                old.remove(&declared.name).unwrap_or_else(|| SiteState::new(Arc::clone(&declared.name), now));
            state.members.clear();
            (state.contract, state.confirm) = (Duration::MAX, Duration::MAX);
            self.sites.push(state);
        }
    }

    /// Lists each site's backends and finds its shortest contract. A doubt about a site goes on.
    fn lay_out_members(&mut self) {
        for entry in self.entries.values() {
            let timers = &self.services[entry.service].timers;
            let site = &mut self.sites[entry.site];
            site.members.push(entry.slot());
            site.contract = site.contract.min(timers.failover_within);
            if timers.checked {
                site.confirm = site.confirm.min(timers.confirm_timeout);
            }
        }
        for (index, site) in self.sites.iter().enumerate() {
            if let Some(accusation) = &site.accusation {
                self.agenda.set(Alarm::Acquit(index_u32(index)), accusation.last + site.contract);
            }
        }
    }

    /// The entry of a declared backend: the old one where there is one. `true`: it is known.
    fn place(&mut self, id: BackendId, decl: &BackendDecl, old: Option<Entry>, now: Instant) -> (u32, bool) {
        let kept = old.is_some();
        let entry = match old {
            Some(entry) if entry.backend.upstream == decl.upstream => entry,
            Some(mut entry) => {
                // Another transport: connections made for the old one must not be reused, health is.
                self.agenda.cancel_all(entry.slot());
                entry.backend = self.new_backend(id.clone(), decl);
                entry.probe = None;
                (entry.name.asked, entry.agent.asked) = (None, None);
                (entry.probe_mark, entry.request_mark, entry.seen_mark, entry.site_mark) = (0, 0, 0, 0);
                entry.recently = Recently::default();
                self.agenda.set(Alarm::Probe(entry.slot()), now);
                entry
            }
            None => {
                let backend = self.new_backend(id.clone(), decl);
                Entry::new(backend, self.random.next(), now)
            }
        };
        let slot = entry.slot();
        self.slots.insert(id, slot);
        self.entries.insert(slot, entry);
        (slot, kept)
    }

    fn new_backend(&mut self, id: BackendId, decl: &BackendDecl) -> Arc<Backend> {
        let slot = self.next_slot;
        self.next_slot += 1;
        Arc::new(Backend::new(id, slot, decl.address.clone(), Arc::clone(&decl.upstream)))
    }

    /// What the config says about a backend, taken over anew by every config.
    fn settle_in(&mut self, slot: u32, service: usize, declared: &Service, forward: &Forward, decl: &BackendDecl) {
        let site = self.sites.iter().position(|site| site.name == decl.site);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        entry.service = service;
        entry.site = site.unwrap_or_default();
        entry.tier = decl.tier;
        entry.weight = decl.weight;
        let host = probe_host(declared, forward, decl);
        if *entry.host != *host {
            entry.host = host.into();
        }
    }

    /// Looks up names, asks agents and compares backends from now on, where there are any.
    fn follow_all(&mut self, now: Instant) {
        for slot in self.entries.keys().copied().collect::<Vec<u32>>() {
            self.follow_name(slot, now);
            self.follow_agent(slot, now);
        }
        for index in 0..self.services.len() {
            self.follow_outliers(index, now);
        }
    }

    /// A backend's first moment: from memory as far as it is young, else without a verdict.
    fn begin(&mut self, slot: u32, record: Option<BackendRecord>, now: Instant) {
        let spread = self.random.below(probing::FIRST_PROBE_WITHIN);
        let Some(entry) = self.entries.get_mut(&slot) else { return };
        let timers = &self.services[entry.service].timers;
        if let Some(record) = record {
            recall(entry, record, timers, now);
        }
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
        entry.probe = None;
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
    let age = now.since(record.verified);
    let fresh = record.verified <= now && age < TRUSTED;
    match record.health {
        Health::Probing => {}
        Health::Up | Health::Suspect if fresh && !entry.is_nowhere() => {
            believe(entry, Health::Up, record.since, record.verified, record.why, now)
        }
        Health::Down if fresh => {
            entry.ejected = record.ejected_until.filter(|until| *until > now);
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

fn service_state(config: &Config, service: &Arc<Service>, old: Option<ServiceState>, now: Instant) -> ServiceState {
    let forward = match &service.action {
        Action::Forward(forward) => Some(Arc::new((**forward).clone())),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let timers = forward.as_deref().map_or_else(|| Timers::derive(config.edge.failover_within), Timers::solve);
    match old {
        Some(old) => {
            // An equal declaration keeps its old allocation, so that an unchanged pool stays the same pool.
            let service = if *old.service == **service { old.service } else { Arc::clone(service) };
            ServiceState { service, forward, timers, members: Vec::new(), ..old }
        }
        None => ServiceState {
            service: Arc::clone(service),
            forward,
            timers,
            trouble: Vec::new(),
            slice_from: now,
            episode: None,
            members: Vec::new(),
            stats: Arc::new(ServiceStats::default()),
            shared: Arc::new(Shared::new(now)),
            pool: None,
            available: None,
        },
    }
}

/// The rule's own host, else the service's first exact host, else the backend's address.
fn probe_host(service: &Service, forward: &Forward, decl: &BackendDecl) -> String {
    let own = match &forward.health.kind {
        CheckKind::Http(check) => check.host.as_ref(),
        CheckKind::Grpc(check) => check.host.as_ref(),
        _ => None,
    };
    if let Some(host) = own {
        return host.clone();
    }
    let exact = service.hosts.iter().find(|host| !host.contains('*'));
    exact.cloned().unwrap_or_else(|| decl.address.to_string())
}

/// Counts of sites and services fit: a config of 2^32 entries does not.
pub(super) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
