//! Clients that ask for names nobody listed: some every day, some for a while, scanners all at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use relais_core::Event;
use relais_core::certs::CertOrder;
use relais_core::config::{Config, OnDemand};

use crate::Mistake;
use crate::engine::{Due, Run};
use crate::setting::{DAY, HOUR, Kind, MINUTE, START};

const PER_HOUR: u32 = 4;
const BURST: u32 = 3;

/// What clients did.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// When a name was asked for last.
    last: BTreeMap<String, u64>,
    /// Since when it is asked for every day.
    regular: BTreeMap<String, u64>,
    /// When names were ordered that never were before.
    new: Vec<(u64, Arc<str>)>,
}

pub(crate) fn allow(config: &mut Config) {
    let on_demand = OnDemand { ask: "http://127.0.0.1/".to_owned(), root: None, per_hour: PER_HOUR, burst: BURST };
    config.acme.on_demand = Some(Arc::new(on_demand));
    Arc::make_mut(&mut config.services[0]).hosts = vec!["*".to_owned()];
}

impl Run {
    /// The first five names are asked for all the time, the others in the season of each; now and then somebody tries all.
    pub(crate) fn asked(&mut self) {
        let season = (self.at - START) / (40 * DAY);
        let names = self.setting.names.clone();
        let all = self.dice.chance(1);
        let regulars: Vec<String> = names
            .iter()
            .enumerate()
            .filter(|(place, _)| *place < 5 || *place as u64 % 10 == season % 10)
            .map(|(_, name)| name.clone())
            .collect();
        let now = self.at;
        self.clients.regular.retain(|name, _| regulars.contains(name));
        for name in &regulars {
            self.clients.regular.entry(name.clone()).or_insert(now);
        }
        for name in if all { names } else { regulars } {
            self.clients.last.insert(name.clone(), now);
            // Those that have one are told once an hour in the program, from what handshakes used.
            let lost = self.mistake == Some(Mistake::UseIsNotTold) && self.held.contains_key(name.as_str());
            if !lost {
                self.event(Event::Wanted { host: name });
            }
        }
        let pause = 2 * HOUR + self.dice.below(3 * HOUR);
        self.plan(now + pause, Due::Asked);
    }

    /// An order of a name that clients asked for.
    pub(crate) fn asked_for(&mut self, order: &CertOrder) {
        if self.setting.kind != Kind::Demand {
            return;
        }
        let (at, name) = (self.at, Arc::clone(&order.name));
        let last = self.clients.last.get(&*name).copied();
        let lately = last.is_some_and(|last| at < last + 31 * DAY);
        self.check("only what clients ask for is ordered", lately, |_| format!("{name}, last {last:?}"));
        if self.clients.new.iter().all(|(_, known)| *known != name) {
            self.clients.new.push((at, Arc::clone(&name)));
        }
        let within = self.clients.new.iter().filter(|(then, _)| at - then < HOUR).count();
        let most = (PER_HOUR + BURST) as usize;
        self.check("new names stay within their budget", within <= most, |_| format!("{within} in an hour"));
    }

    /// Who is asked for every day has a good one.
    pub(crate) fn check_clients(&mut self) {
        for (name, since) in self.clients.regular.clone() {
            let end = self.held.get(name.as_str()).map(|held| held.not_after.0);
            if self.at > since + 10 * DAY + MINUTE {
                let good = end.is_some_and(|end| end > self.at);
                self.check("what clients ask for is served", good, |_| format!("{name}: {end:?}"));
            }
        }
    }
}
