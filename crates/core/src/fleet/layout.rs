//! What a config declares is laid out: sites, services and backends around the state of those that stay. Knows nothing of
//! what was saved, and begins nothing: that is `adopt`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use relais_config::{BackendDecl, CheckKind, Config, Forward, Service};

use super::Fleet;
use super::agenda::Alarm;
use super::outliers::Recently;
use super::site_state::SiteState;
use super::state::{Entry, ServiceState, id_of};
use crate::backend::{Backend, BackendId};
use crate::hash::Table;
use crate::time::Instant;
use crate::timers::Timers;

/// What is known of a service that a config declares.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Its place until now.
    place: usize,
    /// It is declared as it was.
    alike: bool,
}

/// What a config changed.
#[derive(Default)]
pub(super) struct Difference {
    pub(super) added: Vec<u32>,
    /// How many stay.
    pub(super) kept: usize,
    /// Of these, those that are checked in another way.
    pub(super) rechecked: Vec<u32>,
    pub(super) removed: Vec<BackendId>,
    /// Places of the services that are new or declared otherwise than before.
    pub(super) services: Vec<usize>,
    /// Places of those that are declared as before, at another place.
    pub(super) moved: Vec<usize>,
    /// Hosts and paths may lead to other places than before.
    pub(super) routes: bool,
}

impl Fleet {
    /// What is known of each service of a config. This is where every service is compared with its old self, once.
    pub(super) fn known(&self, config: &Config) -> Vec<Option<Known>> {
        let old = || self.services.iter().map(|service| &service.service.name);
        let same_order = config.services.iter().map(|service| &service.name).eq(old());
        let places: Table<&Arc<str>, usize> =
            if same_order { Table::default() } else { old().enumerate().map(|(place, name)| (name, place)).collect() };
        let known = |(index, service): (usize, &Arc<Service>)| {
            let place = if same_order { index } else { *places.get(&service.name)? };
            Some(Known { place, alike: *self.services[place].service == **service })
        };
        config.services.iter().enumerate().map(known).collect()
    }

    /// Whether a config, of whose services this is known, declares nothing new.
    pub(super) fn is_as_before(&self, config: &Config, known: &[Option<Known>]) -> bool {
        self.stand_there_already(known)
            && known.iter().flatten().all(|known| known.alike)
            && config.is_alike_beside_services(&self.config)
    }

    fn stand_there_already(&self, known: &[Option<Known>]) -> bool {
        let there = |(index, known): (usize, &Option<Known>)| known.is_some_and(|known| known.place == index);
        self.services.len() == known.len() && known.iter().enumerate().all(there)
    }

    /// Builds sites, services and entries as the config lists them, around the state of those that stay. What is declared
    /// as before is not touched at all: of a thousand services, a reload changes a few.
    pub(super) fn lay_out(&mut self, config: &Arc<Config>, known: &[Option<Known>], now: Instant) -> Difference {
        self.changes.config = true;
        let mut difference = Difference::default();
        let same_sites = self.lay_out_sites(config, now);
        if !self.stand_there_already(known) {
            self.arrange(config, known, &mut difference, now);
        }
        for (index, (service, known)) in config.services.iter().zip(known).enumerate() {
            match known {
                Some(Known { place, alike: true }) if same_sites => self.keep(index, *place, config, &mut difference),
                _ => self.lay_out_service(index, (config, service), &mut difference, now),
            }
        }
        self.lay_out_members();
        for &index in &difference.services {
            self.changes.services.insert(index);
            self.stretch(index);
        }
        difference
    }

