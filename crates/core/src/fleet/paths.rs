//! Measured round trips: what a site's distance does to the timers of the services there, and when it breaks a contract.

use std::time::Duration;

use super::Fleet;
use crate::effect::Transition;

impl Fleet {
    /// The connect of a probe was answered after `took`.
    pub(super) fn connected(&mut self, slot: u32, took: Duration) {
        let Some(index) = self.entries.get(&slot).map(|entry| entry.site) else { return };
        let known = self.sites[index].round_trip.smoothed();
        if self.crowd.is_late() && known.is_some_and(|known| took > known) {
            // What is longer now is how late we look, not the path. What is shorter is never our doing.
            return;
        }
        let site = &mut self.sites[index];
        if !site.round_trip.observe(took, site.members.len()) {
            return;
        }
        for service in site.services.clone() {
            self.stretch(service);
        }
    }

    /// Sets a service's timers anew with what is known of the distance of its sites.
    pub(super) fn stretch(&mut self, index: usize) {
        let service = &self.services[index];
        let Some(forward) = &service.forward else { return };
        let mut paths: Vec<(usize, Duration)> = Vec::new();
        for entry in service.members.iter().filter_map(|slot| self.entries.get(slot)) {
            let round_trip = self.sites[entry.site].round_trip.settled();
            if paths.iter().all(|(site, _)| *site != entry.site) {
                paths.push((entry.site, round_trip));
            }
        }
        let solved = &service.solved;
        let trouble: Vec<String> = paths
            .iter()
            .filter_map(|(site, round_trip)| solved.trouble(forward, &self.sites[*site].name, *round_trip))
            .collect();
        let farthest = paths.iter().map(|(_, round_trip)| *round_trip).max().unwrap_or_default();
        let timers = solved.over(forward, farthest);
        let service = &mut self.services[index];
        if service.timers != timers {
            service.timers = timers;
            self.changes.services.insert(index);
        }
        if service.trouble.is_empty() != trouble.is_empty() {
            self.changes.notes.push(Transition::Contract {
                service: service.service.name.clone(),
                trouble: trouble.first().cloned(),
            });
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
        let solved = &service.solved;
        for site in sites.into_iter().map(|index| &self.sites[index]) {
            if let Some(round_trip) = site.round_trip.smoothed() {
                said.push(solved.explain_path(forward, &site.name, round_trip));
            }
        }
        said.extend(self.crowded(service));
        Some(said)
    }
}
