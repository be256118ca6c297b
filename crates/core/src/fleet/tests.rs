//! Tests of the fleet by its contract alone: events and time in, effects out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use relais_config::{CheckKind, Config};

use super::*;
use crate::effect::{AdminRecord, BackendRecord, Record};
use crate::errand::ProbeOrder;
use crate::event::Command;
use crate::fault::Fault;
use crate::health::{Admin, Health};
use crate::history::{DrillEnd, DrillRecord, FailoverRecord, Left, Shape};
use crate::snapshot::Member;
use crate::testing::{backend, config, service};

mod agents;
mod crowd;
mod drill;
mod evidence;
mod failover;
mod memory;
mod names;
mod operator;
mod outdone;
mod outliers;
mod paths;
mod ramps;
mod reload;
mod site;
mod stalls;
mod trials;
mod tunnels;

const START: Instant = Instant(1_700_000_000_000_000);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Slot, result and duration of a probe.
type Answer = (u32, Result<(), Fault>, Duration);

/// A fleet with a clock, a prober that answers as told, and everything it said.
struct Rig {
    fleet: Fleet,
    now: Instant,
    snapshot: Arc<Snapshot>,
    /// By address: what a probe there meets. Silence takes its whole deadline, the rest 5 ms.
    world: BTreeMap<String, Result<(), Fault>>,
    /// By address: how far it is, where that is told.
    far: BTreeMap<String, Duration>,
    /// Patient connects so far.
    measures: u64,
    /// Connects under way, and what they will show.
    connects: BTreeMap<(Instant, u64), Event>,
    /// Answers under way.
    answers: BTreeMap<(Instant, u64), Answer>,
    said: Vec<Effect>,
    probes: Vec<(Instant, ProbeOrder)>,
    /// What was last saved of each backend.
    saved: BTreeMap<BackendId, Record>,
}

impl Rig {
    fn new(config: Config) -> Self {
        Self::with(config, Saved::default())
    }

    fn with(config: Config, saved: Saved) -> Self {
        Self::at(START, config, saved)
    }

    fn at(now: Instant, config: Config, saved: Saved) -> Self {
        Self::seeded(7, now, config, saved)
    }

    fn seeded(seed: u64, now: Instant, config: Config, saved: Saved) -> Self {
        let mut fleet = Fleet::new(Arc::new(config), saved, now, seed);
        let Some(Effect::Publish(snapshot)) = fleet.poll_effect() else { panic!("the first effect is a Publish") };
        let mut rig = Self {
            fleet,
            now,
            snapshot,
            world: BTreeMap::new(),
            far: BTreeMap::new(),
            measures: 0,
            connects: BTreeMap::new(),
            answers: BTreeMap::new(),
            said: Vec::new(),
            probes: Vec::new(),
            saved: BTreeMap::new(),
        };
        rig.take();
        rig
    }

    /// Takes all effects of one call and checks their order.
    fn take(&mut self) {
        let mut first = true;
        while let Some(effect) = self.fleet.poll_effect() {
            match &effect {
                Effect::Publish(snapshot) => {
                    assert!(first, "a Publish comes before all else");
                    assert_eq!(snapshot.generation, self.snapshot.generation + 1);
                    self.snapshot = Arc::clone(snapshot);
                }
                Effect::Probe(order) => self.ask(order),
                Effect::Measure(order) => self.measure(order),
                Effect::Save(record @ Record::Backend(of)) => {
                    self.saved.insert(of.id.clone(), record.clone());
                }
                _ => {}
            }
            first = false;
            self.said.push(effect);
        }
    }