    /// Puts the services in the order of the config: new ones are empty yet, and those that it no longer names are gone.
    fn arrange(&mut self, config: &Config, known: &[Option<Known>], difference: &mut Difference, now: Instant) {
        difference.routes = true;
        // What was touched before this is known by its old place.
        let touched = std::mem::take(&mut self.changes.services);
        let mut old: Vec<Option<ServiceState>> = std::mem::take(&mut self.services).into_iter().map(Some).collect();
        for (index, (service, known)) in config.services.iter().zip(known).enumerate() {
            let place = known.map(|known| known.place);
            if place.is_some_and(|place| touched.contains(&place)) {
                self.changes.services.insert(index);
            }
            let known = place.and_then(|place| old[place].take());
            self.services.push(known.unwrap_or_else(|| ServiceState::new(service, now)));
        }
        for slot in old.into_iter().flatten().flat_map(|service| service.members) {
            self.remove(slot, difference);
        }
    }

    /// A service that is declared as before, at the same place or another.
    fn keep(&mut self, index: usize, before: usize, config: &Config, difference: &mut Difference) {
        let service = &mut self.services[index];
        difference.kept += service.members.len();
        if before != index {
            difference.moved.push(index);
            for slot in &service.members {
                if let Some(entry) = self.entries.get_mut(slot) {
                    entry.service = index;
                }
            }
        }
        if service.forward.is_none() {
            difference.services.push(index);
            service.timers = Timers::derive(config.edge.failover_within);
        }
    }

    /// A service that is new, or declared otherwise than before.
    fn lay_out_service(
        &mut self,
        index: usize,
        (config, service): (&Config, &Arc<Service>),
        difference: &mut Difference,
        now: Instant,
    ) {
        difference.services.push(index);
        let state = &mut self.services[index];
        difference.routes |= state.service.hosts != service.hosts || state.service.paths != service.paths;
        let before = state.declare(service, config.edge.failover_within);
        let (forward, timers) = (state.forward.clone(), state.timers.clone());
        let old = std::mem::take(&mut state.members);
        state.sites.clear();
        let mut left: BTreeSet<u32> = old.iter().copied().collect();
        if let Some(forward) = forward {
            let rechecked = before.as_ref().is_some_and(|(old, before)| {
                old.health != forward.health || *before != timers || old.host != forward.host
            });
            let asked_anew = before.is_some_and(|(old, _)| old.agent != forward.agent);
            let mut decls: Vec<&BackendDecl> = forward.backends.iter().collect();
            decls.sort_by_key(|decl| decl.tier);
            for (n, decl) in decls.into_iter().enumerate() {
                let known = self.slot_of(&service.name, decl, old.get(n));
                if known.is_some_and(|slot| !left.remove(&slot)) {
                    // Listed twice: the first one counts.
                    continue;
                }
                let slot = match known {
                    Some(slot) => self.keep_backend(slot, decl, now),
                    None => self.add(id_of(&service.name, decl), decl, now),
                };
                if known.is_none() {
                    difference.added.push(slot);
                } else {
                    difference.kept += 1;
                    if rechecked {
                        difference.rechecked.push(slot);
                    }
                    if asked_anew {
                        self.ask_agent_anew(slot);
                    }
                }
                let site = self.settle_in(slot, index, service, &forward, decl);
                let state = &mut self.services[index];
                state.members.push(slot);
                state.sites.push(site);
            }
        }
        left.into_iter().for_each(|slot| self.remove(slot, difference));
    }

