//! The fleet: every decision about health, admin and publication. A pure state machine.
//!
//! Events and the passing of time go in, effects come out; nothing here does I/O or reads a clock. The rooms below:
//! `state` and `site_state` what is remembered, `agenda` what is due when, `adopt` a config becomes state (start and
//! reload), `probing` asking, `pressing` asking sooner while a request waits, `crowd` asking very many, `judging`
//! evidence becomes health, `sites` the verdict about a whole site, `comeback` the governed return, `ramps` its share while
//! it grows, `outliers` those much worse than their pool, `outdone` those that fail while another does well, `stalls` those
//! that nobody can be compared with, `trials` those that only their checks accuse, `failover` the time each one took,
//! `paths` measured round trips, `tunnels` WireGuard handshakes, `drill` cuts made on purpose, `operator` admin words,
//! `agents` those of programs beside backends, `names` where backends are, `certificates` those of CAs, `publish` state
//! becomes a snapshot and records, `status` the report.

mod adopt;
mod agenda;
mod agents;
mod certificates;
mod comeback;
mod crowd;
mod drill;
mod entries;
mod failover;
mod judging;
mod layout;
mod names;
mod operator;
mod outdone;
mod outliers;
mod paths;
mod pressing;
mod probing;
mod publish;
mod ramps;
mod site_state;
mod sites;
mod stalls;
mod state;
mod status;
mod target;
mod trials;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use relais_config::Config;

use crate::backend::BackendId;
use crate::certs::Certs;
use crate::effect::{Effect, Record, RecordKey, Saved, Transition};
use crate::event::{Event, Target};
use crate::random::Random;
use crate::report::Report;
use crate::router::Router;
use crate::snapshot::Snapshot;
use crate::stats::EdgeStats;
use crate::time::Instant;

use agenda::{Agenda, Alarm};
use crowd::Crowd;
use drill::Drill;
pub use drill::{DrillOrder, DrillRefused};
use entries::Entries;
use failover::Past;
use site_state::SiteState;
use state::{ServiceState, Words};

/// Makes the random numbers of certificates others than those of backends.
const CERTS: u64 = 0x6365_7274;

/// The one writer's state.
#[derive(Debug)]
pub struct Fleet {
    config: Arc<Config>,
    random: Random,
    entries: Entries,
    slots: BTreeMap<BackendId, u32>,
    next_slot: u32,
    next_probe: u64,
    /// Of look-ups and questions to agents.
    next_question: u64,
    sites: Vec<SiteState>,
    services: Vec<ServiceState>,
    words: Words,
    agenda: Agenda,
    crowd: Crowd,
    router: Arc<Router>,
    stats: Arc<EdgeStats>,
    past: Past,
    drill: Option<Box<Drill>>,
    certs: Certs,
    snapshot: Option<Arc<Snapshot>>,
    effects: VecDeque<Effect>,
    changes: Changes,
}

/// What one call changed; turned into effects, in the right order, at its end.
#[derive(Debug, Default)]
struct Changes {
    /// A new config: the snapshot is replaced.
    config: bool,
    /// Services of which a reader may see something new.
    services: BTreeSet<usize>,
    /// Sites that may be in another health, beside those of `services`.
    sites: BTreeSet<usize>,
    /// Backends whose record must be written.
    save: BTreeSet<u32>,
    /// Backends that had traffic and were declared down.
    fallen: Vec<u32>,
    /// Failovers and drills that must be written.
    records: Vec<Record>,
    /// Words that must be written.
    words: BTreeSet<Target>,
    forget: BTreeSet<RecordKey>,
    notes: Vec<Transition>,
    probes: Vec<Effect>,
}