    fn ask(&mut self, order: &ProbeOrder) {
        self.probes.push((self.now, order.clone()));
        let address = &*order.backend.id.address;
        let result = match self.member(address).drill {
            Some(Shape::Silent) => Err(Fault::ConnectTimeout),
            Some(Shape::Refused) => Err(Fault::Refused),
            Some(Shape::Slow) => Err(Fault::ResponseTimeout),
            None => self.world.get(address).copied().unwrap_or(Ok(())),
        };
        let took = match result {
            Err(fault) if fault.is_silence() => order.connect,
            Err(Fault::ResponseTimeout) => order.timeout,
            _ => ms(5),
        };
        let (result, took) = match self.far.get(address).copied().filter(|_| result.is_ok()) {
            Some(away) if away > order.connect => (Err(Fault::ConnectTimeout), order.connect),
            Some(away) => {
                let connected = Event::Connected { slot: order.backend.slot, took: away };
                self.connects.insert((self.now + away, order.id), connected);
                let late = away * 2 > order.timeout;
                if late { (Err(Fault::ResponseTimeout), order.timeout) } else { (Ok(()), away * 2) }
            }
            None => (result, took),
        };
        self.answers.insert((self.now + took, order.id), (order.backend.slot, result, took));
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let alarm = self.fleet.poll_timeout().filter(|at| *at <= end);
            let answer = self.answers.keys().next().copied().filter(|(at, _)| *at <= end);
            let first = alarm.into_iter().chain(answer.map(|(at, _)| at)).min().unwrap_or(end);
            if let Some(connect) = self.connects.first_entry().filter(|connect| connect.key().0 <= first) {
                let ((at, _), connected) = connect.remove_entry();
                self.now = at;
                self.event(connected);
                continue;
            }
            match (alarm, answer) {
                (Some(at), answer) if answer.is_none_or(|(then, _)| at <= then) => {
                    self.now = self.now.max(at);
                    self.fleet.handle_timeout(self.now);
                }
                (_, Some(key)) => {
                    self.now = key.0;
                    let (slot, result, took) = self.answers.remove(&key).unwrap();
                    self.fleet.handle_event(Event::Probed { slot, id: key.1, result, took, said: None }, self.now);
                }
                (_, None) => break,
            }
            self.take();
        }
        self.now = end;
    }

    fn event(&mut self, event: Event) {
        self.fleet.handle_event(event, self.now);
        self.take();
    }

    fn set(&mut self, address: &str, result: Result<(), Fault>) {
        self.world.insert(address.to_owned(), result);
    }

    fn member(&self, address: &str) -> Member {
        let mut members = self.snapshot.pools.iter().flat_map(|pool| &pool.members);
        members.rfind(|member| *member.backend.id.address == *address).unwrap().clone()
    }

    fn health(&self, address: &str) -> Health {
        self.member(address).health
    }

    fn served(&mut self, address: &str, result: Result<(), Fault>) {
        let backend = self.member(address).backend;
        match result {
            Ok(()) => {
                backend.stats.succeed(200);
                backend.stats.serve(200);
            }
            Err(fault) => {
                backend.stats.fail(fault);
                self.event(Event::Served { slot: backend.slot, result });
            }
        }
    }

    fn order(&mut self, words: &str, word: Admin) {
        let target = self.fleet.target(words).unwrap();
        self.event(Event::Admin(Command { target, word, reason: None }));
    }

    /// How long until a condition holds, stepping a millisecond at a time.
    fn until(&mut self, limit: Duration, mut holds: impl FnMut(&Rig) -> bool) -> Duration {
        let start = self.now;
        while !holds(self) {
            assert!(self.now.since(start) < limit, "not within {limit:?}: {:#?}", self.fleet.report(self.now));
            self.run(ms(1));
        }
        self.now.since(start)
    }

    fn notes(&self) -> Vec<Transition> {
        let note = |effect: &Effect| if let Effect::Note(note) = effect { Some(note.clone()) } else { None };
        self.said.iter().filter_map(note).collect()
    }

    fn saves(&self) -> Vec<Record> {
        let save = |effect: &Effect| if let Effect::Save(record) = effect { Some(record.clone()) } else { None };
        self.said.iter().filter_map(save).collect()
    }

    /// The same edge after a restart that took so long, with what it had saved.
    fn reborn(&self, after: Duration, config: Config) -> Rig {
        Rig::at(self.now + after, config, Saved { records: self.saved.values().cloned().collect() })
    }

    fn why(&self, address: &str) -> String {
        let report = self.fleet.report(self.now);
        let backends = report.services.into_iter().flat_map(|service| service.backends);
        backends.filter(|backend| *backend.address == *address).last().unwrap().why
    }
}

const A1: &str = "10.0.1.1:80";
const A2: &str = "10.0.1.2:80";
const B1: &str = "10.0.2.1:80";
const B2: &str = "10.0.2.2:80";

/// One service, two sites with two backends each.
fn two_sites() -> Config {
    let backends = vec![backend("a", A1, 1), backend("a", A2, 1), backend("b", B1, 1), backend("b", B2, 1)];
    config(vec![service("api", backends, |_| {})])
}

/// One service with two backends at different sites.
fn pair(edit: impl FnOnce(&mut relais_config::Forward)) -> Config {
    config(vec![service("api", vec![backend("a", A1, 1), backend("b", B1, 1)], edit)])
}

fn started(config: Config) -> Rig {
    let mut rig = Rig::new(config);
    rig.run(ms(2_000));
    rig.said.clear();
    rig.probes.clear();
    rig
}