    /// The slot of a declared backend that is known. It is looked for by its name, which is long, only where it is not whom
    /// `guess` stands for.
    fn slot_of(&self, service: &Arc<str>, decl: &BackendDecl, guess: Option<&u32>) -> Option<u32> {
        let is = |backend: &Backend| backend.address == decl.address && backend.id.site == decl.site;
        let guess = guess.filter(|slot| self.entries.get(slot).is_some_and(|entry| is(&entry.backend)));
        guess.copied().or_else(|| self.slots.get(&id_of(service, decl)).copied())
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

    /// Lists each site's backends, the oldest first, and finds its shortest contract. A doubt about a site goes on.
    fn lay_out_members(&mut self) {
        for (index, service) in self.services.iter().enumerate() {
            let timers = &service.timers;
            for (slot, site) in service.members.iter().zip(&service.sites) {
                let site = &mut self.sites[*site];
                site.members.push(*slot);
                if site.services.last() != Some(&index) {
                    site.services.push(index);
                }
                site.contract = site.contract.min(timers.failover_within);
                if timers.checked {
                    site.confirm = site.confirm.min(timers.confirm_timeout);
                }
            }
        }
        for (index, site) in self.sites.iter_mut().enumerate() {
            site.members.sort_unstable();
            if let Some(accusation) = &site.accusation {
                self.agenda.set(Alarm::Acquit(index_u32(index)), accusation.last + site.doubts_for());
            }
        }
    }

    /// A declared backend that is known: its slot, another one where it is spoken to in another way.
    fn keep_backend(&mut self, slot: u32, decl: &BackendDecl, now: Instant) -> u32 {
        let other = |entry: &Entry| entry.backend.upstream != decl.upstream;
        if !self.entries.get(&slot).is_some_and(other) {
            return slot;
        }
        let Some(mut entry) = self.entries.remove(&slot) else { return slot };
        // Another transport: connections made for the old one must not be reused, health is.
        self.agenda.cancel_all(slot);
        let id = entry.backend.id.clone();
        entry.backend = self.new_backend(id.clone(), decl);
        (entry.probe, entry.replaced) = (None, None);
        (entry.name.asked, entry.agent.asked) = (None, None);
        (entry.probe_mark, entry.request_mark, entry.seen_mark, entry.site_mark) = (0, 0, 0, 0);
        entry.whole_mark = 0;
        entry.recently = Recently::default();
        let slot = self.enter(id, entry);
        self.agenda.set(Alarm::Probe(slot), now);
        slot
    }

    /// A declared backend that is new: its slot.
    fn add(&mut self, id: BackendId, decl: &BackendDecl, now: Instant) -> u32 {
        let backend = self.new_backend(id.clone(), decl);
        let entry = Entry::new(backend, self.random.next(), now);
        self.enter(id, entry)
    }

    fn enter(&mut self, id: BackendId, entry: Entry) -> u32 {
        let slot = entry.slot();
        self.slots.insert(id, slot);
        self.entries.insert(slot, entry);
        slot
    }

    fn new_backend(&mut self, id: BackendId, decl: &BackendDecl) -> Arc<Backend> {
        let slot = self.next_slot;
        self.next_slot += 1;
        Arc::new(Backend::new(id, slot, decl.address.clone(), Arc::clone(&decl.upstream)))
    }

    /// What the config says about a backend, taken over anew by every config; gives the place of its site.
    fn settle_in(
        &mut self,
        slot: u32,
        service: usize,
        declared: &Service,
        forward: &Forward,
        decl: &BackendDecl,
    ) -> usize {
        let site = self.sites.iter().position(|site| site.name == decl.site).unwrap_or_default();
        let Some(entry) = self.entries.get_mut(&slot) else { return site };
        entry.service = service;
        entry.site = site;
        entry.tier = decl.tier;
        entry.weight = decl.weight;
        let host = probe_host(declared, forward, decl);
        if *entry.host != *host {
            entry.host = host.into();
        }
        site
    }
}

/// The rule's own host, else the service's first exact host, else the backend's address.
fn probe_host<'a>(service: &'a Service, forward: &'a Forward, decl: &BackendDecl) -> Cow<'a, str> {
    let own = match &forward.health.kind {
        CheckKind::Http(check) => check.host.as_ref(),
        CheckKind::Grpc(check) => check.host.as_ref(),
        _ => None,
    };
    let exact = || service.hosts.iter().find(|host| !host.contains('*'));
    own.or_else(exact).map_or_else(|| decl.address.to_string().into(), |host| host.into())
}

/// Counts of sites and services fit: a config of 2^32 entries does not.
pub(super) fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