impl Fleet {
    /// `seed` drives jitter. Emits the first `Publish` and plans the first probes: within 100 ms, or at a pace of
    /// 10,000 a second where that is longer.
    #[must_use]
    pub fn new(config: Arc<Config>, saved: Saved, now: Instant, seed: u64) -> Self {
        let certs = Certs::new(&config, &saved, seed ^ CERTS, now);
        let mut fleet = Self {
            router: Arc::new(Router::new(&config)),
            config,
            random: Random::new(seed),
            entries: Entries::default(),
            slots: BTreeMap::new(),
            next_slot: 0,
            next_probe: 0,
            next_question: 0,
            sites: Vec::new(),
            services: Vec::new(),
            words: Words::new(),
            agenda: Agenda::default(),
            crowd: Crowd::default(),
            stats: Arc::new(EdgeStats::default()),
            past: Past::default(),
            drill: None,
            certs,
            snapshot: None,
            effects: VecDeque::new(),
            changes: Changes::default(),
        };
        fleet.start(saved, now);
        fleet.flush(now);
        fleet
    }

    /// Takes one event. Unknown slots, stale probe results and words about unknown targets change nothing.
    pub fn handle_event(&mut self, event: Event, now: Instant) {
        self.handle_events([event], now);
    }

    /// Takes events that came together: what they change is published once.
    pub fn handle_events(&mut self, events: impl IntoIterator<Item = Event>, now: Instant) {
        events.into_iter().for_each(|event| self.take(event, now));
        self.flush(now);
    }

    fn take(&mut self, event: Event, now: Instant) {
        match event {
            Event::Reload(config) => self.reload(&config, now),
            Event::Probed { slot, id, result, took, said } => self.probed(slot, id, result, took, said, now),
            Event::Resolved { slot, id, result } => self.resolved(slot, id, result, now),
            Event::Agent { slot, id, line } => self.agent_said(slot, id, line, now),
            Event::Served { slot, result } => self.served(slot, result, now),
            Event::BrokeOff { slot, fault } => self.broke_off(slot, fault, now),
            Event::Overdue { slot } => self.press(slot, now),
            Event::Admin(command) => self.command(command, now),
            Event::Moved { slot, began, how } => self.moved(slot, began, how, now),
            Event::Connected { slot, took } => self.connected(slot, took),
            Event::Measured { slot, took } => self.measured(slot, took, now),
            Event::Tunnels(tunnels) => self.tunnels(&tunnels, now),
            Event::Inventory(inventory) => self.certs.inventory(inventory, now),
            Event::Issued { id, held } => self.certs.issued(id, held, now),
            Event::OrderFailed { id, name, fault } => self.certs.order_failed(id, &name, fault, now),
            Event::RenewalInfo { id, name, answer } => self.certs.renewal_info(id, &name, answer, now),
            Event::RenewNow { name } => self.certs.renew_now(&name, now),
            Event::Wanted { host } => self.certs.wanted(&host, now),
            Event::WallClock { wall } => self.certs.wall_clock(wall, now),
        }
    }

    /// To be called at or after `poll_timeout`. Does all that is due by `now`, and nothing else; of very many probes some,
    /// and then wants to be called again.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, alarm)) = self.agenda.take_due(now, self.may_probe(now)) {
            match alarm {
                Alarm::Probe(slot) => {
                    self.probe_was_due(due, now);
                    self.send_probe(slot, now);
                }
                Alarm::Doubt(slot) => self.send_probe(slot, now),
                Alarm::Overdue(slot) => self.overdue(slot, now),
                Alarm::Release(slot) => self.release(slot, now),
                Alarm::Resolve(slot) => self.resolve(slot, now),
                Alarm::Agent(slot) => self.ask_agent(slot, now),
                Alarm::Acquit(site) => self.acquit(site, now),
                Alarm::Settled(service) => self.settled(service),
                Alarm::Compare(service) => self.compare(service, now),
                Alarm::Drill => self.look_at_drill(now),
                Alarm::Certificates => self.certs.due(now),
            }
        }
        self.flush(now);
    }

    /// When `handle_timeout` wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.agenda.next(self.room_for_probes())
    }

    /// What to do next; call until `None` after every `handle_*`. A `Publish` comes before all else of its call.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What it believes and why.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        status::report(self, now)
    }

    /// The target an operator's words name: `SITE`, `SERVICE/ADDRESS`, or `SERVICE/SITE` and `ADDRESS` where that is
    /// one backend only.
    ///
    /// # Errors
    /// A sentence that says what was not found, with the nearest name.
    pub fn target(&self, words: &str) -> Result<Target, String> {
        target::find(self, words)
    }
}

#[cfg(test)]
mod tests;
