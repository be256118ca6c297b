//! What a config declares is laid out: sites, services and backends around the state of those that stay. Knows nothing of
//! what was saved, and begins nothing: that is `adopt`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relais_config::{Action, BackendDecl, CheckKind, Config, Forward, Service};

use super::Fleet;
use super::agenda::Alarm;
use super::outliers::Recently;
use super::pressing::Comparing;
use super::site_state::SiteState;
use super::state::{Entry, ServiceState, id_of};
use super::trials::Trials;
use crate::backend::{Backend, BackendId};
use crate::snapshot::Shared;
use crate::stats::ServiceStats;
use crate::time::Instant;
use crate::timers::Timers;

/// What a config changed.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) added: Vec<u32>,
    pub(super) kept: Vec<u32>,
    /// Kept, but the way they are checked is another.
    pub(super) rechecked: Vec<u32>,
    pub(super) removed: Vec<BackendId>,
    /// Places of the services that are new or declared otherwise than before.
    pub(super) services: Vec<usize>,
}

impl Fleet {
    /// Builds sites, services and entries as the config lists them, around the state of those that stay. What is declared
    /// as before is not touched at all: of a thousand services, a reload changes a few.
    pub(super) fn lay_out(&mut self, config: &Arc<Config>, now: Instant) -> Difference {
        self.changes.config = true;
        let same_sites = self.lay_out_sites(config, now);
        // What was touched before this is known by its old place.
        let touched = std::mem::take(&mut self.changes.services);
        let old_services = std::mem::take(&mut self.services).into_iter().enumerate();
        let mut old_services: BTreeMap<Arc<str>, (usize, ServiceState)> =
            old_services.map(|(place, service)| (Arc::clone(&service.service.name), (place, service))).collect();
        let mut difference = Difference::default();
        for (index, service) in config.services.iter().enumerate() {
            let state = match old_services.remove(&service.name) {
                Some((place, old)) if same_sites && *old.service == **service => {
                    if touched.contains(&place) {
                        self.changes.services.insert(index);
                    }
                    self.keep(old, (place, index), config, &mut difference)
                }
                old => self.lay_out_service(old.map(|(_, old)| old), index, (config, service), &mut difference, now),
            };
            self.services.push(state);
        }
        for slot in old_services.into_values().flat_map(|(_, service)| service.members) {
            self.remove(slot, &mut difference);
        }
        self.lay_out_members();
        for &index in &difference.services {
            self.changes.services.insert(index);
            self.stretch(index);
        }
        difference
    }

    /// A service that is declared as before, at the same place or another.
    fn keep(
        &mut self,
        old: ServiceState,
        (before, index): (usize, usize),
        config: &Config,
        difference: &mut Difference,
    ) -> ServiceState {
        for slot in old.members.iter().filter(|_| before != index) {
            if let Some(entry) = self.entries.get_mut(slot) {
                entry.service = index;
            }
        }
        difference.kept.extend(&old.members);
        if old.forward.is_some() {
            return old;
        }
        difference.services.push(index);
        ServiceState { timers: Timers::derive(config.edge.failover_within), ..old }
    }

    /// A service that is new, or declared otherwise than before.
    fn lay_out_service(
        &mut self,
        old: Option<ServiceState>,
        index: usize,
        (config, service): (&Config, &Arc<Service>),
        difference: &mut Difference,
        now: Instant,
    ) -> ServiceState {
        difference.services.push(index);
        let before = old.as_ref().and_then(|old| old.forward.clone());
        let mut left: BTreeSet<u32> = old.iter().flat_map(|old| old.members.iter().copied()).collect();
        let mut state = service_state(config, service, old, now);
        if let Some(forward) = state.forward.clone() {
            let rechecked = before.as_ref().is_some_and(|old| {
                old.health != forward.health
                    || Timers::solve(old) != Timers::solve(&forward)
                    || old.host != forward.host
            });
            let asked_anew = before.is_some_and(|old| old.agent != forward.agent);
            let mut decls: Vec<&BackendDecl> = forward.backends.iter().collect();
            decls.sort_by_key(|decl| decl.tier);
            for decl in decls {
                let id = id_of(&service.name, decl);
                let known = self.slots.get(&id).copied();
                if known.is_some_and(|slot| !left.remove(&slot)) {
                    // Listed twice: the first one counts.
                    continue;
                }
                let old = known.and_then(|slot| self.entries.remove(&slot));
                let (slot, kept) = self.place(id, decl, old, now);
                if kept {
                    difference.kept.push(slot)
                } else {
                    difference.added.push(slot)
                }
                if kept && rechecked {
                    difference.rechecked.push(slot);
                }
                if kept && asked_anew {
                    self.ask_agent_anew(slot);
                }
                self.settle_in(slot, index, service, &forward, decl);
                state.members.push(slot);
            }
        }
        left.into_iter().for_each(|slot| self.remove(slot, difference));
        state
    }

    /// A backend that the config no longer names.
    fn remove(&mut self, slot: u32, difference: &mut Difference) {
        let Some(entry) = self.entries.remove(&slot) else { return };
        self.agenda.cancel_all(slot);
        self.slots.remove(&entry.backend.id);
        difference.removed.push(entry.backend.id.clone());
    }

    /// Whether the sites and their order are as before.
    fn lay_out_sites(&mut self, config: &Config, now: Instant) -> bool {
        let same = self.sites.iter().map(|site| &site.name).eq(config.sites.iter().map(|site| &site.name));
        let mut old: BTreeMap<Arc<str>, SiteState> = BTreeMap::new();
        for (index, site) in std::mem::take(&mut self.sites).into_iter().enumerate() {
            self.agenda.cancel(Alarm::Acquit(index_u32(index)));
            old.insert(Arc::clone(&site.name), site);
        }
        for declared in &config.sites {
            let mut state =
                old.remove(&declared.name).unwrap_or_else(|| SiteState::new(Arc::clone(&declared.name), now));
            state.members.clear();
            state.services.clear();
            (state.contract, state.confirm) = (Duration::MAX, Duration::MAX);
            self.sites.push(state);
        }
        self.changes.sites = (0..self.sites.len()).collect();
        same
    }

    /// Lists each site's backends and finds its shortest contract. A doubt about a site goes on.
    fn lay_out_members(&mut self) {
        for entry in self.entries.values() {
            let timers = &self.services[entry.service].timers;
            let site = &mut self.sites[entry.site];
            site.members.push(entry.slot());
            if site.services.last() != Some(&entry.service) {
                site.services.push(entry.service);
            }
            site.contract = site.contract.min(timers.failover_within);
            if timers.checked {
                site.confirm = site.confirm.min(timers.confirm_timeout);
            }
        }
        for (index, site) in self.sites.iter_mut().enumerate() {
            site.services.sort_unstable();
            site.services.dedup();
            if let Some(accusation) = &site.accusation {
                self.agenda.set(Alarm::Acquit(index_u32(index)), accusation.last + site.doubts_for());
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
                (entry.probe, entry.replaced) = (None, None);
                (entry.name.asked, entry.agent.asked) = (None, None);
                (entry.probe_mark, entry.request_mark, entry.seen_mark, entry.site_mark) = (0, 0, 0, 0);
                entry.whole_mark = 0;
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
            breathes_until: Instant::default(),
            slice_from: now,
            episode: None,
            members: Vec::new(),
            stats: Arc::new(ServiceStats::default()),
            shared: Arc::new(Shared::new(now)),
            pool: None,
            available: None,
            trials: Trials::default(),
            comparing: Comparing::default(),
            still: false,
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
