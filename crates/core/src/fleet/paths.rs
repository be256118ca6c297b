//! Measured round trips: what a site's distance does to the timers of the services there, and when it breaks a contract.
//!
//! A path may become longer than any check waits: then nothing is heard from its site, as from one that is dead. So one of its
//! backends gets, beside its checks, a connect with more patience. That is a measure and no evidence: who is far gets the time
//! that its distance needs, and its checks then speak for it; who is dead answers no connect, however patient.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_config::Forward;

use super::Fleet;
use super::probing::addresses;
use super::state::Entry;
use crate::effect::{Effect, Transition};
use crate::errand::MeasureOrder;
use crate::health::{Admin, Health};
use crate::round_trip::{Lacking, RoundTrip};
use crate::time::Instant;

/// A site from which nothing is heard gets a patient connect so often,
const SEEK_EVERY: Duration = Duration::from_secs(3);
/// and so long it waits.
const SEEK_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the way to a site.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) round_trip: RoundTrip,
    /// When it was last asked, with patience, whether it is farther away than its checks wait.
    sought: Instant,
    /// How often: of a name, another address each time.
    turn: usize,
    /// What the first of two such connects said.
    farther: Option<Duration>,
}

/// Why a contract cannot hold.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Over the path to this one.
    site: Arc<str>,
    lacking: Lacking,
    /// With numbers, which change with every measure.
    pub(super) why: String,
}

impl Fleet {
    /// A backend that is down is probed, with so much time to connect: whether its site is farther away than that.
    pub(super) fn seek(&mut self, slot: u32, connect: Duration, now: Instant) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let (index, each) = (entry.site, connect / addresses(entry));
        let site = &mut self.sites[index];
        if each >= SEEK_WITHIN || now.since(site.path.sought) < SEEK_EVERY {
            return;
        }
        (site.path.sought, site.path.farther) = (now, None);
        site.path.turn = site.path.turn.wrapping_add(1);
        if self.is_unheard(index) {
            self.measure(slot);
        }
    }

    /// Connects to one of its addresses, to each in its turn.
    fn measure(&mut self, slot: u32) {
        let Some(entry) = self.entries.get(&slot) else { return };
        let port = self.services[entry.service].forward.as_ref().and_then(|forward| forward.health.port);
        let turn = self.sites[entry.site].path.turn % entry.addresses.len().max(1);
        let Some(address) = entry.addresses.get(turn).copied() else { return };
        let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
        self.changes.probes.push(Effect::Measure(MeasureOrder { slot, address, within: SEEK_WITHIN }));
    }

    /// A patient connect was answered, or was not. One alone may have waited for a path that has just come back: of two
    /// the shorter counts.
    pub(super) fn measured(&mut self, slot: u32, took: Option<Duration>, now: Instant) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let before = self.sites[index].path.farther.take();
        let Some(took) = took.filter(|_| self.is_unheard(index)) else { return };
        let site = &mut self.sites[index];
        let Some(before) = before else {
            (site.path.sought, site.path.farther) = (now, Some(took));
            self.measure(slot);
            return;
        };
        let took = took.min(before);
        if site.path.round_trip.smoothed().is_some_and(|known| took <= known) {
            return;
        }
        site.path.round_trip.begin_anew(took);
        for service in site.services.clone() {
            self.stretch(service);
        }
    }

    /// Whether nothing is heard from anybody at a site, and not because of a drill.
    fn is_unheard(&self, index: usize) -> bool {
        let site = &self.sites[index];
        let silent = |entry: &Entry| entry.health() == Health::Down && entry.counters.silent_probes > 0;
        let asked = |entry: &&Entry| {
            entry.admin != Admin::Disabled && self.services[entry.service].timers.checked && !entry.is_nowhere()
        };
        site.drill.is_none() && site.members.iter().filter_map(|slot| self.entries.get(slot)).filter(asked).all(silent)
    }

    /// The connect of a probe was answered after `took`.
    pub(super) fn connected(&mut self, slot: u32, took: Duration) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let known = self.sites[index].path.round_trip.smoothed();
        if self.crowd.is_late() && known.is_some_and(|known| took > known) {
            // What is longer now is how late we look, not the path. What is shorter is never our doing.
            return;
        }
        let site = &mut self.sites[index];
        if !site.path.round_trip.observe(took, site.members.len()) {
            return;
        }
        for service in site.services.clone() {
            self.stretch(service);
        }
    }

    /// How far away a backend is, where that changes its timers; else zero.
    pub(super) fn away(&self, entry: &Entry) -> Duration {
        let service = &self.services[entry.service];
        let away = self.sites[entry.site].path.round_trip.settled();
        let changes = |forward: &Forward| service.timers.reach(forward, away) != service.timers.near();
        if service.forward.as_deref().is_some_and(changes) { away } else { Duration::ZERO }
    }

    /// What is known of the distance of a service's sites has changed: what that does to their timers, and to its contract.
    pub(super) fn stretch(&mut self, index: usize) {
        let service = &self.services[index];
        let Some(forward) = &service.forward else { return };
        let mut paths: Vec<(usize, Duration)> = Vec::new();
        for entry in service.members.iter().filter_map(|slot| self.entries.get(slot)) {
            let round_trip = self.sites[entry.site].path.round_trip.settled();
            if paths.iter().all(|(site, _)| *site != entry.site) {
                paths.push((entry.site, round_trip));
            }
        }
        let timers = &service.timers;
        let told = |(site, round_trip): (usize, Duration)| {
            let site = &self.sites[site].name;
            let lacking = timers.lacking(forward, site, round_trip)?;
            Some(Trouble { site: Arc::clone(site), lacking, why: timers.trouble(forward, site, round_trip)? })
        };
        let trouble: Vec<Trouble> = paths.into_iter().filter_map(told).collect();
        self.changes.services.insert(index);
        let service = &mut self.services[index];
        let mut note = |trouble| {
            let service = Arc::clone(&service.service.name);
            self.changes.notes.push(Transition::Contract { service, trouble });
        };
        for news in &trouble {
            if !service.trouble.iter().any(|old| (&old.site, old.lacking) == (&news.site, news.lacking)) {
                note(Some(news.why.clone()));
            }
        }
        if trouble.is_empty() && !service.trouble.is_empty() {
            note(None);
        }
        service.trouble = trouble;
    }

    /// How a service's timers come about, in sentences; `None`: there is no such service, or it forwards nothing.
    #[must_use]
    pub fn explain(&self, service: &str) -> Option<Vec<String>> {
        let service = self.services.iter().find(|known| *known.service.name == *service)?;
        let forward = service.forward.as_ref()?;
        let mut said = service.timers.explain();
        let mut sites: Vec<usize> = Vec::new();
        for entry in service.members.iter().filter_map(|slot| self.entries.get(slot)) {
            if !sites.contains(&entry.site) {
                sites.push(entry.site);
            }
        }
        for site in sites.into_iter().map(|index| &self.sites[index]) {
            if let Some(round_trip) = site.path.round_trip.smoothed() {
                said.push(service.timers.explain_path(forward, &site.name, round_trip));
            }
        }
        said.extend(self.crowded(service));
        Some(said)
    }
}
